"""`python -m trainer estimate`: what a training will take, from the rows' own lengths, and nothing is loaded for it."""

import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tests.tiny import make_tiny_base
from tests.trainer.files import rows_of
from tests.trainer.test_train_command import finish, write_spec
from tests.trainer.training import make_pairs, make_rows, make_spec
from trainer.base_facts import inspect_folder
from trainer.commands import parser
from trainer.data import Plan, load_dataset
from trainer.errors import TrainerError
from trainer.estimate import Hardware, estimate, held_out_rows, with_evaluation_rows, with_split_holdout
from trainer.estimate_command import Overrides, run
from trainer.events import Event, Failed, Finished, Log
from trainer.formats.check import check_file
from trainer.formats.revise import revise_file
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

BIG = {
    "hidden_size": 4096,
    "intermediate_size": 11008,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "head_dim": 128,
}


def told_of(spec: TrainSpec, **asked: Any) -> tuple[dict[str, Any], list[str]]:
    """The facts, and the lines for people before them."""
    events: list[Event] = []
    run(spec, Overrides(**asked), events.append)
    last = events.pop()
    assert isinstance(last, Finished)
    return last.facts, [one.text for one in events if isinstance(one, Log)]


def make_big_base(folder: Path) -> Path:
    """A Llama of 6.7 billion parameters whose weights are a hole in a file: whoever reads them has no memory left."""
    make_tiny_base(folder)
    config = json.loads((folder / "config.json").read_text()) | BIG | {"vocab_size": 32000, "num_key_value_heads": 32}
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = LlamaForCausalLM(LlamaConfig.from_pretrained(folder))
    header, end = {}, 0
    for name, weight in model.named_parameters():
        start, end = end, end + 2 * weight.numel()
        header[name] = {"dtype": "BF16", "shape": list(weight.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)
    return folder


def test_it_is_the_estimate_of_the_rows_that_are_trained_on(base: Path, rows: Path) -> None:
    spec = make_spec(base, rows, optim={"epochs": 3.0, "batch_size": 4})
    facts, lines = told_of(spec, device="cuda", memory=16.0)
    dataset = load_dataset(spec, Renderer.load(base), lambda event: None)
    everything = [*dataset.train, *dataset.holdout]
    assert facts["rows"] == len(everything) and facts["steps"] == Plan(dataset.train, spec).steps
    tokens, lengths = sum(one.length for one in everything), [one.length for one in everything]
    hardware = Hardware("cuda", 16_000_000_000)
    found = estimate(spec, inspect_folder(base), rows=len(lengths), tokens=tokens, lengths=lengths, on=hardware)
    assert [facts[name] for name in ("low", "expected", "high")] == pytest.approx(
        [found.low, found.expected, found.high], rel=1e-3
    )
    assert facts["fits"] is True and facts["seconds"] is None
    assert any("fits into 16.00 GB (cuda)" in line for line in lines)
    assert any(line.endswith("the process itself. No setting lowers it.") for line in lines)
    assert any("--speed" in line for line in lines)


def test_a_large_base_is_estimated_without_a_weight_of_it(tmp_path: Path) -> None:
    """No file of rows either: their number and length are said."""
    spec = write_spec(tmp_path, make_spec(make_big_base(tmp_path / "base"), tmp_path / "gone", model={"dtype": "auto"}))
    more = ("--rows", 10_000, "--tokens", 300, "--device", "cuda", "--memory", 24, "--speed", 2500)
    code, events, complained = finish("estimate", spec, *more)
    assert code == 0, complained
    last = events[-1]
    assert isinstance(last, Finished) and last.facts["rows"] == 10_000 and last.facts["memory_bytes"] == 24e9
    assert 13e9 < last.facts["expected"] < 20e9 and last.facts["fits"]
    assert last.facts["items"][0]["name"] == "the base model's weights" and "nf4" in last.facts["items"][0]["lever"]
    lines = [one.text for one in events if isinstance(one, Log)]
    assert any(line.startswith("13.2") and "Use nf4, which takes a quarter" in line for line in lines), lines
    assert lines[-1] == "4,500 steps, 2,304,000 tokens, about 16 min"


def test_what_does_not_fit_is_said(tmp_path: Path) -> None:
    spec = make_spec(make_big_base(tmp_path / "base"), tmp_path / "gone", model={"dtype": "auto"})
    facts, lines = told_of(spec, rows=100, device="cuda", memory=8.0)
    assert facts["fits"] is False and any("does not fit into 8.00 GB" in line for line in lines)
    assert told_of(spec, rows=100, device="cuda")[0]["fits"] is None  # how much it has nobody knows here


def test_rows_in_named_parts_are_counted_as_they_are_used(base: Path, tmp_path: Path) -> None:
    make_rows(tmp_path)
    check_file(tmp_path / "rows.jsonl", tmp_path / "out", skip_bad_rows=False, emit=lambda event: None)
    shares = {"splits": {"method": "random", "shares": {"test": 0.25, "spare": 0.25}, "seed": 1}}
    (tmp_path / "changes.json").write_text(json.dumps(shares))
    revised = tmp_path / "revised"
    revised.mkdir()
    revise_file(
        tmp_path / "out" / "rows.parquet", tmp_path / "changes.json", revised, test_file=None, emit=lambda event: None
    )
    spec = make_spec(base, revised / "rows.parquet")
    used = [one for one in rows_of_file(revised) if one.split != "spare"]
    facts, _ = told_of(spec)
    assert facts["rows"] == len(used) == 18
    assert facts["steps"] == Plan(load_dataset(spec, Renderer.load(base), lambda event: None).train, spec).steps


def test_rows_of_an_evaluation_file_count_like_held_out_ones(base: Path, tmp_path: Path) -> None:
    """For the time, and for what comparing scores; the steps are those of the other file."""
    rows = make_pairs(tmp_path, 40)
    half = tmp_path / "half.jsonl"
    half.write_text("\n".join(rows.read_text().splitlines()[:20]))

    def told(path: Path, **data: Any) -> dict[str, Any]:
        spec = make_spec(base, path, data={"method": "dpo", **data}, evaluation={"every_steps": 1})
        return told_of(spec, speed=100.0)[0]

    shared, apart = told(rows, holdout=0.5), told(half, holdout_path=str(half))
    assert (apart["rows"], apart["steps"]) == (shared["rows"], shared["steps"]) == (40, 10)
    assert apart["seconds"] == pytest.approx(shared["seconds"], rel=0.1)
    assert apart["seconds"] > 3 * told(half, holdout=0.0)["seconds"]
    sized = make_spec(base, half, data={"holdout_path": str(half)})
    assert told_of(sized, rows=100, tokens=50)[0]["rows"] == 120
    gone = make_spec(base, half, data={"holdout_path": str(tmp_path / "gone")})
    assert told_of(gone, rows=100, tokens=50)[0]["rows"] == 100


def rows_of_file(folder: Path) -> list[Any]:
    (folder / "out").symlink_to(folder)
    return rows_of(folder)


def test_splits_that_are_left_aside_count_for_nothing() -> None:
    spec = TrainSpec()
    assert with_split_holdout(spec, {}, 100) == (spec, 100)
    divided, rows = with_split_holdout(spec, {"train": 60, "test": 20, "spare": 20}, 100)
    assert rows == 80 and divided.data.holdout == 0.25
    divided, rows = with_split_holdout(spec, {"train": 60, "spare": 40}, 100)
    assert rows == 60 and divided.data.holdout == spec.data.holdout
    elsewhere = TrainSpec.from_dict({"data": {"holdout_path": "other.jsonl"}})
    assert with_split_holdout(elsewhere, {"train": 60, "test": 20, "spare": 20}, 100) == (elsewhere, 60)


def test_rows_to_measure_on_beside_the_dataset_are_held_out_exactly() -> None:
    spec = TrainSpec.from_dict({"data": {"holdout_path": "other.jsonl"}})
    for rows, held_out in ((500, 500), (7, 1000), (1, 1), (100, 0)):
        divided, together = with_evaluation_rows(spec, rows, held_out)
        assert not divided.data.holdout_path and together == rows + held_out
        assert held_out_rows(together, divided.data.holdout) == held_out


def test_everything_that_would_keep_it_from_starting_is_told(tmp_path: Path) -> None:
    values = {"model": {"base": "owner/name"}, "data": {"path": str(tmp_path / "gone")}, "lora": {"r": 0}}
    with pytest.raises(TrainerError) as caught:
        run(TrainSpec.from_dict(values), Overrides(), lambda event: None)
    for path in ("lora.r", "data.path", "model.base"):
        assert f"{path}: " in caught.value.text
    assert "python -m trainer fetch hub owner/name" in caught.value.text


def test_rows_of_another_kind_than_the_method_learns_from_are_refused(base: Path, rows: Path) -> None:
    with pytest.raises(TrainerError, match=r"data\.method: dpo learns from") as caught:
        run(make_spec(base, rows, data={"method": "dpo"}), Overrides(), lambda event: None)
    assert caught.value.fix == "Use sft."


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--rows", "many"], "--rows: write a whole number above 0"),
        (["--rows", "0"], "--rows: write a whole number above 0"),
        (["--memory", "nan"], "--memory: write a number above 0"),
        (["--speed", "-5"], "--speed: "),
    ],
)
def test_a_wrong_number_is_refused_by_the_command(more: list[str], said: str, capsys: Any) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(["estimate", "spec.yaml", *more])
    assert caught.value.code == 2 and said in capsys.readouterr().err


def test_tokens_of_no_rows_are_refused(tmp_path: Path) -> None:
    code, events, _ = finish("estimate", tmp_path / "spec.yaml", "--tokens", 300)
    assert code == 2 and isinstance(events[-1], Failed) and "--rows" in events[-1].text
