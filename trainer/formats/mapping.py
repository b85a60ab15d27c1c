"""Column mappings: the user says which column holds what. Validates, suggests and reads them."""

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from trainer.errors import TrainerError
from trainer.formats import dialogue, kto, messages, plain_text, preference, prompt_completion, sharegpt
from trainer.formats.canonical import Content, Kind
from trainer.formats.conversations import column_with
from trainer.formats.family import Family
from trainer.formats.problems import BadRow, Problem

Mapping = dict[str, Any]  # {"kind": …, "fields": {target: column}}, for a chat optionally "turns": see turn_keys_of


Reader = Callable[[dict[str, Any]], Content]


@dataclass(frozen=True)
class Shape:
    """The fields of one mapping kind, by their names in the mapping."""

    kind: Kind
    required: tuple[str, ...]
    optional: tuple[str, ...]
    read: Reader

    @property
    def targets(self) -> tuple[str, ...]:
        return (*self.required, *self.optional)


def _read_chat(row: dict[str, Any]) -> Content:
    if dialogue.detect_turn_keys(row.get("messages")):
        return dialogue.read(row)
    return sharegpt.read(row) if column_with(row, "from") else messages.read(row)


SHAPES: dict[str, Shape] = {
    "chat": Shape("chat", ("messages",), ("system", "tools"), _read_chat),
    "prompt_completion": Shape(
        "chat", ("prompt", "answer"), ("context", "system", "history", "tools"), prompt_completion.read
    ),
    "preference": Shape(
        "preference", ("chosen", "rejected"), ("prompt", "context", "system", "history", "tools"), preference.read
    ),
    "labelled": Shape("labelled", ("prompt", "answer", "label"), ("context", "system", "history", "tools"), kto.read),
    "text": Shape("text", ("text",), (), plain_text.read),
}
TURN_KEYS = ("role", "text")
TURN_ROLES = ("user", "assistant", "system", "tool")
# Common names of columns, most likely first.
COMMON_NAMES: dict[str, tuple[str, ...]] = {
    "messages": ("messages", "conversations", "conversation", "dialog", "dialogue", "chat", "turns"),
    "prompt": (
        "prompt",
        "instruction",
        "question",
        "query",
        "input",
        "ask",
        "user",
        "problem",
        "request",
        "source",
        "q",
    ),
    "answer": (
        "answer",
        "response",
        "output",
        "completion",
        "reply",
        "assistant",
        "solution",
        "summary",
        "target",
        "a",
    ),
    "system": ("system", "system_prompt", "system_message"),
    "context": ("context", "passage", "article", "document"),
    "history": ("history",),
    "tools": ("tools", "functions"),
    "chosen": ("chosen", "preferred", "better", "accepted", "winner", "good", "chosen_response"),
    "rejected": ("rejected", "dispreferred", "worse", "loser", "bad", "rejected_response"),
    "label": ("label", "kto_tag", "feedback", "rating", "thumbs_up", "is_good"),
    "text": ("text", "content", "body", "document", "article", "sentence"),
}
GUESSED = ("chat", "preference", "labelled", "prompt_completion", "text")  # in this order


def problems(mapping: object, columns: Sequence[str] | None = None) -> list[Problem]:
    """Everything wrong with a mapping, by position. `columns`: those of the file, if known."""
    if not isinstance(mapping, dict):
        return [Problem("", "the mapping must be an object", 'Use {"kind": …, "fields": { … }}.')]
    shape = SHAPES.get(mapping["kind"]) if isinstance(mapping.get("kind"), str) else None
    if shape is None:
        return [Problem("kind", "unknown kind", f"Use one of {', '.join(SHAPES)}.")]
    fields = mapping.get("fields")
    if not isinstance(fields, dict):
        return [Problem("fields", "must be an object", "Name the column of each field.")]
    missing = [
        Problem(f"fields.{name}", "no column chosen", f"Choose the column that holds the {name}.")
        for name in shape.required
        if not fields.get(name)
    ]
    wrong = [
        found for name, column in fields.items() if column and (found := _field_problem(name, column, shape, columns))
    ]
    return missing + wrong + _turn_problems(mapping)


