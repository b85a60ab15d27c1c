"""The row table in a real Chromium: keys, the row beside it, marks in place, and the same by links alone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browsing import page_of
from tests.cast import Cast
from tests.datasets.surveyed import asked, make_surveyed
from tests.make import make_dataset
from tests.processes import wait_for
from webapp.datasets.models import DatasetVersion, RowMark, RowTag

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = [asked(f"Question {number}?", f"Answer {number}. " + "And more of it. " * 20) for number in range(1, 71)]
ROWS[2] = asked("<img src=x onerror=window.pwned=1>", "</mark><script>window.pwned=2</script> needle")


@pytest.fixture
def version(cast: Cast, tmp_path: Path) -> DatasetVersion:
    return make_surveyed(make_dataset(cast.team), tmp_path, ROWS)


@pytest.fixture
def page(chromium: Browser, cast: Cast, site: str, version: DatasetVersion) -> Iterator[Page]:
    """Bob's browser on the table."""
    with page_of(chromium, cast, site) as page:
        page.goto(f"/datasets/versions/{version.pk}/rows/")
        yield page


def current(page: Page) -> str | None:
    number: str | None = page.evaluate("document.activeElement.closest('tr[data-number]')?.dataset.number")
    return number


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def test_rows_are_walked_and_opened_by_keys(page: Page) -> None:
    press(page, "j", "j", "j", "k")
    assert current(page) == "2"
    focused = page.evaluate("getComputedStyle(document.activeElement.closest('tr')).boxShadow")
    assert focused != "none", "the current row is to be seen"
    press(page, "Enter")
    page.wait_for_selector('[data-row="2"]')
    assert page.url.endswith("?row=2")
    press(page, "j")
    page.wait_for_selector('[data-row="3"]')
    assert page.locator('tr[data-number="3"]').get_attribute("aria-current") == "true"
    assert "<img src=x" in page.locator(".row-panel .bubble-user").inner_text()
    press(page, "Escape")
    page.wait_for_selector("[data-row]", state="detached")
    assert "row=" not in page.url
    assert current(page) == "3"


def test_a_reload_shows_the_same(page: Page) -> None:
    press(page, "j", "o")
    page.wait_for_selector('[data-row="1"]')
    page.reload()
    assert page.locator('[data-row="1"]').count() == 1
    assert page.locator('tr[data-number="1"]').get_attribute("aria-current") == "true"


def test_searching_by_keys_marks_what_was_found(page: Page) -> None:
    press(page, "/")
    page.keyboard.type("needle")
    press(page, "Enter")
    page.wait_for_selector("tr[data-number] mark")
    assert page.locator("tr[data-number]").count() == 1
    assert page.locator("mark").inner_text() == "needle"
    assert "q=needle" in page.url
    page.go_back()
    wait_for(lambda: page.locator("tr[data-number]").count() == 50, seconds=5)


def test_nothing_happens_while_somebody_types(page: Page) -> None:
    press(page, "j", "/")
    page.keyboard.type("jsx?1")
    assert page.input_value("[data-search]") == "jsx?1"
    assert page.locator("dialog[open]").count() == 0
    assert page.locator("[data-choose]:checked").count() == 0
    assert not RowMark.objects.exists()
    press(page, "Escape")
    assert page.evaluate("document.activeElement.tagName") == "BODY"


def test_a_star_by_its_key_stays_where_one_was(page: Page) -> None:
    press(page, "j", "j", "s")
    page.wait_for_selector('tr[data-number="2"] .star.is-on')
    assert RowMark.objects.get().starred
    wait_for(lambda: current(page) == "2", seconds=5)
    press(page, "s")
    page.wait_for_selector('tr[data-number="2"] .star:not(.is-on)')


def test_a_rating_by_its_key(page: Page) -> None:
    press(page, "j", "o")
    page.wait_for_selector('[data-row="1"]')
    press(page, "4")
    page.wait_for_selector('.row-rating [aria-pressed="true"]')
    assert RowMark.objects.get().rating == 4


