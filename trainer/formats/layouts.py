"""Export layouts: one function per layout, from canonical content to a record of that format."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from trainer.formats import alpaca, kto, messages, plain_text, preference, preferred_output, prompt_completion, sharegpt
from trainer.formats.canonical import MESSAGE_COLUMNS, SHAPES, Content, Kind, Message, canonical_json
from trainer.formats.family import Family

SHAREGPT_ROLES = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}
OTHER_KEYS = ("name", "tool_call_id", "reasoning_content", "weight")  # further keys a message may have
ONE_ANSWER = "Only the last answer is learnt when it is read back: rows in which earlier answers are learnt too"
PLAIN = "Rows with tools, weights, names, or more than one question and answer"


class CannotHold(Exception):
    """The layout has no place for something in this row."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """An export format for rows of one kind. `family` reads it back. columns: of a table; empty for JSON lines.

    refuses: which rows it cannot hold, to complete a sentence; "" if it holds all.
    """

    name: str
    kind: Kind
    title: str
    record: Callable[[Content], dict[str, Any]]
    family: Family
    refuses: str = ""
    columns: tuple[str, ...] = ()

    @property
    def suffix(self) -> Literal[".csv", ".jsonl"]:
        return ".csv" if self.columns else ".jsonl"


def _openai(turns: list[Message]) -> list[Message]:
    """Messages with tool arguments as JSON text, so that table readers do not merge their types."""
    return [_with_text_arguments(turn) if "tool_calls" in turn else turn for turn in turns]


def _with_text_arguments(turn: Message) -> Message:
    calls = [
        call | {"function": call["function"] | {"arguments": canonical_json(call["function"]["arguments"])}}
        for call in turn["tool_calls"]
    ]
    return turn | {"tool_calls": calls}


def _with_tools(record: dict[str, Any], content: Content) -> dict[str, Any]:
    return record | {"tools": content.tools} if content.tools else record


def _messages(content: Content) -> dict[str, Any]:
    return _with_tools({"messages": _openai(content.messages)}, content)


def _messages_of_objects(content: Content) -> dict[str, Any]:
    return _with_tools({"messages": content.messages}, content)


def _sharegpt(content: Content) -> dict[str, Any]:
    return _with_tools_text({"conversations": _turns(content.messages)}, content)


def _with_tools_text(record: dict[str, Any], content: Content) -> dict[str, Any]:
    return record | {"tools": canonical_json(content.tools)} if content.tools else record


def _turns(conversation: list[Message]) -> list[dict[str, Any]]:
    return [_turn(message) for message in conversation]


def _turn(message: Message) -> dict[str, Any]:
    beside = {name: message[name] for name in OTHER_KEYS if name in message}
    if "tool_calls" not in message:
        return {"from": SHAREGPT_ROLES[message["role"]], "value": _said(message), **beside}
    calls = [{**call["function"], **({"id": call["id"]} if "id" in call else {})} for call in message["tool_calls"]]
    value = canonical_json(calls[0] if len(calls) == 1 else calls)
    return {"from": "function_call", "value": (message["content"] or "") + value, **beside}


def _said(message: Message) -> str:
    if not isinstance(message["content"], str):
        raise CannotHold
    return message["content"]


def _system_and_pairs(conversation: list[Message]) -> tuple[str, list[list[str]]]:
    """The system message and the question-answer pairs; the last question may have no answer yet."""
    system = _said(conversation[0]) if conversation[0]["role"] == "system" else ""
    rest = conversation[bool(system) :]
    if any(message["role"] != ("user", "assistant")[at % 2] for at, message in enumerate(rest)) or not rest:
        raise CannotHold
    texts = [_said(message) for message in rest]
    return system, [texts[at : at + 2] for at in range(0, len(texts), 2)]


def _question(prompt: list[Message]) -> dict[str, Any]:
    """Alpaca's columns except the answer."""
    system, pairs = _system_and_pairs(prompt)
    record: dict[str, Any] = {"instruction": pairs[-1][0], "input": ""}
    if len(pairs) > 1:
        record["history"] = pairs[:-1]
    return record | {"system": system} if system else record


def _alpaca(content: Content) -> dict[str, Any]:
    return _question(content.messages[:-1]) | {"output": _said(content.messages[-1])}


def _text_question(prompt: list[Message]) -> dict[str, Any]:
    system, pairs = _system_and_pairs(prompt)
    if len(pairs) != 1:
        raise CannotHold
    return {"system": system, "prompt": pairs[0][0]} if system else {"prompt": pairs[0][0]}


