"""Sample rows of every format people have, with what each one means; made by code. The bad ones: corpus_bad."""

import json
from dataclasses import dataclass, field
from typing import Any

from trainer.formats.canonical import Message
from trainer.formats.conversations import JOINED

Record = dict[str, Any]


def user(text: str, **more: Any) -> Message:
    return {"role": "user", "content": text, **more}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def answer(text: str | None, **more: Any) -> Message:
    return {"role": "assistant", "content": text, **more}


def call(name: str, arguments: Any, **more: Any) -> dict[str, Any]:
    return {"type": "function", **more, "function": {"name": name, "arguments": arguments}}


def tool(name: str) -> dict[str, Any]:
    return {"name": name, "description": "Adds.", "parameters": {"type": "object", "properties": {"a": {"default": 1}}}}


@dataclass(frozen=True)
class Sample:
    """A file's rows, the format they are found to be, and what its rows say (`shapes`, without empty tools)."""

    format: str
    rows: list[Record]
    shapes: list[dict[str, Any]]
    repairs: list[str] = field(default_factory=list)


def one(format_name: str, row: Record, *messages: Message, **beside: Any) -> Sample:
    """A row of a chat format."""
    return Sample(format_name, [row], [{"messages": list(messages), **beside}])


def pair(
    format_name: str, row: Record, *prompt: Message, good: str = "Hello.", bad: str = "What?", **beside: Any
) -> Sample:
    shape = {"prompt": list(prompt or [user("Hi")]), "chosen": [answer(good)], "rejected": [answer(bad)], **beside}
    return Sample(format_name, [row], [shape])


def judged(row: Record, *prompt: Message, label: bool, repairs: list[str] | None = None) -> Sample:
    shape = {"prompt": list(prompt or [user("Hi")]), "completion": [answer("Hello.")], "label": label}
    return Sample("kto", [row], [shape], repairs or [])


