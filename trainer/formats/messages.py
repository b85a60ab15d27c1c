"""The chat family: OpenAI's `messages`, with text parts, `weight`, tool calls and `tools`."""

from typing import Any

from trainer.formats.canonical import Content, Kind, Message, Tools
from trainer.formats.problems import BadRow, kind_of
from trainer.formats.strict import parse

NAME = "messages"
KIND: Kind = "chat"
FIELDS = frozenset({"messages", "tools", "parallel_tool_calls"})
MESSAGE_FIELDS = frozenset(
    {"role", "content", "name", "weight", "tool_calls", "tool_call_id", "reasoning_content", "refusal"}
)
ROLES = ("system", "developer", "user", "assistant", "tool")


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, 0 to 1."""
    if "messages" not in row:
        return 0.0
    return 1.0 if isinstance(row["messages"], list) else 0.5


def to_content(row: dict[str, Any]) -> Content:
    """The row in one shape: content is text or null, tool arguments are objects, `developer` is read as `system`."""
    messages = read_messages(row, "messages")
    _check_order(messages)
    return Content(messages=messages, tools=read_tools(row.get("tools")))


def read_messages(row: dict[str, Any], field: str) -> list[Message]:
    """The messages in a field of a row, each checked by itself."""
    found = row.get(field)
    if field not in row:
        raise BadRow(field, "field is missing", f'Add "{field}", a list of messages with role and content.')
    if not isinstance(found, list):
        raise BadRow(field, f"must be a list, not {kind_of(found)}", "Use a list of messages.")
    if not found:
        raise BadRow(field, "field is empty", "Add at least one question and one answer, or remove this row.")
    return [_message(message, f"{field}[{number}]") for number, message in enumerate(found)]


def check_prompt(prompt: list[Message], field: str) -> None:
    """A prompt ends where an answer is due."""
    if prompt[-1]["role"] not in ("user", "tool"):
        raise BadRow(field, "the prompt does not end with a question", "Let its last message be the user's.")
    if prompt[0]["role"] not in ("system", "user"):
        raise BadRow(field, "the first message is not the user's", "Begin with system or user.")


def check_answer(answer: list[Message], field: str) -> None:
    """An answer is the assistant's, with what its tools return in between."""
    if any(message["role"] not in ("assistant", "tool") for message in answer):
        raise BadRow(field, "holds more than the answer", "Put every message before the answer into the prompt.")
    if answer[-1]["role"] != "assistant":
        raise BadRow(field, "the last message is not the assistant's", "End the answer with what the assistant says.")


def _check_order(messages: list[Message]) -> None:
    answers = [message for message in messages if message["role"] == "assistant"]
    if not answers:
        raise BadRow("messages", "no message of the assistant", "Add the answer the model should learn.")
    if messages[-1]["role"] != "assistant":
        where = f"messages[{len(messages) - 1}].role"
        raise BadRow(where, "the last message is not the assistant's", "End the row with the answer to learn.")
    if messages[0]["role"] not in ("system", "user"):
        raise BadRow("messages[0].role", "the first message is not the user's", "Begin with system or user.")
    if all(message.get("weight") == 0 for message in answers):
        raise BadRow("messages", "every answer has weight 0", "Give at least one answer weight 1.")


def _message(message: object, where: str) -> Message:
    if not isinstance(message, dict):
        raise BadRow(where, f"must be an object, not {kind_of(message)}", 'Use {"role": …, "content": …}.')
    role = message.get("role")
    if "role" not in message:
        raise BadRow(f"{where}.role", "field is missing", f"Add the role: {', '.join(ROLES)}.")
    if role not in ROLES:
        raise BadRow(f"{where}.role", "unknown role", f"Use one of {', '.join(ROLES)}.")
    clean: Message = {"role": "system" if role == "developer" else role}
    calls = _tool_calls(message, where)
    clean["content"] = _content(message, where, needed=role in ("user", "assistant") and not calls)
    for field in ("name", "tool_call_id", "reasoning_content"):
        if message.get(field) is not None:
            clean[field] = _text(message[field], f"{where}.{field}")
    if calls:
        clean["tool_calls"] = calls
    if message.get("weight") is not None:
        clean["weight"] = _weight(message, where)
    return clean


