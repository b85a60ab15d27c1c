"""What changed from one version to another, for a page: rows added and removed, and edits message by message."""

import json
import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

from trainer.formats.canonical import Row
from trainer.formats.extra import as_text
from trainer.formats.rows_file import rows_at
from webapp.datasets.models import DatasetVersion

ROWS_PER_PAGE = 20
MOST_SHOWN = 8_000  # characters of one message
MOST_WORDS = 3_000  # of a message that is compared word by word
BESIDE = "Other columns"
KINDS = {"edited": "Edited", "added": "Added", "removed": "Removed", "moved": "Other split", "beside": BESIDE}
WORDS = re.compile(r"\s+|\w+|[^\w\s]")

Piece = tuple[str, str]  # "", "del" or "ins", and the text


@dataclass(frozen=True)
class ShownMessage:
    """One message of a changed row. state: same, edited, added or removed."""

    role: str
    state: str
    pieces: list[Piece]


@dataclass(frozen=True)
class ShownSection:
    """A conversation, or one of the parts of a row that compares answers."""

    name: str
    messages: list[ShownMessage]


@dataclass(frozen=True)
class ShownChange:
    """A row that is not the same; numbers count from 1, None where the row is not there."""

    before: int | None
    after: int | None
    sections: list[ShownSection]
    split: tuple[str, str]


@dataclass(frozen=True)
class Page:
    """Some changes of one kind. `first` is how many there are on all pages when that is not all."""

    kind: str
    changes: list[ShownChange]
    number: int
    of: int
    first: int

    @property
    def marks(self) -> bool:
        """Whether its rows are in both versions, so that what came and went in them is marked."""
        return self.kind in ("edited", "beside")

    @property
    def previous(self) -> int | None:
        return self.number - 1 if self.number > 1 else None

    @property
    def next(self) -> int | None:
        return self.number + 1 if self.number < self.of else None


