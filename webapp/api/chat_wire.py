"""The shapes of /v1/chat/completions: the whole answer, the chunks of a stream, log probabilities."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from trainer.rendering import Renderer
from webapp.api.chat_answer import Choice, usage_of
from webapp.api.chat_request import Asked
from webapp.api.chat_target import fingerprint_of
from webapp.api.chat_tools import ToolWatch, answer_of, finish_of
from webapp.chat.calls import Piece

Scored = tuple[int, float, list[tuple[int, float]]]


@dataclass(frozen=True)
class Head:
    """What every object of one answer carries."""

    id: str
    created: int
    asked: Asked

    def of(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.asked.model,
            "system_fingerprint": fingerprint_of(self.asked.found),
            "choices": choices,
        }


def completion(head: Head, choices: list[Choice]) -> dict[str, Any]:
    made = [_choice(head.asked, number, choice) for number, choice in enumerate(choices)]
    return head.of("chat.completion", made) | {"usage": usage_of(head.asked, choices), "service_tier": "default"}


def _choice(asked: Asked, number: int, choice: Choice) -> dict[str, Any]:
    text, calls = answer_of(choice.text, asked.tools, asked.forced) if asked.tools else (choice.text, [])
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if calls:
        message |= {"content": text or None, "tool_calls": calls}
    return {
        "index": number,
        "message": message,
        "logprobs": logprobs(asked, choice.scored),
        "finish_reason": finish_of(choice.finish, calls),
    }


def logprobs(asked: Asked, scored: Sequence[Scored]) -> dict[str, Any] | None:
    if asked.options["top_logprobs"] is None:
        return None
    content = [
        _token(asked.renderer, token, value) | {"top_logprobs": [_token(asked.renderer, *one) for one in top]}
        for token, value, top in scored
    ]
    return {"content": content, "refusal": None}


def _token(renderer: Renderer, token: int, value: float) -> dict[str, Any]:
    raw = renderer.token_bytes(token)
    return {"token": raw.decode(errors="replace"), "logprob": finite(value), "bytes": list(raw)}


def finite(value: float) -> float:
    """JSON has no infinity; the client's documentation has -9999.0 for tokens that cannot come."""
    return max(value, -9999.0)


@dataclass
class ChatChunks:
    """The chunks of a streamed answer."""

    head: Head
    watches: list[ToolWatch] = field(init=False)

    def __post_init__(self) -> None:
        asked = self.head.asked
        self.watches = [ToolWatch(asked.tools, asked.forced) for _ in asked.prompts]

    def first(self) -> Iterator[dict[str, Any]]:
        for number in range(len(self.watches)):
            yield self._chunk(number, {"role": "assistant", "content": "", "refusal": None})

    def of(self, piece: Piece) -> Iterator[dict[str, Any]]:
        watch, finish = self.watches[piece.row], piece.finish
        text = watch.add(piece.text)
        calls: list[dict[str, Any]] = []
        if finish:
            more, calls = watch.rest()
            text += more
        if text or piece.scored:
            yield self._chunk(piece.row, {"content": text}, scored=piece.scored)
        if calls:
            listed = [{"index": at} | call for at, call in enumerate(calls)]
            yield self._chunk(piece.row, {"tool_calls": listed})
        if finish:
            yield self._chunk(piece.row, {}, finish=finish_of(finish, calls))

    def usage(self, choices: list[Choice]) -> dict[str, Any]:
        return self.head.of("chat.completion.chunk", []) | {"usage": usage_of(self.head.asked, choices)}

    def _chunk(
        self, number: int, delta: dict[str, Any], *, finish: str | None = None, scored: Sequence[Scored] = ()
    ) -> dict[str, Any]:
        scores = logprobs(self.head.asked, scored) if scored else None
        choice = {"index": number, "delta": delta, "logprobs": scores, "finish_reason": finish}
        more = {"usage": None} if self.head.asked.with_usage else {}
        return self.head.of("chat.completion.chunk", [choice]) | more
