"""How a chat worker answers a turn: one batch on one base model, each column with its own adapter and history."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import closing
from uuid import UUID, uuid4

from trainer.errors import TrainerError
from webapp.chat import lifecycle, prompts
from webapp.chat.engine_door import Ask, Resident, door
from webapp.chat.models import Turn
from webapp.chat.pulse import Pulse
from webapp.chat.relay import Column, Relay
from webapp.chat.sampling import Sampling
from webapp.common.errors import UserError

logger = logging.getLogger(__name__)

ADAPTER_GONE = "The adapter was deleted before it could answer."


def answer(turn_id: UUID, *, worker: str) -> None:
    """Answer whatever of a turn nobody has begun. Ringing twice does no harm."""
    claimed = lifecycle.claim(turn_id, worker=worker)
    turn = Turn.objects.select_related("conversation__base_model").filter(pk=turn_id).first()
    if not claimed or turn is None:
        return
    relay = Relay(turn, claimed)
    with Pulse(turn, claimed, worker=worker) as pulse:
        try:
            _answer(turn, relay, pulse)
        except (TrainerError, UserError) as error:
            relay.fail_rest(_sentence(error))
        except Exception:  # noqa: BLE001 - the border: whatever breaks, the page gets an end and the log the cause
            mark = uuid4().hex[:8]
            logger.exception("turn %s failed (error %s)", turn_id, mark)
            relay.fail_rest(f"Answering failed inside the chat worker (error {mark}); its log has the cause.")


def _answer(turn: Turn, relay: Relay, pulse: Pulse) -> None:
    base = turn.conversation.base_model
    if not base.is_ready:
        raise UserError("base_not_ready", name=base.name)
    asked = _ask_each(turn, relay)
    with door.opened(base) as engine:
        ready = [(column, ask) for column, ask in asked if _hold_adapter(engine, relay, column, ask)]
        pulse.loaded()
        if ready:
            _generate(engine, relay, pulse, ready)
    for column in relay.open_columns:
        if pulse.was_stopped:
            relay.stop(column)
        else:
            relay.fail(column, lifecycle.WORKER_GONE)


def _ask_each(turn: Turn, relay: Relay) -> list[tuple[Column, Ask]]:
    """Each column's prompt; a column that cannot be asked ends here and the others go on."""
    conversation = turn.conversation
    sampling = Sampling.stored(conversation.sampling)
    earlier = list(conversation.turns.filter(number__lt=turn.number).prefetch_related("completions"))
    asked = []
    for column in relay.open_columns:
        completion = column.completion
        if completion.adapter is None and not completion.is_base:
            relay.fail(column, ADAPTER_GONE)
            continue
        messages = prompts.column_messages(
            system_prompt=conversation.system_prompt,
            earlier=earlier,
            adapter_id=completion.adapter_id,
            place=completion.place,
            message=turn.message,
        )
        ids = prompts.prompt_ids(conversation.base_model, messages)
        asked.append((column, Ask(ids, completion.adapter, sampling.to_dict())))
    return asked


def _hold_adapter(engine: Resident, relay: Relay, column: Column, ask: Ask) -> bool:
    try:
        if ask.adapter is not None:
            engine.hold(ask.adapter)
    except (TrainerError, UserError) as error:
        relay.fail(column, _sentence(error))
    return column.is_open


def _generate(engine: Resident, relay: Relay, pulse: Pulse, ready: Sequence[tuple[Column, Ask]]) -> None:
    def should_stop() -> bool:
        return pulse.should_stop() or not relay.open_columns

    with closing(engine.generate([ask for _, ask in ready], should_stop)) as chunks:
        for chunk in chunks:
            column = ready[chunk.row][0]
            numbers = {
                "tokens": chunk.tokens,
                "first_token_ms": chunk.first_token_ms,
                "tokens_per_second": chunk.tokens_per_second,
                "finish": chunk.finish,
            }
            relay.take(column, chunk.text, numbers)
            if chunk.finish:
                relay.finish(column)


def _sentence(error: TrainerError | UserError) -> str:
    return f"{error.text} {error.fix}".strip()
