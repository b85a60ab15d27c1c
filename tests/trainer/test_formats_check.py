"""Checking a file: which rows are good, what is said of the others, and on which line of the file."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.files import GOOD, check
from trainer.events import Event, Finished, RowsRead
from trainer.formats import content_id, iter_rows, read_rows
from trainer.formats.check import check_file

CHAT = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'


def lines_of(folder: Path) -> list[int]:
    return [row.line for row in iter_rows(folder / "out" / "rows.parquet")]


def chat(*messages: dict[str, Any], **fields: Any) -> str:
    return json.dumps({"messages": messages, **fields})


USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}


def test_alpaca_jsonl_becomes_messages(tmp_path: Path) -> None:
    row = {"instruction": "Add", "input": "1 2", "output": "3", "system": "Be brief", "history": [["a", "b"]]}
    report = check(tmp_path, json.dumps(row))
    assert (report["format"], report["rows"], report["bad_rows"]) == ("alpaca", 1, 0)
    (only,) = iter_rows(tmp_path / "out" / "rows.parquet")
    assert [(m["role"], m["content"]) for m in only.messages] == [
        ("system", "Be brief"),
        ("user", "a"),
        ("assistant", "b"),
        ("user", "Add\n1 2"),
        ("assistant", "3"),
    ]
    assert isinstance(report["events"][-1], Finished)


def test_empty_input_leaves_the_instruction_alone(tmp_path: Path) -> None:
    check(tmp_path, '{"instruction": "Add", "input": "", "output": "3"}')
    assert read_rows(tmp_path / "out" / "rows.parquet", 0, 1)[0].messages[0]["content"] == "Add"


@pytest.mark.parametrize("indent", [None, 2])
def test_json_list_goes_in_like_jsonl(tmp_path: Path, indent: int | None) -> None:
    rows = [{"instruction": f"q{n}", "output": "é\u2028\n" * n + "."} for n in range(50)]
    as_list = check(tmp_path, json.dumps(rows, indent=indent, ensure_ascii=False))
    as_lines = check(tmp_path, "\n".join(json.dumps(row) for row in rows))
    assert as_list["rows"] == as_lines["rows"] == 50
    assert as_list["content_hash"] == as_lines["content_hash"]


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    check(tmp_path, f"\ufeff\r\n{GOOD}\r\n\r\n   \r\n{GOOD}\r\n")
    assert lines_of(tmp_path) == [2, 5]
    check(tmp_path, json.dumps([json.loads(GOOD)] * 3, indent=2))
    assert lines_of(tmp_path) == [2, 6, 10]
    check(tmp_path, f"[{GOOD}, {GOOD},\n{GOOD}]")
    assert lines_of(tmp_path) == [1, 1, 2]


def test_lines_are_right_far_into_a_long_list(tmp_path: Path) -> None:
    """Beyond the reader's window of a megabyte."""
    rows: list[Any] = [{"instruction": "q", "output": "x" * 3000} for _ in range(1000)] + [{"instruction": "q"}]
    report = check(tmp_path, json.dumps(rows, indent=1))
    assert [(e["line"], e["field"]) for e in report["errors"]] == [(1000 * 4 + 2, "output")]


BAD_ROWS = {
    "not an object": ("[1]", "a row must be an object, not a list", ""),
    "a text": ('"hello"', "a row must be an object, not text", ""),
    "field missing": ('{"instruction": "a"}', "field is missing", "output"),
    "field empty": ('{"instruction": "a", "output": "  "}', "field is empty", "output"),
    "field null": ('{"instruction": null, "output": "a"}', "must be text, not null", "instruction"),
    "wrong type": ('{"instruction": "a", "output": 5}', "must be text, not a number", "output"),
    "history": ('{"instruction": "a", "output": "b", "history": [["x"]]}', "is not a pair of texts", "history[0]"),
    "syntax": ('{"instruction": "a" "output": "b"}', "invalid JSON: Expecting ',' delimiter", "column 21"),
    "cut off": ('{"instruction": "a", "out', "invalid JSON: Unterminated string starting at", "column 22"),
    "two rows on a line": (GOOD + GOOD, "invalid JSON: more after the end of the row", f"column {len(GOOD) + 1}"),
    "line end in a text": ('{"instruction": "a\tb", "output": "c"}', "invalid JSON: Invalid control", "column 19"),
    "same key twice": ('{"instruction": "a", "output": "b", "output": "c"}', "the same key twice", "output"),
    "NaN": ('{"instruction": "a", "output": "b", "score": NaN}', "NaN and Infinity are not JSON", "score"),
    "infinite": ('{"instruction": "a", "output": "b", "score": 1e999}', "number too large", "score"),
    "huge integer": (
        '{"instruction": "a", "output": "b", "n": ' + "9" * 5000 + "}",
        "number too large",
        "n",
    ),
    "NaN inside": (
        '{"instruction": "a", "output": "b", "x": [{"y": [1, NaN]}]}',
        "NaN and Infinity are not JSON",
        "x[0].y[1]",
    ),
    "key twice inside": (
        '{"instruction": "a", "output": "b", "x": [0, {"y": 1, "y": 1}]}',
        "the same key twice",
        "x[1].y",
    ),
    "surrogate": ('{"instruction": "a", "output": "\\ud83d"}', "half a character (lone surrogate)", "output"),
    "NUL": ('{"instruction": "a", "output": "b\\u0000"}', "NUL character", "output"),
    "deep": (
        '{"instruction": "a", "output": "b", "x": ' + "[" * 150 + "]" * 150 + "}",
        "nested deeper than 100",
        "column 141",
    ),
    "very deep": ('["[", ' + "[" * 100_000, "nested too deeply", "column 106"),
    "mixed": (CHAT, "mixed formats: messages row in a file of alpaca rows", ""),
    "giant": ('{"instruction": "a", "output": "' + "x" * 5_000_000 + '"}', "row longer than 4 MB", ""),
}


