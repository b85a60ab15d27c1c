"""Every page outside the datasets, narrow and wide, light and dark: nothing in it keeps a person out."""

from collections.abc import Iterator

import pytest
from django.conf import settings
from django.urls import reverse
from playwright.sync_api import Browser, Page

from tests.browsing import log_in, looked_at, own_chromium, own_processes
from tests.cast import Cast
from tests.e2e.site import free_port
from tests.make import (
    make_adapter,
    make_api_key,
    make_attempt,
    make_base,
    make_conversation,
    make_invitation,
    make_job,
    make_job_event,
    make_share,
    make_turn,
    make_worker,
)
from webapp.adapters.models import BaseModel
from webapp.jobs.models import JobStatus

pytestmark = pytest.mark.django_db(transaction=True)

PLAIN = (
    *("home", "jobs", "job_new", "adapters", "chat", "base_models", "base_add", "machines", "teams", "settings"),
    *("adapter_import", "account_change_password", "account_logout", "api_reference"),
)
ANSWER = "# Heading\n\nA [link](https://example.com), `code`:\n\n```\n" + "print('a long line') " * 20 + "\n```\n"
TABS = ("overview", "use", "spec", "files", "share")


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with own_chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, django_db_setup: None) -> Iterator[str]:
    """Its address."""
    environment = {"DATA_DIR": str(settings.DATA_DIR), "REDIS_URL": "redis://localhost:1"}
    with own_processes(tmp_path_factory.mktemp("site"), **environment) as running:
        yield running.web(free_port())


def make_jobs(cast: Cast, base: BaseModel) -> dict[str, str]:
    """A job that trains, one that failed and one that made an adapter."""
    running = make_job(cast.team, base=base, status=JobStatus.RUNNING, step=2, steps=60)
    make_attempt(running, worker=make_worker(), log="loading\n")
    for step in (1, 2):
        make_job_event(running, "progress", step=step, of=60, loss=2.5 - step, learning_rate=1e-3, grad_norm=1.0)
        make_job_event(running, "sample", prompt="Who are you?", completion="A model. " * 100, step=step)
        make_job_event(running, "log", level="warning", text="a line of the log " * 10)
    failed = make_job(cast.team, base=base, status=JobStatus.FAILED, reason="out_of_memory", reason_text="No memory.")
    done = make_job(cast.team, base=base, status=JobStatus.SUCCEEDED, adapter=make_adapter(cast.team, base))
    return {f"job that is {one.status}": reverse("job", args=[one.pk]) for one in (running, failed, done)}


def make_pages(cast: Cast) -> dict[str, str]:
    """The address of a page of each kind, with something on it."""
    base = make_base()
    jobs = make_jobs(cast, base)
    make_invitation(cast.team, cast.alice)
    make_api_key(cast.alice)
    conversation = make_conversation(cast.team, cast.alice, base)
    make_turn(conversation, text=ANSWER)
    adapter = cast.team.adapters.get()
    make_share(adapter, created_by=cast.alice)
    return jobs | {
        **{name: reverse(name) for name in PLAIN},
        **{f"adapter, {tab}": reverse("adapter", args=[adapter.pk]) + f"?tab={tab}" for tab in TABS},
        "base model": reverse("base_model", args=[base.pk]),
        "conversation": reverse("conversation", args=[conversation.pk]),
        "team": reverse("team", args=[cast.team.slug]),
        "missing page": "/nowhere/",
    }


def look(page: Page, address: str) -> list[str]:
    return looked_at(page, address, folds="main details")


@pytest.mark.timeout(240)
def test_no_page_keeps_anybody_out(chromium: Browser, cast: Cast, site: str) -> None:
    page = chromium.new_context(base_url=site, has_touch=True).new_page()
    found = {address: look(page, address) for address in ("/accounts/login/", "/accounts/password/reset/")}
    addresses = make_pages(cast)
    log_in(page.context, cast, site, who="alice")
    found |= {name: look(page, address) for name, address in addresses.items()}
    page.context.close()
    assert {name: lines for name, lines in found.items() if lines} == {}
