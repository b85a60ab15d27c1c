"""Which folders of the machine a base model may be read from: those below BASES_ROOTS, links followed first."""

from pathlib import Path

from django.conf import settings

from webapp.common.errors import UserError


def allowed_folder(given: str) -> Path:
    """The real folder behind `given`. Raises UserError unless it, and every file in it, lies below an allowed root."""
    try:
        folder = Path(given).expanduser().resolve()
        inside = _is_below_root(folder)
        missing = inside and not folder.is_dir()  # of what lies outside nothing is said
        inside = inside and (missing or all(_is_below_root(one.resolve()) for one in _files(folder)))
    except (OSError, RuntimeError, ValueError):  # unreadable, a loop of links, a NUL in the name
        inside = missing = False
    if not inside:
        roots = " or ".join(str(root) for root in settings.BASES_ROOTS)
        raise UserError("base_not_allowed", folder=given, roots=roots)
    if missing:
        raise UserError("base_missing", folder=given)
    return folder


def _files(folder: Path) -> list[Path]:
    """What is read of a base model: the files in its folder, and the chat templates that have one of their own."""
    return [*folder.iterdir(), *folder.glob("*/*.jinja")]


def _is_below_root(path: Path) -> bool:
    return any(path.is_relative_to(root.resolve()) for root in settings.BASES_ROOTS)
