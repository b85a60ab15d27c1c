"""Answers as Server-Sent Events: chunks as they come, comments while none does, `[DONE]` or an error at the end."""

import json
import logging
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, Protocol

from asgiref.sync import sync_to_async
from django.http import HttpResponseBase

from webapp.api.auth import ApiRequest, authenticate
from webapp.api.chat_answer import Choice, pieces_of
from webapp.api.chat_request import Asked
from webapp.api.names import find_model
from webapp.api.wire import ApiError
from webapp.chat.calls import Piece
from webapp.chat.models import Call
from webapp.common.http import KEEP_ALIVE, sse_response
from webapp.common.request_threads import release_connections

logger = logging.getLogger(__name__)

DONE = "data: [DONE]\n\n"
LOOK_SECONDS = 5.0  # between two looks at whether the person may still have the answer


class Chunks(Protocol):
    """How an endpoint writes its stream."""

    def first(self) -> Iterator[dict[str, Any]]: ...
    def of(self, piece: Piece) -> Iterator[dict[str, Any]]: ...
    def usage(self, choices: list[Choice]) -> dict[str, Any]: ...


def stream_response(request: ApiRequest, asked: Asked, chunks: Chunks, call: Call) -> HttpResponseBase:
    return sse_response(request, _events(request, asked, chunks, call))


async def _events(request: ApiRequest, asked: Asked, chunks: Chunks, call: Call) -> AsyncGenerator[str, None]:
    choices = [Choice() for _ in asked.prompts]
    looked_at = time.monotonic()
    try:
        async with aclosing(pieces_of(call)) as found:
            for chunk in chunks.first():
                yield _data(chunk)
            async for pieces in found:
                if time.monotonic() - looked_at > LOOK_SECONDS:
                    await sync_to_async(require_still_allowed)(request, asked)
                    looked_at = time.monotonic()
                if pieces is None:
                    yield KEEP_ALIVE
                for piece in pieces or ():
                    choices[piece.row].take(piece)
                    for chunk in chunks.of(piece):
                        yield _data(chunk)
    except ApiError as error:
        yield _data(error.body)
        return
    if asked.with_usage:
        yield _data(chunks.usage(choices))
    yield DONE


def require_still_allowed(request: ApiRequest, asked: Asked) -> None:
    """A long answer ends when its key is revoked or its model is no longer shared. Raises ApiError."""
    try:
        again = authenticate(request)
        find_model(again.user, again.team, asked.model)
    finally:
        release_connections()


def _data(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=True)}\n\n"