HI, HELLO = user("Hi"), answer("Hello.")
HUMAN, GPT = {"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}
WRAPPED = {"type": "function", "function": tool("add")}
ADDS = call("add", {"a": 1, "b": "1", "c": 1.5, "d": [None, True], "e": {"f": "007"}})
AS_TEXT = call("add", json.dumps(ADDS["function"]["arguments"]), id="c1")
BARE = {"name": "add", "arguments": ADDS["function"]["arguments"]}
THREE = tuple(
    {"from": who, "value": said}
    for who, said in (("human", "Add"), ("function_call", json.dumps(BARE)), ("observation", "2"), ("gpt", "It is 2."))
)
TOOL_TURNS = (user("Add"), answer(None, tool_calls=[ADDS]), {"role": "tool", "content": "2"}, answer("It is 2."))
TRANSCRIPT = "\n\nHuman: Hi\n\nAssistant: Hello.\n\nHuman: And?\n\nAssistant:"
LABELS = ["Labels written as text or as 1 and 0 are read as true and false (1 row)."]
DEVELOPER = ["Messages of the developer are read as system messages (1 row)."]

ALPACA = {
    "alpaca": one("alpaca", {"instruction": "Hi", "input": "", "output": "Hello."}, HI, HELLO),
    "alpaca with input": one(
        "alpaca", {"instruction": "Add", "input": "1 2", "output": "3"}, user("Add\n1 2"), answer("3")
    ),
    "alpaca with null input": one("alpaca", {"instruction": "Hi", "input": None, "output": "Hello."}, HI, HELLO),
    "alpaca with the rendered text": one(
        "alpaca", {"instruction": "Hi", "input": "", "output": "Hello.", "text": "x"}, HI, HELLO
    ),
    "alpaca with system and history": one(
        "alpaca",
        {"instruction": "Hi", "output": "Hello.", "system": "S", "history": [["a", "b"], ["c", "d"]]},
        *(system("S"), user("a"), answer("b"), user("c"), answer("d"), HI, HELLO),
    ),
    "oasst": Sample(
        "instruction/response",
        [{"INSTRUCTION": "Hi", "RESPONSE": "Hello."}],
        [{"messages": [HI, HELLO]}],
        ['The column "INSTRUCTION" is read as "instruction".', 'The column "RESPONSE" is read as "response".'],
    ),
    "gpteacher": one(
        "instruction/response", {"instruction": "Add", "input": "1 2", "response": "3"}, user("Add\n1 2"), answer("3")
    ),
    "dolly": one(
        "instruction/response",
        {"instruction": "When?", "context": "In 1969.", "response": "1969", "category": "closed_qa"},
        *(user("When?\nIn 1969."), answer("1969")),
    ),
    "load_qa": one("question/answer", {"question": "Hi", "answer": "Hello."}, HI, HELLO),
    "open_orca": one(
        "question/response",
        {"id": "1", "system_prompt": "S", "question": "Hi", "response": "Hello."},
        system("S"),
        HI,
        HELLO,
    ),
    "summarizetldr": one("article/summary", {"article": "Long.", "summary": "L."}, user("Long."), answer("L.")),
    "metharme": one("prompt/generation", {"prompt": "Hi", "generation": "Hello."}, HI, HELLO),
    "jeopardy": one("question/answer", {"question": "Hi", "category": "GREETINGS", "answer": "Hello."}, HI, HELLO),
    "context_qa article": one(
        "question/answer", {"article": "A.", "question": "Hi", "answer": "Hello."}, user("A.\n\nHi"), HELLO
    ),
    "context_qa context": one(
        "question/answer", {"context": "A.", "question": "Hi", "answer": "Hello."}, user("A.\n\nHi"), HELLO
    ),
    "query/response": one("query/response", {"query": "Hi", "response": "Hello.", "type": "x"}, HI, HELLO),
    "problem/solution": one("problem/solution", {"problem": "Hi", "solution": "Hello.", "source": "x"}, HI, HELLO),
    "input/output": one("input/output", {"input": "Hi", "output": "Hello."}, HI, HELLO),
}

CHAT = {
    "messages": one("messages", {"messages": [system("S"), HI, HELLO]}, system("S"), HI, HELLO),
    "system beside": one("messages", {"messages": [HI, HELLO], "system": "S"}, system("S"), HI, HELLO),
    "parts": Sample(
        "messages",
        [
            {
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]},
                    HELLO,
                ]
            }
        ],
        [{"messages": [HI, HELLO]}],
        [f"{JOINED} (1 row)."],
    ),
    "weights and names": one(
        "messages",
        {"messages": [HI | {"name": "ann"}, HELLO | {"weight": 0}, HI, HELLO | {"weight": 1}]},
        *(user("Hi", name="ann"), answer("Hello.", weight=0), HI, answer("Hello.", weight=1)),
    ),
    "developer": Sample(
        "messages",
        [{"messages": [{"role": "developer", "content": "S"}, HI, HELLO]}],
        [{"messages": [system("S"), HI, HELLO]}],
        DEVELOPER,
    ),
    "tool calls of OpenAI": one(
        "messages",
        {
            "messages": [
                *(user("Add"), {"role": "assistant", "content": None, "tool_calls": [AS_TEXT]}),
                *({"role": "tool", "tool_call_id": "c1", "content": "2"}, answer("It is 2.")),
            ],
            "tools": [WRAPPED],
            "parallel_tool_calls": False,
        },
        *(user("Add"), answer(None, tool_calls=[ADDS | {"id": "c1"}])),
        *({"role": "tool", "content": "2", "tool_call_id": "c1"}, answer("It is 2.")),
        tools=[WRAPPED],
    ),
    "tool calls of Hugging Face": one(
        "messages",
        {"messages": [user("Add"), {"role": "assistant", "tool_calls": [ADDS]}, *TOOL_TURNS[2:]], "tools": [WRAPPED]},
        *TOOL_TURNS,
        tools=[WRAPPED],
    ),
    "functions as once": one(
        "messages",
        {
            "messages": [
                *(user("Add"), {"role": "assistant", "content": None, "function_call": AS_TEXT["function"]}),
                *({"role": "function", "name": "add", "content": "2"}, answer("It is 2.")),
            ],
            "functions": [tool("add")],
        },
        *(TOOL_TURNS[0], TOOL_TURNS[1], {"role": "tool", "content": "2", "name": "add"}, TOOL_TURNS[3]),
        tools=[WRAPPED],
    ),
    "reasoning": one(
        "messages",
        {"messages": [HI, HELLO | {"reasoning_content": "A greeting."}, HI, answer("<think>So</think>Hello.")]},
        *(HI, answer("Hello.", reasoning_content="A greeting."), HI, answer("<think>So</think>Hello.")),
    ),
    "messages as JSON in a text": one("messages", {"messages": json.dumps([HI, HELLO]), "tools": ""}, HI, HELLO),
    "a label that is a class": one("messages", {"messages": [HI, HELLO], "label": 3}, HI, HELLO),
    "OpenAI's first words": one("messages", {"messages": [system("S"), HELLO]}, system("S"), HELLO),
    "AutoTrain": one("messages", {"text": [HI, HELLO]}, HI, HELLO),
    "Unsloth's texts": one("messages", {"texts": [HI, HELLO]}, HI, HELLO),
    "Unsloth's trace": one("messages", {"agent_trace": [HI, HELLO], "score": 1}, HI, HELLO),
    "a trace of turns": one("sharegpt", {"agent_trace": [HUMAN, GPT]}, HI, HELLO),
    "roles under conversations": one("messages", {"conversations": [HI, HELLO]}, HI, HELLO),
    "sharegpt": one("sharegpt", {"conversations": [HUMAN, GPT], "id": "x"}, HI, HELLO),
    "sharegpt by other names": one(
        "sharegpt",
        {"conversations": [{"from": "user", "value": "Hi"}, {"from": "chatgpt", "value": "Hello."}]},
        *(HI, HELLO),
    ),
    "sharegpt with system": one("sharegpt", {"conversations": [HUMAN, GPT], "system": "S"}, system("S"), HI, HELLO),
    "sharegpt with a system turn": one(
        "sharegpt", {"conversations": [{"from": "system", "value": "S"}, HUMAN, GPT]}, system("S"), HI, HELLO
    ),
    "sharegpt with tools": one(
        "sharegpt", {"conversations": list(THREE), "tools": json.dumps([tool("add")])}, *TOOL_TURNS, tools=[WRAPPED]
    ),
    "sharegpt with two calls": one(
        "sharegpt",
        {"conversations": [HUMAN, {"from": "function_call", "value": json.dumps([BARE, BARE])}, *THREE[2:]]},
        *(HI, answer(None, tool_calls=[ADDS, ADDS]), *TOOL_TURNS[2:]),
    ),
    "sharegpt with a thought before the call": one(
        "sharegpt",
        {
            "conversations": [
                HUMAN,
                {"from": "function_call", "value": f"<think>So</think>{json.dumps(BARE)}"},
                *THREE[2:],
            ]
        },
        *(HI, answer("<think>So</think>", tool_calls=[ADDS]), *TOOL_TURNS[2:]),
    ),
    "prompt and completion": one("prompt/completion", {"prompt": "Hi", "completion": "Hello."}, HI, HELLO),
    "prompt and completion as messages": one(
        "prompt/completion", {"prompt": [system("S"), HI], "completion": [HELLO]}, system("S"), HI, HELLO
    ),
    "prompt and response": one("prompt/response", {"prompt": "Hi", "response": "Hello."}, HI, HELLO),
    "plain text": Sample("text", [{"text": "Once."}], [{"text": "Once."}]),
}

