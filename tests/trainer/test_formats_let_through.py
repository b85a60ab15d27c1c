"""What may not be meant in a conversation, and is let through: it is never silent."""

import json
from pathlib import Path

import pytest

from tests.trainer.files import check

USER = {"role": "user", "content": "Hi"}
ANSWER = {"role": "assistant", "content": "Hello"}
PARTS = {"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}
LET_THROUGH = {
    "the same speaker twice": ([USER, USER, ANSWER], "Consecutive messages of the same speaker"),
    "a late system message": (
        [USER, ANSWER, {"role": "system", "content": "S"}, USER, ANSWER],
        "A system message comes after",
    ),
    "parts": ([PARTS, ANSWER], "The text parts of a message are joined without"),
    "calls as text": ([USER, ANSWER, {"role": "tool", "content": "5"}, ANSWER], "Tool results follow answers"),
}


@pytest.mark.parametrize("column", ["messages", "chosen"])
@pytest.mark.parametrize("case", LET_THROUGH)
def test_what_may_not_be_meant_is_let_through_by_name(tmp_path: Path, case: str, column: str) -> None:
    turns, said = LET_THROUGH[case]
    row = (
        {"messages": turns}
        if column == "messages"
        else {"chosen": turns, "rejected": [*turns[:-1], ANSWER | {"content": "No"}]}
    )
    report = check(tmp_path, json.dumps(row))
    assert (report["rows"], report["errors"], len(report["repairs"])) == (1, [], 1)
    assert report["repairs"][0].startswith(said) and report["repairs"][0].endswith(" (1 row).")
