"""Calls of tools inside an answer's text: found in the forms that models have learnt, and told in the wire's."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

OPENING, CLOSING = "<tool_call>", "</tool_call>"
TAGGED = re.compile(f"{OPENING}(.*?)(?:{CLOSING}|$)", re.DOTALL)  # Hermes, Qwen, SmolLM
NAMED = re.compile(r"\s*\{.*\}\s*", re.DOTALL)  # Llama 3: the whole answer is the call


def split_calls(text: str, tools: Collection[str]) -> tuple[str, list[dict[str, Any]]]:
    """The text beside the calls, and the calls; text that only looks like a call stays text."""
    if OPENING in text:
        bodies = [match.group(1) for match in TAGGED.finditer(text)]
        calls = [call for body in bodies for call in _calls_of(body, tools)]
        return (TAGGED.sub("", text).strip(), calls) if calls else (text, [])
    calls = _calls_of(text, tools) if NAMED.fullmatch(text) else []
    return ("", calls) if calls else (text, [])


def _calls_of(body: str, tools: Collection[str]) -> list[dict[str, Any]]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return []
    listed = found if isinstance(found, list) else [found]
    return [call for one in listed if (call := _call(one, tools))]


def _call(found: Any, tools: Collection[str]) -> dict[str, Any] | None:
    if not isinstance(found, dict) or found.get("name") not in tools:
        return None
    arguments = found.get("arguments", found.get("parameters", {}))
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return {
        "id": f"call_{uuid4().hex[:24]}",
        "type": "function",
        "function": {"name": found["name"], "arguments": text},
    }


@dataclass
class ToolWatch:
    """Lets streamed text through until it may be a call; the rest is looked at when the answer has ended."""

    tools: Collection[str]
    _held: str = ""
    _given: bool = False
    _holds_all: bool = field(default=False)

    def add(self, text: str) -> str:
        """What is plain text for certain."""
        if not self.tools:
            return text
        self._held += text
        if self._holds_all or (not self._given and (not self._held.strip() or self._held.lstrip()[0] == "{")):
            return ""
        if OPENING in self._held:
            self._holds_all = True
            return self._give(self._held.index(OPENING))
        sizes = range(min(len(OPENING) - 1, len(self._held)), 0, -1)
        begun = next((size for size in sizes if self._held.endswith(OPENING[:size])), 0)
        return self._give(len(self._held) - begun)

    def rest(self) -> tuple[str, list[dict[str, Any]]]:
        """What was held back, as text and calls."""
        return split_calls(self._held, self.tools) if self.tools else ("", [])

    def _give(self, size: int) -> str:
        given, self._held = self._held[:size], self._held[size:]
        self._given = self._given or bool(given)
        return given
