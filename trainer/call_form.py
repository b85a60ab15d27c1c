"""How a chat template writes a tool call, found by rendering one. No torch."""

import json
from contextlib import suppress
from typing import Any

PROBE = {"probe": 1}  # arguments that are found again in what the template writes
CALL_ID = "probe0001"  # nine letters and digits: Mistral's templates take no others


def tool_called(name: str) -> dict[str, Any]:
    """A function with nothing but its name, as requests describe one."""
    return {"type": "function", "function": {"name": name, "description": "", "parameters": {}}}


def call_of(name: str) -> dict[str, Any]:
    """A turn of the assistant that calls a function."""
    function = {"name": name, "arguments": PROBE}
    return {
        "role": "assistant",
        "content": "",
        "tool_calls": [{"id": CALL_ID, "type": "function", "function": function}],
    }


def arguments_at(text: str, start: int) -> int | None:
    """Where the probe's arguments stand in `text` from `start` on, as JSON; None when they do not."""
    decoder = json.JSONDecoder()
    at = text.find("{", start)
    while at >= 0:
        with suppress(ValueError):
            if decoder.raw_decode(text, at)[0] == PROBE:
                return at
        at = text.find("{", at + 1)
    return None
