"""The pages of jobs in a real Chromium: what happens shows by itself, and nothing is lost in a hidden tab."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.urls import reverse
from playwright.sync_api import Browser, Page

from tests.browsing import log_in, own_chromium, own_processes
from tests.cast import Cast
from tests.e2e.site import free_port, watch_console
from tests.jobs.claimed import claimed
from tests.jobs.scripted import progress
from tests.make import make_base, make_checked, make_dataset, make_job
from tests.processes import Processes, wait_for
from trainer import events
from webapp.common import streams
from webapp.datasets.models import VersionStatus
from webapp.jobs import lifecycle
from webapp.jobs.models import Attempt, Job, JobStatus

pytestmark = [pytest.mark.django_db(transaction=True)]

EVIL = "<img src=x onerror=alert(1)></script>"
HIDE = """(hidden) => {
  Object.defineProperty(document, "hidden", { configurable: true, get: () => hidden });
  document.dispatchEvent(new Event("visibilitychange"));
}"""


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with own_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[Processes]:
    """Valkey and gunicorn."""
    with own_processes(tmp_path_factory.mktemp("site")) as found:
        found.broker()
        found.web(free_port())
        yield found


@pytest.fixture
def page(chromium: Browser, cast: Cast, running: Processes, settings: LazySettings) -> Iterator[Page]:
    """Bob's browser, logged in; it must not complain, ask questions or break the policy."""
    settings.CACHE_URL = running.environment["REDIS_URL"]
    streams._client.cache_clear()
    site = running.environment["BASE_URL"]
    context = chromium.new_context(base_url=site)
    context.set_default_timeout(10_000)
    log_in(context, cast, site, who="bob")
    page = context.new_page()
    complaints = watch_console(page)
    yield page
    context.close()
    streams._client.cache_clear()
    assert complaints == []


@pytest.fixture
def attempt(cast: Cast) -> Attempt:
    return claimed(cast)


def open_job(page: Page, attempt: Attempt) -> None:
    """The page with its stream open: what comes from now on is live."""
    with page.expect_response(lambda response: "/events/" in response.url):
        page.goto(reverse("job", args=[attempt.job_id]))


def shows(page: Page, look: Callable[[], bool], why: str) -> None:
    def seen() -> bool:
        page.wait_for_timeout(50)  # lets the browser go on
        return look()

    wait_for(seen, seconds=10, why=why)


def text(page: Page, selector: str) -> str:
    return page.locator(selector).inner_text()


def test_what_happens_shows_by_itself(page: Page, attempt: Attempt) -> None:
    open_job(page, attempt)
    assert text(page, "#job-sentence") == "Starting the trainer."
    told = [events.Phase(name="training"), progress(1, loss=2.5), progress(2, loss=2.25), events.Log(text=EVIL)]
    lifecycle.record_events(attempt, told)
    shows(page, lambda: page.title() == "20% · first try · Lowrank", "the title counts")
    shows(page, lambda: text(page, "#job-sentence") == "Training: step 2 of 10.", "the sentence follows")
    assert text(page, '[data-tile="loss"]') == "2.2500"
    assert text(page, '[data-tile="left"]') == "8.0 s"
    assert text(page, "#log") == EVIL
    assert page.locator("#chart canvas").count() == 1
    lifecycle.fail(attempt, "diverged", "The loss is no number.", "Lower the learning rate.")
    shows(page, lambda: "Lower the learning rate." in text(page, "#job-top"), "the failure is told")
    assert page.locator('[data-tile="left"]').count() == 0
    assert page.title() == "first try · Lowrank"


def test_a_reload_shows_the_same(page: Page, attempt: Attempt) -> None:
    lifecycle.record_events(attempt, [progress(step) for step in range(1, 6)])
    open_job(page, attempt)
    steps = "JSON.parse(document.getElementById('chart-data').textContent).steps"
    assert page.evaluate(steps) == [1, 2, 3, 4, 5]
    assert page.title().startswith("50%")


def test_a_hidden_tab_closes_its_stream_and_misses_nothing(page: Page, attempt: Attempt) -> None:
    open_job(page, attempt)
    page.evaluate(HIDE, True)
    lifecycle.record_events(attempt, [progress(1), progress(2)])
    page.wait_for_timeout(700)
    assert page.title() == "first try · Lowrank"  # not a step was seen yet
    with page.expect_request(lambda request: "/events/?after=1" in request.url):
        page.evaluate(HIDE, False)
    shows(page, lambda: page.title().startswith("20%"), "it catches up")


def test_the_log_waits_for_a_reader_who_scrolled_up(page: Page, attempt: Attempt) -> None:
    def say(first: int, count: int) -> None:
        lifecycle.record_events(attempt, [events.Log(text=f"line {n}") for n in range(first, first + count)])

    say(0, 100)
    open_job(page, attempt)
    at_end = """(() => {
      const { scrollHeight, scrollTop, clientHeight } = document.getElementById("log");
      return scrollHeight - scrollTop - clientHeight < 24;
    })()"""
    assert page.evaluate(at_end)
    say(100, 5)
    shows(page, lambda: "line 104" in text(page, "#log"), "new lines come")
    assert page.evaluate(at_end)
    page.evaluate("document.getElementById('log').scrollTop = 0")
    page.wait_for_timeout(200)
    say(105, 7)
    shows(page, lambda: text(page, "#log-new") == "7", "the button counts")
    assert page.evaluate("document.getElementById('log').scrollTop") == 0
    page.get_by_role("button", name="Jump to end").click()
    assert page.evaluate(at_end)
    assert page.locator("#log-jump").is_hidden()


