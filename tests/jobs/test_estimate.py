"""Tokens of a dataset: counted on a sample, in a moment, whatever stands in the rows."""

import time
from pathlib import Path

import pytest

from tests.cast import Cast
from tests.make import make_base, make_dataset, make_worker
from tests.tiny import make_tiny_base
from trainer.spec import ModelSpec, TrainSpec
from webapp.adapters.models import BaseModel
from webapp.datasets.models import DatasetVersion
from webapp.jobs import estimates


@pytest.fixture
def base(db: None, tmp_path: Path) -> BaseModel:
    return make_base(path=make_tiny_base(tmp_path / "tiny"))


def make_version(cast: Cast, *lengths: int) -> DatasetVersion:
    """One row for each length of its answer."""
    text = "cats and dogs count to seven. " * 200_000
    rows = [
        {"messages": [{"role": "user", "content": "Go on"}, {"role": "assistant", "content": text[:length]}]}
        for length in lengths
    ]
    return make_dataset(cast.team, rows=rows).versions.get()


def test_small_rows_are_all_counted(cast: Cast, base: BaseModel) -> None:
    short, long = (estimates._count(make_version(cast, *[length] * 10), base) for length in (100, 1000))
    assert 0 < short < long < 12 * short


def test_huge_rows_are_not_read_to_their_end(cast: Cast, base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "SAMPLE_CHARACTERS", 20_000)
    few = estimates._count(make_version(cast, *[10_000] * 2), base)
    began = time.monotonic()
    many = estimates._count(make_version(cast, *[10_000] * 60, *[3_000_000] * 4), base)
    assert time.monotonic() - began < 2
    assert many == pytest.approx(few / 2 * (60 + 1200), rel=0.1), "what was not read counts by its length"


def test_one_row_larger_than_the_sample_is_guessed(cast: Cast, base: BaseModel) -> None:
    began = time.monotonic()
    assert 500_000 < estimates._count(make_version(cast, 4_000_000), base) < 2_000_000
    assert time.monotonic() - began < 1


def test_rows_that_are_gone_are_guessed_from_the_report(cast: Cast, base: BaseModel) -> None:
    version = make_version(cast, 100)
    version.rows_path.unlink()
    assert estimates._count(version, base) > 0


@pytest.mark.parametrize(("device", "dtype", "slow"), [("CPU, 2 cores", "float16", True), ("H200", "float16", False)])
def test_a_slow_number_format_is_told(cast: Cast, base: BaseModel, device: str, dtype: str, slow: bool) -> None:
    make_worker(device=device)
    spec = TrainSpec(model=ModelSpec(base="-", dtype=dtype))  # type: ignore[arg-type]
    found = estimates.outlook(spec, base, make_version(cast, 100))
    assert found and found.is_slow_format is slow
