"""Rows token by token as a base model trains on them: what is learnt, what is only read, and what is cut away."""

from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from trainer.errors import TrainerError
from trainer.formats.canonical import Row
from trainer.formats.rows_file import rows_at
from trainer.formats.survey import measure
from trainer.rendering import Example, Renderer
from webapp.adapters.models import BaseModel
from webapp.adapters.seen import MOST_TOKENS, renderer_of
from webapp.common.words import number_text
from webapp.datasets.models import DatasetVersion
from webapp.datasets.preview import ShownRow, shown_row

ROWS = 5  # on a page
MOST_CHARACTERS = 300_000  # of a row; what is longer would take seconds to show
NAMES = {"preference": ("Chosen", "Rejected")}

TrainOn = Literal["answers", "everything"]


@dataclass(frozen=True)
class Token:
    """A token as it is shown: several where only together they make a character. `cut`: beyond the longest length."""

    text: str
    ids: tuple[int, ...]
    trained: bool
    special: bool
    cut: bool

    @property
    def marked(self) -> str:
        """Its text with line breaks to be seen."""
        return self.text.replace("\n", "↵\n")

    @property
    def tone(self) -> str:
        """The classes of its colour."""
        names = ("trained", self.trained), ("special", self.special), ("cut", self.cut)
        return " ".join(f"tok-{name}" for name, holds in names if holds)


@dataclass(frozen=True)
class Conversation:
    """What goes through the model of a row, or of one of its two answers."""

    name: str
    tokens: list[Token]
    count: int  # before the cut
    trained: int  # after it
    lost: int

    @property
    def kept(self) -> list[Token]:
        return [one for one in self.tokens if not one.cut]

    @property
    def beyond(self) -> list[Token]:
        return [one for one in self.tokens if one.cut]

    @property
    def kept_text(self) -> list[Token]:
        """The same as text: tokens that are alike in one."""
        return _as_text(self.kept)

    @property
    def beyond_text(self) -> list[Token]:
        return _as_text(self.beyond)

    @property
    def is_long(self) -> bool:
        return self.count > MOST_TOKENS

    @property
    def share(self) -> int:
        return round(100 * self.trained / max(1, self.count - self.lost))


@dataclass(frozen=True)
class SeenRow:
    """A row as it trains. `refused` says why there is nothing to see; `left_out`: nothing of it can be learnt.

    unwritten: what of it the base's template passes over.
    """

    number: int
    shown: ShownRow
    conversations: list[Conversation] = field(default_factory=list)
    refused: str = ""
    left_out: bool = False
    unwritten: str = ""


def seen_rows(
    version: DatasetVersion, base: BaseModel, *, start: int, train_on: TrainOn, max_seq_length: int
) -> list[SeenRow]:
    """Some rows from number `start` on."""
    rows = rows_at(version.rows_path, range(start, start + ROWS))
    try:
        renderer = renderer_of(base.folder)
    except TrainerError as error:
        return [SeenRow(number, shown_row(row, number), refused=_words(error)) for number, row in rows.items()]
    return [_seen(number, row, renderer, train_on=train_on, longest=max_seq_length) for number, row in rows.items()]


def _seen(number: int, row: Row, renderer: Renderer, *, train_on: TrainOn, longest: int) -> SeenRow:
    shown = shown_row(row, number)
    characters = measure(row).characters
    if characters > MOST_CHARACTERS:
        return SeenRow(number, shown, refused=f"This row has {number_text(characters)} characters, too many to show.")
    try:
        whole = renderer.examples(row, train_on=train_on)
        cut = renderer.examples(row, train_on=train_on, max_seq_length=longest)
        unwritten = " and ".join(sorted(renderer.left_out(row)))
    except TrainerError as error:
        return SeenRow(number, shown, refused=_words(error))
    names = NAMES.get(row.kind, ("Good" if row.label else "Bad" if row.kind == "labelled" else "",))
    told = [_conversation(name, renderer, *pair) for name, *pair in zip(names, whole, cut, strict=False)]
    return SeenRow(number, shown, told, left_out=any(not one.trained for one in told), unwritten=unwritten)


def _conversation(name: str, renderer: Renderer, whole: Example, cut: Example) -> Conversation:
    """With what is cut away behind it, unless it was cut elsewhere than at its end."""
    shown = whole if whole.ids[: len(cut.ids)] == cut.ids else cut
    tokens = shown_tokens(renderer, shown, len(cut.ids))
    return Conversation(name, tokens, whole.whole, sum(cut.learnt), cut.whole - len(cut.ids))


def shown_tokens(renderer: Renderer, example: Example, longest: int) -> list[Token]:
    """The first tokens of an example; those that are parts of one character stand together."""
    found: list[Token] = []
    ids: list[int] = []
    waiting, special = b"", renderer.special_ids
    marked = list(zip(example.ids, example.learnt, strict=True))[:MOST_TOKENS]
    for at, (token, learnt) in enumerate(marked):
        ids.append(token)
        waiting += renderer.token_bytes(token)
        ahead = marked[at + 1] if at + 1 < len(marked) else None
        alone = ahead is None or ahead[1] != learnt or ahead[0] in special or at + 1 == longest
        if alone or not _is_unfinished(waiting):
            text = waiting.decode(errors="replace")
            found.append(Token(text, tuple(ids), bool(learnt), token in special, at >= longest))
            waiting, ids = b"", []
    return found


def _is_unfinished(text: bytes) -> bool:
    """Whether the text ends inside a character."""
    try:
        text.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def _as_text(tokens: list[Token]) -> list[Token]:
    groups = groupby(tokens, key=lambda one: (one.trained, one.special, one.cut))
    return [Token("".join(one.text for one in group), (), *alike) for alike, group in groups]


def _words(error: TrainerError) -> str:
    return f"{error.text} {error.fix}".strip()