def test_cancel_asks_first(page: Page, attempt: Attempt) -> None:
    open_job(page, attempt)
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_role("dialog").get_by_role("button", name="Go back").click()
    assert not Job.objects.get().cancel_requested
    page.get_by_role("button", name="Cancel job").click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel job").click()
    shows(page, lambda: "Cancelling" in text(page, "#job-sentence"), "the wish shows")
    lifecycle.cancelled(attempt)
    shows(page, lambda: page.locator("#job-head [data-status=cancelled]").count() == 1, "the end shows")


def test_curves_after_a_resume(page: Page, attempt: Attempt) -> None:
    open_job(page, attempt)
    made: dict[str, Any] = page.evaluate(
        """async () => {
          const { Curves, smoothed } = await import("/static/js/chart.js");
          const empty = { steps: [], loss: [], learning_rate: [], grad_norm: [], eval_steps: [], eval_loss: [] };
          const curves = new Curves(empty);
          const rest = { learning_rate: 0, grad_norm: 0 };
          for (const step of [1, 2, 3, 4, 3, 4, 5]) curves.addProgress({ step, loss: step, ...rest });
          for (const step of [0, 2, 2]) curves.addEvaluation({ step, loss: step });
          return { steps: curves.steps, loss: curves.loss, evals: curves.eval_steps, flat: smoothed([3, 3, 3], 0.9) };
        }"""
    )
    assert made["steps"] == made["loss"] == [1, 2, 3, 4, 5]
    assert made["evals"] == [0, 2]
    assert made["flat"] == pytest.approx([3, 3, 3])


def test_the_form_fills_estimates_and_submits_once(page: Page, cast: Cast) -> None:
    make_dataset(cast.team)
    make_base()
    page.goto(reverse("job_new"))
    before = text(page, "#estimate")
    page.get_by_role("button", name="Thorough").click()
    assert page.input_value("#id_lora_r") == "32"
    assert text(page, '[data-preset][aria-current="true"]') == "Thorough"
    shows(page, lambda: text(page, "#estimate") != before, "the estimate follows")
    page.fill("#id_lora_r", "33")
    shows(page, lambda: page.locator('[data-preset][aria-current="true"]').count() == 0, "no preset is chosen")
    page.get_by_role("button", name="Start training").dblclick()
    page.wait_for_url("**/jobs/*-*/")
    assert Job.objects.get().spec["lora"]["r"] == 33


def test_the_method_follows_the_dataset_and_presets_leave_it(page: Page, cast: Cast, tmp_path: Path) -> None:
    talks, base = make_dataset(cast.team), make_base()
    pair, mark = {"prompt": "a", "chosen": "b", "rejected": "c"}, {"prompt": "a", "completion": "b", "label": True}
    pairs = make_checked(make_dataset(cast.team, name="pairs"), tmp_path, [pair])
    marked = make_checked(make_dataset(cast.team, name="marked"), tmp_path, [mark])
    waiting = make_dataset(cast.team, name="new", status=VersionStatus.INSPECTING).versions.get()
    page.goto(f"{reverse('job_new')}?dataset={talks.versions.get().pk}&base={base.pk}")
    assert page.input_value("#id_data_method") == "sft"
    for version, method in ((pairs, "dpo"), (marked, "kto"), (waiting, "kto"), (talks.versions.get(), "sft")):
        page.select_option("#id_dataset_version", str(version.pk))
        assert page.input_value("#id_data_method") == method
    page.select_option("#id_dataset_version", str(marked.pk))
    for preset in ("Quick", "Balanced", "Thorough"):
        page.get_by_role("button", name=preset).click()
        assert page.input_value("#id_data_method") == "kto"
        assert text(page, '[data-preset][aria-current="true"]') == preset
    page.get_by_role("button", name="Start training").click()
    page.wait_for_url("**/jobs/*-*/")
    assert Job.objects.get().spec["data"]["method"] == "kto"


def test_without_scripts_the_form_still_works(chromium: Browser, cast: Cast, running: Processes) -> None:
    make_dataset(cast.team)
    make_base()
    site = running.environment["BASE_URL"]
    context = chromium.new_context(base_url=site, java_script_enabled=False)
    log_in(context, cast, site, who="bob")
    page = context.new_page()
    page.goto(reverse("job_new"))
    page.click("text=Thorough")
    page.click("text=Start training")
    page.wait_for_url("**/jobs/*-*/")
    assert "1st in line" in page.content()
    assert Job.objects.get().spec["lora"]["r"] == 32
    context.close()


def test_an_ended_job_is_deleted_from_its_menu(page: Page, cast: Cast) -> None:
    job = make_job(cast.team, status=JobStatus.FAILED, reason="stalled", reason_text="Nothing came.")
    page.goto(reverse("job", args=[job.pk]))
    page.get_by_label("More").click()
    page.get_by_role("button", name="Delete the job").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete the job").click()
    page.get_by_text("was deleted").wait_for()
    assert not Job.objects.exists()
