"""AdamW in torch's and in bitsandbytes' forms: the same steps as theirs alone, less memory, exact over a stop."""

import subprocess
import sys
from pathlib import Path

import bitsandbytes as bnb
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainer.training import Training, make_rows, make_spec
from trainer.errors import Stopped
from trainer.optimizer import MasterAdamW
from trainer.spec import Optimizer, OptimSpec

BITSANDBYTES: dict[Optimizer, type[torch.optim.Optimizer]] = {
    "adamw_8bit": bnb.optim.AdamW8bit,
    "paged_adamw": bnb.optim.PagedAdamW32bit,
    "paged_adamw_8bit": bnb.optim.PagedAdamW8bit,
}
RATE = 1e-3


def make_weights(*, values: int = 8192) -> dict[str, torch.nn.Parameter]:
    random = torch.Generator().manual_seed(1)
    return {"x.lora_A.weight": torch.nn.Parameter(torch.randn(values // 64, 64, generator=random))}


def step_all(optimizer: MasterAdamW, weights: dict[str, torch.nn.Parameter], number: int) -> None:
    for place, weight in enumerate(weights.values()):
        weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(10 * number + place))
    optimizer.accumulate()
    optimizer.step(learning_rate=RATE, norm=0.0)


def step(optimizer: MasterAdamW, weights: dict[str, torch.nn.Parameter], number: int) -> torch.Tensor:
    (weight,) = weights.values()
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(number))
    gradient = weight.grad.clone()
    optimizer.accumulate()
    optimizer.step(learning_rate=RATE, norm=0.0)
    return gradient


@pytest.fixture(params=[8192, 4096], ids=["whole", "halves"])
def parameter_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of one 8-bit parameter: the weights are one or two."""
    monkeypatch.setattr("trainer.optimizer.PARAMETER_8BIT", request.param)


@pytest.mark.parametrize("kind", BITSANDBYTES)
@pytest.mark.parametrize("size", [8192, 4096, 4352, 7936])
@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_steps_are_those_of_bitsandbytes(kind: Optimizer, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the weights are one of its parameters or two; a rest too small for 8 bits stays with the one before."""
    monkeypatch.setattr("trainer.optimizer.PARAMETER_8BIT", size)
    weights = make_weights()
    (weight,) = weights.values()
    alone = torch.nn.Parameter(weight.detach().clone())
    peer = BITSANDBYTES[kind]([alone], lr=RATE, weight_decay=0.1)  # type: ignore[call-arg]
    optimizer = MasterAdamW(weights, OptimSpec(optimizer=kind, weight_decay=0.1))
    for number in range(4):
        alone.grad = step(optimizer, weights, number)
        peer.step()
    torch.testing.assert_close(weight, alone, rtol=0, atol=0)


@pytest.mark.usefixtures("parameter_size")
@pytest.mark.parametrize("kind", ["adamw", *BITSANDBYTES])
def test_saved_memory_goes_on_to_the_last_bit(kind: Optimizer) -> None:
    weights, others = make_weights(), make_weights()
    optimizer, second = (MasterAdamW(one, OptimSpec(optimizer=kind)) for one in (weights, others))
    for number in range(3):
        step(optimizer, weights, number)
    second.load(optimizer.masters_on_cpu(), optimizer.state())
    for number in range(3, 6):
        step(optimizer, weights, number)
        step(second, others, number)
    for name, weight in weights.items():
        assert torch.equal(weight, others[name])


@pytest.mark.usefixtures("parameter_size")
@pytest.mark.parametrize("kind", ["adamw", *BITSANDBYTES])
def test_parts_that_learn_at_different_rates_are_saved_and_gone_on_from(kind: Optimizer, tmp_path: Path) -> None:
    """LoRA+ makes two parts of 4,096 values or more: bitsandbytes packs both by one map."""
    weights, others = ({**make_weights(), "x.lora_B.weight": next(iter(make_weights().values()))} for _ in range(2))
    spec = OptimSpec(optimizer=kind, loraplus_lr_ratio=16.0)
    optimizer, second = (MasterAdamW(one, spec) for one in (weights, others))
    for number in range(2):
        step_all(optimizer, weights, number)
    save_file(optimizer.state(), tmp_path / "state.safetensors")
    second.load(optimizer.masters_on_cpu(), load_file(tmp_path / "state.safetensors"))
    for number in range(2, 4):
        step_all(optimizer, weights, number)
        step_all(second, others, number)
    for name, weight in weights.items():
        assert torch.equal(weight, others[name])


def test_eight_bits_take_a_byte_a_value() -> None:
    sizes = {}
    for kind in ("adamw", "adamw_8bit"):
        weights = make_weights(values=1 << 16)
        optimizer = MasterAdamW(weights, OptimSpec(optimizer=kind))
        step(optimizer, weights, 0)
        sizes[kind] = sum(value.numel() * value.element_size() for value in optimizer.state().values())
    assert sizes["adamw"] == pytest.approx(8 << 16, rel=0.01)
    assert sizes["adamw_8bit"] == pytest.approx(2 << 16, rel=0.05)


@pytest.mark.parametrize(("before", "after"), [(1 << 20, 4096), (4096, 1 << 20)])
def test_a_state_is_the_same_however_a_group_is_split(before: int, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Saved on a GPU, which splits nothing, or by an older trainer, and gone on from on a processor; and back."""
    weights, others = make_weights(values=10240), make_weights(values=10240)
    spec = OptimSpec(optimizer="adamw_8bit")
    monkeypatch.setattr("trainer.optimizer.PARAMETER_8BIT", before)
    optimizer = MasterAdamW(weights, spec)
    step(optimizer, weights, 0)
    monkeypatch.setattr("trainer.optimizer.PARAMETER_8BIT", after)
    second = MasterAdamW(others, spec)
    second.load(optimizer.masters_on_cpu(), optimizer.state())
    for one, its in ((optimizer, weights), (second, others)):
        step(one, its, 1)
    assert torch.equal(next(iter(weights.values())), next(iter(others.values())))
    assert optimizer.state().keys() == second.state().keys()
    assert all(torch.equal(value, second.state()[name]) for name, value in optimizer.state().items())


def test_eight_bits_take_little_more_while_a_step_is_made() -> None:
    """In a process of its own: what a step of 8 million values adds to the peak, which was 20 bytes a value."""
    script = """
import resource, torch
from trainer.optimizer import MasterAdamW
from trainer.spec import OptimSpec
weight = torch.nn.Parameter(torch.randn(1 << 13, 1 << 10))
optimizer = MasterAdamW({"x.lora_A.weight": weight}, OptimSpec(optimizer="adamw_8bit"))
optimizer.gradient.normal_()
optimizer.gradient.clone().square_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
optimizer.step(learning_rate=1e-3, norm=0.0)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / weight.numel())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=120)
    assert float(done.stdout) < 10, "2 of them are the state"