def _text_answer(answer: list[Message]) -> str:
    if len(answer) != 1:
        raise CannotHold
    return _said(answer[0])


def _split_at_last_question(content: Content) -> tuple[list[Message], list[Message]]:
    """The conversation split after its last question. Weights are dropped: a prompt is context only."""
    asked = max((at for at, one in enumerate(content.messages) if one["role"] == "user"), default=-1) + 1
    return [
        {name: one for name, one in turn.items() if name != "weight"} for turn in content.messages[:asked]
    ], content.messages[asked:]


def _prompt_completion(content: Content) -> dict[str, Any]:
    prompt, completion = _split_at_last_question(content)
    return _with_tools({"prompt": _openai(prompt), "completion": _openai(completion)}, content)


def _prompt_completion_text(content: Content) -> dict[str, Any]:
    return _text_question(content.messages[:-1]) | {"completion": _said(content.messages[-1])}


def _dpo(content: Content) -> dict[str, Any]:
    sides = {name: _openai(getattr(content, name)) for name in ("prompt", "chosen", "rejected")}
    return _with_tools(sides, content)


def _dpo_implicit(content: Content) -> dict[str, Any]:
    sides = {name: _openai([*content.prompt, *getattr(content, name)]) for name in ("chosen", "rejected")}
    return _with_tools(sides, content)


def _dpo_text(content: Content) -> dict[str, Any]:
    answers = {"chosen": _text_answer(content.chosen), "rejected": _text_answer(content.rejected)}
    return _text_question(content.prompt) | answers


def _dpo_alpaca(content: Content) -> dict[str, Any]:
    answers = {"chosen": _text_answer(content.chosen), "rejected": _text_answer(content.rejected)}
    return _question(content.prompt) | answers


def _dpo_sharegpt(content: Content) -> dict[str, Any]:
    if len(content.chosen) != 1 or len(content.rejected) != 1:
        raise CannotHold
    answers = {"chosen": _turn(content.chosen[0]), "rejected": _turn(content.rejected[0])}
    return _with_tools_text({"conversations": _turns(content.prompt), **answers}, content)


def _preferred_output(content: Content) -> dict[str, Any]:
    asked = _with_tools({"messages": _openai(content.prompt)}, content)
    good, bad = _openai(content.chosen), _openai(content.rejected)
    return {"input": asked, "preferred_output": good, "non_preferred_output": bad}


def _kto(content: Content) -> dict[str, Any]:
    sides = {name: _openai(getattr(content, name)) for name in ("prompt", "completion")}
    return _with_tools(sides | {"label": content.label}, content)


def _kto_text(content: Content) -> dict[str, Any]:
    return _text_question(content.prompt) | {"completion": _text_answer(content.completion), "label": content.label}


def _kto_sharegpt(content: Content) -> dict[str, Any]:
    turns = _turns([*content.prompt, *content.completion])
    return _with_tools_text({"conversations": turns, "kto_tag": content.label}, content)


def _text(content: Content) -> dict[str, Any]:
    return {"text": content.text}


def _cells(content: Content) -> dict[str, Any]:
    """The canonical columns, with lists as JSON text."""
    held: dict[str, Any] = {name: getattr(content, name) for name in SHAPES[content.kind]}
    cells = {name: canonical_json(_openai(one)) if name in MESSAGE_COLUMNS else one for name, one in held.items()}
    if content.kind == "text":
        return _unlike_json(cells)
    if "label" in cells:
        cells["label"] = "true" if content.label else "false"
    return cells | {"tools": canonical_json(content.tools) if content.tools else ""}


def _unlike_json(cells: dict[str, Any]) -> dict[str, Any]:
    """The cells. Raises CannotHold if a reader would take one for a list of messages."""
    if any(isinstance(cell, str) and cell.startswith("[{") for cell in cells.values()):
        raise CannotHold
    return cells


def _text_cells(record: Callable[[Content], dict[str, Any]]) -> Callable[[Content], dict[str, Any]]:
    """Plain texts in columns."""

    def cells(content: Content) -> dict[str, Any]:
        found = _unlike_json({"system": "", **record(content)})
        return found | {"label": "true" if found["label"] else "false"} if "label" in found else found

    return cells


def _table(kind: Kind, family: Family) -> Layout:
    columns = SHAPES[kind] if kind == "text" else (*SHAPES[kind], "tools")
    refuses = "Texts that begin like a list in JSON" if kind == "text" else ""
    return Layout(name="csv", kind=kind, title="CSV", record=_cells, family=family, refuses=refuses, columns=columns)


