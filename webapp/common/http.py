"""HTTP pieces that every app shares: Server-Sent Events and attachments."""

import asyncio
import json
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from typing import Any, TypeVar

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, StreamingHttpResponse
from django.utils.http import content_disposition_header

from webapp.common.request_threads import let_go_of_thread

Piece = TypeVar("Piece", str, bytes)

STREAM_SECONDS = 240  # a stream ends by itself and the browser resumes with Last-Event-ID; deploys never wait for it


def sse(event: str, data: dict[str, Any], *, event_id: str | int = "") -> str:
    """One Server-Sent Event. The data is one line of JSON, so no text inside can end the event or forge another."""
    head = f"id: {event_id}\n" if event_id != "" else ""
    return f"{head}event: {event}\ndata: {json.dumps(data, ensure_ascii=True)}\n\n"


KEEP_ALIVE = ": keep-alive\n\n"


def sse_response(request: HttpRequest, events: AsyncGenerator[str, None]) -> StreamingHttpResponse:
    """The one place that makes an event stream. `events` must be an async generator: a sync one would be buffered.

    Raises PermissionDenied when the page of another site asks: it could hold as many streams as it likes.
    """
    if request.headers.get("Sec-Fetch-Site", "none") not in ("none", "same-origin"):
        raise PermissionDenied
    response = StreamingHttpResponse(_without_connection(events), content_type="text/event-stream")
    response["Cache-Control"] = "private, no-store"
    response["X-Accel-Buffering"] = "no"  # nginx would hold events back
    return response


def attachment_response(pieces: AsyncGenerator[bytes, None], *, name: str, content_type: str) -> StreamingHttpResponse:
    """A download that is made while it is sent; the browser saves it and never shows it as a page of ours."""
    response = StreamingHttpResponse(_without_connection(pieces), content_type=content_type)
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name) or "attachment"
    response["Cache-Control"] = "private, no-store"
    response["X-Accel-Buffering"] = "no"
    return response


async def in_threads(pieces: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Read the disk beside the event loop. An async server would collect a plain iterator before sending anything."""
    while piece := await asyncio.to_thread(next, pieces, b""):
        yield piece


async def _without_connection(pieces: AsyncGenerator[Piece, None]) -> AsyncGenerator[Piece, None]:
    """The same pieces. First the thread on which middleware and view looked up the reader is given back, with its
    connection: the request lives as long as the stream, and hundreds of them would each hold one."""
    await let_go_of_thread()
    async with aclosing(pieces):
        async for piece in pieces:
            yield piece
