"""What each column is asked: its own history as messages, and their tokens by the code that training uses."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from uuid import UUID

from trainer.errors import TrainerError
from trainer.rendering import Renderer
from webapp.adapters.models import BaseModel
from webapp.chat.models import Completion, Turn
from webapp.chat.sampling import Sampling
from webapp.common.errors import UserError

Message = dict[str, str]


@lru_cache(maxsize=8)
def renderer_of(folder: Path) -> Renderer:
    """The tokenizer and chat template of a base model; its folder never changes once it is ready."""
    return Renderer.load(folder)


def column_messages(
    *, system_prompt: str, earlier: Iterable[Turn], adapter_id: UUID | None, place: int, message: str
) -> list[Message]:
    """The conversation as this column has seen it, ending with the new message.

    A turn that nobody answered for this column is left out with its question: templates want roles to alternate.
    """
    messages = [{"role": "system", "content": system_prompt}] if system_prompt.strip() else []
    for turn in earlier:
        answer = _own_answer(list(turn.completions.all()), adapter_id, place)
        if answer:
            messages += [{"role": "user", "content": turn.message}, {"role": "assistant", "content": answer}]
    return [*messages, {"role": "user", "content": message}]


def _own_answer(completions: list[Completion], adapter_id: UUID | None, place: int) -> str:
    """What this target answered; else what stands in its column; else nothing."""
    if adapter_id is None:
        own = [one for one in completions if one.is_base]
    else:
        own = [one for one in completions if one.adapter_id == adapter_id]
    own += [one for one in completions if one.place == place]
    return next((one.text for one in own if one.text), "")


def prompt_ids(base: BaseModel, messages: list[Message]) -> list[int]:
    """The tokens the model reads; a UserError when the base model's template refuses them."""
    try:
        return renderer_of(base.folder).prompt_ids(messages)
    except TrainerError as error:
        raise UserError("prompt_refused", base=base.name, reason=error.text) from error


def require_room(base: BaseModel, ids: list[int], sampling: Sampling) -> None:
    """Raise UserError unless the prompt and its answer fit what the model can read.

    At most half of that is kept for the answer: someone who allows more than the model can write may still ask.
    """
    limit = int(base.facts.get("context_length") or 0)
    room = min(sampling.max_tokens, limit // 2)
    if limit and len(ids) + room > limit:
        raise UserError("prompt_too_long", tokens=f"{len(ids):,}", room=f"{room:,}", limit=f"{limit:,}")
