"""Copies a base model's tokenizer, with its chat templates, into an adapter's folder."""

import json
import shutil
from pathlib import Path

from trainer.adapter_format import TOKENIZER_FILES
from trainer.base_files import SETTINGS, read_settings
from trainer.template_files import DEFAULT_TEMPLATE, additional_templates, stored_templates


def copy_tokenizer(base: Path, folder: Path) -> None:
    """Replace the tokenizer's files in an adapter's folder by the base model's.

    An adapter's folder has no folders in it. So templates that the base model keeps in one are written into the
    tokenizer's config, all of them, as a list: transformers reads that only if there are no files of templates.
    """
    for name in TOKENIZER_FILES:
        (folder / name).unlink(missing_ok=True)
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    if additional_templates(base):
        settings = read_settings(base)
        templates = stored_templates(base, settings)
        settings["chat_template"] = [{"name": name, "template": text} for name, text in templates.items()]
        (folder / SETTINGS).write_text(json.dumps(settings, indent=2, ensure_ascii=False), encoding="utf-8")
        (folder / DEFAULT_TEMPLATE).unlink(missing_ok=True)