def page_of(
    older: DatasetVersion, newer: DatasetVersion, told: dict[str, Any], *, kind: str, number: str
) -> tuple[dict[str, int], Page]:
    """How many changes of each kind were `told`, and a page of one: the first there is when none is asked for."""
    counts = dict.fromkeys(KINDS, 0) | told["counts"]  # what was told before there were other columns has none
    kind = kind if kind in KINDS else next((one for one in KINDS if counts[one]), "edited")
    places = _places(told, kind)
    of = max(1, -(-len(places) // ROWS_PER_PAGE))
    asked = int(number) if number.isascii() and number.isdigit() and len(number) < 10 else 1
    asked = min(max(asked, 1), of)
    some = places[(asked - 1) * ROWS_PER_PAGE : asked * ROWS_PER_PAGE]
    before = rows_at(older.rows_path, [old + 1 for old, _ in some if old is not None])
    after = rows_at(newer.rows_path, [new + 1 for _, new in some if new is not None])
    changes = [_shown(before, after, old, new) for old, new in some]
    return counts, Page(kind, changes, asked, of, first=len(places) if len(places) < counts[kind] else 0)


def _places(told: dict[str, Any], kind: str) -> list[tuple[int | None, int | None]]:
    if kind == "added":
        return [(None, place) for place in told["added"]]
    if kind == "removed":
        return [(place, None) for place in told["removed"]]
    return [(before, after) for before, after in told.get(kind, [])]


def _shown(before: dict[int, Row], after: dict[int, Row], old: int | None, new: int | None) -> ShownChange:
    first = before.get(old + 1) if old is not None else None
    second = after.get(new + 1) if new is not None else None
    split = ((first and first.split) or "", (second and second.split) or "")
    return ShownChange(
        None if old is None else old + 1, None if new is None else new + 1, row_changes(first, second), split
    )


def row_changes(first: Row | None, second: Row | None) -> list[ShownSection]:
    """What became of a row, section by section."""
    left, right = _sections(first), _sections(second)
    if first and second and first.extra != second.extra:
        left[BESIDE], right[BESIDE] = _beside(first), _beside(second)
    names = list(dict.fromkeys([*left, *right]))
    found = [ShownSection(name, _aligned(left.get(name, []), right.get(name, []))) for name in names]
    return [section for section in found if section.messages]


def _sections(row: Row | None) -> dict[str, list[tuple[str, str]]]:
    """Roles and texts of a row, by the name of the part they are in."""
    if row is None:
        return {}
    told = {"": row.messages, "Prompt": row.prompt, "Chosen": row.chosen, "Rejected": row.rejected}
    found = {name: [_message(one) for one in said] for name, said in {**told, "Completion": row.completion}.items()}
    if row.text is not None:
        found[""] = [("text", row.text)]
    if row.label is not None:
        found["Label"] = [("label", "Good" if row.label else "Bad")]
    if row.tools:
        found["Tools"] = [("tools", json.dumps(row.tools, ensure_ascii=False, indent=2))]
    return found


def _beside(row: Row) -> list[tuple[str, str]]:
    """The other columns, each with its value."""
    return [(name, as_text(value)) for name, value in row.extra.items()]


def _message(message: dict[str, Any]) -> tuple[str, str]:
    """All that a message says, as text."""
    rest = {name: value for name, value in message.items() if name not in ("role", "content") and value is not None}
    if rest.get("weight") == 0:
        rest["weight"] = "0 (read, not learned)"
    told = [message.get("content") or ""]
    for name, value in rest.items():
        told.append(f"{name}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    return str(message["role"]), "\n".join(one for one in told if one)


def _aligned(left: list[tuple[str, str]], right: list[tuple[str, str]]) -> list[ShownMessage]:
    found: list[ShownMessage] = []
    for tag, a, b, c, d in SequenceMatcher(None, left, right, autojunk=False).get_opcodes():
        if tag == "equal":
            found += [ShownMessage(role, "same", [("", text[:MOST_SHOWN])]) for role, text in left[a:b]]
            continue
        found += _replaced(left[a:b], right[c:d])
    return found


def _replaced(old: list[tuple[str, str]], new: list[tuple[str, str]]) -> list[ShownMessage]:
    """Messages that are not the same: where the roles follow each other alike, one is the other, edited."""
    found: list[ShownMessage] = []
    roles = [role for role, _ in old], [role for role, _ in new]
    for tag, a, b, c, d in SequenceMatcher(None, *roles, autojunk=False).get_opcodes():
        if tag == "equal":
            pairs = zip(old[a:b], new[c:d], strict=True)
            found += [ShownMessage(role, "edited", words_changed(text, other)) for (role, text), (_, other) in pairs]
            continue
        found += [ShownMessage(role, "removed", [("del", text[:MOST_SHOWN])]) for role, text in old[a:b]]
        found += [ShownMessage(role, "added", [("ins", text[:MOST_SHOWN])]) for role, text in new[c:d]]
    return found


def words_changed(text: str, other: str) -> list[Piece]:
    """Both texts in one: what stayed, what went, what came. Very long ones are not compared word by word."""
    left, right = WORDS.findall(text[:MOST_SHOWN]), WORDS.findall(other[:MOST_SHOWN])
    if max(len(left), len(right)) > MOST_WORDS:
        return [("del", text[:MOST_SHOWN]), ("ins", other[:MOST_SHOWN])]
    runs: list[tuple[bool, str, str]] = []  # whether both say the same there, and what each says
    for tag, a, b, c, d in SequenceMatcher(None, left, right, autojunk=len(left) > MOST_WORDS // 3).get_opcodes():
        runs.append((tag == "equal", "".join(left[a:b]), "".join(right[c:d])))
    found: list[Piece] = []
    for same, old, new in _whole_words(runs):
        changed = [("del", old), ("ins", new)]
        found += [("", old)] if same else [(mark, said) for mark, said in changed if said]
    return found


def _whole_words(runs: list[tuple[bool, str, str]]) -> list[tuple[bool, str, str]]:
    """The same, where signs that two changed words happen to share are part of the change, and a space between two."""
    found: list[tuple[bool, str, str]] = []
    for place, (same, old, new) in enumerate(runs):
        stays = same and not (0 < place < len(runs) - 1 and (old == " " or _is_inside_word(old)))
        if found and not stays and not found[-1][0]:
            _, before, after = found[-1]
            found[-1] = (False, before + old, after + new)
            continue
        found.append((stays, old, new))
    return found


def _is_inside_word(text: str) -> bool:
    """Not of scripts without spaces, where it may be most of a sentence."""
    return not any(map(str.isspace, text)) and (text.isascii() or len(text) == 1)
