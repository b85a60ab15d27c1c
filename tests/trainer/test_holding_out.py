"""A dataset with a named split is measured on exactly those rows, and learns from none of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.training import make_rows, make_spec
from trainer.data import Dataset, Trainable, load_dataset
from trainer.errors import TrainerError
from trainer.events import Event, Log
from trainer.formats import iter_rows
from trainer.formats.check import check_file
from trainer.formats.revise import revise_file
from trainer.rendering import Renderer


def divided(folder: Path, **plan: Any) -> Path:
    """40 rows in parts, as canonical rows."""
    check_file(make_rows(folder, count=40), folder, skip_bad_rows=False, emit=lambda event: None)
    (folder / "changes.json").write_text(json.dumps({"splits": plan}))
    out = folder / "divided"
    out.mkdir()
    revise_file(folder / "rows.parquet", folder / "changes.json", out, test_file=None, emit=lambda event: None)
    return out / "rows.parquet"


def load(base: Path, rows: Path, events: list[Event] | None = None, **data: Any) -> Dataset:
    return load_dataset(
        make_spec(base, rows, data=data), Renderer.load(base), (events if events is not None else []).append
    )


def warnings_in(events: list[Event]) -> list[str]:
    return [event.text for event in events if isinstance(event, Log) and event.level == "warning"]


def texts(base: Path, samples: list[Trainable]) -> set[bytes]:
    return {item.ids.tobytes() for sample in samples for item in sample.sequences}


def of_split(base: Path, rows: Path, *names: str | None) -> set[bytes]:
    """What the rows of some parts become: by loading them as a dataset of their own."""
    lines = [json.dumps(row.shape()) for row in iter_rows(rows) if row.split in names]
    file = rows.parent / "part.jsonl"
    file.write_text("\n".join(lines))
    return texts(base, load(base, file, holdout=0.0).train)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5])
def test_the_split_is_measured_on_and_nothing_else(base: Path, tmp_path: Path, share: float) -> None:
    rows = divided(tmp_path, shares={"test": 0.2, "dev": 0.1})
    found = load(base, rows, holdout=share)
    assert texts(base, found.holdout) == of_split(base, rows, "test")
    assert texts(base, found.train) == of_split(base, rows, "train")
    assert (len(found.train), len(found.holdout)) == (28, 8)


def test_another_split_and_none_at_all(base: Path, tmp_path: Path) -> None:
    rows = divided(tmp_path, shares={"test": 0.2, "dev": 0.1})
    dev = load(base, rows, split="dev")
    assert texts(base, dev.holdout) == of_split(base, rows, "dev")
    assert texts(base, dev.train) == of_split(base, rows, "train"), "the test rows stay unseen"
    everything = load(base, rows, split="", holdout=0.1)
    assert (len(everything.train), len(everything.holdout)) == (36, 4)


def test_a_split_that_is_not_there_leaves_the_share(base: Path, tmp_path: Path) -> None:
    rows = divided(tmp_path, shares={"dev": 0.2})
    found = load(base, rows, holdout=0.25)
    assert (len(found.train), len(found.holdout)) == (24, 8)
    assert not texts(base, found.train) & of_split(base, rows, "dev")


def test_a_file_to_measure_on_is_read_whole_and_the_split_stays_unseen(base: Path, tmp_path: Path) -> None:
    rows = divided(tmp_path, shares={"test": 0.2})
    found = load(base, rows, holdout_path=str(rows))
    assert len(found.holdout) == 40
    assert texts(base, found.train) == of_split(base, rows, "train")


def test_what_both_parts_have_is_told(base: Path, tmp_path: Path) -> None:
    rows = make_rows(tmp_path, count=10)
    check_file(rows, tmp_path, skip_bad_rows=False, emit=lambda event: None)
    test_file = tmp_path / "test.jsonl"
    test_file.write_text("\n".join(rows.read_text().splitlines()[:3]))
    (tmp_path / "changes.json").write_text(json.dumps({"splits": {"method": "file"}}))
    told: dict[str, Any] = {"test_file": test_file, "emit": lambda event: None}
    out = tmp_path / "out"
    out.mkdir()
    revise_file(tmp_path / "rows.parquet", tmp_path / "changes.json", out, **told)
    events: list[Event] = []
    found = load(base, out / "rows.parquet", events)
    assert (len(found.train), len(found.holdout)) == (10, 3)
    assert [text for text in warnings_in(events) if text.startswith("3 training rows are the same")]


@pytest.mark.parametrize("split", [False, True])
def test_rows_to_measure_on_that_are_learnt_too_are_told(base: Path, tmp_path: Path, split: bool) -> None:
    """Of the rows that are really trained on: those of a split that is left aside do not count."""
    rows = divided(tmp_path, shares={"test": 0.2})
    aside = tmp_path / "aside.jsonl"
    names = ("test",) if split else ("train", "test")
    aside.write_text("\n".join(json.dumps(row.shape()) for row in iter_rows(rows) if row.split in names))
    events: list[Event] = []
    load(base, rows, events, holdout_path=str(aside))
    told = "32 training rows are the same as rows of the evaluation file: its loss will look too good"
    assert warnings_in(events) == ([] if split else [told])


def test_rows_to_measure_on_that_are_cut_or_left_out_are_told(base: Path, tmp_path: Path) -> None:
    rows, events = make_rows(tmp_path, count=4), list[Event]()
    aside = tmp_path / "aside.jsonl"
    asked = ["cat " * (300 if number in (2, 4) else 2) + str(number) for number in range(5)]
    told = [[{"role": "user", "content": one}, {"role": "assistant", "content": "Yes."}] for one in asked]
    aside.write_text("\n".join(json.dumps({"messages": one}) for one in told))
    assert len(load(base, rows, events, holdout_path=str(aside)).holdout) == 3
    cut, left_out = warnings_in(events)
    assert cut.startswith("2 rows of the evaluation file aside.jsonl are longer than 128 tokens, and cut: ")
    said = "2 rows of the evaluation file aside.jsonl left out for having no token to learn: lines 3, 5"
    assert left_out == said


@pytest.mark.parametrize(("copies", "why"), [(1, "there is one row to learn from"), (3, "are the same")])
def test_where_no_row_can_be_held_out_it_is_said(base: Path, tmp_path: Path, copies: int, why: str) -> None:
    """One row and its copies stay together. A training that waits for measurements to end it would never end early."""
    rows = make_rows(tmp_path, count=1)
    rows.write_text("\n".join([rows.read_text()] * copies))
    events: list[Event] = []
    assert not load(base, rows, events).holdout
    (said,) = warnings_in(events)
    assert said.startswith("Nothing is held out: ") and why in said
    told = [event.text for event in events if isinstance(event, Log)]
    assert any(text.startswith("1 row to learn from (" if copies == 1 else "3 rows to learn") for text in told)
    waiting = make_spec(base, rows, evaluation={"patience": 1})
    with pytest.raises(TrainerError, match=f"evaluation.patience: Nothing is held out.*{why}") as caught:
        load_dataset(waiting, Renderer.load(base), events.append)
    assert caught.value.code == "user_config"


def test_who_asks_for_no_rows_to_be_held_out_is_told_nothing(base: Path, tmp_path: Path) -> None:
    rows, events = make_rows(tmp_path, count=1), list[Event]()
    load(base, rows, events, holdout=0.0)
    assert not warnings_in(events)
    (tmp_path / "aside").mkdir()
    aside = make_rows(tmp_path / "aside", count=2)
    aside.write_text(aside.read_text().splitlines()[1])
    load(base, rows, events, holdout_path=str(aside))
    assert not warnings_in(events)
