"""Answers whose worker has gone: they fail in words, and what nobody has begun is rung again."""

from uuid import UUID

import pytest

from tests.cast import Cast
from tests.make import make_conversation, make_turn
from webapp.adapters.models import BaseModel
from webapp.chat import lifecycle, tasks
from webapp.chat.models import Completion, Conversation
from webapp.chat.reconciling import Answers


@pytest.fixture
def conversation(cast: Cast, base: BaseModel) -> Conversation:
    return make_conversation(cast.team, cast.alice, base)


def look_at(answers: Answers, *moments: float) -> None:
    for now in moments:
        answers.reconcile(now)


def test_a_silent_worker_loses_its_answer_after_the_lease(conversation: Conversation) -> None:
    turn = make_turn(conversation, status="streaming", text="half an ans", beat=7)
    answers = Answers()
    look_at(answers, 0, 10, 20)
    assert turn.completions.get().status == "streaming"
    look_at(answers, 30)
    answer = turn.completions.get()
    assert (answer.status, answer.error, answer.text) == ("failed", lifecycle.WORKER_GONE, "half an ans")


def test_an_answer_outlives_a_database_that_was_away(conversation: Conversation) -> None:
    """Nobody could beat meanwhile; the first look after it must not end what lives."""
    turn = make_turn(conversation, status="streaming", worker="w")
    answers = Answers()
    look_at(answers, 0, 5, 45)
    lifecycle.beat(turn.pk, worker="w")
    look_at(answers, 50)
    assert turn.completions.get().status == "streaming"


def test_a_beating_worker_keeps_its_answer(conversation: Conversation) -> None:
    turn = make_turn(conversation, status="streaming", worker="w")
    answers = Answers()
    for now in range(0, 100, 10):
        look_at(answers, now)
        lifecycle.beat(turn.pk, worker="w")
    assert lifecycle.fail_silent(turn.completions.get().pk, seen_beat=0) is False
    assert turn.completions.get().status == "streaming"


def test_a_worker_that_starts_again_ends_what_it_left(conversation: Conversation) -> None:
    mine = make_turn(conversation, status="streaming", worker="chat@a")
    other = make_turn(conversation, status="streaming", worker="chat@b")
    assert lifecycle.fail_of_worker("chat@a") == 1
    assert mine.completions.get().status == "failed"
    assert other.completions.get().status == "streaming"


def test_ended_answers_never_change(conversation: Conversation) -> None:
    for status in ("finished", "stopped", "failed"):
        answer = make_turn(conversation, status=status, worker="w").completions.get()
        assert not lifecycle.claim(answer.turn_id, worker="w")
        assert not lifecycle.keep_text(answer.pk, "x")
        assert not lifecycle.finish(answer.pk, "x", {})
        assert not lifecycle.stop(answer.pk, "x", {})
        assert not lifecycle.fail(answer.pk, "x")
        assert not lifecycle.fail_silent(answer.pk, seen_beat=0)
    assert lifecycle.fail_of_worker("w") == 0
    assert set(Completion.objects.values_list("text", flat=True)) == {"A model."}


def test_a_turn_is_claimed_once(conversation: Conversation) -> None:
    turn = make_turn(conversation, status="queued")
    assert len(lifecycle.claim(turn.pk, worker="one")) == 1
    assert lifecycle.claim(turn.pk, worker="two") == []
    assert turn.completions.get().worker == "one"


def test_waiting_turns_are_rung_for_once_each(conversation: Conversation, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = make_turn(conversation, status="queued")
    Completion.objects.create(turn=waiting, place=1, is_base=True, label="tiny")
    make_turn(conversation)
    assert lifecycle.waiting_turns() == [waiting.pk]
    rung: list[UUID] = []
    monkeypatch.setattr(tasks, "ring", lambda turn_id: bool(rung.append(turn_id)) or True)
    look_at(Answers(), 0, 5, 10)
    assert rung == [waiting.pk]
