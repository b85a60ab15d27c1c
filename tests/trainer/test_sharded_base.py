"""A base that lies in parts in several processes (FSDP): on a CPU, over gloo, it learns what a whole one learns."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.seq2seq_bases import make_seq2seq
from tests.trainer.test_several_gpus import children_of, finish, in_two, of, start
from tests.trainer.training import Training, local_bytes, make_pairs, make_rows, make_spec
from trainer import sharding
from trainer.data import load_dataset
from trainer.device import Device, find_device
from trainer.estimate import Hardware, estimate
from trainer.events import Evaluated, Event, Failed, Finished, Log, Progress, Sample
from trainer.model import load_adapted, load_base
from trainer.rank_sync import idle_pass_count
from trainer.ranks import Ranks
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

WEIGHTS = "adapter_model.safetensors"
NF4 = {"quantization": "nf4"}


def in_parts(spec: TrainSpec) -> TrainSpec:
    return dataclasses.replace(spec, model=dataclasses.replace(spec.model, gpus=2, shard="always"))


def compare(spec: TrainSpec, folder: Path) -> list[Event]:
    """Train once with the whole base and once with its halves; all that was told the second time."""
    alone = Training(spec, folder / "alone").run()
    code, told, complained = finish(start(in_parts(spec), folder / "parts"))
    assert code == 0, complained
    assert [one.loss for one in of(Progress, told)] == pytest.approx(alone.losses, rel=2e-5)
    for one, other in zip(of(Evaluated, told), alone.measured, strict=True):
        assert one.loss == pytest.approx(other.loss, rel=2e-5) and one.accuracy == other.accuracy
        assert one.general_kl == pytest.approx(other.general_kl, rel=1e-3, abs=1e-7)
    assert [one.completion for one in of(Sample, told)] == [one.completion for one in alone.of(Sample)]
    assert [text for one in of(Log, told) if "over 2 GPUs" in (text := one.text)]
    mine, theirs = (load_file(folder / one / "adapter" / WEIGHTS) for one in ("parts", "alone"))
    for name, weight in theirs.items():
        torch.testing.assert_close(mine[name], weight, rtol=1e-3, atol=2e-5)
    return told


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_halves_learn_what_the_whole_learns(base: Path, rows: Path, tmp_path: Path, quantization: str) -> None:
    """Windows of five rows in small passes: one process has more passes than the other."""
    optim = {"max_steps": 5, "batch_size": 5, "micro_batch_tokens": 128}
    model, evaluation = {"quantization": quantization}, {"probes": ["What is 3?"], "every_steps": 2}
    compare(make_spec(base, rows, model=model, optim=optim, evaluation=evaluation), tmp_path)


def test_pairs_are_compared_on_int8_halves(base: Path, tmp_path: Path) -> None:
    spec = make_spec(base, make_pairs(tmp_path), data={"method": "dpo"}, optim={"max_steps": 3})
    compare(dataclasses.replace(spec, model=dataclasses.replace(spec.model, quantization="int8")), tmp_path)


@pytest.mark.parametrize(
    "lora", [{"use_dora": True, "trainable_token_indices": [5, 6]}, {"modules_to_save": ["lm_head"]}]
)
def test_what_learns_beside_the_updates_stays_whole(
    base: Path, rows: Path, tmp_path: Path, lora: dict[str, Any]
) -> None:
    """Lengths, rows of the embeddings and a head of its own; with layers that are computed again on the way back."""
    optim = {"max_steps": 3, "gradient_checkpointing": True}
    compare(make_spec(base, rows, model=NF4, lora=lora, optim=optim), tmp_path)


def test_both_sides_of_an_encoder_decoder_lie_in_halves(tmp_path: Path, rows: Path) -> None:
    (tmp_path / "base").mkdir()
    compare(make_spec(make_seq2seq(tmp_path / "base"), rows, optim={"max_steps": 3}), tmp_path)


COUNT = """
import dataclasses, json, sys
from pathlib import Path
import torch
from trainer.model import load_adapted
from trainer.ranks import join_ranks, leave_ranks
from tests.trainer.training import local_bytes
from trainer.spec import TrainSpec