def _turn_problems(mapping: Mapping) -> list[Problem]:
    turns = mapping.get("turns") or {}
    if not isinstance(turns, dict) or (turns and mapping["kind"] != "chat"):
        return [Problem("turns", "must be an object, and is for chats alone", "Leave it out.")]
    if unknown := [name for name in turns if name not in TURN_KEYS and name not in TURN_ROLES]:
        return [Problem(f"turns.{unknown[0]}", "unknown field", f"Use {', '.join((*TURN_KEYS, *TURN_ROLES))}.")]
    good = all(isinstance(turns.get(name), str) and turns[name] for name in TURN_KEYS)
    if turns and not good:
        return [
            Problem("turns", "needs role and text", "Name the keys that a turn has its speaker and its text under.")
        ]
    for role in TURN_ROLES:
        names = turns.get(role, [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return [Problem(f"turns.{role}", "must be a list of names", f"List the speakers that are the {role}.")]
    return []


def turn_keys_of(mapping: Mapping) -> dialogue.TurnKeys | None:
    """The turn keys of a chat mapping: {"role": key, "text": key, "user": [names], "assistant": [names], …}."""
    if not (turns := mapping.get("turns")):
        return None
    speakers = {name: role for role in TURN_ROLES for name in turns.get(role, [])}
    return dialogue.TurnKeys(turns["role"], turns["text"], speakers)


def _field_problem(name: str, column: object, shape: Shape, columns: Sequence[str] | None) -> Problem | None:
    if name not in shape.targets:
        return Problem(f"fields.{name}", "unknown field", f"Use {', '.join(shape.targets)}.")
    if not isinstance(column, str):
        return Problem(f"fields.{name}", "must be the name of a column", "Write the name as text.")
    if columns is not None and column not in columns:
        return Problem(f"fields.{name}", "no such column", f"Choose one of {', '.join(columns[:20])}.")
    return None


def read_mapping(path: Path) -> Family:
    """The family for a mapping file. Raises TrainerError(user_config)."""
    try:
        given = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        fix = 'Write {"kind": "prompt_completion", "fields": {"prompt": column, "answer": column}}.'
        raise TrainerError("user_config", f"The mapping {path.name} cannot be read.", fix) from error
    return mapped_family(given)


def mapped_family(mapping: object) -> Family:
    """The family for files with the mapped columns. Raises TrainerError(user_config) for a wrong mapping."""
    if wrong := problems(mapping):
        raise TrainerError("user_config", f"The mapping is wrong: {wrong[0].field}: {wrong[0].problem}.", wrong[0].fix)
    given = cast(Mapping, mapping)
    shape = SHAPES[given["kind"]]
    fields = {name: column for name, column in given["fields"].items() if column}
    inner = _inner_names(given["kind"], fields)
    seen = ", ".join(f'"{column}" as {name}' for name, column in fields.items())
    if keys := turn_keys_of(given):
        seen += f' of turns with "{keys.role}" and "{keys.text}"'
    return Family(
        name="mapping",
        kind=shape.kind,
        saw=seen,
        fields=frozenset(fields.values()),
        matches=lambda row: 1.0,
        read=_reader(
            _turns_reader(keys) if keys else shape.read, inner, required=[fields[name] for name in shape.required]
        ),
        refuses_media=False,  # the user has seen the columns
    )


def _inner_names(kind: str, fields: dict[str, str]) -> dict[str, str]:
    """The mapped columns, by the names that the families use."""
    names = {"answer": "completion"}
    if "context" in fields or "history" in fields:
        names |= {"prompt": "instruction", "context": "input"}
    return {names.get(name, name): column for name, column in fields.items()}


def _turns_reader(keys: dialogue.TurnKeys) -> Reader:
    return lambda row: dialogue.read_turns(row, "messages", keys)


def _reader(meant: Reader, inner: dict[str, str], *, required: list[str]) -> Reader:
    def read(row: dict[str, Any]) -> Content:
        for column in required:
            if column not in row:
                raise BadRow(column, "field is missing", f'Add "{column}" to this row, or choose another column.')
        try:
            return meant({name: _numbers_as_text(row[column]) for name, column in inner.items() if column in row})
        except BadRow as bad:
            raise bad.called(inner) from None

    return read


def _numbers_as_text(value: Any) -> Any:
    """Numbers as text: whoever chose the column knows that it holds numbers."""
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def suggest(columns: Iterable[str], kind: str = "") -> Mapping:
    """A suggested mapping of this kind, or of the likeliest one, from the column names alone.

    Fields without a match are left out.
    """
    by_words = {re.sub(r"[^a-z0-9]+", "_", column.lower()).strip("_"): column for column in columns}
    guesses = {kind: _guess(shape, by_words) for kind, shape in SHAPES.items()}
    whole = [kind for kind in GUESSED if all(name in guesses[kind] for name in SHAPES[kind].required)]
    if "text" in whole and not by_words.keys() & set(COMMON_NAMES["text"]):  # a "reply_text" is a reply
        whole.remove("text")
    kind = kind or (whole[0] if whole else "prompt_completion")
    return {"kind": kind, "fields": guesses[kind]}


def _guess(shape: Shape, by_words: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name in shape.targets:
        free = {words: column for words, column in by_words.items() if column not in found.values()}
        if column := _first_match(COMMON_NAMES[name], free):
            found[name] = column
    return found


def _first_match(usual: tuple[str, ...], by_words: dict[str, str]) -> str | None:
    """The column with the first of these names, or else with one as a word of its name."""
    for name in usual:
        if name in by_words:
            return by_words[name]
    long = [name for name in usual if len(name) > 1]  # single letters only match a whole name: "is_a_test" is no answer
    return next((column for name in long for words, column in by_words.items() if name in words.split("_")), None)
