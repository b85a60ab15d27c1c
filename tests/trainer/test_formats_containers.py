"""Every container goes in, plain and packed, with the same rows; what it was is told by its bytes."""

import csv
import datetime
import decimal
import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import ipc

from tests.trainer.files import GOOD, bad_lines_of, check, packed, rows_of, zipped

ROWS = [
    {"instruction": "Say 1", "input": "", "output": 'one, "uno"\nand é'},
    {"instruction": "Say 2;", "input": "\tx", "output": "two"},
    {"instruction": "Say 3", "input": "", "output": "three"},
]


def separated(rows: list[dict[str, Any]], delimiter: str = ",", **how: Any) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]), delimiter=delimiter, **how)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(table: pa.Table, **how: Any) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out, **how)
    return out.getvalue()


def arrow(table: pa.Table, *, stream: bool) -> bytes:
    out = io.BytesIO()
    with (ipc.new_stream if stream else ipc.new_file)(out, table.schema) as writer:
        writer.write_table(table)
    return out.getvalue()


TABLE = pa.Table.from_pylist(ROWS)
FILES = {
    "jsonl": "\n".join(json.dumps(row) for row in ROWS).encode(),
    "json": json.dumps(ROWS, indent=1).encode(),
    "csv": separated(ROWS),
    "csv semicolon": separated(ROWS, ";"),
    "csv tab": separated(ROWS, "\t"),
    "csv unix": separated(ROWS, lineterminator="\n", quoting=csv.QUOTE_ALL),
    "parquet": parquet(TABLE, row_group_size=2),
    "arrow": arrow(TABLE, stream=False),
    "arrow stream": arrow(TABLE, stream=True),
}


@pytest.mark.parametrize("how", ["", "gz", "zst", "zip"])
@pytest.mark.parametrize("kind", FILES)
def test_each_container_gives_the_same_rows(tmp_path: Path, kind: str, how: str) -> None:
    plain = check(tmp_path, FILES["jsonl"])
    report = check(tmp_path, packed(FILES[kind], how))
    assert report["container"] == kind.split(maxsplit=1)[0] + (f"+{how}" if how else "")
    assert (report["format"], report["rows"], report["failed"]) == ("alpaca", 3, "")
    assert report["content_hash"] == plain["content_hash"]


def test_lines_of_multi_line_cells_are_physical(tmp_path: Path) -> None:
    content = 'instruction,output\n"a\nb",c\n\nq,"x\r\n\r\ny"\nlast,one\ntoo,many,cells\n'
    report = check(tmp_path, content, skip=True)
    assert [row.line for row in rows_of(tmp_path)] == [2, 5, 8]
    assert [(e["line"], e["problem"]) for e in report["errors"]] == [(9, "3 cells under 2 columns")]
    assert rows_of(tmp_path)[1].messages[1]["content"] == "x\r\n\r\ny"


BAD_CSV = {
    "open quote": ('instruction,output\na,"b\nc,d\n', "invalid CSV: unexpected end of data", 2),
    "open quote in a long file": ('instruction,output\na,"b\n' + "c,d\n" * 1_500_000, "row longer than 4 MB", 0),
    "column twice": ("text,text\na,b\n", "the same column twice", 1),
    "many columns": (",".join(f"c{n}" for n in range(1001)) + "\n" + ",".join("x" * 1001) + "\n", "more than 1,000", 1),
    "head only": ("instruction,output\n", "the file has no rows", 1),
}


@pytest.mark.parametrize("case", BAD_CSV)
def test_broken_csv_is_refused(tmp_path: Path, case: str) -> None:
    content, problem, line = BAD_CSV[case]
    report = check(tmp_path, content, name="rows.csv", skip=True)
    assert report["failed"]
    assert report["errors"][-1]["problem"].startswith(problem)
    assert not line or report["errors"][-1]["line"] == line


