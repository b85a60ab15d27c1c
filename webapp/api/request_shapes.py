"""Schemas of what the API takes. The values of a training come from the spec's own definition."""

import dataclasses
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from trainer.presets import PRESET_NAMES
from trainer.spec import PARTS, choices_of, option_of
from webapp.api.adapters_asked import LONGEST_NAME
from webapp.api.batch_run import ENDPOINTS
from webapp.api.batches import WINDOWS
from webapp.api.chat_messages import ROLES
from webapp.api.chat_options import MOST_CHOICES, MOST_STOPS, MOST_TOP_LOGPROBS
from webapp.api.chat_request import IGNORED
from webapp.api.fields import LONGEST_KEY, LONGEST_VALUE, MOST_PAIRS
from webapp.api.file_form import LONGEST, SHORTEST
from webapp.api.file_store import PURPOSES
from webapp.api.jobs_asked import LONGEST_SUFFIX
from webapp.api.jobs_method import AUTO, METHODS
from webapp.api.permissions import MOST_TEAMS
from webapp.api.shapes import Schema, asked, flag, free, many, number, one_of, text, whole
from webapp.api.tool_choice import WORDS

PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string"}
FILE: Schema = {"type": "string", "format": "binary"}
ANSWERS = (
    "A base model or an adapter by the `id` that /v1/models tells, or a checkpoint by the "
    "`fine_tuned_model_checkpoint` that its job's list of checkpoints tells, not by its `id` there (`ftckpt-…`)."
)


def _spec() -> Schema:
    """Any part of a TrainSpec."""
    parts = {part: _part(kind) for part, kind in PARTS.items()}
    about = "Any value of the training; what is left out comes from `method` and `preset`."
    return {"type": "object", "properties": parts, "additionalProperties": False, "description": about}


def _part(kind: type[Any]) -> Schema:
    hints = get_type_hints(kind)
    fields = {one.name: _value(kind, one, hints[one.name]) for one in dataclasses.fields(kind)}
    return {"type": "object", "properties": fields, "additionalProperties": False}


def _value(kind: type[Any], item: "dataclasses.Field[Any]", hint: Any) -> Schema:
    option = option_of(item)
    about = f"{option.meaning} Unit: {option.unit}." if option.unit else option.meaning
    limits = {name: limit for name, limit in (("minimum", option.low), ("maximum", option.high)) if limit is not None}
    if choices := choices_of(kind, item.name):
        return one_of(*choices, about=about)
    return _of_hint(hint) | limits | {"description": about}


def _of_hint(hint: Any) -> Schema:
    if hint in PLAIN:
        return {"type": PLAIN[hint]}
    if get_origin(hint) in (Union, UnionType):
        return {"anyOf": [_of_hint(one) for one in get_args(hint)]}
    if get_origin(hint) is dict:
        return {"type": "object", "additionalProperties": _of_hint(get_args(hint)[1])}
    return {"type": "array", "items": _of_hint(get_args(hint)[0])}


def _method() -> Schema:
    def hyper(*more: str) -> Schema:
        names = ("n_epochs", "batch_size", "learning_rate_multiplier", *more)
        value = {"anyOf": [{"type": "number"}, {"const": AUTO}]}
        return asked((), hyperparameters=asked((), **dict.fromkeys(names, value)))

    kinds = {name: hyper() if name == "supervised" else hyper("beta") for name in METHODS}
    return asked(("type",), type=one_of(*METHODS), **kinds)


def _job() -> Schema:
    return asked(
        ("model", "training_file"),
        model=text("A base model."),
        training_file=text("The id of a file with the purpose fine-tune; its rows may still be checked."),
        validation_file=text("Rows to measure on, and not to learn from."),
        suffix=text("The name of the job and of its adapter.", maxLength=LONGEST_SUFFIX),
        seed=whole(minimum=0, maximum=2**31 - 1),
        method=_method(),
        hyperparameters=free("The older place of `method`'s values."),
        integrations=many(free(), maxItems=0),
        metadata=_metadata(),
        preset=one_of(*PRESET_NAMES, about="Ready values under all others; balanced when left out."),
        spec=_spec(),
    )


def _metadata() -> Schema:
    return {
        "type": "object",
        "maxProperties": MOST_PAIRS,
        "propertyNames": {"maxLength": LONGEST_KEY},
        "additionalProperties": {"type": "string", "maxLength": LONGEST_VALUE},
    }


