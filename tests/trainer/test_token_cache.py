"""Tokens kept beside a dataset: they are what rendering gives, and whatever makes them otherwise is noticed."""

import dataclasses
import json
import shutil
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.tiny import make_tiny_base
from tests.trainer.training import make_judged, make_pairs, make_rows, make_spec
from trainer import token_cache
from trainer.data import Dataset, load_dataset
from trainer.events import Event, Log
from trainer.rendering import Renderer
from trainer.spec import TrainSpec
from trainer.token_cache import load_tokens

MOMENT = datetime(2026, 11, 21, 12)
KEPT = "Using rows tokenised by an earlier run"
MAKERS = {"sft": make_rows, "dpo": make_pairs, "kto": make_judged}


@pytest.fixture(autouse=True)
def always_worth_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "MIN_SECONDS", 0.0)


def load(spec: TrainSpec, out: Path, moment: datetime = MOMENT) -> tuple[Dataset, list[str]]:
    """The dataset of a spec, and what was said."""
    base, said = Path(spec.model.base), list[Event]()
    renderer = Renderer.load(base, moment=moment)
    dataset = load_tokens(spec, renderer, said.append, base=base, moment=moment, out=out)
    return dataset, [one.text for one in said if isinstance(one, Log)]


def spec_of(base: Path, folder: Path, method: str = "sft", **data: Any) -> TrainSpec:
    (folder / "tokens").mkdir(exist_ok=True)
    rows = MAKERS[method](folder)
    return make_spec(base, rows, data={"method": method, "holdout": 0.2, "max_seq_length": 128, **data})


def files(folder: Path) -> list[Path]:
    return sorted((folder / "tokens").iterdir())


@pytest.mark.parametrize("method", MAKERS)
def test_kept_tokens_are_those_that_were_made(base: Path, tmp_path: Path, method: str) -> None:
    spec = spec_of(base, tmp_path, method)
    plain = load_dataset(spec, Renderer.load(base), lambda event: None)
    made, said = load(spec, tmp_path / "1")
    kept, again = load(spec, tmp_path / "2")
    assert made == kept == plain and made.train and made.holdout
    assert again == [KEPT, *said]
    assert [one.suffix for one in files(tmp_path)] == [".arrow"]


def test_other_values_of_learning_take_them_too(base: Path, tmp_path: Path) -> None:
    spec = spec_of(base, tmp_path)
    load(spec, tmp_path)
    other = dataclasses.replace(
        spec, lora=dataclasses.replace(spec.lora, r=4), optim=dataclasses.replace(spec.optim, learning_rate=1e-5)
    )
    assert load(other, tmp_path)[1][0] == KEPT


@pytest.mark.parametrize("what", ["length", "seed", "held out", "rows", "template", "ends", "tokenizer", "code"])
def test_what_makes_them_otherwise_makes_them_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    base = make_tiny_base(tmp_path / "base")
    spec = spec_of(base, tmp_path)
    load(spec, tmp_path)
    if what == "rows":
        make_rows(tmp_path, count=23)
    elif what == "template":
        template = base / "chat_template.jinja"
        template.write_text(template.read_text() + "{# another #}")
    elif what == "ends":
        (base / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 2]}))
    elif what == "tokenizer":
        config = json.loads((base / "tokenizer.json").read_text())
        (base / "tokenizer.json").write_text(json.dumps(config, indent=1))
    elif what == "code":
        monkeypatch.setattr(token_cache, "_code", lambda: b"another version")
    else:
        values = {"length": {"max_seq_length": 120}, "held out": {"holdout": 0.4}}.get(what, {})
        optim = dataclasses.replace(spec.optim, seed=7) if what == "seed" else spec.optim
        spec = dataclasses.replace(spec, data=dataclasses.replace(spec.data, **values), optim=optim)
    dataset, said = load(spec, tmp_path)
    assert KEPT not in said and len(files(tmp_path)) == 2
    assert dataset == load_dataset(spec, Renderer.load(base), lambda event: None)


@pytest.mark.parametrize(
    ("told", "later"),
    [
        ("{% if strftime_now is defined %}{{ strftime_now('%d') }}{% endif %}", {"hour": 23}),
        ("{{ strftime_now('%d %H') }}", {"minute": 59}),
        ("{% set form = '%d' %}{{ strftime_now(form) }}", {}),
    ],
)
def test_a_template_that_tells_the_time_is_taken_for_what_it_tells(
    tmp_path: Path, told: str, later: dict[str, int]
) -> None:
    """Rows of the same day serve again where it tells the day; of another they do not."""
    base = make_tiny_base(tmp_path / "base")
    spec = spec_of(base, tmp_path, train_on="everything")
    template = told + "{% for m in messages %}{{ m.content }}{% endfor %}"
    config = json.loads((base / "tokenizer_config.json").read_text())
    config.pop("chat_template", None)
    for number, within_json in enumerate((False, True)):
        (base / "chat_template.jinja").unlink(missing_ok=True)
        if within_json:
            (base / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
        else:
            (base / "chat_template.jinja").write_text(template)
        out = tmp_path / str(number)
        load(spec, out)
        assert KEPT in load(spec, out, moment=MOMENT.replace(**later))[1]
        assert KEPT not in load(spec, out, moment=MOMENT.replace(day=22))[1]


@pytest.mark.parametrize("damage", ["cut", "no table", "empty"])
def test_a_damaged_file_is_made_anew(base: Path, tmp_path: Path, damage: str) -> None:
    spec = spec_of(base, tmp_path)
    made, _ = load(spec, tmp_path)
    [file] = files(tmp_path)
    whole = file.read_bytes()
    file.write_bytes({"cut": whole[: len(whole) // 2], "no table": b"no table", "empty": b""}[damage])
    again, said = load(spec, tmp_path)
    assert again == made and KEPT not in said
    assert file.read_bytes() == whole


def test_a_file_that_ends_between_two_batches_is_made_anew(base: Path, tmp_path: Path) -> None:
    """For the format that is a whole file."""
    spec = spec_of(base, tmp_path)
    made, _ = load(spec, tmp_path)
    [file] = files(tmp_path)
    with pa.ipc.open_stream(file.read_bytes()) as reader:
        schema, batches = reader.schema, list(reader)
    assert len(batches) == 2
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batches[0])
    again, said = load(spec, tmp_path)
    assert again == made and KEPT not in said


def test_nothing_is_kept_where_no_folder_is_or_rows_of_others_come_in(base: Path, tmp_path: Path) -> None:
    spec = spec_of(base, tmp_path)
    other = shutil.copy(spec.data.path, tmp_path / "other.jsonl")
    load(dataclasses.replace(spec, data=dataclasses.replace(spec.data, holdout_path=str(other))), tmp_path)
    assert not files(tmp_path)
    (tmp_path / "tokens").rmdir()
    load(spec, tmp_path)
    assert not (tmp_path / "tokens").exists()


def test_what_is_made_in_a_moment_is_not_kept(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "MIN_SECONDS", 60.0)
    load(spec_of(base, tmp_path), tmp_path)
    assert not files(tmp_path)


def test_the_oldest_go(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "MAX_FILES", 2)
    first, *others = [spec_of(base, tmp_path, max_seq_length=length) for length in (110, 120, 128)]
    load(first, tmp_path)
    load(others[0], tmp_path)
    assert KEPT in load(first, tmp_path)[1], "used again, so no longer the oldest"
    load(others[1], tmp_path)
    assert len(files(tmp_path)) == 2
    assert KEPT in load(first, tmp_path)[1] and KEPT not in load(others[0], tmp_path)[1]
