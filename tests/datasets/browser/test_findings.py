"""From a file to what a model sees, in a real Chromium: upload, findings, one fix, the next version, its tokens."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.browsing import page_of
from tests.cast import Cast
from tests.datasets.inspected import inspect
from tests.datasets.surveyed import asked
from tests.make import make_base
from tests.tiny import make_tiny_base
from webapp.adapters import tasks as counting
from webapp.adapters.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.datasets.tasks import survey

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = [asked(f"What is {n} and {n + 1}?", f"The cat counted to {2 * n + 1}. " * (1 + n % 5)) for n in range(1, 41)]
ROWS += [ROWS[3], ROWS[7], asked("How do I reach <b>you</b>?", "Write to mia.berg@firma-nord.de.")]


@pytest.fixture
def base(cast: Cast, tmp_path: Path) -> BaseModel:
    return make_base(path=make_tiny_base(tmp_path / "base"))


@pytest.fixture
def page(chromium: Browser, cast: Cast, site: str, base: BaseModel) -> Iterator[Page]:
    """Bob's browser."""
    with page_of(chromium, cast, site) as page:
        yield page


def worked(version: DatasetVersion) -> DatasetVersion:
    """What the default worker does with a version that was made."""
    inspect(version)
    survey(str(version.pk))
    version.refresh_from_db()
    return version


def uploaded(page: Page, folder: Path) -> DatasetVersion:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    page.goto("/datasets/new/")
    page.set_input_files("input[type=file]", file)
    page.get_by_role("button", name="Upload", exact=True).click()
    page.wait_for_url("**/datasets/*-*/", timeout=15_000)
    return worked(DatasetVersion.objects.get())


def test_from_the_file_to_its_tokens(page: Page, tmp_path: Path, base: BaseModel) -> None:
    version = uploaded(page, tmp_path)
    page.goto(f"/datasets/{version.dataset_id}/")
    page.click("nav.tabs >> text=Findings")
    assert page.locator("#finding-repeated .finding-rows").inner_text() == "2 rows"
    assert page.locator("#finding-personal").count() == 1

    page.click("#finding-repeated >> text=See the rows")
    assert page.locator("tr[data-number]").count() == 2
    page.click("[aria-label=Export]")
    page.click(".rows-losses button")
    page.wait_for_selector(".rows-losses p")
    page.go_back()
    page.click("#finding-repeated >> text=Keep the first of each")
    assert "2 rows will be removed, 41 stay" in page.inner_text("main")
    page.click("text=Make version 2")
    page.wait_for_url("**?version=2")

    made = worked(version.dataset.versions.get(number=2))
    assert (made.row_count, made.changes["removed"]) == (41, 2)
    page.goto(f"/datasets/versions/{made.pk}/findings/")
    assert page.locator("#finding-repeated").count() == 0
    assert page.locator("#finding-personal").count() == 1

    page.click("nav.tabs >> text=Tokens")
    assert "The tokens are being counted" in page.inner_text("main")
    counting.count_tokens(str(made.pk), str(base.pk))
    page.wait_for_selector(".histogram")
    assert page.locator(".tok-trained").count() > 5
    page.fill("[name=length]", "40")
    page.click(".seen-bar >> text=Show")
    assert page.locator(".tok-line").first.inner_text() == "cut at 40 tokens"
    page.click(".segmented >> text=Text")
    assert "<|im_start|>user" in page.locator("pre.tokens").first.inner_text()
    page.click(".segmented >> text=Chat")
    assert page.locator(".bubble-assistant").count() == 5
    page.click("text=Train with it")
    assert page.input_value("[name=data_max_seq_length]") == "128"


@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_is_wider_than_the_window(page: Page, tmp_path: Path, base: BaseModel, width: int) -> None:
    version = uploaded(page, tmp_path)
    counting.count_tokens(str(version.pk), str(base.pk))
    page.set_viewport_size({"width": width, "height": 800})
    for place in ("findings/", "findings/personal/fix/", "seen/", "seen/?view=text&length=30", "seen/?view=chat"):
        page.goto(f"/datasets/versions/{version.pk}/{place}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, place
