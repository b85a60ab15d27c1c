"""What can be wrong with a row or a file, said so that a person can put it right."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """`problem` names the kind and is what errors are counted by; `field` says where in the row; `fix` what to do."""

    field: str
    problem: str
    fix: str


class BadRow(Exception):
    """This row cannot be used."""

    def __init__(self, field: str, problem: str, fix: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.found = Problem(field, problem, fix)


class BadFile(Exception):
    """From `line` on nothing of this file can be read; rows before it do not make it usable."""

    def __init__(self, line: int, problem: str, fix: str, *, text: str = "", field: str = "") -> None:
        super().__init__(f"line {line}: {problem}")
        self.line = line
        self.text = text
        self.found = Problem(field, problem, fix)


def kind_of(value: object) -> str:
    """The JSON name of a value's type, for sentences."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    names: dict[type, str] = {str: "text", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)
