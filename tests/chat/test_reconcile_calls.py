"""Calls over the API that nobody answers fail in words: their worker fell silent, or none came for them."""

from datetime import timedelta

from django.utils import timezone

from tests.cast import Cast
from webapp.adapters.models import BaseModel
from webapp.chat import call_lifecycle
from webapp.chat.lifecycle import WORKER_GONE
from webapp.chat.models import Call
from webapp.chat.reconciling import Answers


def make_call(base: BaseModel, *, age: timedelta = timedelta(), **values: object) -> Call:
    call = Call.objects.create(base_model=base, prompts=[[1, 2]], options={}, **values)
    Call.objects.filter(pk=call.pk).update(created_at=timezone.now() - age)
    return call


def test_a_silent_worker_loses_its_call_after_the_lease(cast: Cast, base: BaseModel) -> None:
    call = make_call(base, status="streaming", beat=7)
    answers = Answers()
    for now in (0, 10, 20):
        answers.reconcile(now)
    assert Call.objects.get(pk=call.pk).status == "streaming"
    answers.reconcile(30)
    call.refresh_from_db()
    assert (call.status, call.error) == ("failed", WORKER_GONE)


def test_a_call_that_no_worker_came_for_fails_before_its_client_gives_up(cast: Cast, base: BaseModel) -> None:
    fresh = make_call(base, age=call_lifecycle.UNHEARD_AFTER - timedelta(seconds=5))
    old = make_call(base, age=call_lifecycle.UNHEARD_AFTER + timedelta(seconds=1))
    taken = make_call(base, age=timedelta(hours=1), status="streaming", beat=1)
    Answers().reconcile(0)
    assert Call.objects.get(pk=old.pk).error == call_lifecycle.UNHEARD
    assert [Call.objects.get(pk=one.pk).status for one in (fresh, old, taken)] == ["queued", "failed", "streaming"]