def test_cells_of_csv(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    report = check(tmp_path, separated([{"messages": json.dumps(turns), "tools": ""}]), name="a.csv")
    assert (report["format"], report["rows"]) == ("messages", 1)
    assert report["repairs"][-1].startswith("1 cells hold lists or objects as JSON")
    check(tmp_path, separated([{"prompt": "p", "completion": '[{"a": 1}]', "label": "False"}]), name="a.csv")
    assert (rows_of(tmp_path)[0].label, rows_of(tmp_path)[0].completion[0]["content"]) == (False, '[{"a": 1}]')


def test_nul_and_other_encodings_spoil_only_their_row_of_csv(tmp_path: Path) -> None:
    report = check(tmp_path, b"instruction,output\na\0,b\nc,caf\xe9\nd,e\n", skip=True)
    assert [(e["line"], e["field"], e["problem"]) for e in report["errors"]] == [
        (2, "instruction", "NUL character"),
        (3, "byte 6", "not UTF-8"),
    ]
    assert "Latin-1" in report["errors"][1]["fix"]
    assert report["rows"] == 1


def test_plain_text_is_paragraphs_or_lines(tmp_path: Path) -> None:
    report = check(tmp_path, "Once upon\na time.\n\n\nThere, was one.\n", name="tale.txt")
    assert (report["container"], report["format"]) == ("text", "text")
    assert [(row.line, row.text) for row in rows_of(tmp_path)] == [(1, "Once upon\na time."), (5, "There, was one.")]
    assert report["repairs"] == ["Plain text: each paragraph between blank lines is one row."]
    report = check(tmp_path, "First.\nSecond.\n", name="")
    assert [row.text for row in rows_of(tmp_path)] == ["First.", "Second."]
    assert report["repairs"] == ["Plain text: each line is one row."]


def test_content_counts_before_the_name(tmp_path: Path) -> None:
    assert check(tmp_path, f"{GOOD}\n", name="rows.csv")["container"] == "jsonl"
    assert check(tmp_path, FILES["parquet"], name="rows.json")["container"] == "parquet"
    assert check(tmp_path, "text\nfirst\nsecond\n", name="rows.csv.gz")["container"] == "csv"
    assert check(tmp_path, "text\nfirst\nsecond\n", name="rows.txt")["container"] == "text"
    assert check(tmp_path, "Hello, world\nHow, then\n", name="rows.txt")["container"] == "text"
    for name in ("rows.json", "evil.py", "page.html"):
        assert check(tmp_path, "import os\nos.system('true')\n", name=name)["failed"]


def test_an_archive_of_several_files(tmp_path: Path) -> None:
    content = zipped(a__jsonl=f"{GOOD}\n", b__csv=separated(ROWS), c__jsonl=f"{GOOD}\n{{}}\n")
    report = check(tmp_path, content, skip=True)
    assert (report["container"], report["rows"]) == ("jsonl/csv+zip", 5)
    (error,) = report["errors"]
    assert (error["line"], error["field"].split(":")[0]) == (2, "c.jsonl")
    broken = check(tmp_path, zipped(a__json=f"[{GOOD}]", b__json=f"[{GOOD}"), skip=True)
    assert broken["errors"][-1]["field"].startswith("b.json: ")


def test_nested_columns_become_rows_like_json(tmp_path: Path) -> None:
    arguments = [[{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes", "weight": 1}]] * 3
    rows = [
        {
            "messages": turns,
            "when": datetime.datetime(2026, 1, 2, 3, 4, 5),
            "price": decimal.Decimal("1.50"),
            "score": float("nan"),
            "raw": b"bytes",
        }
        for turns in arguments
    ]
    report = check(tmp_path, parquet(pa.Table.from_pylist(rows)))
    assert (report["format"], report["rows"]) == ("messages", 3)
    assert rows_of(tmp_path)[0].messages == arguments[0]
    said = " ".join(report["repairs"])
    for part in ("6 dates, times or decimals", "3 numbers that are NaN", "3 values are bytes", "Null fields inside 3"):
        assert part in said
    assert {c["name"]: c["samples"] for c in report["columns"]}["price"] == ["1.50"]


def test_values_that_json_does_not_know_are_named(tmp_path: Path) -> None:
    table = pa.table({"text": pa.array([b"good", b"\xff\xfe", b"a\0b"], pa.binary())})
    report = check(tmp_path, parquet(table), skip=True)
    assert [(e["line"], e["field"], e["problem"]) for e in report["errors"]] == [
        (2, "text", "text that is not UTF-8"),
        (3, "text", "NUL character"),
    ]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "arrow stream"])
def test_columns_cut_off_or_damaged_are_refused(tmp_path: Path, kind: str) -> None:
    content = FILES[kind]
    for broken in (content[: len(content) // 2], content[:9]):
        report = check(tmp_path, broken, skip=True)
        assert report["failed"] and report["stopped_at"] == 1
    for at in range(0, len(content) - 8, 16):
        check(tmp_path, content[:at] + b"\xff" * 8 + content[at + 8 :], skip=True)


def test_columns_are_described(tmp_path: Path) -> None:
    rows = [{"Frage": f"Was ist {n}?", "Antwort": None if n else "x" * 500, "n": n} for n in range(5)]
    report = check(tmp_path, "\n".join(json.dumps(row) for row in rows))
    assert (report["needs_mapping"], report["format"]) == (True, "")
    assert report["columns"][0] == {
        "name": "Frage",
        "samples": ["Was ist 0?", "Was ist 1?", "Was ist 2?"],
        "type": "text",
    }
    assert (len(report["columns"][1]["samples"][0]), report["columns"][2]["type"]) == (120, "number")


def test_every_bad_line_is_kept(tmp_path: Path) -> None:
    check(tmp_path, '{"instruction": "a"}\n' * 250 + '{"instruction": "b", "output": "\\ud83d"}\n' + GOOD)
    kept = bad_lines_of(tmp_path)
    assert [one["line"] for one in kept] == list(range(1, 252))
    assert kept[0] | {"fix": ""} == {
        "line": 1,
        "field": "output",
        "problem": "field is missing",
        "fix": "",
        "text": '{"instruction": "a"}',
    }


CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
FILLED = CELLS.filter(str.strip)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.tuples(FILLED, CELLS, FILLED), min_size=1, max_size=5), st.sampled_from(",;\t"), st.booleans())
def test_what_a_csv_writer_quotes_is_read_back(
    tmp_path_factory: Any, rows: list[tuple[str, str, str]], delimiter: str, unix: bool
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    named = [dict(zip(("instruction", "input", "output"), row, strict=True)) for row in rows]
    expected = check(folder, "\n".join(json.dumps(row) for row in named))
    content = separated(named, delimiter, lineterminator="\n" if unix else "\r\n", quoting=csv.QUOTE_ALL)
    report = check(folder, content, name="rows.csv")
    guarded = any("apostrophe" in said for said in report["repairs"])
    assert guarded or report["content_hash"] == expected["content_hash"]
