"""What people ask of the chat: start a conversation, change it, ask, ask again, stop, delete."""

from __future__ import annotations

from functools import partial
from typing import Any
from uuid import UUID, uuid4

from django.db import IntegrityError, transaction

from webapp.accounts.models import Team, User
from webapp.chat import lifecycle, prompts, tasks
from webapp.chat.models import Completion, CompletionStatus, Conversation, Turn
from webapp.chat.sampling import Sampling
from webapp.chat.targets import Target, Targets, chosen_targets
from webapp.common.errors import UserError

TITLE_LENGTH = 80


def start_conversation(
    *,
    user: User,
    team: Team,
    targets: Targets,
    system_prompt: str = "",
    sampling: Sampling | None = None,
    key: UUID | None = None,
) -> Conversation:
    """A conversation without a question. `key`, when given, becomes its id; raises IntegrityError when it is taken."""
    targets.require_usable(user)
    return Conversation.objects.create(
        id=key or uuid4(),
        team=team,
        created_by=user,
        base_model=targets.base_model,
        include_base=targets.include_base,
        adapter_ids=[str(adapter.pk) for adapter in targets.adapters],
        system_prompt=system_prompt,
        sampling=(sampling or Sampling()).to_dict(),
    )


@transaction.atomic
def change_settings(
    *, user: User, conversation: Conversation, targets: Targets, system_prompt: str, sampling: Sampling
) -> None:
    """From the next question on. Not while an answer is awaited: its worker reads these values."""
    targets.require_usable(user)
    conversation = _locked(conversation)
    conversation.base_model = targets.base_model
    conversation.include_base = targets.include_base
    conversation.adapter_ids = [str(adapter.pk) for adapter in targets.adapters]
    conversation.system_prompt = system_prompt
    conversation.sampling = sampling.to_dict()
    conversation.save(
        update_fields=["base_model", "include_base", "adapter_ids", "system_prompt", "sampling", "updated_at"]
    )


@transaction.atomic
def ask(*, user: User, conversation: Conversation, message: str) -> Turn:
    """Put a question to every target. What they may use is looked at anew each time."""
    if not message.strip():
        raise UserError("empty_message")
    conversation = _locked(conversation)
    targets = _usable_targets(conversation, user)
    turns = list(conversation.turns.prefetch_related("completions"))
    number = turns[-1].number + 1 if turns else 1
    turn = Turn(conversation=conversation, number=number, message=message)
    columns = list(enumerate(targets.columns()))
    _require_room(turn, turns, columns)
    turn.save()
    _queue(turn, columns)
    if not conversation.title:
        conversation.title = " ".join(message.split())[:TITLE_LENGTH]
    conversation.save(update_fields=["title", "updated_at"])
    return turn


@transaction.atomic
def start_with_question(*, user: User, message: str, form_key: UUID, **asked: Any) -> Conversation:
    """A conversation with its first question, or neither. The same form sent twice gives the one of the first time."""
    try:
        with transaction.atomic():
            conversation = start_conversation(user=user, key=form_key, **asked)
    except IntegrityError:
        first = Conversation.objects.visible_to(user).filter(pk=form_key, turns__number=1, turns__message=message)
        if found := first.first():
            return found
        # Another question from the same page: a browser that goes back shows the form as it was.
        conversation = start_conversation(user=user, **asked)
    ask(user=user, conversation=conversation, message=message)
    return conversation


@transaction.atomic
def ask_again(*, user: User, turn: Turn, only_failed: bool) -> Turn:
    """The last question once more: to all who answer now, or only for the columns that failed.

    Ended completions never change, so new ones take their places.
    """
    conversation = _locked(turn.conversation)
    turns = list(conversation.turns.prefetch_related("completions"))
    if not turns or turns[-1].pk != turn.pk:
        raise UserError("turn_past")
    turn.conversation = conversation
    targets = _usable_targets(conversation, user)
    columns = list(enumerate(targets.columns()))
    gone = turns[-1].completions.all()
    if only_failed:
        gone = gone.filter(status=CompletionStatus.FAILED)
        columns = _columns_of(list(gone), targets)
    _require_room(turn, turns[:-1], columns)
    gone.delete()
    Turn.objects.filter(pk=turn.pk).update(stop_requested=False)
    _queue(turn, columns)
    return turn


def stop_turn(*, turn: Turn) -> None:
    """Ask the worker to end; what nobody has begun ends at once."""
    Turn.objects.filter(pk=turn.pk).update(stop_requested=True)
    lifecycle.stop_queued(turn.pk)


def delete_conversation(*, conversation: Conversation) -> None:
    """With all its turns. A worker that still writes one finds nothing to write to, and stops."""
    conversation.delete()


def _locked(conversation: Conversation) -> Conversation:
    """The conversation as it is now, for this transaction alone; refused while an answer is awaited."""
    locked = Conversation.objects.select_for_update(of=("self",)).select_related("base_model").get(pk=conversation.pk)
    if lifecycle.has_active(locked.pk):
        raise UserError("turn_running")
    return locked


def _usable_targets(conversation: Conversation, user: User) -> Targets:
    targets = chosen_targets(conversation, user)
    if len(targets.adapters) != len(conversation.adapter_ids):
        raise UserError("target_gone")
    targets.require_usable(user)
    return targets


def _columns_of(failed: list[Completion], targets: Targets) -> list[tuple[int, Target]]:
    """The failed columns with their targets, as long as those are still among who answers."""
    by_key = {(one.adapter is None, one.adapter.pk if one.adapter else None): one for one in targets.columns()}
    found = [(one.place, by_key.get((one.is_base, one.adapter_id))) for one in failed]
    columns = [(place, target) for place, target in found if target]
    if len(columns) != len(failed):
        raise UserError("target_gone")
    return columns


def _require_room(turn: Turn, earlier: list[Turn], columns: list[tuple[int, Target]]) -> None:
    conversation = turn.conversation
    sampling = Sampling.stored(conversation.sampling)
    for place, target in columns:
        messages = prompts.column_messages(
            system_prompt=conversation.system_prompt,
            earlier=earlier,
            adapter_id=target.adapter.pk if target.adapter else None,
            place=place,
            message=turn.message,
        )
        ids = prompts.prompt_ids(conversation.base_model, messages)
        prompts.require_room(conversation.base_model, ids, sampling)


def _queue(turn: Turn, columns: list[tuple[int, Target]]) -> None:
    """One queued completion a column, and the doorbell after commit."""
    Completion.objects.bulk_create(
        Completion(turn=turn, place=place, adapter=one.adapter, is_base=one.adapter is None, label=one.label)
        for place, one in columns
    )
    transaction.on_commit(partial(tasks.ring, turn.pk))