@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_row_is_named_with_its_line(tmp_path: Path, case: str) -> None:
    text, problem, field = BAD_ROWS[case]
    report = check(tmp_path, f"{GOOD}\n\n{text}\n{GOOD}\n")
    (error,) = report["errors"]
    assert (error["line"], error["field"]) == (3, field)
    assert error["problem"].startswith(problem)
    assert error["fix"]
    assert error["text"] == text[:500]
    assert (report["rows"], report["bad_rows"], report["stopped_at"]) == (2, 1, 0)
    assert "line 3" in report["failed"]


@pytest.mark.parametrize(
    ("value", "fix"),
    [
        ("null", 'Write a text in "output", or remove this row.'),
        ("5", 'Put the value of "output" in quotes.'),
        ('{"a": "b"}', 'Write the text alone in "output", without the object around it.'),
        ('["a"]', 'Write the text alone in "output", without the list around it.'),
    ],
)
def test_the_fix_never_makes_a_text_of_what_is_none(tmp_path: Path, value: str, fix: str) -> None:
    (error,) = check(tmp_path, f'{{"instruction": "a", "output": {value}}}')["errors"]
    assert error["fix"] == fix


BAD_MESSAGES = {
    "unknown role": (chat(USER, {"role": "bot", "content": "x"}), "unknown role", "messages[1].role"),
    "role missing": (chat(USER, {"content": "x"}), "field is missing", "messages[1].role"),
    "last not assistant": (chat(USER, ANSWER, USER), "the last message is not the assistant's", "messages[2].role"),
    "no assistant": (chat(USER), "no message of the assistant", "messages"),
    "begins with an answer": (chat(ANSWER), "the first message is not the user's", "messages[0].role"),
    "no messages": (chat(), "field is empty", "messages"),
    "messages not a list": ('{"messages": "hi"}', "must be a list, not text", "messages"),
    "message not an object": ('{"messages": ["hi"]}', "must be an object, not text", "messages[0]"),
    "content null": (chat(USER, {"role": "assistant", "content": None}), "field is empty", "messages[1].content"),
    "content missing": (chat(USER, {"role": "assistant"}), "field is missing", "messages[1].content"),
    "content blank": (chat(USER, {"role": "assistant", "content": " "}), "field is empty", "messages[1].content"),
    "content number": (chat(USER, {"role": "assistant", "content": 3}), "must be text", "messages[1].content"),
    "image": (
        chat({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}, ANSWER),
        "part is not text",
        "messages[0].content[0].type",
    ),
    "weight": (chat(USER, ANSWER | {"weight": 0.5}), "weight must be 0 or 1", "messages[1].weight"),
    "weight of a question": (chat(USER | {"weight": 1}, ANSWER), "only answers have a weight", "messages[0].weight"),
    "all weights 0": (chat(USER, ANSWER | {"weight": 0}), "every answer has weight 0", "messages"),
    "tool arguments": (
        chat(USER, ANSWER | {"tool_calls": [{"function": {"name": "f", "arguments": "{oops"}}]}),
        "is not valid JSON",
        "messages[1].tool_calls[0].function.arguments",
    ),
    "tool without a call": (
        chat(USER, {"role": "tool", "content": "5"}, ANSWER),
        "a tool answers without a call",
        "messages[1]",
    ),
    "unknown tool_call_id": (
        chat(
            USER,
            {"role": "assistant", "tool_calls": [{"id": "c1", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "content": "5", "tool_call_id": "c2"},
            ANSWER,
        ),
        "no call before it has this id",
        "messages[2].tool_call_id",
    ),
    "tools": (chat(USER, ANSWER, tools=[{"name": "f"}]), "is not a tool definition", "tools[0]"),
}


@pytest.mark.parametrize("case", BAD_MESSAGES)
def test_bad_chat_row_is_named_with_its_field(tmp_path: Path, case: str) -> None:
    text, problem, field = BAD_MESSAGES[case]
    report = check(tmp_path, f"{CHAT}\n{text}\n")
    (error,) = report["errors"]
    assert (error["line"], error["field"]) == (2, field)
    assert error["problem"].startswith(problem)


LIST = f"[\n  {GOOD},\n  "
BAD_FILES: dict[str, tuple[bytes, str, int]] = {
    "empty": (b"", "the file has no rows", 1),
    "blank": (b" \n\n", "the file has no rows", 1),
    "empty list": (b" []", "the file has no rows", 1),
    "one object over many lines": (json.dumps(json.loads(GOOD), indent=2).encode(), "one row is spread over", 1),
    "other fields": (b'{"ask": "a", "answer": "b"}\n', "format not recognised", 1),
    "list not closed": (LIST.encode() + GOOD.encode(), "the list is not closed with ]", 3),
    "no comma": (f"{LIST}{GOOD}\n{GOOD}]".encode(), "a comma or ] is missing after a row", 4),
    "comma at the end": (f"{LIST}{GOOD},\n]".encode(), "a comma after the last row", 4),
    "two lists": (f"[{GOOD}]\n[{GOOD}]".encode(), "more after the end of the list", 2),
    "broken row": (f'{LIST}{{"instruction": a}}\n]'.encode(), "invalid JSON: Expecting value", 3),
    "not UTF-8": (LIST.encode() + b'\n{"instruction": "caf\xe9"}]', "not UTF-8", 4),
    "nested too deeply": (LIST.encode() + b"[" * 100_000, "nested too deeply", 3),
    "giant row": (LIST.encode() + b'{"instruction": "' + b"x" * 6_000_000 + b'"}]', "row longer than 4 MB", 3),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_broken_file_is_refused_where_it_breaks(tmp_path: Path, case: str) -> None:
    content, problem, line = BAD_FILES[case]
    report = check(tmp_path, content, skip=True)
    assert report["failed"]
    assert report["errors"][-1]["problem"].startswith(problem)
    assert (report["errors"][-1]["line"], report["stopped_at"]) == (line, line)
    assert report["errors"][-1]["fix"]


def test_bytes_that_are_not_text_spoil_only_their_line(tmp_path: Path) -> None:
    report = check(tmp_path, f"{GOOD}\n".encode() + b'{"instruction": "caf\xe9", "output": "x"}\n', skip=True)
    assert (report["rows"], report["bad_rows"], report["errors"][0]["field"]) == (1, 1, "byte 21")


def test_good_rows_go_on_without_bad_ones_only_when_asked(tmp_path: Path) -> None:
    content = f"{GOOD}\n{{}}\n{GOOD}\n"
    assert check(tmp_path, content)["failed"].startswith("1 of 3 rows cannot be used.")
    report = check(tmp_path, content, skip=True)
    assert (report["failed"], report["rows"], report["bad_rows"]) == ("", 2, 1)
    assert lines_of(tmp_path) == [1, 3]


def test_no_good_row_is_refused_even_when_skipping(tmp_path: Path) -> None:
    assert check(tmp_path, '{"instruction": "a"}\n', skip=True)["failed"]


def test_errors_are_listed_to_a_hundred_and_all_counted(tmp_path: Path) -> None:
    report = check(tmp_path, '{"instruction": "a"}\n' * 250 + f"{CHAT}\n" * 3 + GOOD)
    assert len(report["errors"]) == 100
    assert list(report["error_counts"].items())[0] == ("field is missing", 250)
    assert report["bad_rows"] == 253


def test_repairs_and_ignored_fields_are_named(tmp_path: Path) -> None:
    developer = {"role": "developer", "content": "Be brief"}
    row = chat(developer, USER, ANSWER | {"mood": "good"}, source="web")
    report = check(tmp_path, f"\ufeff{row}\n")
    assert len(report["repairs"]) == 2
    assert report["ignored_fields"] == {"messages.mood": 1, "source": 1}
    (only,) = iter_rows(tmp_path / "out" / "rows.parquet")
    assert only.messages == [{"role": "system", "content": "Be brief"}, USER, ANSWER]


def test_tool_calls_keep_their_types(tmp_path: Path) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1, "b": [2.5, null]}'}}
    tools = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
    asked = {"role": "assistant", "content": None, "tool_calls": [call]}
    row = chat(USER, asked, {"role": "tool", "tool_call_id": "c1", "content": ""}, ANSWER, tools=tools)
    report = check(tmp_path, row)
    (only,) = iter_rows(tmp_path / "out" / "rows.parquet")
    assert only.messages[1]["tool_calls"][0]["function"]["arguments"] == {"a": 1, "b": [2.5, None]}
    assert only.tools == tools
    assert (report["statistics"]["with_tools"], report["statistics"]["empty"]) == (1, 1)


def test_statistics(tmp_path: Path) -> None:
    rows = [{"instruction": "q", "output": "x" * n, "system": "s" if n % 2 else ""} for n in range(1, 101)]
    statistics = check(tmp_path, json.dumps([*rows, rows[0]]))["statistics"]
    assert statistics["characters"]["max"] == 101
    assert statistics["answer_characters"]["p50"] == 50
    assert (statistics["with_system"], statistics["duplicates"]) == (51, 1)
    ids = [row.id for row in iter_rows(tmp_path / "out" / "rows.parquet")]
    assert len(set(ids)) == 101
    assert ids[-1] == f"{ids[0]}-2"
    assert content_id(ids[-1]) == content_id(ids[0]) == ids[0]
    assert len({content_id(one) for one in ids}) == 100


def test_pages_of_rows_cross_groups(tmp_path: Path) -> None:
    content = "\n".join(json.dumps({"instruction": f"q{n}", "output": "a"}) for n in range(2100))
    check(tmp_path, content)
    path = tmp_path / "out" / "rows.parquet"
    assert [row.line for row in read_rows(path, 990, 20)] == list(range(991, 1011))
    assert [row.line for row in read_rows(path, 2095, 20)] == list(range(2096, 2101))
    assert read_rows(path, 2100, 20) == []


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1).filter(str.strip)
TURNS = st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=3)


