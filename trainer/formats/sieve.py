"""Parts good rows from bad ones, record by record, and notes what was found on the way."""

from dataclasses import dataclass, field
from typing import Any

from trainer.formats.canonical import Content
from trainer.formats.detect import Family, mixed, other_family
from trainer.formats.findings import BadLines, Findings, Statistics
from trainer.formats.problems import BadFile, BadRow, Problem, kind_of
from trainer.formats.reading import Record


@dataclass
class Sieve:
    """Takes records in order. What one holds that is good goes on as Content; the rest is noted here."""

    family: Family | None
    bad_lines: BadLines
    bad_rows: int = 0
    developer: int = 0
    findings: Findings = field(default_factory=Findings)
    statistics: Statistics = field(default_factory=Statistics)

    def take(self, record: Record) -> Content | None:
        """What a good row says; None for a bad one."""
        try:
            content = self._content(record)
        except BadRow as bad:
            self.bad_rows += 1
            self.findings.add(record.line, bad.found, record.text)
            self.bad_lines.add(record.line, bad.found, record.text)
            return None
        self.statistics.add(content)
        self._note_ignored(record.value)
        return content

    def stop(self, broken: BadFile) -> None:
        """Note where reading had to end."""
        self.findings.add(broken.line, broken.found, broken.text)
        self.bad_lines.add(broken.line, broken.found, broken.text)

    def _content(self, record: Record) -> Content:
        row, family = record.value, self.family
        if record.found:
            raise _bad(record.found)
        if not isinstance(row, dict) or family is None:
            raise BadRow(
                "", f"a row must be an object, not {kind_of(row)}", "Write the row as { … } with named fields."
            )
        if other := other_family(row, family):
            self.findings.mix(record.line, other.NAME)
            raise _bad(mixed(other, family))
        return family.to_content(row)

    def _note_ignored(self, row: dict[str, Any]) -> None:
        family = self.family
        if family is None:
            return
        self.findings.ignore(row.keys() - family.FIELDS)
        for message in row.get("messages", ()) if "messages" in family.FIELDS else ():
            self.findings.ignore(message.keys() - family.MESSAGE_FIELDS, "messages.")
            self.developer += message["role"] == "developer"


def _bad(found: Problem) -> BadRow:
    return BadRow(found.field, found.problem, found.fix)