def _drawing() -> dict[str, Schema]:
    """How answers are drawn, and what is said around them."""
    ignored = {name: {"description": "Taken, and left aside."} for name in IGNORED}
    return {
        "n": whole("How many answers.", minimum=1, maximum=MOST_CHOICES),
        "max_tokens": whole("The longest answer.", minimum=1),
        "temperature": number("0 for the likeliest answer.", minimum=0, maximum=2),
        "top_p": number(minimum=0, maximum=1),
        "top_k": whole("Not in the client: goes in `extra_body`.", minimum=-1, maximum=1_000_000),
        "min_p": number("Goes in `extra_body`.", minimum=0, maximum=1),
        "repetition_penalty": number("Goes in `extra_body`.", minimum=0.01, maximum=10),
        "presence_penalty": number(minimum=-2, maximum=2),
        "frequency_penalty": number(minimum=-2, maximum=2),
        "logit_bias": {"type": "object", "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}},
        "seed": whole("The same seed draws the same answer."),
        "stop": {"anyOf": [text(), many(text(), maxItems=MOST_STOPS), {"type": "null"}]},
        "stream": flag("Chunks as Server-Sent Events, `[DONE]` at the end."),
        "stream_options": asked((), include_usage=flag(), include_obfuscation=flag()),
        "adapter": text("An adapter of the base model in `model`, by its id. Goes in `extra_body`."),
        **ignored,
    }


def _chat() -> Schema:
    part = {"type": "object", "properties": {"type": {"const": "text"}, "text": text()}, "required": ["type", "text"]}
    content = {"anyOf": [text(), many(part), {"type": "null"}]}
    more = {"name": text(), "tool_call_id": text(), "tool_calls": many(free())}
    message = asked(("role",), role=one_of(*ROLES), content=content, **more)
    message["additionalProperties"] = True
    return asked(
        ("model", "messages"),
        model=text(ANSWERS),
        messages=many(message, minItems=1),
        max_completion_tokens=whole("The longest answer.", minimum=1),
        logprobs=flag(),
        top_logprobs=whole(minimum=0, maximum=MOST_TOP_LOGPROBS),
        tools=many(free(), "Functions; the base model's chat template must have a place for them."),
        tool_choice=_tool_choice(),
        response_format=asked(("type",), type={"const": "text"}),
        **_drawing(),
    )


def _tool_choice() -> Schema:
    function = asked(("name",), name=text())
    named = asked(("type", "function"), type={"const": "function"}, function=function)
    about = (
        "auto: the model calls a function or answers. none: it sees no tools. required, or an object with a "
        "function's name: its answer begins with a call, in the form of the base model's chat template; a template "
        "without one that could be begun is refused with `tool_choice_not_supported`. The arguments are the model's "
        "own: small models write broken JSON now and then."
    )
    return {"anyOf": [one_of(*WORDS), named], "description": about}


def _completion() -> Schema:
    ids = many(whole(minimum=0), minItems=1)
    prompt = {"anyOf": [text(minLength=1), ids, many(text(minLength=1), minItems=1), many(ids, minItems=1)]}
    return asked(("model", "prompt"), model=text(ANSWERS), prompt=prompt, echo=flag(),
                 logprobs=whole(minimum=0, maximum=20), best_of=whole(), suffix=text(maxLength=0),
                 **_drawing())  # fmt: skip


def _adapter() -> Schema:
    archive = (
        "A .zip, .tar or .tar.gz of the folder; or adapter_config.json and adapter_model.safetensors, each a part."
    )
    return asked(
        (),
        file=FILE | {"description": archive},
        file_id=text("Instead of `file`: an archive that was sent to /v1/files or in parts, as user_data."),
        base_model=text("The base model it was made for; left out, the one that the adapter names."),
        name=text("Left out, the archive's name.", maxLength=LONGEST_NAME),
    )


def request_schemas() -> dict[str, Schema]:
    expiry = asked(("anchor", "seconds"), anchor=one_of("created_at"), seconds=whole(minimum=SHORTEST, maximum=LONGEST))
    purpose = one_of(*PURPOSES, about="fine-tune for rows to train on, batch for requests.")
    form = {"expires_after[anchor]": one_of("created_at"), "expires_after[seconds]": whole()}
    upload = {"filename": text(maxLength=255), "purpose": purpose, "bytes": whole(minimum=1), "mime_type": text()}
    endpoint, window = one_of(*ENDPOINTS), one_of(*WINDOWS)
    batch = {"input_file_id": text(), "endpoint": endpoint, "completion_window": window, "metadata": _metadata()}
    batch["output_expires_after"] = expiry | {"description": "How long the files of its results stay; else for ever."}
    teams = many(text("A team's slug, or * for everyone."), minItems=1, maxItems=MOST_TEAMS)
    return {
        "NewFile": asked(("purpose", "file"), purpose=purpose, file=FILE, **form),
        "NewUpload": asked(("filename", "purpose", "bytes", "mime_type"), expires_after=expiry, **upload),
        "NewPart": asked(("data",), data=FILE),
        "NewAdapter": _adapter(),
        "PartOrder": asked(("part_ids",), part_ids=many(text(), minItems=1), md5=text("Of the whole file, in hex.")),
        "NewJob": _job(),
        "NewPermissions": asked(("project_ids",), project_ids=teams),
        "ChatRequest": _chat(),
        "CompletionRequest": _completion(),
        "NewBatch": asked(("input_file_id", "endpoint", "completion_window"), **batch),
    }  # fmt: skip
