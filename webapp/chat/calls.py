"""Calls from the web's side: put one, read its answer as it comes, hang up."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from asgiref.sync import sync_to_async

from webapp.adapters.models import Adapter, BaseModel
from webapp.chat import call_intake, call_lifecycle
from webapp.chat.models import Call, CompletionStatus
from webapp.chat.switchboard import HANG_UPS
from webapp.common import streams
from webapp.common.request_threads import release_connections

LOST = "The chat worker's answer got lost on the way."
AWAY = "No chat worker can be reached: the message broker is away."


@dataclass(frozen=True)
class Piece:
    """What one row gained. `scored`: token, log probability, and the likeliest tokens with theirs."""

    row: int
    text: str
    tokens: int
    finish: str | None
    scored: list[tuple[int, float, list[tuple[int, float]]]]


class CallFailed(Exception):
    """The answer broke off. `code` is the trainer's, or `interrupted`: asking again may help."""

    def __init__(self, text: str, code: str) -> None:
        super().__init__(text)
        self.text, self.code = text, code


def put_call(*, base: BaseModel, adapter: Adapter | None, prompts: list[list[int]], options: dict[str, Any]) -> Call:
    """Queue a call and ring. Raises CallFailed at once when nobody can hear it."""
    call = Call.objects.create(base_model=base, adapter=adapter, prompts=prompts, options=options)
    if not call_intake.ring(call.pk):
        call_lifecycle.forget(call.pk)
        raise CallFailed(AWAY, "interrupted")
    return call


def hang_up(call_id: UUID) -> None:
    """Nobody waits any more: the worker ends within a step. After a call's own end it does nothing."""
    try:
        call_lifecycle.forget(call_id)
    finally:
        release_connections()
    streams.append(HANG_UPS, {"call": str(call_id)}, keep=1000)


async def read_call(call: Call) -> AsyncGenerator[list[Piece] | None, None]:
    """Pieces as they come, None in every second without any; ends with the answer, or raises CallFailed.

    Closing it before the end hangs up.
    """
    ended = False
    try:
        async with aclosing(streams.follow(call.stream)) as entries:
            async for found in entries:
                if found is None:
                    await _require_alive(call)
                    yield None
                    continue
                event, data = found[1]["event"], json.loads(found[1]["data"])
                ended = event in ("end", "error")
                if event == "error":
                    raise CallFailed(data["text"], data["code"])
                if event == "end":
                    return
                yield [Piece(*one) for one in data["pieces"]]
    finally:
        if not ended:
            await asyncio.shield(sync_to_async(hang_up)(call.pk))


async def _require_alive(call: Call) -> None:
    """A call that is gone, or failed, without having said so on the stream will never be answered."""
    status, error = await sync_to_async(_look)(call.pk)
    if status == CompletionStatus.FAILED:
        raise CallFailed(error, "interrupted")
    if status is None and not await _has_end(call):
        raise CallFailed(LOST, "interrupted")


async def _has_end(call: Call) -> bool:
    """Whether the end came onto the stream meanwhile: the row goes after it."""
    return await sync_to_async(streams.last_event)(call.stream) in ("end", "error")


def _look(call_id: UUID) -> tuple[str | None, str]:
    try:
        found = Call.objects.filter(pk=call_id).values_list("status", "error").first()
        return found or (None, "")
    finally:
        release_connections()
