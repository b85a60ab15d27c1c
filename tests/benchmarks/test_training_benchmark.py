"""The benchmark of training, on a tiny base: every contender comes to an end and tells what it is asked for."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from datasets import disable_progress_bars
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import training
from benchmarks.contenders import shapes
from benchmarks.contenders.lowrank import lowrank
from benchmarks.contenders.lowrank_bf16 import lowrank_bf16
from benchmarks.contenders.lowrank_choices import lowrank_choice
from benchmarks.contenders.plain import plain
from benchmarks.contenders.trl_best import trl_best
from benchmarks.contenders.trl_defaults import trl
from benchmarks.contenders.useful_work import flops_a_token
from tests.tiny import make_tiny_base
from trainer.base_facts import inspect_folder

STEPS = 3
PEERS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "lowrank": lowrank,
    "lowrank_bf16": lowrank_bf16,
    "trl_defaults": trl,
    "trl_best": trl_best,
    "plain": plain,
}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Rows of about 200 tokens, so that packs of them fill more than one step."""
    disable_progress_bars()
    folder = tmp_path_factory.mktemp("work")
    rows = [
        {"prompt": f"What is {number}, the cat asked the dog, and why? ", "completion": f"cat {number} and dog " * 13}
        for number in range(64)
    ]
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    said = {"SHAPE": "tiny", "BASE": make_tiny_base(folder / "base"), "DATA": folder / "rows.jsonl", "STEPS": STEPS}
    with pytest.MonkeyPatch.context() as environment:
        for name in ("ROWS", "AT_ONCE"):
            environment.delenv(name, raising=False)
        for name, value in said.items():
            environment.setenv(name, str(value))
        return training.prepare(folder)


def test_every_contender_tells_speed_peak_and_loss(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = json.loads(work.read_text())
    found = {name: contender(asked) for name, contender in PEERS.items()}
    found |= {name: lowrank_choice(asked, *one.told) for name, one in training.CHOICES.items()}
    for name, told in found.items():
        assert min(told["speed"], told["peak"], told["share"], told["after"]) > 0, name
    ours = found["lowrank"]["losses"]
    for name in ("trl_defaults", "plain", *training.CHOICES):  # the same rows and the same loss at each step
        assert found[name]["losses"] == pytest.approx(ours, rel=0.01), name
    assert [one["after"] for one in found.values()] == pytest.approx([found["lowrank"]["after"]] * len(found), rel=0.01)

    monkeypatch.setenv("CHOICES", "1")
    monkeypatch.delenv("ONLY", raising=False)
    capsys.readouterr()
    assert training.report([found])
    said = capsys.readouterr().out
    assert all(one.title in said for one in training.wanted().values())
    assert "matmul peak" in said and "activations" in said and "as stored" in said and "sharing nothing" in said


def test_a_contender_runs_in_its_own_process_and_one_that_fails_takes_nobody_with_it(work: Path) -> None:
    told = training.measure(training.CONTENDERS["lowrank"], work)
    assert told is not None
    assert told["loss"] > 0 and len(told["losses"]) == STEPS
    assert training.measure(training.Contender("nobody", "nobody"), work) is None
    assert not training.report([{"plain": told}])  # there is nothing to compare it with


def test_a_base_in_a_shape_has_its_sizes_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shapes, "SHARD_BYTES", 50_000)
    shapes.make_base("tiny", make_tiny_base(tmp_path / "base"), tmp_path / "made")
    assert len(list((tmp_path / "made").glob("model-*.safetensors"))) > 1
    facts = inspect_folder(tmp_path / "made")
    assert (facts["dtype"], facts["hidden_size"], facts["layers"]) == ("bfloat16", 64, 2)
    loaded = LlamaForCausalLM.from_pretrained(tmp_path / "made")
    assert facts["parameters"] == sum(one.numel() for one in loaded.parameters())
    assert loaded.model.embed_tokens.weight.std().item() == pytest.approx(shapes.SPREAD, rel=0.1)
    assert bool((loaded.model.norm.weight == 1).all())


@pytest.mark.parametrize(("shape", "parameters"), [("8b", 8_030_261_248), ("135m", 134_515_008)])
def test_shapes_are_those_of_the_models_they_stand_for(shape: str, parameters: int) -> None:
    with torch.device("meta"):
        made = LlamaForCausalLM(LlamaConfig(**shapes.SHAPES[shape]))
    assert sum(one.numel() for one in made.parameters()) == parameters


def test_work_of_a_token_counts_weights_and_what_it_sees() -> None:
    config = SimpleNamespace(
        hidden_size=8,
        intermediate_size=16,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=None,
        vocab_size=10,
    )
    frozen = 3 * (8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 16) + 10 * 8
    # Rows of three and of one token see 1 + 2 + 3 and 1 keys: 7 / 4 each. Six products of them, two operations each.
    assert flops_a_token(config, 100, [3, 1]) == 4 * frozen + 6 * 100 + 6 * 2 * 3 * 8 * 7 / 4
