"""Calls of tools inside an answer's text: found in the forms that models have learnt, and told in the wire's."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from webapp.api.tool_choice import Forced

OPENING, CLOSING = "<tool_call>", "</tool_call>"
TAGGED = re.compile(f"{OPENING}(.*?)(?:{CLOSING}|$)", re.DOTALL)  # Hermes, Qwen, SmolLM
NAMED = re.compile(r"\s*(\{.*\}|\[.*\])\s*", re.DOTALL)  # Llama 3, Mistral: the whole answer is calls


def answer_of(text: str, tools: Collection[str], forced: Forced) -> tuple[str, list[dict[str, Any]]]:
    """The text beside the calls, and the calls, of a whole answer; an answer that had to begin with one has one."""
    content, calls = split_calls(text, tools)
    begun = next(
        ((name, rest) for name in forced.texts if (rest := _after(forced.texts[name], text)) is not None), None
    )
    if begun is None:
        return content, calls
    if not calls:  # the model has not ended it as it should: what it wrote is the arguments
        calls = [_as_call(begun[0], _arguments(begun[1]))]
    return "", calls[:1] if forced.is_named else calls


def finish_of(finish: str | None, calls: list[dict[str, Any]]) -> str | None:
    """Why an answer ended; one that broke off within a call has its length for a reason."""
    if not calls or (finish == "length" and not _is_json(calls[-1]["function"]["arguments"])):
        return finish
    return "tool_calls"


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
    return _as_call(found["name"], text)


def _as_call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": f"call_{uuid4().hex[:24]}", "type": "function", "function": function}


def _after(beginning: str, text: str) -> str | None:
    """What follows `beginning` in the text, None when it begins otherwise. Decoders differ in white space alone."""
    at = 0
    for letter in "".join(beginning.split()):
        while at < len(text) and text[at].isspace():
            at += 1
        if at == len(text) or text[at] != letter:
            return None
        at += 1
    return text[at:]


def _arguments(rest: str) -> str:
    """The JSON object that `rest` begins with; all of it up to the end of a call when it is none."""
    text = rest.lstrip()
    try:
        found, end = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return text.partition(CLOSING)[0].rstrip()
    return text[:end] if isinstance(found, dict) else text.partition(CLOSING)[0].rstrip()


def _is_json(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


@dataclass
class ToolWatch:
    """Lets streamed text through until it may be a call; the rest is looked at when the answer has ended."""

    tools: Collection[str]
    forced: Forced = field(default_factory=Forced)
    _held: str = ""
    _given: bool = False
    _holds_all: bool = field(init=False)

    def __post_init__(self) -> None:
        self._holds_all = bool(self.forced.texts)

    def add(self, text: str) -> str:
        """What is plain text for certain."""
        if not self.tools:
            return text
        self._held += text
        if self._holds_all or (not self._given and (not self._held.strip() or self._held.lstrip()[0] in "[{")):
            return ""
        if OPENING in self._held:
            self._holds_all = True
            return self._give(self._held.index(OPENING))
        sizes = range(min(len(OPENING) - 1, len(self._held)), 0, -1)
        begun = next((size for size in sizes if self._held.endswith(OPENING[:size])), 0)
        return self._give(len(self._held) - begun)

    def rest(self) -> tuple[str, list[dict[str, Any]]]:
        """What was held back, as text and calls."""
        return answer_of(self._held, self.tools, self.forced) if self.tools else ("", [])

    def _give(self, size: int) -> str:
        given, self._held = self._held[:size], self._held[size:]
        self._given = self._given or bool(given)
        return given
