"""Separates good rows from bad ones, record by record, and collects findings."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from trainer.formats.canonical import Content
from trainer.formats.detect import mixed_formats, other_family
from trainer.formats.family import Family, Gathering, nothing
from trainer.formats.findings import BadLines, Findings, Statistics
from trainer.formats.problems import BadFile, BadRow, Problem, json_type
from trainer.formats.reading import Record


@dataclass
class Sieve:
    """Takes records in order: returns the content of good rows, and notes everything else."""

    family: Family | None
    bad_lines: BadLines
    folder: Path  # for data that does not fit into memory
    bad_rows: int = 0
    gathering: Gathering | None = None  # for a family with linked rows
    repairs: Counter[str] = field(default_factory=Counter)
    findings: Findings = field(default_factory=Findings)
    statistics: Statistics = field(default_factory=Statistics)

    def set_family(self, family: Family | None) -> None:
        """Set the family, once the first rows were inspected."""
        self.family = family
        self.gathering = family.gather(self.folder) if family and family.gather else None

    def close(self) -> None:
        if self.gathering:
            self.gathering.close()

    def take(self, record: Record) -> Content | None:
        """The content of a good row; None for a bad row and for one that is gathered first."""
        try:
            content = self._content(record)
        except BadRow as bad:
            found = bad.found.inside(record.member) if record.member else bad.found
            self.reject(record.line, found, record.text)
            return None
        if content:
            self.statistics.add(content)
        self._note(record.value)
        return content

    def gathered(self) -> Iterator[tuple[int, Content]]:
        """After the last record: line and content of rows made of several records."""
        for one in self.gathering.results() if self.gathering else ():
            if one.content:
                self.statistics.add(one.content)
                yield one.line, one.content
            elif one.found:
                self.reject(one.line, one.found, one.text)

    def stop(self, broken: BadFile) -> None:
        """Note the error at which reading had to stop."""
        self.findings.add(broken.line, broken.found, broken.text)
        self.bad_lines.add(broken.line, broken.found, broken.text)

    def extend(self, other: "Sieve", *, lines_before: int) -> None:
        """Merge what was noted on the good rows of the next section; its bad rows are rejected one by one."""
        self.findings.extend(other.findings, lines_before=lines_before)
        self.statistics.extend(other.statistics)
        self.repairs.update(other.repairs)

    def reject(self, line: int, found: Problem, text: str) -> None:
        self.bad_rows += 1
        self.findings.add(line, found, text)
        self.bad_lines.add(line, found, text)

    def _content(self, record: Record) -> Content | None:
        row, family = record.value, self.family
        if record.found:
            raise _bad(record.found)
        if not isinstance(row, dict) or family is None:
            raise BadRow(
                "", f"a row must be an object, not {json_type(row)}", "Write the row as { … } with named fields."
            )
        if other := other_family(row, family):
            self.findings.mix(record.line, other.name)
            raise _bad(mixed_formats(other, family))
        if self.gathering:
            self.gathering.add(record.line, row, record.text)
            return None
        return family.to_content(row)

    def _note(self, row: dict[str, Any]) -> None:
        family = self.family
        if family is None:
            return
        if family.ignored is not nothing or not row.keys() <= family.fields:
            self.findings.ignore(family.ignored_fields(row))
        if family.repaired is not nothing:
            self.repairs.update(family.repaired(row))


def _bad(found: Problem) -> BadRow:
    return BadRow(found.field, found.problem, found.fix)