PAIRS = {
    "TRL explicit": pair("preference", {"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"}),
    "TRL messages": pair("preference", {"prompt": [HI], "chosen": [HELLO], "rejected": [answer("What?")]}),
    "TRL implicit": pair("preference", {"chosen": [HI, HELLO], "rejected": [HI, answer("What?")]}),
    "hh-rlhf": pair(
        "preference",
        {"chosen": f"{TRANSCRIPT} Yes.", "rejected": f"{TRANSCRIPT} No."},
        *(HI, HELLO, user("And?")),
        good="Yes.",
        bad="No.",
    ),
    "OpenAI": pair(
        "preferred_output",
        {
            "input": {"messages": [HI], "tools": [WRAPPED], "parallel_tool_calls": True},
            "preferred_output": [HELLO],
            "non_preferred_output": [answer("What?")],
        },
        tools=[WRAPPED],
    ),
    "LLaMA-Factory alpaca": pair(
        "preference", {"instruction": "Add", "input": "1", "chosen": "Hello.", "rejected": "What?"}, user("Add\n1")
    ),
    "LLaMA-Factory sharegpt": pair(
        "preference",
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "What?"}, "system": "S"},
        *(system("S"), HI),
    ),
    "argilla": pair(
        "preference",
        {"system": "S", "instruction": "Hi", "chosen_response": "Hello.", "rejected_response": "What?"},
        *(system("S"), HI),
    ),
    "intel": pair("preference", {"system": "", "question": "Hi", "chosen": "Hello.", "rejected": "What?"}),
    "distilabel": pair(
        "preference", {"system": "S", "input": "Hi", "chosen": "Hello.", "rejected": "What?"}, system("S"), HI
    ),
    "ultra": pair(
        "preference",
        {"prompt": "Hi", "chosen": [HI, HELLO], "rejected": [HI, answer("What?")], "messages": [HI, HELLO]},
    ),
    "nectar": pair(
        "ranked answers",
        {
            "prompt": "\n\nHuman: Hi\n\nAssistant: ",
            "answers": [
                {"answer": t, "rank": n, "model": "m"} for t, n in (("Bad", 3.0), ("What?", 2.0), ("Hello.", 1.0))
            ],
        },
    ),
    "AutoTrain DPO": pair("preference", {"prompt": "Hi", "text": "Hello.", "rejected_text": "What?"}),
    "AutoTrain reward": pair("preference", {"text": "Hi Hello.", "rejected_text": "Hi What?"}),
}

