"""The main job, end to end, on real parts: from a fresh server to a chat in which base and adapter differ."""

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.e2e.site import Site, chromium, free_port, watch_console
from tests.postgres import Postgres
from tests.redis_server import RedisServer

QUESTION = "What is the capital of France?"
ANSWER_TOKENS = 40
MINUTES = 60_000

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1200)]


def make_alpaca_file(path: Path) -> Path:
    """Rows in which every answer has the same plain shape, so that a short training shows."""
    facts = {
        "the capital of Spain": "Madrid",
        "the capital of Italy": "Rome",
        "the capital of Japan": "Tokyo",
        "the capital of Egypt": "Cairo",
        "the largest planet": "Jupiter",
        "the colour of grass": "green",
        "the opposite of hot": "cold",
        "the first month": "January",
    }
    rows = [
        {"instruction": f"{ask} {what}?", "input": "", "output": f"Ahoy! It is {answer}, captain."}
        for ask in ("What is", "Tell me, what is", "Do you know what is")
        for what, answer in facts.items()
    ]
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return path


@pytest.fixture(params=["embedded", "postgres-redis"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    with ExitStack() as stack:
        environment = {"CHAT_DTYPE": "float32"}
        if request.param == "postgres-redis":
            database = stack.enter_context(Postgres(free_port()))
            broker = stack.enter_context(RedisServer(free_port()))
            environment |= {"DATABASE_URL": database.url, "REDIS_URL": broker.url}
        yield stack.enter_context(Site(tmp_path / "data", **environment))


@pytest.fixture
def page() -> Iterator[Page]:
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1440, "height": 900})
        page.set_default_timeout(20_000)
        yield page


def test_from_a_fresh_server_to_a_chat_with_the_adapter(site: Site, page: Page, tmp_path: Path) -> None:
    complaints = watch_console(page)
    set_up_owner(site, page)
    upload(site, page, make_alpaca_file(tmp_path / "alpaca.json"))
    wait_for_base_model(site, page)
    start_training(site, page)
    watch_the_chart_move(page)
    adapter = wait_for_the_adapter(page)
    archive = download(page, tmp_path)
    answers = chat_side_by_side(site, page, adapter)
    assert answers["base"] != answers["adapter"], "the training shows"
    assert "Ahoy" in answers["adapter"]
    assert greedy_answers(site, archive, tmp_path) == answers
    assert complaints == []


def set_up_owner(site: Site, page: Page) -> None:
    page.goto(site.setup_link)
    page.get_by_label("Email").fill("alice@example.com")
    page.get_by_label("Name").fill("Alice")
    page.get_by_label("Password").fill("correct horse battery")
    page.get_by_role("button", name="Create account").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Start here")


def upload(site: Site, page: Page, file: Path) -> None:
    page.goto(f"{site.address}/datasets/new/")
    page.set_input_files("input[type=file]", file)
    page.get_by_label("Name").fill("Captains")
    page.get_by_role("button", name="Upload").click()
    expect(page.get_by_text("24 rows, ready for training.")).to_be_visible()


def wait_for_base_model(site: Site, page: Page) -> None:
    """The page refreshes itself while the model is fetched and converted."""
    page.goto(f"{site.address}/models/")
    expect(page.get_by_role("main").get_by_text("Ready", exact=True)).to_be_visible(timeout=5 * MINUTES)


def start_training(site: Site, page: Page) -> None:
    page.goto(f"{site.address}/jobs/new/")
    page.get_by_label("Name").fill("Captain talk")
    page.get_by_label("Epochs").fill("4")
    page.get_by_label("Learning rate").fill("0.001")
    page.get_by_role("button", name="Start training").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Captain talk")


def watch_the_chart_move(page: Page) -> None:
    """The curve grows without a reload; a reload shows it again, from the database."""
    chart = page.locator("#chart")
    expect(chart).to_have_attribute("aria-label", re.compile(r"at step \d+$"), timeout=5 * MINUTES)
    first = chart.get_attribute("aria-label") or ""  # of step 1, or of 2 where both came within a second
    expect(chart).not_to_have_attribute("aria-label", first, timeout=2 * MINUTES)
    assert re.search(r"at step \d+$", chart.get_attribute("aria-label") or "")
    expect(chart.locator("canvas")).to_be_visible()
    page.reload()
    expect(chart).to_have_attribute("aria-label", re.compile(r"at step \d+$"))


def wait_for_the_adapter(page: Page) -> str:
    """The finished job leads with its result; returns the adapter's id."""
    link = page.get_by_role("main").get_by_role("heading").get_by_role("link", name="Captain talk")
    expect(link).to_be_visible(timeout=8 * MINUTES)
    return (link.get_attribute("href") or "").strip("/").split("/")[-1]


def download(page: Page, tmp_path: Path) -> Path:
    with page.expect_download() as started:
        page.get_by_role("link", name="Download").first.click()
    archive = tmp_path / "adapter.zip"
    started.value.save_as(archive)
    return archive


def chat_side_by_side(site: Site, page: Page, adapter: str) -> dict[str, str]:
    """Ask base and adapter the same; returns their answers as the page shows them."""
    page.goto(f"{site.address}/adapters/{adapter}/")
    page.get_by_role("link", name="Chat with it").click()
    page.get_by_text("System prompt and sampling").click()
    page.get_by_label("Longest answer").fill(str(ANSWER_TOKENS))
    page.get_by_label("Message").fill(QUESTION)
    page.get_by_role("button", name="Send").click()
    answers = page.locator("[data-answer]")
    expect(answers).to_have_count(2)
    for place in (0, 1):
        expect(answers.nth(place)).to_have_attribute("data-status", "finished", timeout=2 * MINUTES)
    texts = [answers.nth(place).locator("[data-text]").inner_text() for place in (0, 1)]
    base_first = "SmolLM2" in answers.nth(0).locator("h3").inner_text()
    return dict(zip(("base", "adapter") if base_first else ("adapter", "base"), map(plain, texts), strict=True))


def plain(text: str) -> str:
    """Text without what markdown turns into layout."""
    return " ".join(text.split())


def greedy_answers(site: Site, archive: Path, tmp_path: Path) -> dict[str, str]:
    """The same question to plain transformers and PEFT in float32, in a process that has nothing of ours."""
    folder = tmp_path / "unpacked"
    with zipfile.ZipFile(archive) as file:
        file.extractall(folder)
    adapter = next(folder.rglob("adapter_config.json")).parent
    base = next((tmp_path / "data" / "files" / "bases").rglob("config.json")).parent
    script = Path(__file__).with_name("plain_peft.py")
    done = subprocess.run(
        [sys.executable, str(script), str(base), str(adapter), QUESTION, str(ANSWER_TOKENS)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {who: plain(text) for who, text in json.loads(done.stdout.splitlines()[-1]).items()}
