"""An answer that is being drawn, whatever its shape on the wire: put to a worker, its pieces, its end."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass, field

from webapp.api.chat_request import Asked
from webapp.api.wire import ApiError
from webapp.chat.calls import CallFailed, Piece, hang_up, put_call, read_call
from webapp.chat.models import Call

Begun = tuple[Asked, Call]
USER_CONFIG = "user_config"  # the trainer's code for what the asker can change


@dataclass
class Choice:
    """One of the answers, as far as it has come."""

    text: str = ""
    tokens: int = 0
    finish: str | None = None
    scored: list[tuple[int, float, list[tuple[int, float]]]] = field(default_factory=list)

    def take(self, piece: Piece) -> None:
        self.text += piece.text
        self.tokens = piece.tokens
        self.finish = piece.finish or self.finish
        self.scored += piece.scored


def begin(asked: Asked) -> Begun:
    """Put the call of a request. Raises ApiError 503 when no worker can hear it."""
    found = asked.found
    try:
        return asked, put_call(base=found.base, adapter=found.adapter, prompts=asked.prompts, options=asked.options)
    except CallFailed as error:
        raise as_api_error(error) from error


def leave(begun: Begun) -> None:
    """Its client left before there was anybody to read the answer."""
    hang_up(begun[1].pk)


async def pieces_of(call: Call) -> AsyncGenerator[list[Piece] | None, None]:
    """As `read_call`, with failures as the wire knows them."""
    try:
        async with aclosing(read_call(call)) as found:
            async for pieces in found:
                yield pieces
    except CallFailed as error:
        raise as_api_error(error) from error


async def whole(asked: Asked, call: Call) -> list[Choice]:
    """All answers, when they have ended."""
    choices = [Choice() for _ in asked.prompts]
    async with aclosing(pieces_of(call)) as found:
        async for pieces in found:
            for piece in pieces or ():
                choices[piece.row].take(piece)
    return choices


def as_api_error(error: CallFailed) -> ApiError:
    if error.code == USER_CONFIG:
        return ApiError(400, error.text, code="invalid_value")
    if error.code == "interrupted":
        return ApiError(503, error.text, code="unavailable", retry=True, retry_after=1)
    return ApiError(500, error.text, code=error.code, retry=False)


def usage_of(asked: Asked, choices: list[Choice]) -> dict[str, int]:
    said = sum(choice.tokens for choice in choices)
    return {
        "prompt_tokens": asked.prompt_tokens,
        "completion_tokens": said,
        "total_tokens": asked.prompt_tokens + said,
    }
