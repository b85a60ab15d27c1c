"""Single fields of a row: required text, optional text, and lists that a CSV cell holds as JSON."""

from typing import Any

from trainer.formats.problems import BadRow, fix_for_non_text, json_type
from trainer.formats.strict import parse


def read_text(row: dict[str, Any], field: str) -> str:
    """The text of a required field. Raises BadRow if it is missing or blank."""
    value = row.get(field)
    if not isinstance(value, str):
        if field not in row:
            raise BadRow(field, "field is missing", f'Add "{field}" with a text to this row.')
        raise BadRow(field, f"must be text, not {json_type(value)}", fix_for_non_text(value, field))
    if not value or value.isspace():
        raise BadRow(field, "field is empty", f'Write a text in "{field}", or remove this row.')
    return value


def optional_text(row: dict[str, Any], field: str) -> str:
    """The text of an optional field: "" if it is missing, null or blank."""
    value = row.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRow(field, f"must be text, not {json_type(value)}", fix_for_non_text(value, field))
    return "" if value.isspace() else value


def decode_if_json(value: Any, field: str) -> Any:
    """The value; text that begins like a list or an object is decoded as JSON, as tables cannot hold lists."""
    if not isinstance(value, str) or not value.lstrip().startswith(("[", "{")):
        return value
    try:
        return parse(value)
    except (ValueError, RecursionError):
        raise BadRow(field, "is not valid JSON", "Write the list as JSON.") from None