def _text_table(layout: Layout) -> Layout:
    columns = {
        "chat": ("completion",),
        "preference": ("chosen", "rejected"),
        "labelled": ("completion", "label"),
        "text": (),
    }
    return Layout(
        name="csv-text",
        kind=layout.kind,
        title="CSV of plain texts",
        record=_text_cells(layout.record),
        family=layout.family,
        refuses=PLAIN,
        columns=("system", "prompt", *columns[layout.kind]),
    )


_CHAT = (
    Layout(name="messages", kind="chat", title="OpenAI messages", record=_messages, family=messages.FAMILY),
    Layout(
        name="messages-objects",
        kind="chat",
        title="Messages with tool arguments as objects (Hugging Face)",
        record=_messages_of_objects,
        family=messages.FAMILY,
    ),
    Layout(
        name="sharegpt",
        kind="chat",
        title="ShareGPT",
        record=_sharegpt,
        family=sharegpt.FAMILY,
        refuses="Rows in which one message both speaks and calls a tool",
    ),
    Layout(
        name="alpaca",
        kind="chat",
        title="Alpaca",
        record=_alpaca,
        family=alpaca.FAMILY,
        refuses="Rows with tools, weights or names, or whose turns do not alternate",
    ),
    Layout(
        name="prompt-completion",
        kind="chat",
        title="Prompt and completion as messages (TRL)",
        record=_prompt_completion,
        family=prompt_completion.FAMILY,
        refuses=ONE_ANSWER,
    ),
    Layout(
        name="prompt-completion-text",
        kind="chat",
        title="Prompt and completion as texts",
        record=_prompt_completion_text,
        family=prompt_completion.FAMILY,
        refuses=PLAIN,
    ),
)
_PREFERENCE = (
    Layout(
        name="dpo",
        kind="preference",
        title="Prompt, chosen and rejected as messages (TRL)",
        record=_dpo,
        family=preference.FAMILY,
    ),
    Layout(
        name="dpo-implicit",
        kind="preference",
        title="Chosen and rejected conversations (TRL)",
        record=_dpo_implicit,
        family=preference.FAMILY,
        refuses="Rows whose two answers begin with the same message",
    ),
    Layout(
        name="dpo-text",
        kind="preference",
        title="Prompt, chosen and rejected as texts",
        record=_dpo_text,
        family=preference.FAMILY,
        refuses=PLAIN,
    ),
    Layout(
        name="dpo-alpaca",
        kind="preference",
        title="Alpaca with chosen and rejected (LLaMA-Factory)",
        record=_dpo_alpaca,
        family=preference.FAMILY,
        refuses="Rows with tools, weights or names, or whose turns do not alternate",
    ),
    Layout(
        name="dpo-sharegpt",
        kind="preference",
        title="ShareGPT with chosen and rejected (LLaMA-Factory)",
        record=_dpo_sharegpt,
        family=preference.FAMILY,
        refuses="Rows with answers of several messages, or in which one message both speaks and calls a tool",
    ),
    Layout(
        name="preferred-output",
        kind="preference",
        title="Preferred and non-preferred output (OpenAI)",
        record=_preferred_output,
        family=preferred_output.FAMILY,
    ),
)
_LABELLED = (
    Layout(
        name="kto",
        kind="labelled",
        title="Prompt, completion and label as messages (TRL)",
        record=_kto,
        family=kto.FAMILY,
    ),
    Layout(
        name="kto-text",
        kind="labelled",
        title="Prompt, completion and label as texts",
        record=_kto_text,
        family=kto.FAMILY,
        refuses=PLAIN,
    ),
    Layout(
        name="kto-sharegpt",
        kind="labelled",
        title="ShareGPT with kto_tag (LLaMA-Factory)",
        record=_kto_sharegpt,
        family=kto.FAMILY,
        refuses="Rows in which one message both speaks and calls a tool",
    ),
)
_TEXT = (Layout(name="text", kind="text", title="Text", record=_text, family=plain_text.FAMILY),)
LAYOUTS: tuple[Layout, ...] = (
    *(*_CHAT, _table("chat", messages.FAMILY), _text_table(_CHAT[-1])),
    *(*_PREFERENCE, _table("preference", preference.FAMILY), _text_table(_PREFERENCE[2])),
    *(*_LABELLED, _table("labelled", kto.FAMILY), _text_table(_LABELLED[1])),
    *(*_TEXT, _table("text", plain_text.FAMILY)),
)
