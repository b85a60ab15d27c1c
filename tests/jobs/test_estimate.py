"""Tokens of a dataset: counted on a sample, in a moment, whatever stands in the rows."""

import dataclasses
import json
import time
from pathlib import Path

import pytest
from django.template.loader import render_to_string
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_base, make_dataset, make_job, make_job_event, make_worker
from tests.tiny import make_tiny_base
from trainer import auto_dtype
from trainer.spec import DataSpec, ModelSpec, TrainSpec
from webapp.adapters.models import BaseModel
from webapp.adapters.token_counts import kept_counts
from webapp.datasets.models import DatasetVersion
from webapp.jobs import estimates
from webapp.jobs.machine import Machine, this_machine
from webapp.jobs.models import JobStatus


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
    short, long = (estimates._count(make_version(cast, *[length] * 10), base).tokens for length in (100, 1000))
    assert 0 < short < long < 12 * short


def test_huge_rows_are_not_read_to_their_end(cast: Cast, base: BaseModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "SAMPLE_CHARACTERS", 20_000)
    few = estimates._count(make_version(cast, *[10_000] * 2), base).tokens
    began = time.process_time()
    many = estimates._count(make_version(cast, *[10_000] * 60, *[3_000_000] * 4), base).tokens
    assert time.process_time() - began < 2
    assert many == pytest.approx(few / 2 * (60 + 1200), rel=0.1), "what was not read counts by its length"


def test_one_row_larger_than_the_sample_is_guessed(cast: Cast, base: BaseModel) -> None:
    began = time.process_time()
    assert 500_000 < estimates._count(make_version(cast, 4_000_000), base).tokens < 2_000_000
    assert time.process_time() - began < 1


def test_rows_that_are_gone_are_guessed_from_the_report(cast: Cast, base: BaseModel) -> None:
    version = make_version(cast, 100)
    version.rows_path.unlink()
    assert estimates._count(version, base).tokens > 0


@pytest.mark.parametrize(("device", "dtype", "slow"), [("CPU, 2 cores", "float16", True), ("H200", "float16", False)])
def test_a_slow_number_format_is_told(cast: Cast, base: BaseModel, device: str, dtype: str, slow: bool) -> None:
    make_worker(device=device)
    spec = TrainSpec(model=ModelSpec(base="-", dtype=dtype))  # type: ignore[arg-type]
    found = estimates.outlook(spec, base, make_version(cast, 100))
    assert found and found.is_slow_format is slow


SHAPE = {"heads": 9, "kv_heads": 3, "intermediate_size": 1536, "tied_embeddings": True}


