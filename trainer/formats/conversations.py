"""Conversations: which column of a row holds one, its messages, and the order they must have."""

from collections.abc import Iterator
from typing import Any

from trainer.formats.canonical import Message
from trainer.formats.fields import decode_if_json, optional_text
from trainer.formats.problems import BadRow, json_type
from trainer.formats.strict import parse
from trainer.formats.turns import CALL, CANONICAL, SPOKEN, read_turn

COLUMNS = ("messages", "conversations", "conversation", "texts", "dialogue", "dialog", "chat")
CONVERSATIONS = frozenset(COLUMNS)
FIELDS = frozenset({*COLUMNS, "system", "tools", "functions", "parallel_tool_calls"})
CALLS = frozenset({"tool_calls", CALL})
# The sentences of turn_warnings, without a full stop because a row count follows.
SAME_SPEAKER = "Consecutive messages of the same speaker are kept apart, which some chat templates refuse"
LATE_SYSTEM = "A system message comes after other messages and is kept there, which some chat templates refuse"
JOINED = "The text parts of a message are joined without a separator"
CALLS_AS_TEXT = "Tool results follow answers without tool calls: the calls are assumed to be in the answer's text"
TEXT_ROLES = {name: role for name, role in CANONICAL.items() if role in SPOKEN or name == "system"}
TRACE = "_trace"  # possible ending of the name of Unsloth's conversation column


def columns_of(row: dict[str, Any]) -> Iterator[str]:
    """The columns that may hold a conversation, most likely first."""
    for name in COLUMNS:
        if name in row:
            yield name
    if isinstance(row.get("text"), list):
        yield "text"
    traces = [name for name in row if name.endswith(TRACE)]
    if len(traces) == 1:
        yield traces[0]


def column_with(row: dict[str, Any], key: str) -> str | None:
    """The column whose first message has this key, whether it holds a list or a list as JSON text."""
    usual = "messages" if key == "role" else "conversations"
    found = row.get(usual)
    if isinstance(found, list) and found and isinstance(found[0], dict) and key in found[0]:
        return usual  # nearly always
    for name in columns_of(row):
        found = row[name]
        if isinstance(found, list):
            if found and isinstance(found[0], dict) and key in found[0]:
                return name
        elif isinstance(found, str) and found.startswith("[") and f'"{key}"' in found[:2000]:
            return name
    return None


def unread(row: dict[str, Any], column: str) -> list[str]:
    """Other conversations in a good row than the one that is read."""
    there = CONVERSATIONS & row.keys()
    return [name for name in there if name != column] if len(there) > 1 or column not in there else []


def read_messages(row: dict[str, Any], field: str) -> list[Message]:
    """The messages in a field of a row, each checked by itself."""
    found = row.get(field)
    if not isinstance(found, list):
        if field not in row:
            raise BadRow(field, "field is missing", f'Add "{field}", a list of messages with role and content.')
        found = decode_if_json(found, field)
        if not isinstance(found, list):
            raise BadRow(field, f"must be a list, not {json_type(found)}", "Use a list of messages.")
    if not found:
        raise BadRow(field, "field is empty", "Add at least one question and one answer, or remove this row.")
    messages: list[Message] = []
    try:
        for turn in found:
            messages.append(read_turn(turn))
    except BadRow as bad:
        raise bad.under(f"{field}[{len(messages)}]") from None
    _check_results(messages, field)
    return messages


def _check_results(messages: list[Message], field: str) -> None:
    """A tool result must follow a call of the assistant, either structured or written in the answer's text."""
    ids: set[str] = set()
    before = ""
    for at, message in enumerate(messages):
        if message["role"] == "tool":
            if before not in ("assistant", "tool"):
                fix = "Put the assistant's call before it, or remove this row."
                raise BadRow(f"{field}[{at}]", "a tool answers without a call", fix)
            if ids and message.get("tool_call_id", next(iter(ids))) not in ids:
                fix = f"Use the id of the call that it answers: {', '.join(sorted(ids))[:200]}."
                raise BadRow(f"{field}[{at}].tool_call_id", "no call before it has this id", fix)
        elif "tool_calls" in message:
            ids.update(call["id"] for call in message["tool_calls"] if "id" in call)
        before = message["role"]


