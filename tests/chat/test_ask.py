"""Asking: one queued completion per target, of models that the person may use now."""

from typing import Any
from uuid import uuid4

import pytest
from django.conf import settings
from kombu import Connection
from kombu.pools import producers

from tests.cast import Cast
from tests.make import make_adapter, make_base, make_share, make_turn
from webapp.adapters.models import BaseModel, BaseStatus
from webapp.celery import app
from webapp.chat import lifecycle, services, tasks
from webapp.chat.models import Completion, Conversation, Turn
from webapp.chat.sampling import Sampling
from webapp.chat.targets import Targets
from webapp.common.errors import UserError


def start(cast: Cast, targets: Targets, who: str = "alice", **extra: object) -> Conversation:
    return services.start_conversation(user=getattr(cast, who), team=cast.team, targets=targets, **extra)  # type: ignore[arg-type]


def ask(cast: Cast, conversation: Conversation, message: str = "Who are you?") -> Turn:
    return services.ask(user=cast.alice, conversation=conversation, message=message)


def refusal(targets: Targets, cast: Cast, who: str = "alice") -> str:
    with pytest.raises(UserError) as caught:
        start(cast, targets, who)
    assert not Conversation.objects.exists()
    return caught.value.code


def test_one_queued_completion_per_target(cast: Cast, both: Targets) -> None:
    conversation = start(cast, both)
    turn = ask(cast, conversation, "  Who are you?\nReally?")
    rows = turn.completions.values_list("place", "label", "is_base", "adapter", "status")
    adapter = both.adapters[0]
    assert list(rows) == [(0, "tiny", True, None, "queued"), (1, "style", False, adapter.pk, "queued")]
    conversation.refresh_from_db()
    assert conversation.title == "Who are you? Really?"


def test_viewers_may_chat(cast: Cast, both: Targets) -> None:
    conversation = start(cast, both, "vera")
    assert services.ask(user=cast.vera, conversation=conversation, message="Hello").completions.count() == 2


def test_a_foreign_adapter_is_refused(cast: Cast, base: BaseModel) -> None:
    foreign = make_adapter(cast.charlie.personal_team, base)
    assert refusal(Targets(base, include_base=True, adapters=[foreign]), cast) == "target_gone"


def test_a_shared_adapter_answers_until_it_is_taken_back(cast: Cast, base: BaseModel) -> None:
    foreign = make_adapter(cast.charlie.personal_team, base)
    share = make_share(foreign, cast.team)
    conversation = start(cast, Targets(base, include_base=False, adapters=[foreign]))
    make_turn(conversation)
    share.delete()
    with pytest.raises(UserError) as caught:
        ask(cast, conversation)
    assert caught.value.code == "target_gone"
    assert conversation.turns.count() == 1


def test_wrong_choices_are_refused(cast: Cast, base: BaseModel) -> None:
    other = make_base(name="other", status=BaseStatus.FETCHING)
    here = [make_adapter(cast.team, base, name=f"a{number}") for number in range(4)]
    there = make_adapter(cast.team, other)
    assert refusal(Targets(base, include_base=False, adapters=[]), cast) == "no_target"
    assert refusal(Targets(base, include_base=True, adapters=here), cast) == "too_many_targets"
    assert refusal(Targets(base, include_base=False, adapters=[here[0], there]), cast) == "mixed_bases"
    assert refusal(Targets(other, include_base=True, adapters=[]), cast) == "base_not_ready"


def test_an_empty_message_is_refused(cast: Cast, both: Targets) -> None:
    with pytest.raises(UserError) as caught:
        ask(cast, start(cast, both), " \n ")
    assert caught.value.code == "empty_message"


def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers(cast: Cast, both: Targets) -> None:
    conversation = start(cast, both, sampling=Sampling(max_tokens=400))
    ask(cast, conversation, "short")
    Completion.objects.update(status="finished", text="cat " * 300)
    with pytest.raises(UserError) as caught:
        ask(cast, conversation, "and a longer one " * 4)
    assert caught.value.code == "prompt_too_long"
    assert "256 are kept for the answer; the model reads 512" in caught.value.text
    assert conversation.turns.count() == 1


def test_the_next_question_waits_for_the_answers(cast: Cast, both: Targets) -> None:
    conversation = start(cast, both)
    ask(cast, conversation)
    for attempt in (
        lambda: ask(cast, conversation),
        lambda: services.change_settings(
            user=cast.alice, conversation=conversation, targets=both, system_prompt="", sampling=Sampling()
        ),
    ):
        with pytest.raises(UserError) as caught:
            attempt()
        assert caught.value.code == "turn_running"


def test_a_question_that_cannot_be_asked_leaves_no_conversation(cast: Cast, both: Targets) -> None:
    with pytest.raises(UserError):
        services.start_with_question(
            user=cast.alice, team=cast.team, targets=both, message="cat " * 2000, form_key=uuid4()
        )
    assert not Conversation.objects.exists()


def test_a_broker_that_is_away_loses_only_the_doorbell(
    cast: Cast, both: Targets, monkeypatch: pytest.MonkeyPatch
) -> None:
    turn = ask(cast, start(cast, both))
    with Connection("redis://127.0.0.1:1/0", transport_options=settings.CELERY_BROKER_TRANSPORT_OPTIONS) as away:
        monkeypatch.setattr(app.amqp, "_producer_pool", producers[away])
        assert not tasks.ring(turn.pk)
    assert lifecycle.waiting_turns() == [turn.pk]


def test_the_doorbell_rings_after_commit(cast: Cast, both: Targets, django_capture_on_commit_callbacks: Any) -> None:
    with django_capture_on_commit_callbacks() as rings:
        ask(cast, start(cast, both))
    assert len(rings) == 1