def make_ended(cast: Cast, base: BaseModel, spec: TrainSpec, *, foretold: int, peak: int, device: str = "cpu") -> None:
    """A job that told its memory twice, as on a GPU: before its first step and at its end."""
    job = make_job(cast.team, base=base, spec=spec.to_dict(), status=JobStatus.SUCCEEDED)
    for step, taken in ((0, peak // 2), (9, peak)):
        make_job_event(job, "memory", step=step, peak_bytes=taken, foretold_bytes=foretold, device=device)


@pytest.fixture
def shaped(base: BaseModel) -> BaseModel:
    base.facts |= SHAPE
    base.save()
    return base


def test_earlier_jobs_of_a_kind_set_the_estimate(cast: Cast, shaped: BaseModel) -> None:
    make_worker()
    spec, version = TrainSpec(), make_version(cast, *[300] * 10)
    before = estimates.outlook(spec, shaped, version)
    for peak in (1200, 1300, 1100):
        make_ended(cast, shaped, spec, foretold=1000, peak=peak)
    after = estimates.outlook(spec, shaped, version)
    assert before and after and before.estimate.jobs == 0 and after.estimate.jobs == 3
    assert after.estimate.expected == pytest.approx(1.2 * before.estimate.expected, rel=1e-6)


def test_jobs_of_another_kind_do_not(cast: Cast, shaped: BaseModel) -> None:
    spec = TrainSpec()
    packed, again = (
        dataclasses.replace(spec, model=ModelSpec(quantization="int8")),
        dataclasses.replace(spec, optim=dataclasses.replace(spec.optim, gradient_checkpointing=True)),
    )
    for other in (packed, again):
        make_ended(cast, shaped, other, foretold=1000, peak=2000)
    make_ended(cast, shaped, spec, foretold=1000, peak=2000, device="cuda")
    make_ended(cast, make_base(name="other"), spec, foretold=1000, peak=2000)
    assert estimates.observed_peaks(spec, shaped, "cpu") == []
    assert len(estimates.observed_peaks(spec, shaped, "cuda")) == 1


def test_rows_of_another_dataset_to_measure_on_take_time(cast: Cast, shaped: BaseModel) -> None:
    """As much as a share of as many rows, and nothing is taken off the rows to learn from."""
    said = {"tokens_per_second": 100.0}
    make_job(cast.team, base=shaped, spec=TrainSpec().to_dict(), status=JobStatus.SUCCEEDED, progress=said)
    version, aside = make_version(cast, *[300] * 10), make_version(cast, *[300] * 10)
    spec = dataclasses.replace(TrainSpec(), data=DataSpec(holdout_path="-", holdout=0.5))
    without = estimates.outlook(spec, shaped, version)
    measured = estimates.outlook(spec, shaped, version, aside)
    shared = estimates.outlook(
        dataclasses.replace(spec, data=DataSpec(holdout=0.5)), shaped, make_version(cast, *[300] * 20)
    )
    assert without and measured and shared and without.estimate.seconds and measured.estimate.seconds
    assert measured.estimate.steps == without.estimate.steps == shared.estimate.steps
    assert measured.estimate.seconds == pytest.approx(shared.estimate.seconds, rel=0.01)
    assert measured.estimate.seconds > 1.2 * without.estimate.seconds
    assert measured.estimate.tokens == without.estimate.tokens


def test_it_fits_only_if_the_upper_end_does(cast: Cast, shaped: BaseModel) -> None:
    version, spec = make_version(cast, *[300] * 10), TrainSpec()
    machine = make_worker(memory_bytes=64 << 30)
    roomy = estimates.outlook(spec, shaped, version)
    assert roomy and roomy.fits
    made = dataclasses.replace(roomy, machine=machine)
    machine.memory_bytes = (roomy.estimate.expected + roomy.estimate.high) // 2
    assert not made.fits and not made.is_too_much
    machine.memory_bytes = roomy.estimate.expected // 2
    assert made.is_too_much


def test_the_card_says_how_many_jobs_it_was_measured_on(cast: Cast, shaped: BaseModel) -> None:
    make_worker()
    make_ended(cast, shaped, TrainSpec(), foretold=1000, peak=1200)
    found = estimates.outlook(TrainSpec(), shaped, make_version(cast, *[300] * 10))
    assert "measured on 1 earlier job." in render_to_string("jobs/_estimate.html", {"outlook": found})


def test_speed_of_kto_is_told_for_plain_steps(cast: Cast, base: BaseModel) -> None:
    spec = dataclasses.replace(TrainSpec(), data=DataSpec(method="kto"))
    said = {"tokens_per_second": 300.0}
    make_job(cast.team, base=base, spec=spec.to_dict(), status=JobStatus.SUCCEEDED, progress=said)
    assert estimates._speed(base) == pytest.approx(400.0)


def test_rows_that_the_template_refuses_are_told_before_the_job(cast: Cast, base: BaseModel) -> None:
    call = {"id": "a", "type": "function", "function": {"name": "add", "arguments": {}}}
    asked, said = {"role": "user", "content": "Go on"}, {"role": "assistant", "content": "Yes."}
    called = [
        asked,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        said,
    ]
    rows = [{"messages": [asked, said]}, {"messages": called}]
    version = make_dataset(cast.team, rows=rows).versions.get()
    path = f"{reverse('job_new')}?dataset={version.pk}&base={base.pk}"
    text = " ".join(cast.client("bob").get(path).content.decode().split())
    assert "1 row cannot be trained on with this base model; the job would fail. Line 2: The base model" in text
    assert "cannot render an answer with tool calls" in text
    kept_counts(version.pk, base.pk).path.write_text(
        json.dumps({"ordered": {}, "refused": 7, "sampled": 5000, "rows": 9000, "problem": "Line 9: No."})
    )
    told = "7 rows of 5,000 looked at cannot be trained on with this base model; the job would fail. Line 9: No."
    assert told in cast.client("bob").get(path).content.decode()
    assert estimates.refusal(make_version(cast, 100), base) == ""


def test_it_is_for_the_number_format_of_the_machine(cast: Cast, shaped: BaseModel) -> None:
    version = make_version(cast, *[300] * 10)
    machine = make_worker(device="Tesla T4", auto_dtype="float32")
    old = estimates.outlook(TrainSpec(), shaped, version)
    machine.delete()
    make_worker(device="NVIDIA H200", auto_dtype="bfloat16")
    new = estimates.outlook(TrainSpec(), shaped, version)
    assert old and new and old.estimate.expected > 1.2 * new.estimate.expected


NVIDIA_SMI = """#!/bin/sh
case "$1" in
  *compute_cap*) {compute_cap} ;;
  *) echo "Tesla T4, 15360" ;;
esac
"""


@pytest.mark.parametrize(
    ("compute_cap", "dtype"),
    [("echo 7.5", "float32"), ("echo 9.0", "bfloat16"), ("echo not a field; exit 2", "bfloat16")],
    ids=["turing", "hopper", "an old driver"],
)
def test_a_gpu_tells_what_it_computes_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compute_cap: str, dtype: str
) -> None:
    """A fake nvidia-smi: there is no GPU to ask."""
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA_SMI.format(compute_cap=compute_cap))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    assert this_machine() == Machine("Tesla T4", 15 << 30, dtype)  # type: ignore[arg-type]


def test_without_a_gpu_the_processor_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    found = this_machine()
    assert found.device.startswith("CPU, ") and found.memory_bytes > 1 << 30 and found.auto_dtype == auto_dtype.on_cpu()
