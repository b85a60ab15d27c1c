"""Chat templates, special tokens and generation prompt, read from a base model's folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.base_files import GENERATION, is_seq2seq, read_json_if_any, read_settings, read_template

DEFAULT_TEMPLATE = "chat_template.jinja"
ADDITIONAL = "additional_chat_templates"  # a folder with others, each named by its file

# How a conversation is written for an encoder that has no template: a single message is its text. Paragraphs follow
# each other after an empty line, instructions first; where there are several turns, each begins with who speaks, and
# the last line is left to the assistant.
PLAIN = """
{%- if tools or messages | selectattr('tool_calls', 'defined') | list or 'tool' in messages | map(attribute='role') -%}
{{- raise_exception('it has no template that could write tools') -}}
{%- endif -%}
{%- set names = {'user': 'User: ', 'assistant': 'Assistant: '} -%}
{%- set turns = messages | selectattr('role', 'in', names) | list -%}
{%- for message in messages -%}
{{- names.get(message.role, '') if turns | length > 1 else '' -}}
{{- message.content -}}
{{- '' if loop.last else '\n\n' -}}
{%- endfor -%}
{{- '\n\nAssistant:' if add_generation_prompt and turns | length > 1 else '' -}}
"""


def decoder_start(folder: Path) -> int | None:
    """The token that every answer of an encoder–decoder model begins with; None for other models."""
    config = read_json_if_any(folder / "config.json")
    if not is_seq2seq(config):
        return None
    own = read_json_if_any(folder / GENERATION)
    named = (own.get("decoder_start_token_id"), config.get("decoder_start_token_id"), config.get("pad_token_id"), 0)
    return next(one for one in named if isinstance(one, int))


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and their like, by name, as templates use them."""
    found = {}
    for name, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            found[name] = content
    return found


def has_chat_template(folder: Path) -> bool:
    """Whether a conversation can be written for the base model in `folder`."""
    return "default" in template_sources(folder, read_settings(folder))


def template_sources(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name, empty if there are none. `config`: the tokenizer's.

    Encoder–decoder models seldom have one. Without it they read plain text.
    """
    found = stored_templates(folder, config)
    return {"default": PLAIN, **found} if decoder_start(folder) is not None else found


def stored_templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """The chat templates that transformers finds in a base model's or adapter's folder, by name.

    As there, the tokenizer's config counts only if there are no files.
    """
    file = folder / DEFAULT_TEMPLATE
    found = {"default": read_template(file)} if file.is_file() else {}
    found |= {one.name.removesuffix(".jinja"): read_template(one) for one in additional_templates(folder)}
    if found:
        return found
    given = config.get("chat_template")
    if isinstance(given, str):
        return {"default": given}
    entries = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
    named = {one.get("name"): one.get("template") for one in entries}
    return {name: text for name, text in named.items() if isinstance(name, str) and isinstance(text, str)}


def additional_templates(folder: Path) -> list[Path]:
    """The files of chat templates besides the default one."""
    return sorted((folder / ADDITIONAL).glob("*.jinja"))
