"""Cells of CSV files that no spreadsheet takes for a formula, written and read back."""

import re

# What spreadsheets begin a formula with (OWASP, CSV injection), also in full width, behind any apostrophes of ours.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def guard(cell: str) -> str:
    """The cell with an apostrophe before it where a spreadsheet might calculate it."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguard(cell: str) -> str:
    """The cell as it was before `guard`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
