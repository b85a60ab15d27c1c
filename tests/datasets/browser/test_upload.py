"""Bringing data in with a real browser: dropped, pasted, several, broken off, mapped, corrected, until it is ready."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.datasets.browser.breaking_proxy import BreakingProxy
from tests.e2e.site import Site, watch_console

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
PASSWORD = "correct horse battery"
GOOD = '{"instruction": "Who are you?", "output": "I am Lowrank."}\n'
BAD = '{"instruction": "Who are you?"}\n'
FOREIGN = '{"frage": "Who are you?", "antwort": "I am Lowrank."}\n'
MB = 1024 * 1024

DROP = """([zone, files]) => {
  const carried = new DataTransfer();
  for (const [name, text] of files) carried.items.add(new File([text], name));
  const input = zone.querySelector("input");
  input.files = carried.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}"""
PASTE = """(text) => {
  const clipboardData = new DataTransfer();
  clipboardData.setData("text/plain", text);
  document.body.dispatchEvent(new ClipboardEvent("paste", { clipboardData, bubbles: true, cancelable: true }));
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Site(tmp_path_factory.mktemp("site") / "data", DEMO_MODEL="false") as site:
        yield site


@pytest.fixture(scope="module")
def context(site: Site, chromium: Browser) -> Iterator[BrowserContext]:
    """A browser in which the owner is logged in; cookies know no ports, so the proxy's address has them too."""
    context = chromium.new_context(viewport={"width": 1440, "height": 900})
    page = context.new_page()
    page.goto(site.setup_link)
    page.get_by_label("Email").fill("alice@example.com")
    page.get_by_label("Name").fill("Alice")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Create account").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Start here")
    page.close()
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext) -> Iterator[Page]:
    page = context.new_page()
    page.set_default_timeout(20_000)
    yield page
    page.close()


@pytest.fixture
def proxy(site: Site) -> Iterator[BreakingProxy]:
    proxy = BreakingProxy(site.port)
    yield proxy
    proxy.close()


def new(page: Page, address: str) -> None:
    page.goto(f"{address}/datasets/new/")


def send(page: Page) -> None:
    page.get_by_role("button", name="Upload", exact=True).click()


def drop(page: Page, *files: tuple[str, str]) -> None:
    page.evaluate(DROP, [page.locator(".drop").element_handle(), [list(one) for one in files]])


