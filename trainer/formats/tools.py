"""Tool definitions and tool calls; argument types are kept, whether given as objects or as JSON text."""

from typing import Any

from trainer.formats.canonical import Tools
from trainer.formats.problems import BadRow, fix_for_non_text, json_type
from trainer.formats.strict import parse

FIX_CALL = 'Use {"id", "type": "function", "function": {"name", "arguments"}}.'
FIX_ARGUMENTS = "Use an object, or a text that holds one as JSON."
FIX_TOOL = 'Use {"type": "function", "function": {"name", "description", "parameters"}}.'


def read_calls(calls: object, where: str) -> list[dict[str, Any]]:
    """The calls in `tool_calls`: a list, or one as JSON text."""
    if isinstance(calls, str):
        return read_calls_text(calls, where)
    if not isinstance(calls, list):
        raise BadRow(where, f"must be a list, not {json_type(calls)}", "Use a list of calls.")
    return [read_call(call, f"{where}[{number}]") for number, call in enumerate(calls)]


def read_calls_text(text: str, where: str) -> list[dict[str, Any]]:
    """One call or a list of calls, as JSON text."""
    found = _parsed(text, where, 'Use {"name": …, "arguments": { … }}, or a list of such calls.')
    calls = read_calls(found if isinstance(found, list) else [found], where)
    if not calls:
        raise BadRow(where, "field is empty", "Write the call, or remove this message.")
    return calls


def read_call(call: object, where: str) -> dict[str, Any]:
    """One call, in OpenAI's form or as just a name with arguments."""
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise BadRow(where, "is not a tool call", FIX_CALL)
    clean: dict[str, Any] = {"type": "function"}
    if (found := call.get("id")) is not None:
        if not isinstance(found, str):
            raise BadRow(f"{where}.id", f"must be text, not {json_type(found)}", fix_for_non_text(found))
        clean["id"] = found
    place = f"{where}.function.arguments" if "function" in call else f"{where}.arguments"
    return clean | {"function": {"name": function["name"], "arguments": _arguments(function.get("arguments"), place)}}


def _arguments(arguments: object, where: str) -> dict[str, Any]:
    """Arguments as an object, as chat templates need them; OpenAI writes them as JSON text."""
    if isinstance(arguments, str):
        arguments = _parsed(arguments, where, FIX_ARGUMENTS) if arguments else {}
    if arguments is None:
        return {}
    if not isinstance(arguments, dict):
        raise BadRow(where, f"must be an object, not {json_type(arguments)}", FIX_ARGUMENTS)
    return arguments


def tools_of(row: dict[str, Any]) -> Tools | None:
    """The tools of a row, under `tools` or OpenAI's older name `functions`."""
    if "tools" in row and row["tools"]:
        return read_tools(row["tools"], "tools")
    return read_tools(row["functions"], "functions") if row.get("functions") else None


def read_tools(tools: object, where: str = "tools") -> Tools | None:
    """Tool definitions as a list or as JSON text; bare functions are wrapped as {"type": "function", …}."""
    if isinstance(tools, str) and not tools.isspace() and tools:
        tools = _parsed(tools, where, "Use a list of tool definitions, or a text that holds one as JSON.")
    if not tools:
        return None
    if not isinstance(tools, list):
        raise BadRow(where, f"must be a list, not {json_type(tools)}", "Use a list of tool definitions.")
    return [_tool(tool, f"{where}[{number}]") for number, tool in enumerate(tools)]


def _tool(tool: object, where: str) -> dict[str, Any]:
    if isinstance(tool, dict):
        function = tool.get("function")
        if isinstance(function, dict) and isinstance(function.get("name"), str):
            return tool
        if isinstance(tool.get("name"), str) and not tool.keys().isdisjoint({"description", "parameters"}):
            return {"type": "function", "function": {name: one for name, one in tool.items() if name != "type"}}
    raise BadRow(where, "is not a tool definition", FIX_TOOL)


def _parsed(text: str, where: str, fix: str) -> Any:
    try:
        return parse(text)
    except (ValueError, RecursionError):
        raise BadRow(where, "is not valid JSON", fix) from None