def test_memory_of_another_optimizer_is_refused() -> None:
    optimizer = MasterAdamW(make_weights(), OptimSpec())
    step(optimizer, weights := make_weights(), 0)
    other = MasterAdamW(weights, OptimSpec(optimizer="adamw_8bit"))
    for giver, taker in ((optimizer, other), (other, optimizer)):
        if giver is other:
            step(other, weights, 0)
        with pytest.raises(KeyError, match="another optimizer"):
            taker.load(giver.masters_on_cpu(), giver.state())


def test_a_run_resumes_exactly(base: Path, rows: Path, tmp_path: Path) -> None:
    optim = {"max_steps": 6, "optimizer": "adamw_8bit"}
    spec = make_spec(base, rows, lora={"r": 16}, optim=optim)
    whole = Training(spec, tmp_path / "whole").run()
    with pytest.raises(Stopped):
        Training(spec, tmp_path / "first", stop_at=3).run()
    second = Training(spec, tmp_path / "second").run(resume=tmp_path / "first" / "checkpoints")
    assert second.losses == whole.losses[3:]
    found, wanted = (load_file(one.out / "adapter" / "adapter_model.safetensors") for one in (second, whole))
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)


def test_a_run_learns_as_with_torchs(base: Path, tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    losses = {}
    for kind in ("adamw", "adamw_8bit", "paged_adamw_8bit"):
        optim = {"max_steps": 8, "optimizer": kind}
        losses[kind] = Training(make_spec(base, rows, optim=optim), tmp_path / kind).run().losses[-1]
    assert losses["adamw_8bit"] == pytest.approx(losses["adamw"], rel=0.02)
    assert losses["paged_adamw_8bit"] == losses["adamw_8bit"]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
def test_lists_at_once_are_the_same_to_the_last_bit(kind: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one weight after the other, in portions, where one got no gradient and the next pass adds to the first."""
    monkeypatch.setattr("trainer.optimizer.FOREACH_ELEMENTS", 600)
    random = torch.Generator().manual_seed(3)
    many = {f"{at}.lora_A.weight": torch.randn(5 + at, 32, generator=random).to(kind) for at in range(9)}
    weights = {name: torch.nn.Parameter(one) for name, one in many.items()}
    optimizer, calls = MasterAdamW(weights, OptimSpec()), list[int]()
    genuine = torch._foreach_add_
    monkeypatch.setattr(torch, "_foreach_add_", lambda into, given: (calls.append(len(into)), genuine(into, given)))
    expected = {name: torch.zeros(one.shape) for name, one in weights.items()}
    for _ in range(2):
        for name, weight in list(weights.items())[1:]:
            weight.grad = torch.randn(weight.shape, generator=random).to(kind)
            expected[name].add_(weight.grad)
        optimizer.accumulate()
    assert sum(calls) == 16 and 2 < len(calls) < 16 and all(one.grad is None for one in weights.values())
    assert torch.equal(optimizer.gradient, torch.cat([one.flatten() for one in expected.values()]))
    optimizer.step(learning_rate=RATE, norm=0.0)
    assert all(torch.equal(weight, optimizer.masters[name].to(kind)) for name, weight in weights.items())
