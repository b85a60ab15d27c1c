"""How calls reach the chat worker: rung or found, many at a time, and told when it goes."""

from collections.abc import Callable, Iterator
from typing import Any

import openai
import pytest
from django.db import connection
from openai import OpenAI

from tests.api.answering import Answering
from tests.processes import wait_for
from webapp.adapters.models import BaseModel, BaseStatus
from webapp.chat import call_intake
from webapp.chat.models import Call, CompletionStatus
from webapp.common import streams

pytestmark = pytest.mark.django_db(transaction=True)
Talk = Callable[..., OpenAI]
CAT: Any = [{"role": "user", "content": "cat"}]
OPTIONS = {"temperature": 1.0, "logit_bias": {"2": -100}}


@pytest.fixture
def awake(answering: Answering) -> Iterator[None]:
    """However a test ends, a worker is there for the next one."""
    yield
    if answering.worker._process.poll() is not None:
        answering.worker.start()


def put(base: BaseModel, *, tokens: int = 50) -> Call:
    return Call.objects.create(base_model=base, prompts=[[5, 6, 7]], options=OPTIONS | {"max_tokens": tokens})


def test_more_calls_than_the_queue_has_threads_are_answered_together(
    answering: Answering, base: BaseModel, endless: BaseModel, live_streams: None
) -> None:
    calls = [put(endless, tokens=60_000) for _ in range(16)]
    assert all(call_intake.ring(call.pk) for call in calls)
    wait_for(
        lambda: all(streams.last_event(call.stream) == "pieces" for call in calls), seconds=120, why="all are answered"
    )
    assert Call.objects.filter(status=CompletionStatus.STREAMING).count() == 16
    Call.objects.all().delete()  # nobody waits any more
    after = put(base)
    call_intake.ring(after.pk)
    wait_for(lambda: streams.last_event(after.stream) == "end", seconds=60, why="the engine is free again")


def test_a_worker_that_begins_finds_what_was_rung_before(
    answering: Answering, base: BaseModel, live_streams: None, awake: None
) -> None:
    answering.worker.kill()
    call = put(base)
    answering.worker.start()
    wait_for(lambda: streams.last_event(call.stream) == "end", seconds=120, why="it is answered")


def test_a_worker_that_is_told_to_go_says_so(talk: Talk, answering: Answering, endless: BaseModel, awake: None) -> None:
    asked: Any = {"model": "endless", "messages": CAT, "logit_bias": {"2": -100}, "n": 2}
    stream = iter(talk().chat.completions.create(**asked, stream=True))
    assert any(chunk.choices[0].delta.content for chunk in stream)
    answering.worker.stop()
    with pytest.raises(openai.APIError, match="chat worker was restarted"):
        list(stream)
    assert not Call.objects.exists()


def test_a_connection_that_went_stale_is_not_asked_again(base: BaseModel) -> None:
    call = put(base)
    Call.objects.update(status=CompletionStatus.STREAMING)
    call.base_model.status = BaseStatus.FAILED  # it ends at once, and that is noted
    connection.ensure_connection()
    connection.connection.close()
    connection.close_at = 0.0
    call_intake.Intake("chat@here")._answer(call)
    assert not Call.objects.exists()
