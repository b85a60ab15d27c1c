"""What a base model sees of a row: the conversation as its template writes it, and which of it is trained."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from pathlib import Path

from trainer.errors import TrainerError
from trainer.formats.canonical import Content
from trainer.rendering import Example, Renderer
from webapp.adapters.models import BaseModel

MOST_TOKENS = 2000  # of one conversation; a page of long ones stays a page


@dataclass(frozen=True)
class Piece:
    """Tokens that stand together and are all trained, or all only read."""

    text: str
    trained: bool


@dataclass(frozen=True)
class Seen:
    """One conversation of row `number` as a base model sees it; or why its template refuses it."""

    number: int
    pieces: list[Piece]
    tokens: int = 0
    trained: int = 0
    refused: str = ""

    @property
    def cut(self) -> bool:
        return self.tokens > MOST_TOKENS


@lru_cache(maxsize=4)
def renderer_of(folder: Path) -> Renderer:
    """The tokenizer and chat template of a base model; its folder never changes once it is ready."""
    return Renderer.load(folder)


def seen_by(base: BaseModel, rows: list[tuple[int, Content]]) -> list[Seen]:
    """Every conversation of the rows, each row with its number."""
    try:
        renderer = renderer_of(base.folder)
    except TrainerError as error:
        return [Seen(rows[0][0], [], refused=f"{error.text} {error.fix}")] if rows else []
    return [seen for number, content in rows for seen in _seen(renderer, number, content)]


def _seen(renderer: Renderer, number: int, content: Content) -> list[Seen]:
    try:
        examples = renderer.examples(content)
    except TrainerError as error:
        return [Seen(number, [], refused=f"{error.text} {error.fix}")]
    return [Seen(number, _pieces(renderer, one), len(one.ids), sum(one.trained)) for one in examples]


def _pieces(renderer: Renderer, example: Example) -> list[Piece]:
    marked = zip(example.ids[:MOST_TOKENS], example.trained, strict=False)
    groups = [(trained, [token for token, _ in group]) for trained, group in groupby(marked, key=lambda one: one[1])]
    return [Piece(renderer.decode(ids, skip_special=False), trained) for trained, ids in groups]
