"""Converts one message with OpenAI's or ShareGPT's keys to canonical form."""

from collections.abc import Iterable
from typing import Any

from trainer.formats.canonical import Message
from trainer.formats.problems import BadRow, fix_for_non_text, json_type
from trainer.formats.tools import read_call, read_calls, read_calls_text

ROLES = ("system", "developer", "user", "assistant", "tool")
CALL = "function_call"  # ShareGPT's role for a turn of tool calls, as JSON
CANONICAL = {
    "system": "system",
    "developer": "system",
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "chatgpt", "bing", "bard", "model"), "assistant"),
    **dict.fromkeys(("tool", "function", "observation", "function_response", "tool_response"), "tool"),
    CALL: CALL,
}
SPOKEN = frozenset({"user", "assistant"})
FIELDS = frozenset(
    {"role", "content", "from", "value", "name", "weight", "tool_calls", "tool_call_id", "function_call"}
    | {"reasoning_content", "refusal"}
)


def read_turn(turn: object) -> Message:
    """One message. Raises BadRow with the field relative to the message."""
    if not isinstance(turn, dict):
        raise BadRow("", f"must be an object, not {json_type(turn)}", 'Use {"role": …, "content": …}.')
    keys = ("from", "value") if "from" in turn and "role" not in turn else ("role", "content")
    role, text = _role(turn, keys[0]), turn.get(keys[1])
    if len(turn) == 2 and role in SPOKEN and isinstance(text, str) and text and not text.isspace():
        return {"role": role, "content": text}  # nearly always
    if role == CALL:
        return _calling(turn, keys[1])
    return _whole(turn, role, keys[1])


def ignored_keys(turns: list[Any], column: str) -> Iterable[str]:
    """Keys in the messages of a good row that nothing reads."""
    odd = [turn for turn in turns if len(turn) > 2 and not turn.keys() <= FIELDS]
    return [f"{column}.{name}" for turn in odd for name in turn.keys() - FIELDS] if odd else ()


def _role(turn: dict[str, Any], key: str) -> str:
    written = turn.get(key)
    role = CANONICAL.get(written) if isinstance(written, str) else None
    if role is None:
        problem = "unknown role" if key in turn else "field is missing"
        raise BadRow(key, problem, f"Use one of {', '.join(ROLES)}.")
    return role


def _whole(turn: dict[str, Any], role: str, text_key: str) -> Message:
    calls = _tool_calls(turn, role)
    clean: Message = {"role": role, "content": _content(turn, role, text_key, calls=bool(calls))}
    for field in ("name", "tool_call_id", "reasoning_content"):
        if turn.get(field) is not None:
            clean[field] = read_string(turn[field], field)
    if calls:
        clean["tool_calls"] = calls
    if turn.get("weight") is not None:
        clean["weight"] = _weight(turn["weight"], role)
    return clean


def _calling(turn: dict[str, Any], text_key: str) -> Message:
    """ShareGPT's tool calls: one or a list, as JSON, possibly after a <think> block."""
    value = turn.get(text_key)
    if isinstance(value, str):
        thought, end, rest = value.rpartition("</think>")
        content, calls = thought + end or None, read_calls_text(rest, text_key)
    else:
        content, calls = None, read_calls(value if isinstance(value, list) else [value], text_key)
    clean: Message = {"role": "assistant", "content": content, "tool_calls": calls}
    if turn.get("reasoning_content") is not None:
        clean["reasoning_content"] = read_string(turn["reasoning_content"], "reasoning_content")
    if turn.get("weight") is not None:
        clean["weight"] = _weight(turn["weight"], "assistant")
    return clean


def _content(turn: dict[str, Any], role: str, key: str, *, calls: bool) -> str | None:
    content = turn.get(key)
    needed = role == "user" or (role == "assistant" and not calls)
    if content is None:
        if needed or role != "assistant":
            kind = "field is empty" if key in turn else "field is missing"
            raise BadRow(key, kind, "Write the text of this message.")
        return None
    text = _parts(content, key) if isinstance(content, list) else read_string(content, key)
    if needed and (not text or text.isspace()):
        raise BadRow(key, "field is empty", "Write the text of this message, or remove this row.")
    return text


def _parts(parts: list[Any], key: str) -> str:
    texts = []
    for number, part in enumerate(parts):
        here = f"{key}[{number}]"
        if isinstance(part, str):
            texts.append(part)
            continue
        if not isinstance(part, dict):
            raise BadRow(here, f"must be an object, not {json_type(part)}", 'Use {"type": "text", "text": …}.')
        if part.get("type") not in ("text", "input_text", "output_text"):
            raise BadRow(f"{here}.type", "part is not text", "Only text can be trained on: remove images and the like.")
        texts.append(read_string(part.get("text"), f"{here}.text"))
    return "".join(texts)


def read_string(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise BadRow(where, f"must be text, not {json_type(value)}", fix_for_non_text(value))
    return value


def _weight(weight: object, role: str) -> int:
    if role != "assistant":
        raise BadRow("weight", "only answers have a weight", "Remove the weight from this message.")
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or weight not in (0, 1):
        raise BadRow("weight", "weight must be 0 or 1", "Use 1 to learn this answer, 0 to only read it.")
    return int(weight)


def _tool_calls(turn: dict[str, Any], role: str) -> list[dict[str, Any]]:
    calls, single = turn.get("tool_calls"), turn.get(CALL)
    if not calls and single is None:
        return []
    field = "tool_calls" if calls else CALL
    if role != "assistant":
        raise BadRow(field, "only the assistant calls tools", "Move the calls to a message of the assistant.")
    return read_calls(calls, field) if calls else [read_call(single, field)]
