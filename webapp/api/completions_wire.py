"""The shapes of /v1/completions: text choices, and log probabilities in their old form."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from webapp.api.chat_answer import Choice, usage_of
from webapp.api.chat_request import Asked
from webapp.api.chat_wire import Head, Scored, finite
from webapp.chat.calls import Piece

KIND = "text_completion"


def text_completion(head: Head, choices: list[Choice]) -> dict[str, Any]:
    made = []
    for number, choice in enumerate(choices):
        echo = head.asked.echo[number] if head.asked.echo else ""
        scores = old_logprobs(head.asked, choice.scored, len(echo))
        made.append(text_choice(number, echo + choice.text, finish=choice.finish, scores=scores))
    return head.of(KIND, made) | {"usage": usage_of(head.asked, choices)}


def text_choice(
    number: int, text: str, *, finish: str | None = None, scores: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {"index": number, "text": text, "logprobs": scores, "finish_reason": finish}


def old_logprobs(asked: Asked, scored: Sequence[Scored], offset: int) -> dict[str, Any] | None:
    """Parallel lists; `offset` is the character that the first token's text begins at."""
    if asked.options["top_logprobs"] is None:
        return None
    names = [_name(asked, token) for token, _, _ in scored]
    sizes = [len(asked.renderer.token_bytes(token).decode(errors="replace")) for token, _, _ in scored]
    offsets = [offset + sum(sizes[:at]) for at in range(len(sizes))]
    tops = [{_name(asked, token): finite(value) for token, value in top} for _, _, top in scored]
    return {
        "tokens": names,
        "token_logprobs": [finite(value) for _, value, _ in scored],
        "top_logprobs": tops if asked.options["top_logprobs"] else None,
        "text_offset": offsets,
    }


def _name(asked: Asked, token: int) -> str:
    """Parts of characters are told apart by their bytes, as the old API did."""
    raw = asked.renderer.token_bytes(token)
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


@dataclass
class TextChunks:
    """The chunks of a streamed text."""

    head: Head
    offsets: list[int] = field(init=False)

    def __post_init__(self) -> None:
        asked = self.head.asked
        self.offsets = [len(echo) for echo in asked.echo] or [0] * len(asked.prompts)

    def first(self) -> Iterator[dict[str, Any]]:
        for number, echo in enumerate(self.head.asked.echo):
            yield self._chunk(text_choice(number, echo))

    def of(self, piece: Piece) -> Iterator[dict[str, Any]]:
        scores = old_logprobs(self.head.asked, piece.scored, self.offsets[piece.row]) if piece.scored else None
        self.offsets[piece.row] += len(piece.text)
        if piece.text or piece.finish or scores:
            yield self._chunk(text_choice(piece.row, piece.text, finish=piece.finish, scores=scores))

    def usage(self, choices: list[Choice]) -> dict[str, Any]:
        return self.head.of(KIND, []) | {"usage": usage_of(self.head.asked, choices)}

    def _chunk(self, choice: dict[str, Any]) -> dict[str, Any]:
        return self.head.of(KIND, [choice]) | ({"usage": None} if self.head.asked.with_usage else {})