@settings(deadline=None, max_examples=60)
@given(st.lists(TURNS, min_size=1, max_size=5), st.booleans(), st.sampled_from([None, 1, 4]))
def test_what_goes_in_comes_out(tmp_path_factory: Any, rows: list[Any], ascii_only: bool, indent: int | None) -> None:
    folder = tmp_path_factory.mktemp("round")
    chats = [
        [
            m
            for user, answer in turns
            for m in ({"role": "user", "content": user}, {"role": "assistant", "content": answer})
        ]
        for turns in rows
    ]
    whole = [{"messages": messages} for messages in chats]
    if indent:
        content = json.dumps(whole, ensure_ascii=ascii_only, indent=indent)
    else:
        content = "".join(json.dumps(row, ensure_ascii=ascii_only) + "\n" for row in whole)
    report = check(folder, content)
    assert not report["failed"]
    assert [row.messages for row in iter_rows(folder / "out" / "rows.parquet")] == chats


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=60), st.sampled_from([b"", b"[", GOOD.encode() + b"\n", b"[" + GOOD.encode() + b","]))
def test_no_bytes_bring_it_down(tmp_path_factory: Any, noise: bytes, before: bytes) -> None:
    report = check(tmp_path_factory.mktemp("noise"), before + noise)
    assert report["errors"] or report["rows"]


