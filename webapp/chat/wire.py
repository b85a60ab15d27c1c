"""What travels on a turn's stream and on to its pages: one JSON object per entry, named by its event."""

import json
from typing import Any
from uuid import UUID

from webapp.chat.models import Completion, CompletionStatus

Event = tuple[str, dict[str, Any]]


def units(text: str) -> int:
    """Length as a browser counts it: in UTF-16 units."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def delta(completion_id: UUID, at: int, text: str) -> Event:
    """Text that begins `at` units into the answer: a page that has it already changes nothing."""
    return "delta", {"completion": str(completion_id), "at": at, "text": text}


def loading(completion_ids: list[UUID], seconds: int) -> Event:
    """The model is being loaded, or waits for another to go, since so many seconds."""
    return "loading", {"completions": [str(pk) for pk in completion_ids], "seconds": seconds}


def reading(completion_ids: list[UUID]) -> Event:
    """The model is there and reads the prompt."""
    return "reading", {"completions": [str(pk) for pk in completion_ids]}


def ended(completion: Completion) -> Event:
    """The whole answer again, so that a page which missed a part is right from here on."""
    return "end", {
        "completion": str(completion.pk),
        "status": CompletionStatus(completion.status).value,
        "text": completion.text,
        "error": completion.error,
        "numbers": completion.numbers_text,
        "cut": completion.was_cut,
    }


def pack(event: Event) -> dict[str, str]:
    """As an entry of a Redis stream."""
    name, data = event
    return {"event": name, "data": json.dumps(data)}


def unpack(entry: dict[str, str]) -> Event:
    return entry["event"], json.loads(entry["data"])
