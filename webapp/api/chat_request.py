"""/v1/chat/completions, the request: every field checked, the prompt rendered by the base model's own template."""

from dataclasses import dataclass, replace
from typing import Any

from trainer.errors import TrainerError
from trainer.rendering import Renderer
from webapp.accounts.models import Team, User
from webapp.api.chat_messages import read_messages, read_tools
from webapp.api.chat_options import DRAWN, MOST_TOP_LOGPROBS, Options, fit, read_options, require_vocabulary
from webapp.api.chat_target import context_of, find_target, renderer_for
from webapp.api.fields import Fields
from webapp.api.names import Found
from webapp.api.tool_choice import Forced, ToolChoice, forced_by, read_choice
from webapp.api.wire import ApiError

LONGEST = 2**31
# Taken and left aside: they concern what a hosted service does around an answer, not the answer.
IGNORED = (
    "metadata", "parallel_tool_calls", "prediction", "prompt_cache_key", "prompt_cache_options",
    "prompt_cache_retention", "reasoning_effort", "safety_identifier", "service_tier", "store", "user", "verbosity",
)  # fmt: skip
# What would change the answer and cannot be had. Templates that requests bring are programs of strangers.
UNABLE = {
    "audio": "models here write text alone",
    "chat_template": "templates come from the base model alone",
    "chat_template_kwargs": "templates come from the base model alone",
    "function_call": "it is the older form of `tool_choice`; use that",
    "functions": "it is the older form of `tools`; use that",
    "modalities": "models here write text alone",
    "moderation": "neither requests nor answers are moderated here",
    "web_search_options": "models here search no web",
}
ANSWERED = ("model", "adapter", "stream", "stream_options", "max_tokens", *DRAWN)  # what both kinds of completions know
FIELDS = (
    *ANSWERED, "messages", "max_completion_tokens", "logprobs", "top_logprobs", "tools", "tool_choice",
    "response_format",
)  # fmt: skip


@dataclass(frozen=True)
class Asked:
    """A request that can be answered. `prompts` has a list of token ids for each row of the engine's batch."""

    model: str  # as the request spelt it
    found: Found
    renderer: Renderer
    prompts: list[list[int]]
    options: dict[str, Any]
    n: int
    stream: bool
    with_usage: bool
    tools: tuple[str, ...] = ()  # the names of functions it may call
    forced: Forced = Forced()  # one of which it must call
    echo: tuple[str, ...] = ()  # what each prompt's answers begin with

    @property
    def prompt_tokens(self) -> int:
        """Each prompt counts once, however many answers it gets."""
        return sum(len(prompt) for prompt in self.prompts[:: self.n])


def read_chat(user: User, team: Team, body: Fields) -> Asked:
    """Raises ApiError with `param` at the field that cannot be."""
    body.only(*FIELDS, *IGNORED, *UNABLE)
    found = find_target(user, team, body)
    messages, choice = read_messages(body), read_choice(body, read_tools(body))
    options = read_options(body, limit=_limit(body))
    _refuse(body)
    renderer = renderer_for(found)
    if choice.tools and not renderer.reads_tools:
        text = f"The chat template of {found.base.name} has no place for tools. Use another base model."
        raise ApiError(400, text, param="tools", code="tools_not_supported")
    try:
        prompt = renderer.prompt_ids(messages, choice.tools or None)
    except TrainerError as error:
        raise ApiError(400, f"{error.text} {error.fix}", param="messages", code="prompt_refused") from error
    options.engine["top_logprobs"] = _top_logprobs(body)
    made = asked(body, found, options, prompts=[prompt], param="messages")
    return _with_tools(made, choice)


def _with_tools(made: Asked, choice: ToolChoice) -> Asked:
    """The same with what it may call, or must."""
    if not choice.forced:
        return replace(made, tools=choice.names)
    forced = forced_by(choice, made.renderer, made.found.base.name)
    if made.options["max_tokens"] <= forced.longest:
        text = (
            f"The answer may have {made.options['max_tokens']} tokens, and the call alone begins with {forced.longest}."
        )
        raise ApiError(400, f"{text} Allow more.", param="max_completion_tokens", code="invalid_value")
    options = made.options | {"openings": list(forced.tokens.values())}
    return replace(made, tools=choice.names, forced=forced, options=options)


def asked(
    body: Fields,
    found: Found,
    options: Options,
    *,
    prompts: list[list[int]],
    param: str,
) -> Asked:
    """What both kinds of completions come to. `param` is the field that the prompts came from."""
    context = context_of(found)
    room = min(fit(options, prompt, context, param) for prompt in prompts)
    require_vocabulary(options.engine, found.base.facts.get("vocab_size"))
    stream = body.flag("stream") if body.has("stream") else False
    stream_options = body.inside("stream_options")
    stream_options.only("include_usage", "include_obfuscation")
    if stream_options.values and not stream:
        body.bad("stream_options", "is for streams: set `stream` to true")
    return Asked(
        model=body.text("model"),
        found=found,
        renderer=renderer_for(found),
        prompts=[prompt for prompt in prompts for _ in range(options.n)],
        options=options.engine | {"max_tokens": room},
        n=options.n,
        stream=stream,
        with_usage=stream_options.flag("include_usage") if stream_options.has("include_usage") else False,
    )


def _limit(body: Fields) -> int | None:
    """`max_completion_tokens`, or by its old name."""
    name = next((one for one in ("max_completion_tokens", "max_tokens") if body.has(one)), None)
    return body.whole(name, lowest=1, highest=LONGEST) if name else None


def _top_logprobs(body: Fields) -> int | None:
    wanted = body.flag("logprobs") if body.has("logprobs") else False
    if not body.has("top_logprobs"):
        return 0 if wanted else None
    count = body.whole("top_logprobs", lowest=0, highest=MOST_TOP_LOGPROBS)
    if not wanted:
        body.bad("top_logprobs", "needs `logprobs` to be true")
    return count


def _refuse(body: Fields) -> None:
    kind = body.inside("response_format")
    if kind.values and kind.text("type", most=64) != "text":
        kind.bad("type", "must be text: answers here cannot be held to JSON or a schema")
    for name, why in UNABLE.items():
        if body.has(name) and body.values[name] not in ([], ["text"]):
            body.bad(name, f"cannot be used: {why}")