@pytest.mark.skipif(sys.platform != "linux", reason="reads its own peak from /proc")
def test_memory_stays_flat(tmp_path: Path) -> None:
    """A file much larger than what a check may hold; the child measures itself."""
    file = tmp_path / "big.jsonl"
    with file.open("w") as out:
        for number in range(40_000):
            out.write(json.dumps({"instruction": f"q{number}", "output": "x" * 1000}) + "\n")
    code = (
        "import sys; from pathlib import Path; from trainer.formats.check import check_file\n"
        "check_file(Path(sys.argv[1]), Path(sys.argv[2]), skip_bad_rows=False, emit=lambda event: None)\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", code, str(file), str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200 * 1024  # kB; the imports alone are about 75 MB


def test_it_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(f'{{"prompt": "Question {n}?", "completion": "Yes."}}\n' for n in range(1000)))
    monkeypatch.setattr("trainer.formats.progress.SECONDS", 0.0)
    told: list[Event] = []
    check_file(file, tmp_path / "plain", skip_bad_rows=False, emit=told.append)
    assert [one.rows for one in told if isinstance(one, RowsRead)] == [256, 512, 768]
    told.clear()
    monkeypatch.setattr("trainer.formats.check.worth_sections", lambda reading: True)
    check_file(file, tmp_path / "sections", skip_bad_rows=False, emit=told.append)
    size = file.stat().st_size
    assert [one for one in told if isinstance(one, RowsRead)][-1] == RowsRead(rows=1000, done=size, of=size)
