"""Chat templates, special tokens and generation prompt, read from a base model's folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from trainer.base_facts import is_seq2seq
from trainer.errors import TrainerError

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
    config = read_json(folder / "config.json")
    if not is_seq2seq(config):
        return None
    own = read_json(folder / "generation_config.json")
    named = (own.get("decoder_start_token_id"), config.get("decoder_start_token_id"), config.get("pad_token_id"), 0)
    return next(one for one in named if isinstance(one, int))


def read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise TrainerError("user_config", f"The base model's {path.name} is no valid JSON: {error}.") from error
    return data if isinstance(data, dict) else {}


def special_tokens(config: Mapping[str, Any]) -> dict[str, str]:
    """bos_token, eos_token and their like, by name, as templates use them."""
    found = {}
    for name, value in config.items():
        content = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(content, str):
            found[name] = content
    return found


def template_sources(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Chat templates by name; `default` is always there.

    Encoder–decoder models seldom have one. Without it they read plain text.
    """
    file = folder / "chat_template.jinja"
    if file.is_file():
        return {"default": file.read_text(encoding="utf-8")}
    given = config.get("chat_template")
    if isinstance(given, str):
        return {"default": given}
    if isinstance(given, list):
        entries = [one for one in given if isinstance(one, dict) and {"name", "template"} <= one.keys()]
        named = {one["name"]: one["template"] for one in entries}
        if "default" in named:
            return named
    if decoder_start(folder) is not None:
        return {"default": PLAIN}
    raise TrainerError(
        "user_config", "The base model has no chat template.", "Choose an instruction-tuned base model, which has one."
    )
