"""HTTP pieces that every app shares: Server-Sent Events and attachments."""

import json
from collections.abc import AsyncIterator
from typing import Any

from django.http import StreamingHttpResponse
from django.utils.http import content_disposition_header

STREAM_SECONDS = 240  # a stream ends by itself and the browser resumes with Last-Event-ID; deploys never wait for it


def sse(event: str, data: dict[str, Any], *, event_id: str | int = "") -> str:
    """One Server-Sent Event. The data is one line of JSON, so no text inside can end the event or forge another."""
    head = f"id: {event_id}\n" if event_id != "" else ""
    return f"{head}event: {event}\ndata: {json.dumps(data, ensure_ascii=True)}\n\n"


KEEP_ALIVE = ": keep-alive\n\n"


def sse_response(events: AsyncIterator[str]) -> StreamingHttpResponse:
    """The one place that makes an event stream. `events` must be an async iterator: a sync one would be buffered."""
    response = StreamingHttpResponse(events, content_type="text/event-stream")
    response["Cache-Control"] = "private, no-store"
    response["X-Accel-Buffering"] = "no"  # nginx would hold events back
    return response


def attachment_response(pieces: AsyncIterator[bytes], *, name: str, content_type: str) -> StreamingHttpResponse:
    """A download that is made while it is sent; the browser saves it and never shows it as a page of ours."""
    response = StreamingHttpResponse(pieces, content_type=content_type)
    response["Content-Disposition"] = content_disposition_header(as_attachment=True, filename=name) or "attachment"
    response["Cache-Control"] = "private, no-store"
    response["X-Accel-Buffering"] = "no"
    return response
