"""What rows mean: every format people have goes in as it is, and what is wrong with a row is said with its place."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.corpus import CHAINS, GOOD, HELLO, HI, turn
from tests.trainer.corpus_bad import BAD
from trainer.errors import TrainerError
from trainer.formats import iter_rows
from trainer.formats.check import check_file
from trainer.formats.detect import FAMILIES, recognise
from trainer.formats.problems import BadRow

GPT_NO = {"role": "assistant", "content": "No."}


def check(folder: Path, rows: list[Any], *, skip: bool = False) -> dict[str, Any]:
    """The report on a file of these rows, one on each line."""
    file, out = folder / "rows.jsonl", folder / "out"
    file.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    try:
        check_file(file, out, skip_bad_rows=skip, emit=lambda event: None)
    except TrainerError as error:
        assert (error.code, bool(error.fix)) == ("dataset_invalid", True)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def shapes(folder: Path) -> list[dict[str, Any]]:
    return [row.shape() for row in iter_rows(folder / "out" / "rows.parquet")]


@pytest.mark.parametrize("name", GOOD)
def test_a_sample_goes_in_as_it_is(tmp_path: Path, name: str) -> None:
    sample = GOOD[name]
    report = check(tmp_path, sample.rows)
    assert (report["format"], report["errors"]) == (sample.format, [])
    assert shapes(tmp_path) == sample.shapes
    assert report["repairs"] == sample.repairs
    assert report["sure"] >= 0.8 and report["saw"].endswith(".")


@pytest.mark.parametrize("name", BAD)
def test_a_bad_row_is_named_with_its_place(tmp_path: Path, name: str) -> None:
    row, field, problem = BAD[name]
    report = check(tmp_path, [row])
    (error,) = report["errors"]
    assert (error["line"], error["field"]) == (1, field)
    assert error["problem"].startswith(problem) and error["fix"]


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from(["[{", '[{"role":1}]', "{"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(sorted({"role", "content", "from", "value", "tool_calls", "function"})), inner
        )
    ),
    max_leaves=6,
)
NAMES = sorted({name for family in FAMILIES for name in family.fields} | {"a_trace", "images", "text"})
ROWS = st.one_of(
    st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6),
    # A good row with one value that is not.
    st.builds(
        lambda sample, name, value: {**sample.rows[0], name: value},
        st.sampled_from(list(GOOD.values())),
        st.sampled_from(NAMES),
        VALUES,
    ),
)


@settings(deadline=None, max_examples=80)
@given(ROWS)
def test_no_row_makes_a_family_raise_anything_but_a_bad_row(row: dict[str, Any]) -> None:
    recognise([row])
    for family in FAMILIES:
        family.matches(row)
        try:
            family.to_content(row)
        except BadRow as bad:
            assert bad.found.problem and bad.found.fix
            continue
        list(family.ignored_fields(row))
        list(family.repaired(row))


def change(value: Any, data: st.DataObject) -> Any:
    """The value with one thing inside it replaced."""
    if isinstance(value, dict) and value and data.draw(st.booleans()):
        name = data.draw(st.sampled_from(sorted(value)))
        return {**value, name: change(value[name], data)}
    if isinstance(value, list) and value and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(value) - 1))
        return [*value[:at], change(value[at], data), *value[at + 1 :]]
    return data.draw(VALUES)


@settings(deadline=None, max_examples=80)
@given(st.data())
def test_a_sample_with_one_wrong_value_is_read_or_refused(data: st.DataObject) -> None:
    row = change(data.draw(st.sampled_from(list(GOOD.values()))).rows[0], data)
    if not isinstance(row, dict):
        return
    for family in FAMILIES:
        try:
            content = family.to_content(row)
        except BadRow:
            continue
        content.to_bytes()
        list(family.ignored_fields(row))
        list(family.repaired(row))


def test_what_was_seen_is_said() -> None:
    found = recognise([{"instruction": "a", "output": "b"}] * 3 + [{"instruction": "a"}])
    assert found.saw == '3 of the 4 rows looked at hold "instruction" and "output" (alpaca).'
    assert 0.5 < found.sure < 1
    assert recognise([{"ask": 1, "reply": 2}]).saw == 'No known format: fields "ask", "reply".'
    assert recognise([]).family is None


def test_a_file_of_several_formats_is_said_to_be_one() -> None:
    rows = [{"instruction": "a", "output": "b"}] * 4 + [{"messages": [HI, HELLO]}] * 3 + [{"text": "a"}] * 3
    found = recognise(rows)
    assert found.family and (found.family.name, found.sure) == ("alpaca", 0.4)
    assert found.saw.endswith("Others are of other formats: messages (3), text (3).")


def test_two_formats_in_the_same_rows_are_named() -> None:
    found = recognise([{"text": "a", "messages": [HI, HELLO]}])
    assert found.family and found.family.name == "messages"
    assert 'also hold "text"' in found.saw and found.sure <= 0.8


def test_half_of_what_a_format_needs_under_other_names_is_none() -> None:
    assert recognise([{"question": "a", "choices": []}]).family is None
    assert recognise([{"Answer": "a", "Choices": []}]).family is None


def test_a_column_is_not_renamed_where_the_name_is_taken() -> None:
    found = recognise([{"Question": "x", "question": "a", "Answer": "b"}])
    assert found.family and found.family.name == "question/answer"
    assert found.repairs == ('The column "Answer" is read as "answer".',)


def test_rows_of_other_formats_are_named_by_line_and_counted(tmp_path: Path) -> None:
    alpaca = {"instruction": "a", "output": "b"}
    rows = [
        alpaca,
        alpaca,
        {"messages": [HI, HELLO]},
        alpaca,
        {"question": "a", "answer": "b"},
        {"messages": [HI, HELLO]},
    ]
    report = check(tmp_path, rows, skip=True)
    assert report["mixed"] == [
        {"format": "messages", "rows": 2, "lines": [3, 6]},
        {"format": "question/answer", "rows": 1, "lines": [5]},
    ]
    assert (report["rows"], report["bad_rows"]) == (3, 3)


def test_what_nothing_reads_is_counted(tmp_path: Path) -> None:
    report = check(
        tmp_path, [{"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b", "x": 1}], "y": 2}]
    )
    assert report["ignored_fields"] == {"conversations.x": 1, "y": 1}


TWICE: dict[str, tuple[dict[str, Any], list[str]]] = {
    "two conversations": ({"messages": [HI, HELLO], "conversations": [HI, HELLO]}, ["conversations"]),
    "two prompts": ({"prompt": "Hi", "question": "Ho", "completion": "a"}, ["question"]),
    "prompt and instruction": ({"instruction": "Hi", "prompt": "Ho", "chosen": "a", "rejected": "b"}, ["prompt"]),
    "whole answers and a prompt": ({"prompt": "Hi", "chosen": [HI, HELLO], "rejected": [HI, GPT_NO]}, ["prompt"]),
    "two names of the answers": (
        {"prompt": "Hi", "chosen": "a", "rejected": "b", "chosen_response": "c"},
        ["chosen_response"],
    ),
    "two completions": ({"prompt": "Hi", "completion": "a", "response": "b", "label": True}, ["response"]),
    "two labels": ({"messages": [HI, HELLO], "kto_tag": True, "label": False}, ["label"]),
    "a judged conversation with its prompt": ({"prompt": "Hi", "messages": [HI, HELLO], "label": True}, ["prompt"]),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_column_that_repeats_another_is_said_to_be_passed_over(tmp_path: Path, name: str) -> None:
    row, passed_over = TWICE[name]
    report = check(tmp_path, [row])
    assert (report["errors"], sorted(report["ignored_fields"])) == ([], passed_over)


def test_rows_with_a_missing_ancestor_are_each_named(tmp_path: Path) -> None:
    rows = [
        *(turn("a", None, "q", "a"), turn("b", "a", " ", "bad"), turn("c", "b", "q", "a"), turn("d", "c", "q", "a")),
        *(turn("e", "f", "q", "a"), turn("f", "e", "q", "a"), turn("a", None, "q", "a"), turn("g", "x", "q", "a")),
        turn("h", "g", "q", "a"),
    ]
    report = check(tmp_path, rows, skip=True)
    found = {(error["line"], error["problem"]) for error in report["errors"]}
    assert found == {
        *(
            (2, "field is empty"),
            (3, "has an ancestor that cannot be used"),
            (4, "has an ancestor that cannot be used"),
        ),
        *((5, "the rows form a cycle"), (6, "the rows form a cycle")),
        *((7, "the same id twice"), (8, "no row has this id"), (9, "has an ancestor that is missing")),
    }
    assert all(error["text"] == json.dumps(rows[error["line"] - 1]) for error in report["errors"])
    assert (report["rows"], report["bad_rows"]) == (1, 8)


def test_rows_of_a_chain_that_do_not_fit_together_are_shown_as_they_stand(tmp_path: Path) -> None:
    rows = [turn("a", None, "q", "a"), turn("b", "a", "q", "a", system="Other")]
    (error,) = check(tmp_path, rows, skip=True)["errors"]
    assert (error["line"], error["field"], error["text"]) == (2, "system", json.dumps(rows[1]))


def test_a_chain_of_too_many_rows_is_refused(tmp_path: Path) -> None:
    rows = [turn(n, n - 1 if n else None, "q", "a") for n in range(1003)]
    report = check(tmp_path, rows, skip=True)
    assert report["error_counts"] == {"more than 1,000 rows are linked": 3}
    assert (report["rows"], len(shapes(tmp_path)[0]["messages"])) == (1, 2000)


def test_chains_leave_nothing_behind(tmp_path: Path) -> None:
    check(tmp_path, CHAINS["in any order"].rows)
    assert [path.name for path in (tmp_path / "out").iterdir() if path.name.startswith(".")] == []
