"""All detectors of a survey: those for single rows, and those that compare rows with each other."""

from collections.abc import Callable, Iterator

from trainer.formats.canonical import Row
from trainer.formats.finding_groups import Copies, Finding, Splits
from trainer.formats.finding_near import NearDuplicates
from trainer.formats.finding_outliers import Outliers
from trainer.formats.finding_private import find_private
from trainer.formats.finding_texts import cut_off, echo, empty_answer, empty_message, garbled, looping, refusal
from trainer.formats.searching import RowText

RowDetector = Callable[[Row], str]  # a few words on what was found; "" for nothing

ROW_DETECTORS: dict[str, RowDetector] = {
    "empty_message": empty_message,
    "empty_answer": empty_answer,
    "echo": echo,
    "refusal": refusal,
    "cut_off": cut_off,
    "looping": looping,
    "garbled": garbled,
}


class Detectors:
    """Runs all detectors in one pass over the rows, keeping about 150 bytes per row."""

    def __init__(self) -> None:
        self._splits = Splits()
        self._copies = Copies(self._splits)
        self._near = NearDuplicates(self._splits)
        self._outliers = Outliers()

    def add(self, row_text: RowText) -> Iterator[tuple[str, str]]:
        """Add the next row. Yields kind and detail of findings in the row itself."""
        self._splits.add(row_text.row.split)
        self._copies.add(row_text.row)
        self._near.add(row_text)
        self._outliers.add(row_text)
        yield from find_private(row_text).items()
        for kind, detect in ROW_DETECTORS.items():
            if detail := detect(row_text.row):
                yield kind, detail

    def finish(self) -> Iterator[Finding]:
        """Findings that compare rows with each other."""
        yield from self._copies.finish()
        yield from self._near.finish(self._copies.copies())
        yield from self._outliers.finish()