ranks = join_ranks()
spec = TrainSpec.from_dict(json.loads(Path(sys.argv[1]).read_text()))
found = {}
for kind in ("none", "nf4", "int8"):
    of_kind = dataclasses.replace(spec, model=dataclasses.replace(spec.model, quantization=kind))
    model = load_adapted(of_kind, Path(spec.model.base), lambda event: None, ranks=ranks)
    learns = sum(one.numel() * one.element_size() for one in model.lora.values())
    model.hidden(torch.arange(1, 9)[None]).sum().backward()
    found[kind] = local_bytes(model.peft) - learns
Path(sys.argv[2], str(ranks.rank)).write_text(json.dumps(found))
leave_ranks(ranks)
"""


def test_each_process_holds_half_of_the_base(base: Path, tmp_path: Path) -> None:
    """Once a pass is over: what was put together for it is let go of."""
    spec, file = make_spec(base, Path("rows")), tmp_path / "spec.json"
    file.write_text(json.dumps(in_parts(spec).to_dict()))
    assert in_two(COUNT, file, tmp_path) == [0, 0]
    for rank in range(2):
        for kind, held in json.loads((tmp_path / str(rank)).read_text()).items():
            assert held == pytest.approx(load(make_spec(base, file, model={"quantization": kind})) / 2, rel=0.02)


def load(spec: TrainSpec) -> int:
    """Bytes of the whole base, packed."""
    return local_bytes(load_base(Path(spec.model.base), spec.model, find_device("float32")))


def test_a_killed_run_goes_on_bit_by_bit(base: Path, rows: Path, tmp_path: Path) -> None:
    optim = {"max_steps": 24, "epochs": 100.0, "batch_size": 5, "micro_batch_tokens": 128}
    spec = in_parts(make_spec(base, rows, model=NF4, optim=optim, data={"holdout": 0.0}))
    code, told, complained = finish(start(spec, tmp_path / "whole"))
    assert code == 0, complained

    child = start(spec, tmp_path / "first")
    assert child.stdout
    while '"checkpoint"' not in child.stdout.readline():
        assert child.poll() is None
    os.kill(children_of(child.pid)[1], signal.SIGKILL)
    code, cut_off, _ = finish(child)
    assert code == -signal.SIGKILL and not of(Failed, cut_off) and not of(Finished, cut_off)

    code, again, complained = finish(start(spec, tmp_path / "second", "--resume", tmp_path / "first" / "checkpoints"))
    assert code == 0, complained
    resumed_at = of(Progress, again)[0].step
    assert resumed_at > 1
    losses = {one.step: (one.loss, one.grad_norm) for one in of(Progress, told)}
    assert all(losses[one.step] == (one.loss, one.grad_norm) for one in of(Progress, again))
    mine, theirs = (load_file(tmp_path / one / "adapter" / WEIGHTS) for one in ("second", "whole"))
    assert all(torch.equal(mine[name], weight) for name, weight in theirs.items())


LACKING = """
import sys
import torch
from trainer import __main__, model, ranks

genuine, joined = model.AdaptedModel.hidden, ranks.join_ranks()

def hidden(self, *read, **told):
    if joined.rank == 1 and torch.is_grad_enabled():
        raise torch.OutOfMemoryError("fake: can't allocate memory")
    return genuine(self, *read, **told)

model.AdaptedModel.hidden = hidden
__main__.end(__main__.main(["train", sys.argv[1], "--out", sys.argv[2]]))
"""


def test_a_lack_of_memory_ends_all_and_is_told_once(
    base: Path, rows: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(in_parts(make_spec(base, rows)).to_dict()))
    assert in_two(LACKING, file, tmp_path) == [75, 5]
    said = capfd.readouterr().out
    assert said.count('"failed"') == 1 and "ran out of memory at step 1" in said


ANSWER = """
import json, sys
from pathlib import Path
from trainer import evaluation
from trainer.model import load_adapted
from trainer.ranks import join_ranks, leave_ranks
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

