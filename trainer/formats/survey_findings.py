"""What a survey points out: row by row what each tells by itself, and at the end what all of them tell together."""

from collections.abc import Callable, Iterator

from trainer.formats.canonical import Row
from trainer.formats.finding_groups import Copies, Finding, Splits
from trainer.formats.finding_near import NearDuplicates
from trainer.formats.finding_outliers import Outliers
from trainer.formats.finding_private import private_in
from trainer.formats.finding_texts import cut_off, echo, empty_answer, empty_message, garbled, looping, refusal
from trainer.formats.searching import Said

Finder = Callable[[Row], str]  # what was found in the row, in a few words; empty when nothing

FINDERS: dict[str, Finder] = {
    "empty_message": empty_message,
    "empty_answer": empty_answer,
    "echo": echo,
    "refusal": refusal,
    "cut_off": cut_off,
    "looping": looping,
    "garbled": garbled,
}


class Detectives:
    """All that looks for findings in one pass over the rows; what is kept of a row is about 150 bytes."""

    def __init__(self) -> None:
        self._splits = Splits()
        self._copies = Copies(self._splits)
        self._near = NearDuplicates(self._splits)
        self._outliers = Outliers()

    def add(self, said: Said) -> Iterator[tuple[str, str]]:
        """Takes the next row in; kind and detail of what it tells by itself."""
        self._splits.add(said.row.split)
        self._copies.add(said.row)
        self._near.add(said)
        self._outliers.add(said)
        yield from private_in(said).items()
        for kind, finder in FINDERS.items():
            if detail := finder(said.row):
                yield kind, detail

    def finish(self) -> Iterator[Finding]:
        """What all rows tell together."""
        yield from self._copies.finish()
        yield from self._near.finish(self._copies.copies())
        yield from self._outliers.finish()
