"""Every page of the datasets, narrow and wide, light and dark: nothing in it keeps a person out."""

import json
from pathlib import Path

import pytest
from django.urls import reverse
from playwright.sync_api import Browser, Page

from tests.axe import violations
from tests.browsing import LOOKS, looked_at, page_of
from tests.cast import Cast
from tests.datasets.inspected import inspect, uploaded
from tests.make import make_base, make_dataset, make_job, make_version
from tests.tiny import make_tiny_base
from trainer.formats import read_rows
from webapp.adapters.tasks import count_tokens
from webapp.datasets import drafts, versions
from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.datasets.row_marks import Change, change_marks
from webapp.datasets.tasks import survey

pytestmark = pytest.mark.django_db(transaction=True)

EVERY_LOOK = (*LOOKS, ("dark", 390))
ANSWER = "Six hundred and sixty-six, and here is how one counts them. "
ROWS = [
    {
        "instruction": f"How many are {n} and {n + 1}?",
        "output": ANSWER * (1 + n % 4),
        "lang": ("en", "de")[n % 2],
        "n": n,
    }
    for n in range(60)
]
ROWS += [ROWS[3], {"instruction": "Where is she?", "output": "Write to mia.berg@firma-nord.de.", "lang": "en"}]
SPOILT = (
    b'{"instruction": "Who?", "output": "I."}\n{"instruction": "Who?"}\n{"instruction": 5, "output": "x"}\n{broken\n'
)
FOREIGN = b'{"frage": "Wer bist du?", "antwort": "Ich bin Lowrank.", "thema": "selbst"}\n' * 3
FAILED = {"failure": {"text": "The hub has no dataset owner/other.", "fix": "Check the name."}}


def make_worked(cast: Cast) -> tuple[DatasetVersion, DatasetVersion]:
    """A version with findings, tags and a draft, and the one made of it: edited, and divided into splits."""
    first = uploaded(cast, "".join(json.dumps(row) + "\n" for row in ROWS).encode())
    survey(str(first.pk))
    row = read_rows(first.rows_path, 0, 1)[0]
    change = Change(starred=True, rating=4, tag="look again", untag="")
    change_marks(user=cast.bob, dataset=first.dataset, row_ids=[row.id], change=change)
    turns = [{"role": "user", "content": "How many?"}, {"role": "assistant", "content": "Three."}]
    edited = {"edit": {row.id: {"messages": turns}}, "add": [{"messages": turns}]}
    made = inspect(versions.revise(user=cast.bob, version=first, changes=edited, note="One better, one more"))
    plan = {"splits": {"method": "column", "column": "lang", "shares": {"test": 0.1}}}
    last = inspect(versions.revise(user=cast.bob, version=made, changes=plan))
    survey(str(last.pk))
    row = read_rows(last.rows_path, 3, 1)[0]
    drafts.remove_row(user=cast.bob, version=last, row=row, number=4)
    return made, last


def make_pages(cast: Cast, folder: Path) -> dict[str, str]:
    """The address of a page of each kind, with something on it."""
    base = make_base(path=make_tiny_base(folder / "base"))
    edited, version = make_worked(cast)
    count_tokens(str(version.pk), str(base.pk))
    make_job(cast.team, base=base, version=edited)
    spoilt, foreign = uploaded(cast, SPOILT), uploaded(cast, FOREIGN)
    hub = make_version(
        make_dataset(cast.team, name="owner/other"),
        status=VersionStatus.REJECTED,
        report=FAILED,
        source={"hub": "owner/other"},
    )
    DatasetVersion.objects.filter(pk=hub.pk).update(original_sha256="")
    own = reverse("dataset", args=[version.dataset_id])
    of = {name: reverse(name, args=[version.pk]) for name in ("dataset_rows", "version_seen", "split_new", "draft")}
    return {
        "list": reverse("datasets"),
        "list, nothing found": reverse("datasets") + "?q=zzz",
        "upload": reverse("dataset_new"),
        "new version": reverse("dataset_version_new", args=[version.dataset_id]),
        "copy": reverse("dataset_copy") + "?q=r",
        "hub": reverse("dataset_hub"),
        "overview": own,
        "versions": f"{own}?tab=versions",
        "use": f"{own}?tab=use",
        "rejected": reverse("dataset", args=[spoilt.dataset_id]),
        "not fetched": reverse("dataset", args=[hub.dataset_id]),
        "to be mapped": reverse("dataset", args=[foreign.dataset_id]),
        "mapping": reverse("dataset_mapping", args=[foreign.pk]),
        "errors": reverse("version_errors", args=[spoilt.pk]),
        "rows": of["dataset_rows"],
        "rows found": f"{of['dataset_rows']}?column=lang%3Dde&row=2",
        "rows, none found": f"{of['dataset_rows']}?q=zzz",
        "row": reverse("row", args=[version.pk, 1]),
        "edit": reverse("row_edit", args=[version.pk, 1]),
        "add": reverse("row_add", args=[version.pk]),
        "draft": of["draft"],
        "findings": reverse("version_findings", args=[version.pk]),
        "fix": reverse("finding_fix", args=[version.pk, "repeated"]),
        "diff": reverse("version_diff", args=[edited.pk]),
        "splits": of["split_new"],
        "tokens": f"{of['version_seen']}?length=40",
        "tokens as text": f"{of['version_seen']}?view=text",
        "tokens as chat": f"{of['version_seen']}?view=chat",
    }


def look(page: Page, address: str) -> list[str]:
    return looked_at(page, address, folds="main details:not(.menu)", looks=EVERY_LOOK)


@pytest.mark.timeout(300)
def test_no_page_keeps_anybody_out(chromium: Browser, cast: Cast, site: str, tmp_path: Path) -> None:
    addresses = make_pages(cast, tmp_path)
    with page_of(chromium, cast, site, has_touch=True) as page:
        found = {name: look(page, address) for name, address in addresses.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}


@pytest.mark.timeout(120)
def test_menus_and_empty_pages_keep_nobody_out(chromium: Browser, cast: Cast, site: str, tmp_path: Path) -> None:
    with page_of(chromium, cast, site) as page:
        assert look(page, reverse("datasets")) == [], "with nothing in it"
        _, version = make_worked(cast)
        for address in (reverse("dataset_rows", args=[version.pk]), reverse("dataset", args=[version.dataset_id])):
            page.goto(address)
            for menu in page.locator("main details.menu > summary:visible").all():
                menu.click()
                assert violations(page) == []
                page.keyboard.press("Escape")


def test_the_open_tab_is_seen_on_a_phone_and_the_way_up_leads_there(
    chromium: Browser, cast: Cast, site: str, tmp_path: Path
) -> None:
    version = make_dataset(cast.team).versions.get()
    with page_of(chromium, cast, site, viewport={"width": 390, "height": 800}) as page:
        page.goto(f"{reverse('dataset', args=[version.dataset_id])}?tab=use")
        tab = page.locator("nav.tabs a[aria-current]").bounding_box()
        assert tab and tab["x"] >= 0 and tab["x"] + tab["width"] <= 390
        page.goto(reverse("split_new", args=[version.pk]))
        above = page.locator("nav.crumbs")
        above.get_by_text(version.dataset.name).click()
        page.wait_for_url("**/datasets/**")
        page.locator("nav.crumbs").get_by_text("Datasets").click()
        page.wait_for_url(f"**{reverse('datasets')}")
