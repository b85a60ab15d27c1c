"""/v1/completions, the request: texts or token ids to go on from, with no template around them."""

from dataclasses import replace
from typing import Any

from trainer.errors import TrainerError
from trainer.rendering import Renderer
from webapp.accounts.models import Team, User
from webapp.api.chat_options import read_options
from webapp.api.chat_request import ANSWERED, IGNORED, Asked, asked
from webapp.api.chat_target import find_target, renderer_for
from webapp.api.fields import Fields
from webapp.api.names import Found

MOST_PROMPTS, MOST_ROWS = 32, 128
MOST_LOGPROBS = 20
FIELDS = (*ANSWERED, "prompt", "echo", "logprobs", "best_of", "suffix")
USUAL_TOKENS = 16  # as the client's documentation has it


def read_completion(user: User, team: Team, body: Fields) -> Asked:
    """Raises ApiError with `param` at the field that cannot be."""
    body.only(*FIELDS, *IGNORED)
    found = find_target(user, team, body)
    limit = body.whole("max_tokens", lowest=1, highest=2**31) if body.has("max_tokens") else USUAL_TOKENS
    options = read_options(body, limit=limit)
    _refuse(body)
    options.engine["top_logprobs"] = (
        body.whole("logprobs", lowest=0, highest=MOST_LOGPROBS) if body.has("logprobs") else None
    )
    renderer = renderer_for(found)
    prompts = [_ids(body, one, renderer, found) for one in _prompts(body)]
    if len(prompts) * options.n > MOST_ROWS:
        body.bad("n", f"times the number of prompts is more than {MOST_ROWS}")
    made = asked(body, found, options, prompts=prompts, param="prompt")
    if body.has("echo") and body.flag("echo"):
        echo = [renderer.decode(prompt) if not isinstance(one, str) else one
                for one, prompt in zip(_prompts(body), prompts, strict=True)]  # fmt: skip
        made = replace(made, echo=tuple(text for text in echo for _ in range(options.n)))
    return made


def _refuse(body: Fields) -> None:
    if body.has("suffix") and body.values["suffix"] != "":
        body.bad("suffix", "is not possible here: models go on from a prompt, and fill no gaps")
    if body.has("best_of") and body.values["best_of"] != body.values.get("n", 1):
        body.bad("best_of", "must be the same as `n`, or be left out")
    if body.has("echo") and body.flag("echo") and body.has("logprobs"):
        body.bad("echo", "cannot be had with `logprobs`: the prompt's own tokens are not scored")


def _prompts(body: Fields) -> list[Any]:
    """One prompt is a text or a list of token ids; there may be a list of either."""
    given = body.required("prompt")
    if isinstance(given, str) or (isinstance(given, list) and given and all(_is_whole(one) for one in given)):
        return [given]
    if not isinstance(given, list) or not given:
        body.bad("prompt", "must be a string, an array of token ids, or an array of one of these")
    if len(given) > MOST_PROMPTS:
        body.bad("prompt", f"has more than {MOST_PROMPTS} prompts")
    return given


def _ids(body: Fields, prompt: Any, renderer: Renderer, found: Found) -> list[int]:
    if isinstance(prompt, str):
        try:
            ids = renderer.raw_ids(prompt)
        except (TrainerError, UnicodeEncodeError):
            body.bad("prompt", "holds half of a character pair")
        if not ids:
            body.bad("prompt", "must not be empty: there is nothing to go on from")
        return ids
    if not isinstance(prompt, list) or not prompt or not all(_is_whole(one) for one in prompt):
        body.bad("prompt", "must be a string, an array of token ids, or an array of one of these")
    most = found.base.facts.get("vocab_size") or renderer.vocabulary
    if not all(0 <= one < most for one in prompt):
        body.bad("prompt", f"has a token id that is not below {most}, the number of tokens of this model")
    return prompt


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
