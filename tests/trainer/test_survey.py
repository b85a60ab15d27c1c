"""`python -m trainer survey`: rows become searchable, by words, beginnings and parts of sentences without spaces."""

import json
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.source import ROOT
from trainer.errors import TrainerError
from trainer.events import Event, Finished
from trainer.formats import survey, survey_findings
from trainer.formats.canonical import Content
from trainer.formats.row_writer import RowWriter
from trainer.formats.searching import as_query
from trainer.formats.survey import survey_rows


def chat(*said: str, **extra: Any) -> Content:
    roles = ("user", "assistant")
    return Content(messages=[{"role": roles[n % 2], "content": text} for n, text in enumerate(said)], **extra)


CALL = {"type": "function", "function": {"name": "look_up", "arguments": {"city": "Reykjavík"}}}
ROWS = [
    chat("Who are you?", "I am the café owner of Łódź."),
    chat("你能做什么", "机器学习模型可以回答问题", "And?", "More."),
    chat("हिन्दी में बोलो", "Straßenbahn and naïveté"),
    Content(
        messages=[
            {"role": "system", "content": ""},
            {"role": "user", "content": "Weather"},
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "tool", "content": "rain"},
            {"role": "assistant", "content": "It rains."},
        ]
    ),
    chat("Who are you?", "I am the café owner of Łódź."),
    chat("ประเทศไทย", "이것은 한국어입니다"),
]


def write(path: Path, rows: list[Content], **extra: Any) -> Path:
    with RowWriter(path) as writer:
        for line, row in enumerate(rows, 1):
            writer.add(line, row, **extra)
    return path


def surveyed(folder: Path, rows: list[Content] = ROWS) -> tuple[sqlite3.Connection, dict[str, Any]]:
    events: list[Event] = []
    survey_rows(write(folder / "rows.parquet", rows), folder, events.append)
    report = json.loads((folder / "survey.json").read_text())
    assert isinstance(events[-1], Finished)
    assert events[-1].facts == report
    return sqlite3.connect(folder / "survey.sqlite"), report


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> sqlite3.Connection:
    return surveyed(tmp_path_factory.mktemp("survey"))[0]


def found(database: sqlite3.Connection, typed: str) -> list[int]:
    query = as_query(typed)
    if not query:
        return []
    statement = "SELECT rowid FROM texts_1 WHERE text MATCH ? ORDER BY rowid"
    return [number for (number,) in database.execute(statement, (query,))]


@pytest.mark.parametrize(
    ("typed", "numbers"),
    [
        ("café", [1, 5]),
        ("CAFE", [1, 5]),
        ("łódź", [1, 5]),
        ("owne", [1, 5]),  # the beginning of a word
        ("own", []),  # too short to be one unasked
        ("own*", [1, 5]),
        ("wner", []),
        ('"the café owner"', [1, 5]),
        ('"owner café"', []),
        ("owner café", [1, 5]),
        ("owner rain", []),
        ("学习模型", [2]),
        ("型", [2]),
        ("习学", []),
        ("हिन्दी", [3]),
        ("हिन्द*", [3]),
        ("naivete", [3]),
        ("ไทย", [6]),
        ("국어", [6]),
        ("look_up", [4]),
        ("reykjavik", [4]),
        ("rain", [4]),
    ],
)
def test_words_are_found_in_any_language(database: sqlite3.Connection, typed: str, numbers: list[int]) -> None:
    assert found(database, typed) == numbers


@pytest.mark.parametrize(
    "typed",
    [
        '"',
        '""',
        '"""',
        "(",
        "a AND",
        "NOT",
        "NEAR(a b)",
        "text:who",
        "^who",
        "-who",
        "*",
        "'",
        "who\0",
        "{a b}",
        "+",
        "\\",
    ],
)
def test_nothing_that_is_typed_is_an_error(database: sqlite3.Connection, typed: str) -> None:
    found(database, typed)
    found(database, f"who {typed} you")


def test_signs_alone_look_for_nothing() -> None:
    assert as_query('!? "..." *') == ""
    assert as_query("") == ""
    assert as_query(" ".join(["word"] * 500)).count("AND") < 12


def test_rows_have_their_numbers(database: sqlite3.Connection) -> None:
    rows = database.execute("SELECT number, line, turns, characters, answer_characters, roles FROM rows").fetchall()
    first = len("Who are you?"), len("I am the café owner of Łódź.")
    assert rows[0] == (1, 1, 1, sum(first), first[1], " user assistant ")
    assert rows[3] == (4, 4, 2, len("WeatherrainIt rains."), len("It rains."), " system user assistant tool ")
    assert database.execute("SELECT count(DISTINCT id) FROM rows").fetchone() == (6,)


def test_findings_name_their_rows(tmp_path: Path) -> None:
    database, report = surveyed(tmp_path)
    found = database.execute("SELECT kind, number, detail FROM findings ORDER BY number").fetchall()
    assert found == [
        ("empty_message", 4, "message 1 is empty"),
        ("repeated", 5, "repeats row 1"),
    ]
    assert report["findings"] == {"empty_message": 1, "repeated": 1}
    assert report["roles"] == {"user": 6, "assistant": 6, "system": 1, "tool": 1}
    assert (report["rows"], report["searchable"]) == (6, True)


def test_splits_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", ROWS[:3], split="test")
    survey_rows(path, tmp_path, lambda event: None)
    assert json.loads((tmp_path / "survey.json").read_text())["splits"] == {"test": 3}


def test_what_is_too_large_keeps_its_filters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(survey, "MAX_SEARCHED_BYTES", 100)
    database, report = surveyed(tmp_path)
    assert report["searchable"] is False
    tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"rows", "findings", "said", "says"}
    assert database.execute("SELECT count(*) FROM rows").fetchone() == (6,)


def test_it_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(row: object) -> str:
        raise RuntimeError("broke off")

    monkeypatch.setitem(survey_findings.ROW_DETECTORS, "breaks", breaks)
    with pytest.raises(RuntimeError):
        surveyed(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["rows.parquet"]


@pytest.mark.parametrize("content", [None, b"no parquet"])
def test_a_file_without_rows_is_named(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "rows.parquet").write_bytes(content)
    with pytest.raises(TrainerError, match="no canonical rows"):
        survey_rows(tmp_path / "rows.parquet", tmp_path, lambda event: None)


def test_the_command(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", ROWS)
    command = [sys.executable, "-m", "trainer", "survey", str(path), "--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout.splitlines()[-1])["facts"]["rows"] == 6
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["survey.json", "survey.sqlite"]
