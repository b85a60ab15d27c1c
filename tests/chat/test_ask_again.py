"""Asking again: new completions take the places of old ones; what has ended never changes."""

import pytest

from tests.cast import Cast
from tests.make import make_conversation, make_turn
from webapp.adapters.models import BaseModel
from webapp.chat import lifecycle, services
from webapp.chat.models import Completion, Turn
from webapp.chat.targets import Targets
from webapp.common.errors import UserError


@pytest.fixture
def turn(cast: Cast, both: Targets) -> Turn:
    """Answered by the base model, failed for the adapter, and stopped before."""
    conversation = services.start_conversation(user=cast.alice, team=cast.team, targets=both)
    turn = services.ask(user=cast.alice, conversation=conversation, message="Who are you?")
    services.stop_turn(turn=turn)
    turn.completions.filter(place=0).update(status="finished", text="A model.")
    turn.completions.filter(place=1).update(status="failed", error="Broken.")
    return turn


def test_only_what_failed_is_asked_again(cast: Cast, turn: Turn) -> None:
    kept, failed = turn.completions.all()
    services.ask_again(user=cast.alice, turn=turn, only_failed=True)
    first, second = turn.completions.all()
    assert (first.pk, first.text, first.status) == (kept.pk, "A model.", "finished")
    assert (second.place, second.label, second.status, second.error) == (1, "style", "queued", "")
    assert not Completion.objects.filter(pk=failed.pk).exists()
    assert lifecycle.stop_requested(turn.pk) is False


def test_everything_is_asked_again(cast: Cast, turn: Turn) -> None:
    before = set(turn.completions.values_list("pk", flat=True))
    services.ask_again(user=cast.alice, turn=turn, only_failed=False)
    assert set(turn.completions.values_list("status", flat=True)) == {"queued"}
    assert not before & set(turn.completions.values_list("pk", flat=True))


def test_only_the_last_question_can_be_asked_again(cast: Cast, turn: Turn) -> None:
    make_turn(turn.conversation)
    with pytest.raises(UserError) as caught:
        services.ask_again(user=cast.alice, turn=turn, only_failed=False)
    assert caught.value.code == "turn_past"


def test_not_while_an_answer_is_awaited(cast: Cast, turn: Turn) -> None:
    turn.completions.filter(place=0).update(status="streaming")
    with pytest.raises(UserError) as caught:
        services.ask_again(user=cast.alice, turn=turn, only_failed=True)
    assert caught.value.code == "turn_running"


def test_a_column_whose_adapter_is_gone_cannot_be_retried(cast: Cast, turn: Turn, both: Targets) -> None:
    both.adapters[0].delete()
    with pytest.raises(UserError) as caught:
        services.ask_again(user=cast.alice, turn=turn, only_failed=True)
    assert caught.value.code == "target_gone"
    assert turn.completions.count() == 2


def test_a_worker_that_still_writes_an_old_answer_changes_nothing(cast: Cast, base: BaseModel) -> None:
    turn = make_turn(make_conversation(cast.team, cast.alice, base), status="failed")
    old = turn.completions.get()
    services.ask_again(user=cast.alice, turn=turn, only_failed=True)
    assert lifecycle.keep_text(old.pk, "late") is False
    assert lifecycle.finish(old.pk, "late", {}) is False
    assert turn.completions.get().text == ""
