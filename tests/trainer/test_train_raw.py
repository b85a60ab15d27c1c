"""Training on a raw file: what `check` says of it is what is said here, and its rows are what is learnt."""

import gzip
import json
from pathlib import Path

import pytest

from tests.tiny import make_tiny_base
from tests.trainer.training import make_rows, make_spec
from trainer.errors import TrainerError
from trainer.events import Event, Log
from trainer.formats import iter_rows
from trainer.formats.check import check_file
from trainer.sft import train


def run(folder: Path, data: Path) -> list[Event]:
    events: list[Event] = []
    spec = make_spec(make_tiny_base(folder / "base"), data, optim={"max_steps": 1})
    train(spec, out=folder / "out", resume=None, emit=events.append, should_stop=lambda: False)
    return events


def test_any_file_can_be_trained_on(tmp_path: Path) -> None:
    check_file(make_rows(tmp_path), tmp_path / "checked", skip_bad_rows=False, emit=lambda event: None)
    rows = list(iter_rows(tmp_path / "checked" / "rows.parquet"))
    raw = tmp_path / "mine.jsonl.gz"
    raw.write_bytes(gzip.compress("\n".join(json.dumps(row.shape()) for row in rows).encode()))
    events = run(tmp_path, raw)
    dataset = tmp_path / "out" / "dataset"
    assert (dataset / "report.json").is_file()
    assert [row.id for row in iter_rows(dataset / "rows.parquet")] == [row.id for row in rows]
    assert any(isinstance(event, Log) and f"{len(rows):,} good rows" in event.text for event in events)
    assert events[-1].kind == "finished" and sum(event.kind == "finished" for event in events) == 1


def test_a_bad_file_ends_as_its_check_does(tmp_path: Path) -> None:
    raw = tmp_path / "mine.csv"
    raw.write_text("instruction,output\na,b\nc,\n")
    with pytest.raises(TrainerError) as checked:
        check_file(raw, tmp_path / "checked", skip_bad_rows=False, emit=lambda event: None)
    with pytest.raises(TrainerError) as trained:
        run(tmp_path, raw)
    assert (trained.value.code, trained.value.text) == ("dataset_invalid", checked.value.text)
    assert "line 3, output" in trained.value.text
    said = [(folder / "report.json").read_text() for folder in (tmp_path / "checked", tmp_path / "out" / "dataset")]
    assert said[0] == said[1]