evaluation.PROBE_TOKENS = 8
ranks = join_ranks()
spec = TrainSpec.from_dict(json.loads(Path(sys.argv[1]).read_text()))
model = load_adapted(spec, Path(spec.model.base), lambda event: None, ranks=ranks)
renderer = Renderer.load(Path(spec.model.base))
if ranks.is_main:
    renderer.stop_ids = frozenset(range(renderer.vocabulary))
evaluation.answer_probe(model, renderer, "What is 3?", step=0)
leave_ranks(ranks)
"""


def test_an_answer_that_ends_early_in_one_process_leaves_the_other_whole(base: Path, tmp_path: Path) -> None:
    """Unlike GPUs may round differently, and then end at different tokens."""
    file = tmp_path / "spec.json"
    file.write_text(json.dumps(in_parts(make_spec(base, Path("rows"))).to_dict()))
    assert in_two(ANSWER, file) == [0, 0]


def test_a_base_is_shared_out_where_one_gpu_cannot_hold_it(base: Path) -> None:
    spec = make_spec(base, Path("rows"), model={"gpus": 2})

    class Other(Device):
        def free_bytes(self) -> int:
            return self.size

        size = 0

    device = Other(torch.device("cpu"), torch.float32)
    assert not sharding.fits(spec, base, device)
    Other.size = 8 << 30
    assert sharding.fits(spec, base, device)
    assert not sharding.should_shard(spec, base, device, Ranks())


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_estimate_is_that_of_one_gpu(quantization: str) -> None:
    facts = {"architecture": "LlamaForCausalLM", "parameters": 8 * 10**9, "layers": 32, "hidden_size": 4096}
    facts |= {"intermediate_size": 14336, "heads": 32, "kv_heads": 8, "vocab_size": 128256, "quantization": ""}
    spec = make_spec(Path("base"), Path("rows"), model={"quantization": quantization, "dtype": "auto", "gpus": 4})

    def weights(shard: str, gigabytes: int) -> float:
        asked = dataclasses.replace(spec, model=dataclasses.replace(spec.model, shard=shard))
        hardware = Hardware("cuda", gigabytes << 30)
        found = estimate(asked, facts, rows=100, tokens=10_000, on=hardware).items
        return next(item.expected for item in found if "weights" in item.name) / 1e9

    outside = 4096 * 128256 * 2 * 2 / 1e9  # embeddings and head, whole for a pass
    packed = weights("never", 4)
    assert packed / 4 + outside < weights("always", 4) < packed / 4 + outside + 1.5
    assert weights("auto", 4) == weights("always", 4) < packed
    assert weights("auto", 200) == weights("never", 200)


def test_one_gpu_has_nobody_to_share_with(base: Path) -> None:
    spec = make_spec(base, Path("rows"), model={"shard": "always"})
    assert [one.path for one in spec.issues()] == ["model.shard"]
    assert not in_parts(spec).issues()


def test_nobody_makes_fewer_passes_than_the_others(base: Path, tmp_path: Path) -> None:
    spec = make_spec(base, make_rows(tmp_path))
    rows = load_dataset(spec, Renderer.load(base), lambda event: None).train[:5]
    model = load_adapted(spec, base, lambda event: None)
    for of_all in (2, 3, 7):
        shares = [Ranks(rank, of_all).share(rows) for rank in range(of_all)]
        for budget in (64, 128, 1000):
            made = [
                len(model.passes(share, budget)) + idle_pass_count(model, Ranks(rank, of_all), rows, budget)
                for rank, share in enumerate(shares)
            ]
            assert len(set(made)) == 1
