"""Long lists a page at a time, of those whose name holds what was typed: datasets, and the versions of one."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.core.paginator import Page, Paginator
from django.db.models import OuterRef, Q, Subquery
from django.db.models.fields.json import KT

from webapp.accounts.models import Team
from webapp.datasets.lineage import history
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.datasets.preview import FORMATS

DATASETS_PER_PAGE = 50
VERSIONS_PER_PAGE = 20
MOST_TYPED = 120


@dataclass(frozen=True)
class Listing:
    """One page. query: what is in the address beside the page. whole: how many there are, whatever was typed."""

    page: "Page[Any]"
    q: str
    whole: int
    query: str

    @property
    def is_long(self) -> bool:
        """Whether there is a reason to search, or to turn pages."""
        return bool(self.q) or self.page.paginator.num_pages > 1

    @property
    def here(self) -> str:
        return self._link(self.page.number)

    @property
    def previous(self) -> str:
        return self._link(self.page.number - 1) if self.page.has_previous() else ""

    @property
    def next(self) -> str:
        return self._link(self.page.number + 1) if self.page.has_next() else ""

    def _link(self, number: int) -> str:
        return f"?{self.query}page={number}"


def typed(text: str | None) -> str:
    """What is looked for in names; signs that no name holds are left out."""
    return " ".join((text or "").replace("\0", "").split())[:MOST_TYPED]


def datasets_of(team: Team, *, q: str, number: str | None) -> Listing:
    """The newest version of each dataset with its format; reports, which can be long, stay unread."""
    newest = DatasetVersion.objects.filter(dataset=OuterRef("dataset")).by_standing().values("pk")[:1]
    rows = DatasetVersion.objects.filter(dataset__team=team, pk=Subquery(newest))
    found = rows.filter(dataset__name__icontains=q) if q else rows
    found = found.select_related("dataset", "created_by").order_by("-created_at", "pk").defer("report", "survey_report")
    page: Page[Any] = Paginator(found, DATASETS_PER_PAGE).get_page(number)
    shown = list(page.object_list)
    formats = dict(rows.filter(pk__in=[one.pk for one in shown]).values_list("pk", KT("report__format")))
    page.object_list = [(one, FORMATS.get(formats[one.pk] or "", "–")) for one in shown]
    whole = rows.count() if q else page.paginator.count
    return Listing(page, q, whole, urlencode({"q": q}) + "&" if q else "")


def versions_of(dataset: Dataset, shown: DatasetVersion, *, q: str, number: str | None) -> Listing:
    """Versions, the newest first, of those whose note or file name holds `q`; `shown` is the one the page is about."""
    every = history(dataset)
    found = every.filter(Q(note__icontains=q) | Q(original_name__icontains=q)) if q else every
    page = Paginator(found, VERSIONS_PER_PAGE).get_page(number)
    whole = dataset.versions.count() if q else page.paginator.count
    about = {"version": shown.number, "tab": "versions"} | ({"q": q} if q else {})
    return Listing(page, q, whole, urlencode(about) + "&")