JUDGED = {
    "TRL": judged({"prompt": "Hi", "completion": "Hello.", "label": True}, label=True),
    "TRL messages": judged({"prompt": [HI], "completion": [HELLO], "label": False}, label=False),
    "numbers": judged({"prompt": "Hi", "completion": "Hello.", "label": 1}, label=True, repairs=LABELS),
    "texts": judged({"prompt": "Hi", "completion": "Hello.", "label": "False"}, label=False, repairs=LABELS),
    "LLaMA-Factory": judged({"conversations": [HUMAN, GPT], "kto_tag": False}, label=False),
    "LLaMA-Factory messages with a label": judged({"messages": [HI, HELLO], "label": True}, label=True),
    "prompt and response": judged({"prompt": "Hi", "response": "Hello.", "label": False}, label=False),
    "LLaMA-Factory messages": judged({"messages": [HI, HELLO], "kto_tag": True}, label=True),
    "LLaMA-Factory alpaca": judged({"instruction": "Hi", "input": "", "output": "Hello.", "kto_tag": True}, label=True),
}


def turn(own: Any, parent: Any, asked: str, said: str, **more: Any) -> Record:
    return {"instruction": asked, "output": said, "id": own, "parent_id": parent, **more}


CHAINS = {
    "in any order": Sample(
        "chains",
        [turn("c", "b", "q3", "a3"), turn("a", None, "q1", "a1", system="S"), turn("b", "a", "q2", "a2")],
        [{"messages": [system("S"), *(m for n in "123" for m in (user(f"q{n}"), answer(f"a{n}")))]}],
    ),
    "with branches": Sample(
        "chains",
        [turn(1, None, "q1", "a1"), turn(2, 1.0, "q2", "a2"), turn(3, 1.0, "q3", "a3"), turn(4, None, "q4", "a4")],
        [
            {"messages": [user("q1"), answer("a1"), user("q2"), answer("a2")]},
            {"messages": [user("q1"), answer("a1", weight=0), user("q3"), answer("a3")]},
            {"messages": [user("q4"), answer("a4")]},
        ],
    ),
}
GOOD: dict[str, Sample] = {
    f"{group}: {name}": sample
    for group, samples in (("alpaca", ALPACA), ("chat", CHAT), ("dpo", PAIRS), ("kto", JUDGED), ("h2o", CHAINS))
    for name, sample in samples.items()
}
