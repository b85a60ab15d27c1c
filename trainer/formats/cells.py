"""Escaping of CSV cells that a spreadsheet would execute as formulas, and its reverse."""

import re

# Characters that start a formula (OWASP, CSV injection), also full-width, after any apostrophes added by `guard`.
_FORMULA = re.compile("'*[=+\\-@\t\r\n\uff1d\uff0b\uff0d\uff20]")


def guard(cell: str) -> str:
    """The cell, with an apostrophe in front if a spreadsheet might execute it."""
    return f"'{cell}" if _FORMULA.match(cell) else cell


def unguard(cell: str) -> str:
    """The cell as it was before `guard`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell
