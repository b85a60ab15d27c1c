"""What can be wrong with a row or a file, in words that help to correct it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

_COLUMN = re.compile(r"([^.\[]*)(.*)", re.DOTALL)  # in a path such as messages[2].content


@dataclass(frozen=True)
class Problem:
    """`problem` is the kind that errors are counted by, `field` the place in the row, `fix` what to do about it."""

    field: str
    problem: str
    fix: str

    def inside(self, member: str) -> "Problem":
        """The same in a member of an archive."""
        return replace(self, field=f"{member}: {self.field}" if self.field else member)


class BadRow(Exception):
    """This row cannot be used."""

    def __init__(self, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.found = Problem(field, problem, fix)

    def under(self, place: str) -> "BadRow":
        """The same, with the field inside `place`. Built only on failure, so good rows cost no path."""
        field = self.found.field
        joined = f"{place}.{field}" if field and not field.startswith("[") else place + field
        return BadRow(joined, self.found.problem, self.found.fix)

    def called(self, names: Mapping[str, str]) -> "BadRow":
        """The same, with the column names of the file."""
        column, rest = _COLUMN.match(self.found.field).group(1, 2)  # type: ignore[union-attr] # matches any text
        fix = self.found.fix.replace(f'"{column}"', f'"{names.get(column, column)}"')
        return BadRow(names.get(column, column) + rest, self.found.problem, fix)


class BadFile(Exception):
    """The file cannot be read from `line` on, which makes it unusable as a whole."""

    def __init__(self, line: int, problem: str, fix: str, *, text: str = "", field: str = "") -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.text = text
        self.found = Problem(field, problem, fix)


def fix_for_non_text(value: object, field: str = "") -> str:
    """What to do where text is required; a quoted "null" would be learnt as a word."""
    where = f' in "{field}"' if field else " here"
    if value is None:
        return f"Write a text{where}, or remove this row."
    if isinstance(value, (list, dict)):
        return f"Write the text alone{where}, without the {'list' if isinstance(value, list) else 'object'} around it."
    return f'Put the value of "{field}" in quotes.' if field else "Put the value in quotes."


def json_type(value: object) -> str:
    """The JSON type of a value, with an article, for sentences."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
