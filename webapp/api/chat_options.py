"""How an answer is drawn, as requests say it: checked, and turned into the fields of an engine's request."""

from dataclasses import dataclass
from typing import Any

from webapp.api.fields import Fields
from webapp.api.wire import ApiError

MOST_CHOICES = 16
MOST_STOPS = 4
LONGEST_STOP = 1000
MOST_TOP_LOGPROBS = 20
MOST_BIASES = 1024
DRAWN = (
    "temperature", "top_p", "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "top_k", "seed",
    "stop", "logit_bias", "n",
)  # fmt: skip
UNKNOWN_CONTEXT = 4096  # tokens an answer may have when nobody knows how much its model reads


@dataclass(frozen=True)
class Options:
    """`engine` goes to the engine; `n` is how many answers, `limit` how long one may be (None: what fits)."""

    n: int
    limit: int | None
    engine: dict[str, Any]


def read_options(body: Fields, *, limit: int | None) -> Options:
    engine: dict[str, Any] = {
        "temperature": _number(body, "temperature", 1.0, 0.0, 2.0),
        "top_p": _number(body, "top_p", 1.0, 0.0, 1.0) or 1e-6,
        "min_p": _number(body, "min_p", 0.0, 0.0, 1.0),
        "presence_penalty": _number(body, "presence_penalty", 0.0, -2.0, 2.0),
        "frequency_penalty": _number(body, "frequency_penalty", 0.0, -2.0, 2.0),
        "repetition_penalty": _number(body, "repetition_penalty", 1.0, 0.01, 10.0),
        "top_k": max(0, body.whole("top_k", lowest=-1, highest=1_000_000)) if body.has("top_k") else 0,
        "seed": body.whole("seed", lowest=-(2**63), highest=2**63 - 1) % 2**63 if body.has("seed") else None,
        "stop": _stops(body),
        "logit_bias": _bias(body),
    }
    n = body.whole("n", lowest=1, highest=MOST_CHOICES) if body.has("n") else 1
    return Options(n, limit, engine)


def _number(body: Fields, name: str, usual: float, lowest: float, highest: float) -> float:
    return body.number(name, lowest=lowest, highest=highest) if body.has(name) else usual


def _stops(body: Fields) -> list[str]:
    given = body.values.get("stop")
    stops = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(stops, list) or not all(isinstance(one, str) for one in stops):
        body.bad("stop", "must be a string or an array of strings")
    if len(stops) > MOST_STOPS:
        body.bad("stop", f"has more than {MOST_STOPS} strings")
    if any(len(one) > LONGEST_STOP for one in stops):
        body.bad("stop", f"has a string of more than {LONGEST_STOP} characters")
    return [one for one in stops if one]


def _bias(body: Fields) -> dict[str, float]:
    """By token id as text: JSON knows no other keys."""
    biases = body.inside("logit_bias")
    if len(biases.values) > MOST_BIASES:
        body.bad("logit_bias", f"has more than {MOST_BIASES} tokens")
    for token in biases.values:
        if not (token.isascii() and token.isdigit() and len(token) < 9):
            body.bad("logit_bias", f"must map token ids to numbers; {token[:20]!r} is no token id")
    return {token: biases.number(token, lowest=-100, highest=100) for token in biases.values}


def require_vocabulary(engine: dict[str, Any], size: int | None) -> None:
    """Raise ApiError 400 for a bias on a token that the model does not have."""
    unknown = [token for token in engine["logit_bias"] if size and int(token) >= size]
    if unknown:
        text = f"`logit_bias` names the token {unknown[0]}; this model has {size} tokens."
        raise ApiError(400, text, param="logit_bias", code="invalid_value")


def fit(options: Options, prompt: list[int], context: int | None, param: str) -> int:
    """How many tokens the answer may have; 400 `context_length_exceeded` when prompt and answer do not fit."""
    wanted = options.limit
    if not context:
        return wanted or UNKNOWN_CONTEXT
    if len(prompt) + (1 if wanted is None else wanted) > context:
        asked = f"{len(prompt)} in the prompt" + (f", {wanted} in the answer" if wanted is not None else "")
        text = f"This model reads at most {context} tokens. You asked for {len(prompt) + (wanted or 1)} ({asked})."
        raise ApiError(400, f"{text} Shorten the prompt or the answer.", param=param, code="context_length_exceeded")
    return context - len(prompt) if wanted is None else wanted