def test_chosen_rows_are_tagged_together(page: Page) -> None:
    assert not page.locator("[data-bulk]").is_visible()
    press(page, "j", "x", "j", "j", "x")
    assert page.locator("[data-chosen]").inner_text() == "2 rows chosen"
    page.fill("[data-bulk] [name=tag]", "look again")
    press(page, "Enter")
    page.wait_for_selector('tr[data-number="3"] .row-tags')
    assert RowTag.objects.filter(name="look again").count() == 2
    assert page.locator("[data-choose]:checked").count() == 2, "so that more can be done with them"


def test_long_cells_open_in_place(page: Page) -> None:
    cell = page.locator('tr[data-number="1"] details.cell').first
    closed = cell.bounding_box()
    press(page, "j", "e")
    opened = cell.bounding_box()
    assert closed
    assert opened
    assert opened["height"] > 1.5 * closed["height"]
    cell.locator("summary").click()
    assert cell.bounding_box() == closed


def test_pages_turn_by_keys(page: Page) -> None:
    press(page, "n")
    page.wait_for_selector('tr[data-number="51"]')
    assert current(page) == "51"
    press(page, "p")
    page.wait_for_selector('tr[data-number="1"]')
    page.fill("#rows-jump", "60")
    press(page, "Enter")
    page.wait_for_selector('tr[data-number="60"]')
    assert page.locator("tr[data-number]").first.get_attribute("data-number") == "60"


def test_the_keys_are_listed(page: Page) -> None:
    press(page, "?")
    assert "Next and previous row" in page.locator("dialog[open]").inner_text()
    press(page, "Escape")
    assert page.locator("dialog[open]").count() == 0


def test_a_row_is_copied_as_json(page: Page) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    press(page, "j", "o")
    page.wait_for_selector('[data-row="1"]')
    page.click("[aria-label='Copy the row as JSON']")
    page.wait_for_selector(".toast")
    assert '"content": "Question 1?"' in page.evaluate("navigator.clipboard.readText()")


@pytest.mark.parametrize("width", [1440, 390])
def test_nothing_is_wider_than_the_window(page: Page, version: DatasetVersion, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    for query in ("", "?row=2", "?q=needle&longest=900"):
        page.goto(f"/datasets/versions/{version.pk}/rows/{query}")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_everything_works_without_a_script(chromium: Browser, cast: Cast, site: str, version: DatasetVersion) -> None:
    with page_of(chromium, cast, site, java_script_enabled=False) as page:
        page.goto(f"/datasets/versions/{version.pk}/rows/")
        page.fill("[data-search]", "question")
        page.click(".rows-go")
        page.click("[aria-label='Next page']")
        assert page.locator("tr[data-number]").first.get_attribute("data-number") == "52"
        page.click("[aria-label='Open row 53']")
        assert page.locator('[data-row="53"]').count() == 1
        page.click('tr[data-number="53"] .star')
        assert RowMark.objects.get().starred
        assert page.locator('tr[data-number="53"] .star.is-on').count() == 1
        assert "q=question" in page.url
        page.check("[aria-label='Choose row 54']")
        page.fill("[data-bulk] [name=tag]", "later")
        page.locator("[data-bulk]").get_by_role("button", name="Tag", exact=True).click()
        assert page.locator('tr[data-number="54"] .row-tags').inner_text() == "later"


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844), (390, 640)])
def test_nothing_of_the_export_is_cut_off(
    chromium: Browser, cast: Cast, site: str, version: DatasetVersion, width: int, height: int
) -> None:
    with page_of(chromium, cast, site, who="vera", viewport={"width": width, "height": height}) as page:
        page.goto(f"/datasets/versions/{version.pk}/rows/")
        page.click("[aria-label=Export]")
        panel = page.locator(".rows-export")
        ask = page.get_by_role("button", name="How many rows are left out?")
        assert inside(ask.bounding_box(), panel.bounding_box())
        ask.click()
        told = panel.locator(".rows-losses p").last
        told.wait_for()
        wait_for(lambda: inside(told.bounding_box(), panel.bounding_box()), why="what was asked for is shown")


def inside(box: Any, outer: Any) -> bool:
    """Whether all of its height is to be seen."""
    return bool(box["y"] >= outer["y"] and box["y"] + box["height"] <= outer["y"] + outer["height"])
