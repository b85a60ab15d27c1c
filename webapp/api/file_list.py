"""A team's files as one list, though they lie in two tables."""

from collections.abc import Iterable
from heapq import merge

from webapp.accounts.models import Team
from webapp.api.fields import bad
from webapp.api.file_store import TRAINING, AnyFile, versions_living
from webapp.api.models import ApiFile
from webapp.api.names import FILE, uuid_of
from webapp.api.paging import Asked, Place, rows_of


def list_files(team: Team, page: Asked, purpose: str) -> tuple[list[AnyFile], bool]:
    """The files of a page, and whether there are more."""
    versions = versions_living().filter(dataset__team=team).defer("report", "survey_report", "changes", "mapping")
    kept = ApiFile.objects.living().filter(team=team)
    if purpose:
        kept = kept.filter(purpose=purpose)
        versions = versions if purpose == TRAINING else versions.none()
    place = _place(team, page)
    both: tuple[Iterable[AnyFile], ...] = (rows_of(versions, page, place), rows_of(kept, page, place))
    found = list(merge(*both, key=_stands_at, reverse=page.newest_first))
    return found[: page.limit], len(found) > page.limit


def _stands_at(file: AnyFile) -> Place:
    return file.created_at, file.pk


def _place(team: Team, page: Asked) -> Place | None:
    if not page.after:
        return None
    file: AnyFile | None = None
    if pk := uuid_of(page.after, FILE):
        file = versions_living().filter(dataset__team=team, pk=pk).defer("report").first()
        file = file or ApiFile.objects.living().filter(team=team, pk=pk).first()
    if file is None:
        bad("after", "`after` is the id of no file in this list.")
    return _stands_at(file)
