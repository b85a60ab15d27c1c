"""Single fields of a row: texts that must be there, texts that may be, and lists that a CSV cell holds as JSON."""

from typing import Any

from trainer.formats.problems import BadRow, fix_of_no_text, kind_of
from trainer.formats.strict import parse


def read_text(row: dict[str, Any], field: str) -> str:
    """A field that holds text, and more than white space."""
    value = row.get(field)
    if not isinstance(value, str):
        if field not in row:
            raise BadRow(field, "field is missing", f'Add "{field}" with a text to this row.')
        raise BadRow(field, f"must be text, not {kind_of(value)}", fix_of_no_text(value, field))
    if not value or value.isspace():
        raise BadRow(field, "field is empty", f'Write a text in "{field}", or remove this row.')
    return value


def maybe_text(row: dict[str, Any], field: str) -> str:
    """A field that may be missing, null or blank, which is "" then."""
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRow(field, f"must be text, not {kind_of(value)}", fix_of_no_text(value, field))
    return "" if value.isspace() else value


def unpacked(value: Any, field: str) -> Any:
    """The value; of a text that begins like a list or an object, what it says as JSON: tables have no other way."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return parse(value)
    except (ValueError, RecursionError):
        raise BadRow(field, "is not valid JSON", "Write the list as JSON.") from None