def test_dropped_pasted_and_several(site: Site, page: Page) -> None:
    complaints = watch_console(page)
    new(page, site.address)
    drop(page, ("dropped.jsonl", GOOD * 2))
    expect(page.get_by_text("dropped.jsonl")).to_be_visible()
    send(page)
    expect(page.get_by_text("2 rows, ready for training.")).to_be_visible()
    new(page, site.address)
    page.evaluate(PASTE, GOOD * 3)
    expect(page.get_by_label("Or paste rows")).to_have_value(GOOD * 3)
    send(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("pasted")
    expect(page.get_by_text("3 rows, ready for training.")).to_be_visible()
    new(page, site.address)
    expect(page.get_by_label("Join the files")).to_be_hidden()
    drop(page, ("one.jsonl", GOOD), ("two.jsonl", GOOD))
    expect(page.get_by_label("Join the files")).to_be_visible()
    send(page)
    expect(page.get_by_text("2 datasets are being checked.")).to_be_visible()
    expect(page.get_by_role("link", name="one", exact=True)).to_be_visible()
    expect(page.get_by_role("link", name="two", exact=True)).to_be_visible()
    new(page, site.address)
    drop(page, ("one.jsonl", GOOD), ("two.jsonl", GOOD * 3))
    page.get_by_label("Join the files").check()
    page.get_by_label("Name").fill("Joined")
    send(page)
    expect(page.get_by_text("4 rows, ready for training.")).to_be_visible()
    assert complaints == []


def test_a_file_is_dragged_in_from_the_desktop(site: Site, page: Page, tmp_path: Path) -> None:
    """The browser's own drag of a file, as the mouse makes it: nothing in the page plays a part in it."""
    complaints = watch_console(page)
    new(page, site.address)
    file = tmp_path / "dragged.jsonl"
    file.write_text(GOOD * 5)
    box = page.locator(".drop").bounding_box()
    assert box
    middle = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    mouse = page.context.new_cdp_session(page)
    for step in ("dragEnter", "dragOver", "drop"):
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        mouse.send("Input.dispatchDragEvent", {"type": step, "data": data, **middle})
    expect(page.get_by_text("dragged.jsonl")).to_be_visible()
    send(page)
    expect(page.get_by_text("5 rows, ready for training.")).to_be_visible()
    assert complaints == []


def test_from_errors_over_columns_to_ready(site: Site, page: Page) -> None:
    complaints = watch_console(page)
    new(page, site.address)
    drop(page, ("spoilt.jsonl", GOOD * 2 + BAD + GOOD[:30] + "\n"))
    send(page)
    expect(page.get_by_role("alert").filter(has_text="2 of 4 rows cannot be used.")).to_be_visible()
    page.get_by_role("link", name=re.compile("1 × invalid JSON")).click()
    expect(page.locator(".error-table tbody tr")).to_have_count(1)
    with page.expect_download() as bad:
        page.get_by_role("link", name="Download the bad lines").click()
    assert [json.loads(line)["line"] for line in Path(bad.value.path()).read_text().splitlines()] == [3, 4]
    page.get_by_role("link", name="Upload a corrected file").click()
    drop(page, ("foreign.jsonl", FOREIGN * 2 + '{"frage": 5}\n'))
    send(page)
    page.get_by_role("link", name="Choose the columns").click()
    choose_columns(page)
    page.get_by_role("button", name="Read it so").click()
    page.get_by_role("button", name="Go on with the 2 good rows").click()
    expect(page.get_by_text("2 rows, ready for training.")).to_be_visible()
    expect(page.get_by_text("Read as you said")).to_be_visible()
    assert complaints == []


def choose_columns(page: Page) -> None:
    page.get_by_label("Question", exact=True).select_option("frage")
    page.get_by_label("Answer", exact=True).select_option("antwort")
    preview = page.locator(".mapping-preview")
    expect(preview.locator(".bubble-assistant").first).to_contain_text("I am Lowrank.")
    page.get_by_text("Conversation", exact=True).first.click()
    expect(page.get_by_label("Answer", exact=True)).to_have_count(0)
    page.get_by_text("Question and answer", exact=True).click()
    page.get_by_label("Question", exact=True).select_option("frage")
    page.get_by_label("Answer", exact=True).select_option("antwort")
    expect(preview.locator(".bubble-assistant").first).to_contain_text("I am Lowrank.")


def large_file(folder: Path, megabytes: int) -> Path:
    path = folder / "large.jsonl"
    row = json.dumps({"instruction": "Who are you?", "output": "x" * 4000}) + "\n"
    path.write_text(row * (megabytes * MB // len(row)))
    return path


def rows_of(path: Path) -> str:
    return f"{path.read_text().count(chr(10)):,} rows, ready for training."


def test_a_broken_connection_is_taken_up_again(page: Page, proxy: BreakingProxy, tmp_path: Path) -> None:
    file = large_file(tmp_path, 30)
    new(page, f"http://localhost:{proxy.port}")
    page.set_input_files("input[type=file]", file)
    proxy.sent, proxy.allow = 0, 20 * MB
    send(page)
    expect(page.get_by_text("The connection is lost. Trying again")).to_be_visible()
    proxy.allow = None
    expect(page.get_by_text(rows_of(file))).to_be_visible(timeout=60_000)
    assert proxy.sent < file.stat().st_size + 9 * MB  # at most the part that was on its way went twice


def test_after_a_reload_it_goes_on_where_it_stood(page: Page, proxy: BreakingProxy, tmp_path: Path) -> None:
    file = large_file(tmp_path, 30)
    address = f"http://localhost:{proxy.port}"
    new(page, address)
    page.set_input_files("input[type=file]", file)
    proxy.allow = 20 * MB
    send(page)
    expect(page.get_by_text("The connection is lost. Trying again")).to_be_visible()
    proxy.allow = None
    page.on("dialog", lambda dialog: dialog.accept())
    new(page, address)
    waiting = page.locator("[data-unfinished]")
    expect(waiting).to_contain_text("Choose the file again to go on.")
    proxy.sent = 0
    page.set_input_files("input[type=file]", file)
    expect(waiting).to_contain_text("Goes on from there.")
    send(page)
    expect(page.get_by_text(rows_of(file))).to_be_visible(timeout=60_000)
    assert proxy.sent < file.stat().st_size - 8 * MB


def test_pause_and_cancel(site: Site, page: Page, tmp_path: Path) -> None:
    client = page.context.new_cdp_session(page)
    client.send("Network.enable")
    slow = {"offline": False, "latency": 1, "downloadThroughput": -1, "uploadThroughput": 4 * MB}
    client.send("Network.emulateNetworkConditions", slow)
    new(page, site.address)
    page.set_input_files("input[type=file]", large_file(tmp_path, 60))
    send(page)
    expect(page.get_by_text(re.compile(r"% of 6\d MB · .*MB/s · .* left"))).to_be_visible()
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_text("Paused.")).to_be_visible()
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_role("status").filter(has_text="Uploading")).to_be_visible()
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("button", name="Upload", exact=True)).to_be_enabled()
    expect(page.locator("progress[aria-label=Upload]")).to_be_hidden()
    page.wait_for_timeout(500)
    page.reload()
    expect(page.locator("[data-unfinished]")).to_have_count(0)
