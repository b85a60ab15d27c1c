"""`python -m trainer revise`: rows removed, edited, added and divided; ids that stay; all of it checked like a file."""

import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from trainer.errors import EXIT_CODES, TrainerError
from trainer.formats import Row, comparing, iter_rows
from trainer.formats.canonical import Content
from trainer.formats.check import Known, check_file
from trainer.formats.comparing import compare
from trainer.formats.revise import revise_file
from trainer.formats.row_writer import RowWriter
from trainer.formats.splitting import SplitPlan, assign

COPIES = 3


def chat(question: str, answer: str = "Yes.", system: str = "") -> dict[str, Any]:
    asked = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return {"messages": [{"role": "system", "content": system}, *asked] if system else asked}


@pytest.fixture
def checked(tmp_path: Path) -> Path:
    """Ten rows, and the first of them twice more."""
    return rows_of(tmp_path / "checked", [chat(f"question {n}") for n in range(10)] + [chat("question 0")] * 2)


def rows_of(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir()
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    check_file(file, folder, skip_bad_rows=False, emit=lambda event: None)
    return folder / "rows.parquet"


def revised(rows: Path, test_file: Path | None = None, **changes: Any) -> tuple[list[Row], dict[str, Any]]:
    """The new rows and the report."""
    out = rows.parent / f"revised-{len(list(rows.parent.iterdir()))}"
    out.mkdir()
    (out / "changes.json").write_text(json.dumps(changes))
    revise_file(rows, out / "changes.json", out, test_file=test_file, emit=lambda event: None)
    return list(iter_rows(out / "rows.parquet")), json.loads((out / "report.json").read_text())


def refused(rows: Path, **changes: Any) -> dict[str, Any]:
    out = rows.parent / "refused"
    out.mkdir()
    (out / "changes.json").write_text(json.dumps(changes))
    with pytest.raises(TrainerError) as caught:
        revise_file(rows, out / "changes.json", out, test_file=None, emit=lambda event: None)
    assert caught.value.code == "dataset_invalid"
    assert {one.name for one in out.iterdir()} == {"changes.json", "report.json"}, "whole or not at all"
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def test_rows_go_change_and_come(checked: Path) -> None:
    old = list(iter_rows(checked))
    edit = {old[3].id: chat("question 3", "No.")}
    rows, report = revised(checked, remove=[old[2].id, old[5].id], edit=edit, add=[chat("new")])
    assert report["changes"] == {"added": 1, "removed": 2, "edited": 1, "moved": 0}
    assert (report["rows"], len(rows)) == (11, 11)
    assert [row.messages[0]["content"] for row in rows[:4]] == [f"question {n}" for n in (0, 1, 3, 4)]
    assert rows[2].messages[1]["content"] == "No."
    assert rows[-1].messages[0]["content"] == "new"


def test_ids_stay_and_none_is_given_twice(checked: Path) -> None:
    old = list(iter_rows(checked))
    once, _ = revised(checked, edit={old[3].id: chat("changed")}, add=[chat("question 3"), chat("question 0")])
    assert [row.id for row in once[:12]] == [row.id for row in old]
    assert len({row.id for row in once}) == len(once)
    assert once[12].id == f"{old[3].id}-2", "the edited row keeps the id that this content would have"
    assert once[12].content_id == old[3].content_id != once[3].content_id
    assert once[13].id == f"{old[0].id}-4"


def test_an_edit_is_told_even_after_another(checked: Path, tmp_path: Path) -> None:
    old = list(iter_rows(checked))
    first, _ = revised(checked, edit={old[3].id: chat("changed")})
    with RowWriter(tmp_path / "rows.parquet") as writer:
        for row in first:
            writer.add(row.line, row, row_id=row.id)
    back, report = revised(tmp_path / "rows.parquet", edit={old[3].id: chat("question 3")})
    assert report["changes"]["edited"] == 1
    assert (back[3].id, back[3].edited) == (old[3].id, None)
    _, report = revised(tmp_path / "rows.parquet", edit={old[3].id: chat("changed")})
    assert report["changes"]["edited"] == 0, "the same again is no change"


def test_an_unchanged_copy_has_the_same_content_hash(checked: Path) -> None:
    report = json.loads((checked.parent / "report.json").read_text())
    old = list(iter_rows(checked))
    rows, again = revised(checked, edit={old[0].id: old[0].shape()})
    assert again["content_hash"] == report["content_hash"]
    assert again["statistics"] == report["statistics"]
    assert rows == old


@pytest.mark.parametrize(
    ("shape", "problem"),
    [
        ({"messages": [{"role": "user", "content": "?"}]}, "no message of the assistant"),
        ({"messages": [{"role": "robot", "content": "?"}, {"role": "assistant", "content": "!"}]}, "unknown role"),
        ({"text": "a story"}, "is no field of such a row"),
        ([1, 2], "a row must be an object, not a list"),
        (chat("?", "\ud800"), "half a character (lone surrogate)"),
    ],
)
def test_edits_are_checked_like_uploads(checked: Path, shape: Any, problem: str) -> None:
    old = list(iter_rows(checked))
    report = refused(checked, edit={old[1].id: shape})
    assert [error["problem"] for error in report["errors"]] == [problem]
    assert old[1].id in report["errors"][0]["text"]


def test_rows_that_are_not_there_are_named(checked: Path) -> None:
    report = refused(checked, remove=["0123456789abcdef"], edit={"fedcba9876543210": chat("?")})
    assert report["error_counts"] == {"there is no such row": 2}


def test_a_row_is_left(checked: Path) -> None:
    assert refused(checked, remove=[row.id for row in iter_rows(checked)])["rows"] == 0


@pytest.mark.parametrize("method", ["random", "length", "turns", "system"])
def test_splits_keep_copies_together_and_their_share(tmp_path: Path, method: str) -> None:
    rows = [chat(f"question {n}", "long " * n + ".", f"be {n % 4}") for n in range(100)] * COPIES
    made, report = revised(rows_of(tmp_path / method, rows), splits={"method": method, "shares": {"test": 0.2}})
    assert report["splits"] == {"train": 240, "test": 60}
    assert report["overlap"] == 0
    by_content: dict[str, set[Any]] = {}
    for row in made:
        by_content.setdefault(row.content_id, set()).add(row.split)
    assert all(len(parts) == 1 for parts in by_content.values())


def test_a_split_is_even_over_what_was_asked_for(tmp_path: Path) -> None:
    rows = [chat(f"question {n}", "x" * n) for n in range(1, 201)]
    made, _ = revised(rows_of(tmp_path / "rows", rows), splits={"method": "length", "shares": {"test": 0.1}})
    tenths = Counter((len(row.messages[1]["content"]) - 1) // 20 for row in made if row.split == "test")
    assert set(tenths.values()) == {2}
    assert len(tenths) == 10


def test_a_seed_says_which_rows(checked: Path) -> None:
    def part(seed: int) -> list[str]:
        rows, _ = revised(checked, splits={"method": "random", "shares": {"test": 0.3}, "seed": seed})
        return [row.id for row in rows if row.split == "test"]

    assert part(1) == part(1)
    assert len({tuple(part(seed)) for seed in range(5)}) > 1


def test_a_split_stays_through_edits_and_can_be_taken_back(checked: Path, tmp_path: Path) -> None:
    split, _ = revised(checked, splits={"method": "random", "shares": {"test": 0.3, "dev": 0.1}})
    with RowWriter(tmp_path / "rows.parquet") as writer:
        for row in split:
            writer.add(row.line, row, row_id=row.id, split=row.split)
    parts = {row.id: row.split for row in split}
    edited, report = revised(tmp_path / "rows.parquet", edit={split[4].id: chat("x")}, add=[chat("y")])
    assert {row.id: row.split for row in edited[:12]} == parts
    assert edited[12].split == "train"
    assert report["splits"].keys() == {"train", "test", "dev"}
    back, report = revised(tmp_path / "rows.parquet", splits={"method": "none"})
    assert {row.split for row in back} == {None}
    assert report["splits"] == {}


def parts(rows: list[Row]) -> dict[str, set[str]]:
    """The ids of each part."""
    return {name: {row.id for row in rows if row.split == name} for name in {str(row.split) for row in rows}}


def test_a_new_split_leaves_those_that_are_there_alone(tmp_path: Path) -> None:
    given = rows_of(tmp_path / "rows", [chat(f"question {n % 90}") for n in range(100)])
    first, _ = revised(given, splits={"method": "random", "shares": {"test": 0.2}})
    divided = max(given.parent.glob("revised-*")) / "rows.parquet"
    second, report = revised(divided, splits={"method": "length", "shares": {"validation": 0.2}, "seed": 1})
    assert parts(second)["test"] == parts(first)["test"]
    assert report["splits"]["validation"] == 20, "of all rows, not of those that are left"
    assert report["overlap"] == 0
    assert report["changes"]["moved"] == 20
    whole = {row.content_id: row.split for row in second}
    assert all(whole[row.content_id] == row.split for row in second), "copies are in one part"
    with pytest.raises(TrainerError, match="none of them to learn from"):
        revised(divided, splits={"method": "random", "shares": {"dev": 0.85}})


def test_a_split_is_replaced_or_taken_back_only_when_that_is_said(checked: Path) -> None:
    shares = {"method": "random", "shares": {"test": 0.2}, "seed": 1}
    first, _ = revised(checked, splits={"method": "random", "shares": {"test": 0.2, "dev": 0.2}})
    divided = max(checked.parent.glob("revised-*")) / "rows.parquet"
    with pytest.raises(TrainerError, match="There is a split test already"):
        revised(divided, splits=shares)
    again, _ = revised(divided, splits=shares | {"replace": True})
    assert parts(again)["dev"] == parts(first)["dev"]
    assert parts(again)["test"] != parts(first)["test"]
    back, report = revised(divided, splits={"method": "back", "name": "test"})
    assert report["splits"].keys() == {"train", "dev"}
    assert parts(back)["dev"] == parts(first)["dev"]
    with pytest.raises(TrainerError, match="no split other"):
        revised(divided, splits={"method": "back", "name": "other"})


def test_an_added_copy_goes_where_the_row_is_that_it_repeats(checked: Path) -> None:
    first, _ = revised(checked, splits={"method": "random", "shares": {"test": 0.2}})
    divided = max(checked.parent.glob("revised-*")) / "rows.parquet"
    kept = next(row for row in first if row.split == "test")
    rows, report = revised(divided, add=[kept.shape(), chat("quite new")])
    assert [row.split for row in rows[-2:]] == ["test", "train"]
    assert report["overlap"] == 0


def test_a_second_file_is_a_part_and_what_both_have_is_told(checked: Path, tmp_path: Path) -> None:
    test_file = tmp_path / "test.jsonl"
    test_file.write_text(
        "".join(json.dumps({"instruction": f"question {n}", "output": "Yes."}) + "\n" for n in (0, 77))
    )
    plan = {"method": "file", "name": "test"}
    rows, report = revised(checked, test_file, splits=plan)
    assert report["splits"] == {"train": 12, "test": 2}
    assert report["overlap"] == COPIES
    assert len({row.id for row in rows}) == 14
    rows, report = revised(checked, test_file, splits=plan | {"drop_overlap": True})
    assert report["splits"] == {"train": 9, "test": 2}
    assert (report["overlap"], report["changes"]["removed"]) == (0, COPIES)
    assert rows[-2].content_id == next(iter_rows(checked)).content_id


def test_a_bad_second_file_is_refused_with_its_lines(checked: Path, tmp_path: Path) -> None:
    test_file = tmp_path / "test.jsonl"
    test_file.write_text('{"instruction": "a", "output": "b"}\n{"instruction": "a"}\n')
    with pytest.raises(TrainerError):
        revised(checked, test_file, splits={"method": "file"})
    report = json.loads(next(checked.parent.glob("revised-*/report.json")).read_text())
    assert report["errors"][0]["line"] == 2


@pytest.mark.parametrize(
    "plan",
    [
        {"method": "magic", "shares": {"test": 0.1}},
        {"shares": {}},
        {"shares": {"test": 1.5}},
        {"shares": {"test": 0.6, "dev": 0.4}},
        {"shares": {"train": 0.1}},
        {"shares": {"../x": 0.1}},
        {"colour": "red"},
    ],
)
def test_plans_that_mean_nothing(plan: dict[str, Any]) -> None:
    with pytest.raises(TrainerError) as caught:
        SplitPlan.from_dict(plan)
    assert caught.value.code == "user_config"


def test_every_part_gets_a_row_and_one_row_cannot_be_divided() -> None:
    plan = SplitPlan(shares={"test": 0.01, "dev": 0.01})
    assert Counter(assign([(f"{n:016x}", 0) for n in range(5)], plan).values()) == {"test": 1, "dev": 1}
    with pytest.raises(TrainerError, match="cannot be divided"):
        assign([("0" * 16, 0)] * 9, plan)


def test_the_command(checked: Path, tmp_path: Path) -> None:
    (tmp_path / "changes.json").write_text(json.dumps({"add": [chat("new")]}))
    told = [f"--changes={tmp_path / 'changes.json'}", f"--out={tmp_path / 'out'}"]
    command = [sys.executable, "-m", "trainer", "revise", str(checked), *told]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert json.loads(ended.stdout.splitlines()[-1])["facts"]["rows"] == 13
    (tmp_path / "changes.json").write_text("[")
    assert subprocess.run(command, capture_output=True, check=False).returncode == EXIT_CODES["user_config"]


def write(path: Path, rows: list[tuple[str, Content, str | None]]) -> Path:
    with RowWriter(path) as writer:
        for row_id, content, split in rows:
            writer.add(1, content, row_id=row_id, split=split)
    return path


def says(text: str) -> Content:
    return Content(messages=chat(text)["messages"])


def test_two_files_are_compared_by_ids_and_contents(tmp_path: Path) -> None:
    a, b, c, d, e = map(says, "abcde")
    first = write(tmp_path / "1", [("", a, None), ("", b, None), ("", c, None), (a.content_id + "-2", a, None)])
    edited = [("", a, "test"), (b.content_id, d, None), ("", e, None)]
    second = write(tmp_path / "2", edited)
    found = compare(first, second)
    assert (found.removed, found.added) == ([2, 3], [2])
    assert (found.edited, found.moved) == ([(1, 1)], [(0, 0)])
    assert found.counts == {"added": 1, "removed": 2, "edited": 1, "moved": 1, "beside": 0}


def test_other_columns_are_compared_without_being_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ids and hashes are all that grows with the rows: not these 8 MB a file."""
    ids = [f"{number:016x}" for number in range(2000)]
    told = [random.Random(one).randbytes(2000).hex() for one in ids]
    files = [tmp_path / "1", tmp_path / "2"]
    for file, extra in zip(files, (told, [*told[:-3], "{}", None, told[-1]]), strict=True):
        table = pa.table({"id": ids, "extra": pa.array(extra, pa.large_string())})
        pq.write_table(table, file, row_group_size=100, use_dictionary=False)
    monkeypatch.setattr(comparing, "CELLS_AT_ONCE", 50)
    usual, pool = pa.default_memory_pool(), pa.proxy_memory_pool(pa.default_memory_pool())
    pa.set_memory_pool(pool)
    try:
        found = compare(*files)
    finally:
        pa.set_memory_pool(usual)
    assert found.beside == [(1997, 1997), (1998, 1998)]
    assert pool.max_memory() < 4_000_000


def test_an_edited_row_that_comes_back_by_an_upload_is_no_change(tmp_path: Path) -> None:
    a, b, c = map(says, "abc")
    edited = write(tmp_path / "1", [("", a, None), (b.content_id, c, None)])
    uploaded = write(tmp_path / "2", [("", c, None), ("", a, None), (c.content_id + "-2", c, None)])
    counts = {"added": 1, "removed": 0, "edited": 0, "moved": 0, "beside": 0}
    assert compare(edited, uploaded).counts == counts


def test_private_things_are_masked_in_every_row(tmp_path: Path) -> None:
    told = [chat(f"question {n}", "Write to mia.berg@mail.de, please." if n % 2 else "No.") for n in range(6)]
    rows = rows_of(tmp_path / "private", told)
    after, report = revised(rows, mask=["personal"])
    assert [row.messages[1]["content"] for row in after[:2]] == ["No.", "Write to [e-mail address], please."]
    assert report["changes"] == {"added": 0, "removed": 0, "edited": 3, "moved": 0}
    assert [row.id for row in after] == [row.id for row in iter_rows(rows)]
    masked = next(rows.parent.glob("revised-*/rows.parquet"))
    again, report = revised(masked, mask=["secret", "personal"])
    assert not any(report["changes"].values())
    assert [row.shape() for row in again] == [row.shape() for row in after]


def test_a_file_with_the_same_rows_takes_their_parts_over(tmp_path: Path) -> None:
    """By id; a further copy, and an edited row that comes back, by what they say. New rows are in no part."""
    given = rows_of(tmp_path / "rows", [chat(f"question {n}") for n in range(20)])
    first, _ = revised(given, splits={"method": "random", "shares": {"test": 0.3, "dev": 0.1}})
    held = next(row for row in first if row.split == "test")
    divided = max(given.parent.glob("revised-*")) / "rows.parquet"
    edited, _ = revised(divided, edit={held.id: chat("edited")})
    earlier = max(divided.parent.glob("revised-*")) / "rows.parquet"
    file = tmp_path / "again.jsonl"
    again = [chat("new"), held.shape(), *[row.shape() for row in edited[:18]]]
    file.write_text("".join(json.dumps(row) + "\n" for row in again))
    check_file(file, tmp_path, skip_bad_rows=False, emit=lambda event: None, known=Known(splits_of=earlier))
    parts_by_content = {row.content_id: row.split for row in [held, *edited]}
    rows, report = list(iter_rows(tmp_path / "rows.parquet")), json.loads((tmp_path / "report.json").read_text())
    assert [row.split for row in rows] == [None, *[parts_by_content[row.content_id] for row in rows[1:]]]
    counts = Counter(row.split for row in rows if row.split)
    assert (report["splits"], report["overlap"]) == (counts, 0)
    assert report["splits_kept"] == {"before": Counter(row.split for row in edited), "kept": counts, "new": 1}


def test_parts_are_taken_over_in_sections_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.formats.check.worth_sections", lambda reading: True)
    rows = [chat(f"question {n}") for n in range(300)]
    given = rows_of(tmp_path / "rows", rows)
    first, _ = revised(given, splits={"method": "random", "shares": {"test": 0.1}})
    file = tmp_path / "again.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in [*rows, chat("question 5"), chat("new")]))
    earlier = max(given.parent.glob("revised-*")) / "rows.parquet"
    check_file(file, tmp_path, skip_bad_rows=False, emit=lambda event: None, known=Known(splits_of=earlier))
    again = list(iter_rows(tmp_path / "rows.parquet"))
    assert [row.split for row in again[:300]] == [row.split for row in first]
    assert [row.split for row in again[300:]] == [first[5].split, None]
