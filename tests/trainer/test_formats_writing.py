"""Writing rows for use elsewhere: whatever is written is read back equal, and what cannot be is not written."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.formats import Row, iter_rows
from trainer.formats.canonical import SHAPES, Kind
from trainer.formats.cells import guard, unguard
from trainer.formats.check import check_file
from trainer.formats.layouts import LAYOUTS, Layout
from trainer.formats.writing import RefusedRow, Written, layouts_for, lines_of, write_rows

LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ANY_TEXT = st.one_of(
    st.text(LETTERS, max_size=12),
    st.sampled_from(
        ["=1+1", "+1", "-1", "@a", "\t=1", "\r", "'=1", "''", 'a"b,c;d', "x\u2028y\x85", "[1]", '{"a": 1}']
    ),
    st.sampled_from(
        ["<think>so</think>Yes", "\n\nHuman: a\n\nAssistant: b", '[{"role": "user", "content": "x"}]', "NULL"]
    ),
)
TEXT = ANY_TEXT.filter(lambda text: bool(text.strip()))
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18), 10**18)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
ARGUMENTS = st.dictionaries(TEXT, JSON_VALUES, max_size=3)


def some(draw: Any, chance: int = 4) -> bool:
    return bool(draw(st.integers(1, chance)) == 1)


@st.composite
def calls(draw: Any) -> list[dict[str, Any]]:
    found = []
    for number in range(draw(st.integers(1, 2))):
        function = {"name": draw(TEXT), "arguments": draw(ARGUMENTS)}
        named = {"id": f"c{number}"} if not number or some(draw, 2) else {}
        found.append({"type": "function", **named, "function": function})
    return found


@st.composite
def answers(draw: Any, *, weighted: bool = False) -> list[dict[str, Any]]:
    """What follows a question: an answer, sometimes behind calls and what the tools returned."""
    turns: list[dict[str, Any]] = []
    if some(draw):
        turns.append({"role": "assistant", "content": draw(st.none() | ANY_TEXT), "tool_calls": draw(calls())})
        turns.append({"role": "tool", "content": draw(ANY_TEXT), "tool_call_id": "c0"})
    last = {"role": "assistant", "content": draw(TEXT)}
    if some(draw):
        last["reasoning_content"] = draw(TEXT)
    if weighted and some(draw):
        last["weight"] = draw(st.sampled_from([0, 1]))
    return [*turns, last]


@st.composite
def prompts(draw: Any) -> list[dict[str, Any]]:
    turns: list[dict[str, Any]] = []
    if some(draw, 3):
        turns.append({"role": "system", "content": draw(ANY_TEXT)})
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        turns += [{"role": "user", "content": draw(TEXT)}, *draw(answers(weighted=True))]
    asked = {"role": "user", "content": draw(TEXT)}
    return [*turns, asked | {"name": "ann"} if some(draw, 8) else asked]


@st.composite
def rows(draw: Any, kind: Kind) -> Row:
    shape: dict[str, Any] = {}
    if kind == "text":
        shape["text"] = draw(TEXT)
    elif kind == "chat":
        shape["messages"] = [*draw(prompts()), *draw(answers())]
    else:
        shape = {name: draw(prompts() if name == "prompt" else answers()) for name in SHAPES[kind] if name != "label"}
    if kind == "labelled":
        shape["label"] = draw(st.booleans())
    if kind == "preference" and shape["chosen"] == shape["rejected"]:
        shape["rejected"] = [{"role": "assistant", "content": "Something else."}]
    if kind != "text" and some(draw):
        function = {"name": draw(TEXT), "description": draw(TEXT), "parameters": draw(ARGUMENTS)}
        shape["tools"] = [{"type": "function", "function": function}]
    return Row(id="0", line=1, **shape)


def records(text: str, layout: Layout) -> list[dict[str, Any]]:
    """What a reader of the file sees."""
    if layout.columns:
        table = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
        return [{name: unguard(cell) for name, cell in row.items()} for row in table]
    return [json.loads(line) for line in text.split("\n")[:-1]]


IDS = [f"{layout.kind} as {layout.name}" for layout in LAYOUTS]


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
@settings(deadline=None, max_examples=25)
@given(data=st.data())
def test_what_is_written_is_read_back_equal(layout: Layout, data: st.DataObject) -> None:
    given_rows = data.draw(st.lists(rows(layout.kind), min_size=1, max_size=3))
    written = Written()
    text = "".join(lines_of(given_rows, layout.name, written, leave_out=True))
    found = [layout.family.to_content(record).shape() for record in records(text, layout)]
    shapes = [row.shape() for row in given_rows]
    assert written.rows == len(found) and written.left_out == len(shapes) - len(found)
    assert [shape for shape in shapes if shape in found] == found or len(found) < len(shapes)
    assert all(shape in shapes for shape in found)
    assert layout.refuses or not written.left_out


PLAIN: dict[Kind, Row] = {
    "chat": Row(
        id="a", line=1, messages=[{"role": "user", "content": "=Hi\r\n"}, {"role": "assistant", "content": "'-Hello "}]
    ),
    "preference": Row(
        id="a",
        line=1,
        prompt=[{"role": "user", "content": "Hi"}],
        chosen=[{"role": "assistant", "content": "+Hello"}],
        rejected=[{"role": "assistant", "content": "@What"}],
    ),
    "labelled": Row(
        id="a",
        line=1,
        prompt=[{"role": "system", "content": "é"}, {"role": "user", "content": "Hi"}],
        completion=[{"role": "assistant", "content": "Hello"}],
        label=False,
    ),
    "text": Row(id="a", line=1, text="-1\n\n=2"),
}


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
def test_a_file_of_ours_is_recognised_and_checked(layout: Layout, tmp_path: Path) -> None:
    """Through the whole check: written as a file, its format found, its rows the same."""
    file = tmp_path / f"rows{layout.suffix}"
    with file.open("wb") as out:
        assert write_rows([PLAIN[layout.kind]] * 3, layout.name, out).rows == 3
    check_file(file, tmp_path / "out", skip_bad_rows=False, emit=lambda event: None)
    assert [row.shape() for row in iter_rows(tmp_path / "out" / "rows.parquet")] == [PLAIN[layout.kind].shape()] * 3
    assert json.loads((tmp_path / "out" / "report.json").read_text())["format"] == layout.family.name


def test_the_first_layout_of_each_kind_holds_every_row() -> None:
    assert all(not layouts_for(kind)[0].refuses for kind in SHAPES if kind != "labelled")
    assert {layout.kind for layout in LAYOUTS} == set(SHAPES)


def test_a_row_that_a_layout_cannot_hold_is_refused_or_counted(tmp_path: Path) -> None:
    turns = [*PLAIN["chat"].messages, *PLAIN["chat"].messages]
    two = Row(id="b", line=7, messages=turns)
    with pytest.raises(RefusedRow, match="line 7") as refused:
        write_rows([PLAIN["chat"], two], "prompt-completion-text", io.StringIO())
    assert (refused.value.row_id, "more than one question" in refused.value.refuses) == ("b", True)
    out = io.StringIO()
    assert write_rows([two, PLAIN["chat"]], "prompt-completion-text", out, leave_out=True) == Written(1, 1, "b")
    assert len(out.getvalue().splitlines()) == 1
    with pytest.raises(KeyError):
        write_rows([two], "dpo", io.StringIO())


@given(st.text())
def test_no_cell_is_a_formula_and_every_cell_comes_back(cell: str) -> None:
    assert not guard(cell).startswith(("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20"))
    assert unguard(guard(cell)) == cell


def test_a_jsonl_line_has_no_line_end_inside_for_any_reader() -> None:
    out = io.StringIO()
    write_rows([Row(id="a", line=1, text="a\u2028b\u2029c\x85d")], "text", out)
    assert len(out.getvalue().splitlines()) == 1
