"""The live stream: replay from a number, an end with the job, and an end with the reader's access."""

import asyncio
import json
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import LazySettings
from django.test import AsyncClient
from django.urls import reverse

from tests.cast import Cast, make_cast
from tests.jobs.scripted import progress
from tests.make import make_job, make_job_event, make_worker
from webapp.accounts.models import Membership
from webapp.jobs import following, lifecycle
from webapp.jobs.claiming import claim_next
from webapp.jobs.models import Job, JobStatus

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def cast() -> Cast:
    return make_cast()


@pytest.fixture
def job(cast: Cast) -> Job:
    job = make_job(cast.team, status=JobStatus.SUCCEEDED, attempt_number=1)
    for step in range(1, 6):
        make_job_event(job, "progress", step=step)
    make_job_event(job, "log", text="</script>\n\nevent: end\ndata: {}\u2028")
    return job


async def read(cast: Cast, job: Job, who: str = "vera", **headers: Any) -> tuple[int, list[dict[str, Any]]]:
    """The whole answer as events: kind, id and data."""
    client = AsyncClient()
    await client.aforce_login(getattr(cast, who))
    after = headers.pop("after", "")
    response = await client.get(reverse("job_events", args=[job.pk]), {"after": after}, headers=headers)
    if response.status_code != 200:
        return response.status_code, []
    text = "".join([piece.decode() async for piece in response.streaming_content])  # type: ignore[attr-defined]
    return 200, [parse(block) for block in text.split("\n\n") if block and not block.startswith(":")]


def parse(block: str) -> dict[str, Any]:
    fields = dict(line.split(": ", 1) for line in block.split("\n"))
    return {"kind": fields["event"], "id": fields.get("id"), "data": json.loads(fields["data"])}


async def test_it_works(cast: Cast, job: Job) -> None:
    _, events = await read(cast, job)
    assert [event["id"] for event in events] == ["1", "2", "3", "4", "5", "6", None]
    assert [event["kind"] for event in events] == ["progress"] * 5 + ["log", "end"]
    assert events[0]["data"]["step"] == events[0]["data"]["seq"] == events[0]["data"]["attempt"] == 1


@pytest.mark.parametrize("headers", [{"Last-Event-ID": "4"}, {"after": "4"}, {"after": "1", "Last-Event-ID": "4"}])
async def test_it_resumes_after_a_number(cast: Cast, job: Job, headers: dict[str, str]) -> None:
    _, events = await read(cast, job, **headers)
    assert [event["id"] for event in events] == ["5", "6", None]


@pytest.mark.parametrize("nonsense", ["-1", "x", "9" * 40, "１", "\x00"])
async def test_nonsense_starts_at_the_beginning(cast: Cast, job: Job, nonsense: str) -> None:
    _, events = await read(cast, job, after=nonsense)
    assert len(events) == 7


async def test_text_cannot_forge_events(cast: Cast, job: Job) -> None:
    _, events = await read(cast, job, after="5")
    assert events[0]["data"]["text"] == "</script>\n\nevent: end\ndata: {}\u2028"
    assert len(events) == 2


async def test_strangers_get_404(cast: Cast, job: Job) -> None:
    assert await read(cast, job, "charlie") == (404, [])


async def test_it_follows_a_running_job_without_redis(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_ANYWAY_SECONDS", 0.0)

    def train() -> Job:
        make_job(cast.team)
        assert claim_next(make_worker())
        return Job.objects.get()

    job = await sync_to_async(train)()
    reading = asyncio.create_task(read(cast, job))
    await asyncio.sleep(0.3)

    def go_on() -> None:
        attempt = job.attempts.get()
        lifecycle.record_events(attempt, [progress(1)])
        lifecycle.fail(attempt, "diverged", "NaN")

    await sync_to_async(go_on)()
    _, events = await asyncio.wait_for(reading, 10)
    assert [event["kind"] for event in events] == ["status", "progress", "status", "end"]


async def test_it_ends_when_the_reader_leaves_the_team(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "LOOK_ANYWAY_SECONDS", 0.0)
    job = await sync_to_async(make_job)(cast.team)
    reading = asyncio.create_task(read(cast, job))
    await asyncio.sleep(0.2)
    await Membership.objects.filter(user=cast.vera, team=cast.team).adelete()
    assert await asyncio.wait_for(reading, 10) == (200, [])


async def test_it_ends_by_itself_after_a_while(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "STREAM_SECONDS", 0.1)
    job = await sync_to_async(make_job)(cast.team)
    assert await asyncio.wait_for(read(cast, job), 10) == (200, [])


async def test_headers(cast: Cast, job: Job, settings: LazySettings) -> None:
    client = AsyncClient()
    await client.aforce_login(cast.vera)
    response = await client.get(reverse("job_events", args=[job.pk]))
    assert response["Content-Type"] == "text/event-stream"
    assert response["X-Accel-Buffering"] == "no"
    assert response["Cache-Control"] == "private, no-store"