def turn_warnings(row: dict[str, Any], *fields: str) -> Iterator[str]:
    """Unusual things in the conversations of a good row that may be unintended, each once."""
    found: set[str] = set()
    for turns in map(_turns_of, (row[field] for field in fields if field in row)):
        before: str | None = ""
        called = False
        for turn in turns:
            role = _canonical(turn.get("role", turn.get("from")))
            called = called or role == CALL or not CALLS.isdisjoint(turn)
            if role == before and role in SPOKEN:
                found.add(SAME_SPEAKER)
            elif role == "system" and before:
                found.add(LATE_SYSTEM)
            elif role == "tool" and not called:
                found.add(CALLS_AS_TEXT)
            if type(content := turn.get("content")) is list and len(content) > 1:
                found.add(JOINED)
            before = role
    yield from sorted(found)


def read_conversation(row: dict[str, Any], field: str, *, key: str = "role") -> list[Message]:
    """A whole conversation that ends with an answer, after the row's own system message. `key` is the key of roles."""
    messages = read_messages(row, field)
    check_order(messages, field, key)
    return with_system(messages, row)


def _turns_of(value: object) -> list[dict[str, Any]]:
    """The turns in a field; empty if the field holds something else."""
    if isinstance(value, str) and value.startswith("[{"):
        try:
            value = parse(value)
        except (ValueError, RecursionError):
            return []
    return value if isinstance(value, list) and all([isinstance(one, dict) for one in value]) else []


def _canonical(role: object) -> str | None:
    return CANONICAL.get(role) if isinstance(role, str) else None


def fast_path(row: dict[str, Any], field: str, keys: list[str]) -> tuple[list[Message], int] | None:
    """The same as `read_conversation` for a row that holds only a plain conversation; see Family."""
    turns = row.get(field)
    if type(turns) is not list or len(row) != 1 or not turns:
        return None
    messages: list[Message] = []
    before: str | None = ""
    for turn in turns:
        if type(turn) is not dict or list(turn) != keys:
            return None
        speaker, text = turn.values()
        role = TEXT_ROLES.get(speaker) if type(speaker) is str else None
        if role == before or (role == "system" and messages):
            return None
        before = role
        if role is None or type(text) is not str or not text or text.isspace() or "\0" in text:
            return None
        messages.append({"role": role, "content": text})
    if messages[-1]["role"] != "assistant" or messages[0]["role"] == "assistant":
        return None
    return messages, 1 + 4 * len(messages)


def with_system(messages: list[Message], row: dict[str, Any]) -> list[Message]:
    """The messages, preceded by the system message that a separate field holds."""
    system = optional_text(row, "system") if row.get("system") else ""
    if not system:
        return messages
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    if messages[0]["content"] != system:
        raise BadRow("system", "two system messages", "Keep one: in this field, or as the first message.")
    return messages


def check_order(messages: list[Message], field: str, key: str) -> None:
    """A conversation begins with system or user and ends with an answer to train on. Raises BadRow."""
    first = messages[0]["role"]
    if messages[-1]["role"] != "assistant":
        if not any(message["role"] == "assistant" for message in messages):
            raise BadRow(field, "no message of the assistant", "Add the answer the model should learn.")
        where = f"{field}[{len(messages) - 1}].{key}"
        raise BadRow(where, "the last message is not the assistant's", "End the row with the answer to learn.")
    if first not in ("user", "system"):
        raise BadRow(f"{field}[0].{key}", "the first message is not the user's", "Begin with system or user.")
    if messages[-1].get("weight") == 0 and not any(
        message["role"] == "assistant" and message.get("weight") != 0 for message in messages
    ):
        raise BadRow(field, "every answer has weight 0", "Give at least one answer weight 1.")


def check_prompt(prompt: list[Message], field: str) -> None:
    """A prompt ends where an answer is due. Raises BadRow."""
    if prompt[-1]["role"] not in ("user", "tool"):
        raise BadRow(field, "the prompt does not end with a question", "Let its last message be the user's.")
    if prompt[0]["role"] not in ("system", "user"):
        raise BadRow(field, "the first message is not the user's", "Begin with system or user.")


def check_answer(answer: list[Message], field: str) -> None:
    """An answer consists of assistant messages and the tool results between them. Raises BadRow."""
    if any(message["role"] not in ("assistant", "tool") for message in answer):
        raise BadRow(field, "holds more than the answer", "Put every message before the answer into the prompt.")
    if answer[-1]["role"] != "assistant":
        raise BadRow(field, "the last message is not the assistant's", "End the answer with what the assistant says.")
