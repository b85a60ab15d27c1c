"""How a chat worker answers a call: its prompts join what the engine is doing, and the text goes to the stream."""

from __future__ import annotations

import json
import logging
import threading
import time
from contextlib import closing
from typing import Any
from uuid import UUID, uuid4

from trainer.errors import TrainerError
from webapp.chat import call_lifecycle
from webapp.chat.engine_door import Ask, door
from webapp.chat.lifecycle import WORKER_GONE
from webapp.chat.models import Call
from webapp.chat.pulse import shutting_down
from webapp.chat.switchboard import switchboard
from webapp.common import streams
from webapp.common.errors import UserError

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 0.015  # the first tokens go at once; who writes faster than this sends several at a time


def answer_call(call_id: UUID, *, worker: str) -> None:
    """Answer a call that nobody has begun. Ringing twice does no harm."""
    call = call_lifecycle.claim(call_id, worker=worker)
    if call is not None:
        answer(call)


def answer(call: Call) -> None:
    """Answer a call that this worker has claimed."""
    sender = Sender(call.stream)
    with switchboard.connected(call.pk) as hung_up:
        try:
            _answer(call, sender, hung_up)
        except (TrainerError, UserError) as error:
            sender.fail(f"{error.text} {error.fix}".strip(), error.code)
        except Exception:  # noqa: BLE001 - the border: whatever breaks, the client gets an end and the log the cause
            mark = uuid4().hex[:8]
            logger.exception("call %s failed (error %s)", call.pk, mark)
            sender.fail(f"Answering failed inside the chat worker (error {mark}); its log has the cause.", "internal")
    call_lifecycle.end(call.pk)


def _answer(call: Call, sender: Sender, hung_up: threading.Event) -> None:
    if not call.base_model.is_ready:
        raise UserError("base_not_ready", name=call.base_model.name)
    asks = asks_of(call)
    with door.opened(call.base_model) as engine:
        if call.adapter is not None:
            engine.hold(call.adapter)
        with closing(engine.generate(asks, lambda: hung_up.is_set() or shutting_down.is_set())) as chunks:
            for chunk in chunks:
                sender.take(chunk)
    sender.flush()
    if sender.finished == len(asks):
        sender.send("end", {})
    elif not hung_up.is_set():
        sender.fail(WORKER_GONE, "interrupted")


def asks_of(call: Call) -> list[Ask]:
    """The rows of a call; each has a seed of its own, so that several answers to one prompt differ."""
    seed = call.options.get("seed")
    bias = {int(token): value for token, value in call.options.get("logit_bias", {}).items()}
    asks = []
    for number, prompt in enumerate(call.prompts):
        own = {"seed": None if seed is None else (seed + number) % 2**63, "logit_bias": bias}
        asks.append(Ask(prompt, call.adapter, call.options | own))
    return asks


class Sender:
    """Puts what the engine gives on a call's stream, in as few entries as liveliness allows."""

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._pending: list[list[Any]] = []
        self._flushed = 0.0
        self.finished = 0

    def take(self, chunk: Any) -> None:
        self.finished += chunk.finish is not None
        if chunk.text or chunk.scored or chunk.finish:
            self._pending.append(packed(chunk))
        now = time.monotonic()
        if now - self._flushed >= FLUSH_SECONDS:
            self._flushed = now
            self.flush()

    def flush(self) -> None:
        if self._pending:
            pending, self._pending = self._pending, []
            self.send("pieces", {"pieces": pending})

    def fail(self, text: str, code: str) -> None:
        self.flush()
        self.send("error", {"text": text, "code": code})

    def send(self, event: str, data: dict[str, Any]) -> None:
        streams.append(self._stream, {"event": event, "data": json.dumps(data)}, keep=100_000, seconds=600)


def packed(chunk: Any) -> list[Any]:
    """Row, text, tokens so far, why it ended, and the scored tokens."""
    scored = [[one.token, one.logprob, [list(pair) for pair in one.top]] for one in chunk.scored]
    return [chunk.row, chunk.text, chunk.tokens, chunk.finish, scored]
