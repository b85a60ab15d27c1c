"""Parts good rows from bad ones, record by record, and notes what was found on the way."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.formats.canonical import Content
from trainer.formats.detect import mixed, other_family
from trainer.formats.family import Family, Gathering, nothing
from trainer.formats.findings import BadLines, Findings, Statistics
from trainer.formats.problems import BadFile, BadRow, Problem, kind_of
from trainer.formats.reading import Record


@dataclass
class Sieve:
    """Takes records in order. What one holds that is good goes on as Content; the rest is noted here."""

    family: Family | None
    bad_lines: BadLines
    folder: Path  # for what does not fit into memory
    bad_rows: int = 0
    gathering: Gathering | None = None  # of a family whose rows hang together over the whole file
    repairs: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)
    statistics: Statistics = field(default_factory=Statistics)

    def take_for(self, family: Family | None) -> None:
        """Say what the rows are, once some have been looked at."""
        self.family = family
        self.gathering = family.gather(self.folder) if family and family.gather else None

    def close(self) -> None:
        if self.gathering:
            self.gathering.close()

    def take(self, record: Record) -> Content | None:
        """What a good row says; None for a bad one, and for one that is gathered first."""
        try:
            content = self._content(record)
        except BadRow as bad:
            found = bad.found.inside(record.member) if record.member else bad.found
            self.refuse(record.line, found, record.text)
            return None
        if content:
            self.statistics.add(content)
        self._note(record.value)
        return content

    def gathered(self) -> Iterator[tuple[int, Content]]:
        """After the last record: the lines and contents of rows that came of several records."""
        for one in self.gathering.results() if self.gathering else ():
            if one.content:
                self.statistics.add(one.content)
                yield one.line, one.content
            elif one.found:
                self.refuse(one.line, one.found, one.text)

    def stop(self, broken: BadFile) -> None:
        """Note where reading had to end."""
        self.findings.add(broken.line, broken.found, broken.text)
        self.bad_lines.add(broken.line, broken.found, broken.text)

    def extend(self, other: "Sieve", *, lines_before: int) -> None:
        """Take in what was noted of the good rows that come next; bad ones are refused one by one."""
        self.findings.extend(other.findings, lines_before=lines_before)
        self.statistics.extend(other.statistics)
        self.repairs.update(other.repairs)

    def refuse(self, line: int, found: Problem, text: str) -> None:
        self.bad_rows += 1
        self.findings.add(line, found, text)
        self.bad_lines.add(line, found, text)

    def _content(self, record: Record) -> Content | None:
        row, family = record.value, self.family
        if record.found:
            raise _bad(record.found)
        if not isinstance(row, dict) or family is None:
            raise BadRow(
                "", f"a row must be an object, not {kind_of(row)}", "Write the row as { … } with named fields."
            )
        if other := other_family(row, family):
            self.findings.mix(record.line, other.name)
            raise _bad(mixed(other, family))
        if self.gathering:
            self.gathering.add(record.line, row, record.text)
            return None
        return family.to_content(row)

    def _note(self, row: dict[str, Any]) -> None:
        family = self.family
        if family is None:
            return
        if family.ignored is not nothing or not row.keys() <= family.fields:
            self.findings.ignore(family.passed_over(row))
        if family.repaired is not nothing:
            self.repairs.update(family.repaired(row))


def _bad(found: Problem) -> BadRow:
    return BadRow(found.field, found.problem, found.fix)
