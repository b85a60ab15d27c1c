"""Rows of other kinds than chat: pairs of answers, labelled completions, prompts with completions, plain text."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.errors import TrainerError
from trainer.formats import Row, iter_rows
from trainer.formats.check import check_file

ASK = {"role": "user", "content": "Hi"}
SYSTEM = {"role": "system", "content": "Be brief."}
GOOD = {"role": "assistant", "content": "Hello."}
BAD = {"role": "assistant", "content": "What?"}


def read(folder: Path, *rows: dict[str, Any]) -> tuple[dict[str, Any], list[Row]]:
    """The report on a file of these rows, and its canonical rows."""
    file, out = folder / "rows.jsonl", folder / "out"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    check_file(file, out, skip_bad_rows=False, emit=lambda event: None)
    return json.loads((out / "report.json").read_text()), list(iter_rows(out / "rows.parquet"))


def problem(folder: Path, row: dict[str, Any]) -> tuple[str, str]:
    """Where and what is wrong with a row."""
    with pytest.raises(TrainerError):
        read(folder, row)
    error = json.loads((folder / "out" / "report.json").read_text())["errors"][0]
    assert error["fix"]
    return error["field"], error["problem"]


PREFERENCES: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {
    "text": ({"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"}, [ASK]),
    "text with system": (
        {"system": "Be brief.", "prompt": "Hi", "chosen": "Hello.", "rejected": "What?"},
        [SYSTEM, ASK],
    ),
    "question": ({"question": "Hi", "chosen": "Hello.", "rejected": "What?"}, [ASK]),
    "messages": ({"prompt": [SYSTEM, ASK], "chosen": [GOOD], "rejected": [BAD]}, [SYSTEM, ASK]),
    "one message": ({"prompt": [ASK], "chosen": GOOD, "rejected": BAD}, [ASK]),
    "whole conversations": ({"chosen": [SYSTEM, ASK, GOOD], "rejected": [SYSTEM, ASK, BAD]}, [SYSTEM, ASK]),
    "both": ({"prompt": "Hi", "chosen": [ASK, GOOD], "rejected": [ASK, BAD], "messages": [ASK, GOOD]}, [ASK]),
    "alpaca": ({"instruction": "Hi", "input": "", "chosen": "Hello.", "rejected": "What?"}, [ASK]),
    "one text": ({"chosen": "Hi Hello.", "rejected": "Hi What?"}, [ASK]),
}


@pytest.mark.parametrize("layout", PREFERENCES)
def test_each_layout_of_preferences_becomes_the_same_row(tmp_path: Path, layout: str) -> None:
    given, prompt = PREFERENCES[layout]
    report, [row] = read(tmp_path, given)
    assert (report["format"], report["kind"], row.kind) == ("preference", "preference", "preference")
    assert (row.prompt, row.chosen, row.rejected, row.messages) == (prompt, [GOOD], [BAD], [])
    assert row.conversations() == [[*prompt, GOOD], [*prompt, BAD]]


def test_earlier_answers_of_a_prompt_are_only_read(tmp_path: Path) -> None:
    _, [row] = read(tmp_path, {"prompt": [ASK, GOOD, ASK], "chosen": [GOOD], "rejected": [BAD]})
    assert row.conversations()[0] == [ASK, {**GOOD, "weight": 0}, ASK, GOOD]


@pytest.mark.parametrize(
    ("row", "field", "said"),
    [
        ({"prompt": "Hi", "chosen": "Hello.", "rejected": "Hello."}, "rejected", "both answers are the same"),
        ({"prompt": "Hi", "chosen": "Hello."}, "rejected", "field is missing"),
        ({"prompt": "Hi", "chosen": "Hello.", "rejected": " "}, "rejected", "field is empty"),
        ({"prompt": "Hi", "chosen": 3, "rejected": "No"}, "chosen", "must be text, not a number"),
        ({"prompt": [ASK, GOOD], "chosen": [GOOD], "rejected": [BAD]}, "prompt", "the prompt does not end with a"),
        ({"chosen": [ASK, GOOD], "rejected": [SYSTEM, ASK, BAD]}, "rejected", "no prompt in common"),
        ({"chosen": [ASK, GOOD], "rejected": [ASK]}, "rejected", ""),
        ({"chosen": "Hello", "rejected": "What"}, "prompt", "field is missing"),
        ({"chosen": {}, "rejected": []}, "prompt", "field is missing"),
        ({"prompt": "Hi", "completion": "Hello.", "label": "yes"}, "label", "must be true or false, not text"),
        ({"prompt": "Hi", "completion": [], "label": True}, "completion", "field is empty"),
        ({"prompt": [], "completion": "a"}, "prompt", "field is empty"),
        ({"text": " "}, "text", "field is empty"),
    ],
)
def test_what_is_wrong_with_a_row(tmp_path: Path, row: dict[str, Any], field: str, said: str) -> None:
    where, what = problem(tmp_path, row)
    assert where == field and what.startswith(said)


def test_labelled_completions(tmp_path: Path) -> None:
    report, rows = read(
        tmp_path,
        {"prompt": "Hi", "completion": "Hello.", "label": True},
        {"prompt": [ASK], "completion": [BAD], "label": False},
    )
    assert (report["format"], report["kind"], report["statistics"]["desirable"]) == ("kto", "labelled", 1)
    assert [(row.prompt, row.completion, row.label) for row in rows] == [([ASK], [GOOD], True), ([ASK], [BAD], False)]


def test_prompts_with_completions_are_chat(tmp_path: Path) -> None:
    report, rows = read(
        tmp_path,
        {"prompt": "Hi", "completion": "Hello."},
        {"prompt": [ASK, BAD, ASK], "completion": [GOOD]},
    )
    assert (report["format"], report["kind"]) == ("prompt/completion", "chat")
    assert [row.messages for row in rows] == [[ASK, GOOD], [ASK, {**BAD, "weight": 0}, ASK, GOOD]]


def test_plain_text(tmp_path: Path) -> None:
    report, [row] = read(tmp_path, {"text": "Once upon a time."})
    assert (report["format"], report["kind"], row.kind, row.text) == ("text", "text", "text", "Once upon a time.")
    assert row.conversations() == [] and report["statistics"]["characters"]["max"] == 17


def test_kinds_are_not_mixed_up_by_their_content(tmp_path: Path) -> None:
    """The same words as pair, as labelled rows and as chat are different datasets."""
    rows = (
        {"prompt": "Hi", "chosen": "Hello.", "rejected": "What?"},
        {"prompt": "Hi", "completion": "Hello.", "label": True},
        {"prompt": "Hi", "completion": "Hello.", "label": False},
        {"prompt": "Hi", "completion": "Hello."},
    )
    assert len({read(tmp_path, row)[0]["content_hash"] for row in rows}) == len(rows)


def test_rows_from_before_there_were_kinds_are_read(tmp_path: Path) -> None:
    columns = {"id": ["a"], "line": [1], "messages": [json.dumps([ASK, GOOD])], "tools": pa.array([None], pa.string())}
    pq.write_table(pa.table(columns), tmp_path / "rows.parquet")
    [row] = iter_rows(tmp_path / "rows.parquet")
    assert (row.kind, row.messages, row.tools) == ("chat", [ASK, GOOD], None)
