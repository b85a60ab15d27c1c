"""Rows that are refused: the row, the field that is named, and how the problem begins."""

from tests.trainer.corpus import GPT, HELLO, HI, HUMAN, Record, answer, call, system, turn, user
from trainer.formats.canonical import Message

CALLING: tuple[Message, ...] = (user("Add"), answer(None, tool_calls=[call("add", "{oops")]))
BAD: dict[str, tuple[Record, str, str]] = {
    "value missing": ({"conversations": [HUMAN, {"from": "gpt"}]}, "conversations[1].value", "field is missing"),
    "from unknown": (
        {"conversations": [HUMAN, {"from": "cat", "value": "x"}]},
        "conversations[1].from",
        "unknown role",
    ),
    "from a list": ({"conversations": [{"from": [], "value": "x"}, GPT]}, "conversations[0].from", "unknown role"),
    "no gpt": ({"conversations": [HUMAN]}, "conversations", "no message of the assistant"),
    "begins with gpt": ({"conversations": [GPT, HUMAN, GPT]}, "conversations[0].from", "the first message is not the"),
    "ends with human": ({"conversations": [HUMAN, GPT, HUMAN]}, "conversations[2].from", "the last message is not the"),
    "call no JSON": (
        {"conversations": [HUMAN, {"from": "function_call", "value": "add(1)"}, GPT]},
        "conversations[1].value",
        "is not valid JSON",
    ),
    "call without a name": (
        {"conversations": [HUMAN, {"from": "function_call", "value": '{"arguments": {}}'}, GPT]},
        "conversations[1].value[0]",
        "is not a tool call",
    ),
    "tools no JSON": ({"conversations": [HUMAN, GPT], "tools": "[oops"}, "tools", "is not valid JSON"),
    "two systems": (
        {"messages": [system("A"), HI, HELLO], "system": "B"},
        "system",
        "two system messages",
    ),
    "arguments no JSON": (
        {"messages": [*CALLING, HELLO]},
        "messages[1].tool_calls[0].function.arguments",
        "is not valid JSON",
    ),
    "arguments a list": (
        {"messages": [user("Add"), answer(None, tool_calls=[call("add", "[1]")]), HELLO]},
        "messages[1].tool_calls[0].function.arguments",
        "must be an object, not a list",
    ),
    "arguments with NaN": (
        {"messages": [user("Add"), answer(None, tool_calls=[call("add", '{"a": NaN}')]), HELLO]},
        "messages[1].tool_calls[0].function.arguments",
        "is not valid JSON",
    ),
    "old call of a user": (
        {"messages": [user("Add", function_call={"name": "f", "arguments": "{}"}), HELLO]},
        "messages[0].function_call",
        "only the assistant calls tools",
    ),
    "image part": (
        {"messages": [user([{"type": "image_url", "image_url": {"url": "x"}}]), HELLO]},  # type: ignore[arg-type]
        "messages[0].content[0].type",
        "part is not text",
    ),
    "images": ({"conversations": [HUMAN, GPT], "images": ["a.png"]}, "images", "the row holds images"),
    "sound": ({"instruction": "Hi", "output": "Hello.", "audio": "a.wav"}, "audio", "the row holds sound"),
    "input no object": (
        {"input": "Hi", "preferred_output": [HELLO], "non_preferred_output": [HI]},
        "input",
        "must be an object, not text",
    ),
    "input without a question": (
        {"input": {"messages": [HI, HELLO]}, "preferred_output": [HELLO], "non_preferred_output": [answer("x")]},
        "input.messages",
        "the prompt does not end with a question",
    ),
    "preferred by a user": (
        {"input": {"messages": [HI]}, "preferred_output": [HI], "non_preferred_output": [HELLO]},
        "preferred_output",
        "holds more than the answer",
    ),
    "one rank": (
        {"prompt": "Hi", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 1}]},
        "answers",
        "no answer is better",
    ),
    "rank a text": (
        {"prompt": "Hi", "answers": [{"answer": "a", "rank": "first"}]},
        "answers[0].rank",
        "must be a number, not text",
    ),
    "ranked number": (
        {"prompt": "Hi", "answers": [{"answer": 1, "rank": 1}]},
        "answers[0].answer",
        "must be text, not a number",
    ),
    "tag": ({"conversations": [HUMAN, GPT], "kto_tag": "good"}, "kto_tag", "must be true or false, not text"),
    "argilla's rejected": (
        {"instruction": "Hi", "chosen_response": "a", "rejected_response": ""},
        "rejected_response",
        "field is empty",
    ),
    "other name": ({"INSTRUCTION": "Hi", "RESPONSE": " "}, "RESPONSE", "field is empty"),
    "empty turn": (
        {"chosen": "\n\nHuman: \n\nAssistant: a", "rejected": "\n\nHuman: \n\nAssistant: b"},
        "chosen",
        "holds an empty turn",
    ),
    "summary": ({"article": "Long.", "summary": None}, "summary", "must be text, not null"),
    "system a number": (
        {"question": "Hi", "response": "x", "system_prompt": 3},
        "system_prompt",
        "must be text, not a",
    ),
    "two contexts": (
        {"question": "Hi", "answer": "Hello.", "context": "a", "article": "b"},
        "article",
        'says what "context" says',
    ),
    "id empty": (turn("", None, "q", "a"), "id", "field is empty"),
    "id a list": (turn([], None, "q", "a"), "id", "must be text or a number, not a list"),
    "parent lost": (turn("b", "a", "q", "a"), "parent_id", "no row has this id"),
    "own parent": (turn("a", "a", "q", "a"), "parent_id", "the rows form a cycle"),
    "answer of a chain": (turn("a", None, "q", " "), "output", "field is empty"),
}
