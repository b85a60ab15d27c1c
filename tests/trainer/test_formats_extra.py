"""The other columns of an upload stay beside their rows: through a check, a revision, a split and an export."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.test_formats_writing import IDS, LETTERS, PLAIN
from trainer.errors import TrainerError
from trainer.formats import Row, iter_rows
from trainer.formats.canonical import SCHEMA
from trainer.formats.check import Known, check_file
from trainer.formats.extra import LONGEST_TEXT, MAX_COLUMNS, as_text, extra_of
from trainer.formats.layouts import LAYOUTS, Layout
from trainer.formats.mapping import read_mapping
from trainer.formats.revise import revise_file
from trainer.formats.splitting import SplitPlan
from trainer.formats.writing import Written, lines_of, write_rows


def alpaca(number: int, **more: Any) -> dict[str, Any]:
    return {"instruction": f"question {number}", "output": "Yes.", **more}


def checked(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> tuple[list[Row], dict[str, Any]]:
    folder.mkdir(parents=True)
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return checked_file(folder / name)


def checked_file(file: Path) -> tuple[list[Row], dict[str, Any]]:
    check_file(file, file.parent, skip_bad_rows=False, emit=lambda event: None)
    return list(iter_rows(file.parent / "rows.parquet")), json.loads((file.parent / "report.json").read_text())


def revised(folder: Path, **changes: Any) -> list[Row]:
    out = folder / "next"
    out.mkdir()
    (out / "changes.json").write_text(json.dumps(changes))
    revise_file(folder / "rows.parquet", out / "changes.json", out, test_file=None, emit=lambda event: None)
    return list(iter_rows(out / "rows.parquet"))


def test_short_single_values_are_kept_with_their_types(tmp_path: Path) -> None:
    told = {"category": "maths", "score": 0.5, "stars": 3, "seen": True}
    long = {"essay": "x" * (LONGEST_TEXT + 1), "meta": {"a": 1}, "list": [1], "nothing": None, "blank": " "}
    rows, report = checked(tmp_path / "in", [alpaca(1, **told, **long), alpaca(2)])
    assert [row.extra for row in rows] == [told, {}]
    assert report["statistics"]["columns"] == dict.fromkeys(sorted(told), 1)
    assert set(report["ignored_fields"]) == {*told, *long}, "training reads none of them"
    assert all("extra" not in row.shape() for row in rows)


def test_other_columns_change_neither_ids_nor_the_hash(tmp_path: Path) -> None:
    bare, first = checked(tmp_path / "bare", [alpaca(1), alpaca(2)])
    told, second = checked(tmp_path / "told", [alpaca(1, lang="en"), alpaca(2, lang="de")])
    assert [row.id for row in bare] == [row.id for row in told]
    assert first["content_hash"] == second["content_hash"]


def test_a_file_from_before_there_was_such_a_column_reads_as_none(tmp_path: Path) -> None:
    checked(tmp_path / "in", [alpaca(1, lang="en")])
    path = tmp_path / "in" / "rows.parquet"
    older = [name for name in SCHEMA.names if name != "extra"]
    pq.write_table(pq.read_table(path, columns=older), path)
    assert [row.extra for row in iter_rows(path)] == [{}]


def test_what_is_kept_of_a_row_is_bounded() -> None:
    row = {f"column {number}": "x" * LONGEST_TEXT for number in range(1000)}
    assert len(extra_of(row, frozenset())) <= MAX_COLUMNS
    assert len(json.dumps(extra_of(row, frozenset()))) < 6000
    assert len(extra_of({f"{number}": 1 for number in range(1000)}, frozenset())) == MAX_COLUMNS
    odd = {"n" * 61: "x", "": "x", "nul\0": "x", "value": "a\0", "inf": float("inf"), "much": 2**64}
    assert extra_of(odd, frozenset()) == {}


def test_a_large_file_read_in_sections_keeps_them_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.formats.sections.LARGE", 1)
    monkeypatch.setattr("trainer.formats.sections.SECTION", 4096)
    rows, report = checked(tmp_path / "in", [alpaca(n, **({"place": n} if n % 2 else {})) for n in range(300)])
    assert [row.extra.get("place") for row in rows] == [n if n % 2 else None for n in range(300)]
    assert report["statistics"]["columns"] == {"place": 150}


def test_columns_chosen_by_hand_leave_the_others_beside(tmp_path: Path) -> None:
    mapping = {"kind": "prompt_completion", "fields": {"prompt": "frage", "answer": "antwort"}}
    (tmp_path / "mapping.json").write_text(json.dumps(mapping))
    (tmp_path / "rows.jsonl").write_text(json.dumps({"frage": "Hi", "antwort": "Ho", "thema": "Gruß"}) + "\n")
    family = read_mapping(tmp_path / "mapping.json")
    check_file(
        tmp_path / "rows.jsonl",
        tmp_path / "out",
        skip_bad_rows=False,
        emit=lambda event: None,
        known=Known(mapping=family),
    )
    assert [row.extra for row in iter_rows(tmp_path / "out" / "rows.parquet")] == [{"thema": "Gruß"}]


def test_the_last_row_of_a_chain_says_what_the_conversation_is(tmp_path: Path) -> None:
    first = {"id": "a", "parent_id": None, "instruction": "Hi", "output": "Ho", "lang": "en"}
    second = {"id": "b", "parent_id": "a", "instruction": "Hey", "output": "Hoo", "lang": "de"}
    rows, _ = checked(tmp_path / "in", [first, second])
    assert [row.extra for row in rows] == [{"lang": "de"}]


def test_an_edited_row_keeps_them(tmp_path: Path) -> None:
    rows, _ = checked(tmp_path / "in", [alpaca(1, lang="en"), alpaca(2, lang="de")])
    shape = {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
    after = revised(tmp_path / "in", edit={rows[0].id: shape}, add=[shape])
    assert [row.extra for row in after] == [{"lang": "en"}, {"lang": "de"}, {}]


def split_by(column: str) -> dict[str, Any]:
    return {"method": "column", "column": column, "shares": {"test": 0.1}, "seed": 3}


def test_a_split_has_its_share_of_every_value(tmp_path: Path) -> None:
    langs = ["en"] * 100 + ["de"] * 50 + ["fr"] * 10
    checked(tmp_path / "in", [alpaca(n, lang=lang) for n, lang in enumerate(langs)])
    after = revised(tmp_path / "in", splits=split_by("lang"))
    held_out = [row.extra["lang"] for row in after if row.split == "test"]
    assert {lang: held_out.count(lang) for lang in ("en", "de", "fr")} == {"en": 10, "de": 5, "fr": 1}


@pytest.mark.parametrize("written", [float, str])
def test_a_split_has_its_share_of_every_tenth_of_a_measure(tmp_path: Path, written: Any) -> None:
    checked(tmp_path / "in", [alpaca(n, score=written(n / 7)) for n in range(200)])
    after = revised(tmp_path / "in", splits=split_by("score"))
    held_out = sorted(float(row.extra["score"]) for row in after if row.split == "test")
    assert [sum(n <= value * 7 + 0.01 < n + 20 for value in held_out) for n in range(0, 200, 20)] == [2] * 10


def test_a_split_by_a_column_that_no_row_has_is_refused(tmp_path: Path) -> None:
    checked(tmp_path / "in", [alpaca(n, lang="en") for n in range(9)])
    with pytest.raises(TrainerError, match="No row has anything in the column 'langue'"):
        revised(tmp_path / "in", splits=split_by("langue"))
    with pytest.raises(TrainerError, match="belong together"):
        SplitPlan.from_dict({"method": "column", "shares": {"test": 0.1}})


NAMES = st.text(LETTERS, min_size=1, max_size=8) | st.sampled_from(
    ["id", "parent_id", "context", "question", "answer", "chosen", "rejected", "label", "kto_tag", "messages", "text"]
    + ["conversations", "instruction", "output", "prompt", "completion", "image", "Question", "chat_trace", "history"]
    + ["=cmd", " lang", "tools", "system", "input", "preferred_output", "answers", "a,b", 'a"b', "column 3"]
)
TEXTS = (st.text(LETTERS, max_size=10) | st.sampled_from(["=1", "true", "0", "[1]", '[{"role": "user"}]'])).filter(
    lambda text: bool(text.strip())
)
VALUES = TEXTS | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
@settings(deadline=None, max_examples=25)
@given(extras=st.lists(st.dictionaries(NAMES, VALUES, max_size=4), min_size=1, max_size=4))
def test_what_is_written_beside_a_row_is_read_back_equal(
    layout: Layout, extras: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever other columns are called: the file is still what it was, and what was not written is named."""
    folder = tmp_path_factory.mktemp("beside")
    plain = PLAIN[layout.kind]
    rows = [Row(id="a", line=1, **plain.shape(), extra=extra) for extra in extras]
    columns = sorted({name for extra in extras for name in extra})
    with (folder / f"rows{layout.suffix}").open("wb") as out:
        written = write_rows(rows, layout.name, out, columns=columns)
    found, report = checked_file(folder / f"rows{layout.suffix}")
    assert report["format"] == layout.family.name
    assert [row.shape() for row in found] == [plain.shape()] * len(rows)
    for row, extra in zip(found, extras, strict=True):
        told = {name: as_text(value) if layout.columns else value for name, value in extra.items()}
        assert row.extra == {name: told[name] for name in row.extra}
        assert {*told} - {*row.extra} <= written.lost
    assert not written.lost & {"lang", "category"}


@pytest.mark.parametrize("layout", LAYOUTS, ids=IDS)
def test_usual_columns_go_along_in_every_layout(layout: Layout) -> None:
    extra = {"category": "maths", "source": "web", "lang": "de", "id": "7"}
    row = Row(id="a", line=1, **PLAIN[layout.kind].shape(), extra=extra)
    written = Written()
    text = "".join(lines_of([row], layout.name, written, columns=list(extra)))
    assert all(name in text and value in text for name, value in extra.items())
    assert not written.lost