def _content(message: dict[str, Any], where: str, *, needed: bool) -> str | None:
    where = f"{where}.content"
    content = message.get("content")
    if content is None:
        if needed or message["role"] != "assistant":
            kind = "field is empty" if "content" in message else "field is missing"
            raise BadRow(where, kind, "Write the text of this message.")
        return None
    text = _parts(content, where) if isinstance(content, list) else _text(content, where)
    if needed and not text.strip():
        raise BadRow(where, "field is empty", "Write the text of this message, or remove this row.")
    return text


def _parts(parts: list[Any], where: str) -> str:
    texts = []
    for number, part in enumerate(parts):
        here = f"{where}[{number}]"
        if not isinstance(part, dict):
            raise BadRow(here, f"must be an object, not {kind_of(part)}", 'Use {"type": "text", "text": …}.')
        if part.get("type") != "text":
            raise BadRow(f"{here}.type", "part is not text", "Only text can be trained on: remove other parts.")
        texts.append(_text(part.get("text"), f"{here}.text"))
    return "".join(texts)


def read_text(row: dict[str, Any], field: str) -> str:
    """A field that holds text, and more than white space."""
    if field not in row:
        raise BadRow(field, "field is missing", f'Add "{field}" with a text to this row.')
    if not _text(row[field], field).strip():
        raise BadRow(field, "field is empty", f'Write a text in "{field}", or remove this row.')
    return str(row[field])


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise BadRow(where, f"must be text, not {kind_of(value)}", "Put the value in quotes.")
    return value


def _weight(message: dict[str, Any], where: str) -> int:
    weight = message["weight"]
    if message["role"] != "assistant":
        raise BadRow(f"{where}.weight", "only answers have a weight", "Remove the weight from this message.")
    if isinstance(weight, bool) or weight not in (0, 1):
        raise BadRow(f"{where}.weight", "weight must be 0 or 1", "Use 1 to learn this answer, 0 to only read it.")
    return int(weight)


def _tool_calls(message: dict[str, Any], where: str) -> list[dict[str, Any]]:
    calls = message.get("tool_calls")
    if calls is None or calls == []:
        return []
    where = f"{where}.tool_calls"
    if message["role"] != "assistant":
        raise BadRow(where, "only the assistant calls tools", "Move the calls to a message of the assistant.")
    if not isinstance(calls, list):
        raise BadRow(where, f"must be a list, not {kind_of(calls)}", "Use a list of calls.")
    return [_tool_call(call, f"{where}[{number}]") for number, call in enumerate(calls)]


def _tool_call(call: object, where: str) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow(where, "is not a tool call", 'Use {"id", "type": "function", "function": {"name", "arguments"}}.')
    clean: dict[str, Any] = {"type": "function"}
    if call.get("id") is not None:
        clean["id"] = _text(call["id"], f"{where}.id")
    arguments = _arguments(function.get("arguments", {}), f"{where}.function.arguments")
    return clean | {"function": {"name": function["name"], "arguments": arguments}}


def _arguments(arguments: object, where: str) -> dict[str, Any]:
    """OpenAI writes them as JSON in a text, chat templates want the object; types inside are kept either way."""
    fix = "Use an object, or a text that holds one as JSON."
    if isinstance(arguments, str):
        try:
            arguments = parse(arguments or "{}")
        except (ValueError, RecursionError):
            raise BadRow(where, "is not valid JSON", fix) from None
    if not isinstance(arguments, dict):
        raise BadRow(where, f"must be an object, not {kind_of(arguments)}", fix)
    return arguments


def read_tools(tools: object) -> Tools | None:
    if tools is None or tools == []:
        return None
    if not isinstance(tools, list):
        raise BadRow("tools", f"must be a list, not {kind_of(tools)}", "Use a list of tool definitions.")
    for number, tool in enumerate(tools):
        function = tool.get("function") if isinstance(tool, dict) else None
        if not isinstance(function, dict) or not isinstance(function.get("name"), str):
            fix = 'Use {"type": "function", "function": {"name", "description", "parameters"}}.'
            raise BadRow(f"tools[{number}]", "is not a tool definition", fix)
    return tools
