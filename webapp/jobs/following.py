"""A job's events as a live stream: from the database, woken by Redis, with no connection held while waiting."""

import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from uuid import UUID

from asgiref.sync import sync_to_async

from webapp.accounts.models import User
from webapp.common import streams
from webapp.common.http import KEEP_ALIVE, STREAM_SECONDS, sse
from webapp.common.request_threads import release_connections
from webapp.jobs.lifecycle import stream_of
from webapp.jobs.models import Job, JobEvent

BATCH = 500
LOOK_ANYWAY_SECONDS = 5.0  # without a wake-up: Redis may be away, and the reader may have lost access


@dataclass(frozen=True)
class News:
    events: list[JobEvent]
    ended: bool


def look(user_id: UUID, job_id: UUID, after: int) -> News | None:
    """Events after a number, as far as this user may see the job now; None when they may not."""
    try:
        user = User.objects.filter(pk=user_id, is_active=True).first()
        job = Job.objects.visible_to(user).filter(pk=job_id).first() if user else None
        if job is None:
            return None
        found = list(job.events.filter(seq__gt=after)[:BATCH])
        return News(found, ended=job.has_ended and len(found) < BATCH)
    finally:
        release_connections()


# In threads of the loop's pool, each of which gives its connection back: a waiting stream holds neither.
alook = sync_to_async(look, thread_sensitive=False)


async def follow_job(user_id: UUID, job_id: UUID, after: int) -> AsyncGenerator[str, None]:
    """Server-Sent Events after the number `after`; ends with the job, with the reader's access, or with its time."""
    started = looked = time.monotonic()
    due = True
    async with aclosing(_wakes(job_id)) as wakes:
        async for wake in wakes:
            now = time.monotonic()
            if now - started >= STREAM_SECONDS:
                return
            due = due or now - looked >= LOOK_ANYWAY_SECONDS or (wake is not None and wake > after)
            news = await alook(user_id, job_id, after) if due else News([], ended=False)
            if news is None:
                return
            looked, due = (now if due else looked), len(news.events) == BATCH
            for event in news.events:
                after = event.seq
                yield told(event)
            if news.ended:
                yield sse("end", {})
                return
            if wake is None:
                yield KEEP_ALIVE


async def _wakes(job_id: UUID) -> AsyncGenerator[int | None, None]:
    """At once, and then: the number of the newest event whenever there is one; None when a second brought nothing."""
    yield None
    async with aclosing(streams.follow(stream_of(job_id))) as entries:
        async for entry in entries:
            yield int(entry[1].get("seq", 0)) if entry else None


def told(event: JobEvent) -> str:
    data = event.data | {"seq": event.seq, "attempt": event.attempt_number, "at": event.at.isoformat()}
    return sse(event.kind, data, event_id=event.seq)
