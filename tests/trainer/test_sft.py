"""The mathematics of training: what changes, what does not, and that cutting the work differently changes nothing."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.trainer.training import Training, make_rows, make_spec
from trainer import evaluation
from trainer.checkpoint import MANIFEST
from trainer.data import Item, load_dataset
from trainer.device import Device, find_device
from trainer.errors import TrainerError
from trainer.events import Finished, Log, Phase, Progress, Sample
from trainer.loss import loss_and_correct, token_losses
from trainer.manifest import verify
from trainer.micro_batch import micro_batches
from trainer.model import AdaptedModel, adapt, dequantize, eval_mode, load_adapted, load_base, quantized_layers
from trainer.optimizer import MasterAdamW, learning_rate_at
from trainer.rendering import Renderer
from trainer.spec import ModelSpec, OptimSpec, TrainSpec


def make_model(spec: TrainSpec, base: Path) -> AdaptedModel:
    """A model whose LoRA weights are not zero any more, as in the midst of training."""
    model = load_adapted(spec, base, lambda event: None)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.lora.values():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    return model


def make_items(spec: TrainSpec, base: Path) -> list[Item]:
    return load_dataset(spec, Renderer.load(base), lambda event: None).train


def plain_loss(model: AdaptedModel, items: list[Item]) -> torch.Tensor:
    """The mean loss of trained tokens, written as simply as it can be: row by row, every score, no padding."""
    losses = []
    for item in items:
        ids = torch.tensor(item.ids)[None]
        scores = model.peft(input_ids=ids, use_cache=False).logits[0]
        wanted = torch.tensor(list(item.loss_mask), dtype=torch.bool)[1:]
        losses.append(torch.nn.functional.cross_entropy(scores[:-1][wanted], ids[0, 1:][wanted], reduction="none"))
    return torch.cat(losses).mean()


def gradients(model: AdaptedModel) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.lora.items() if weight.grad is not None}
    for weight in model.lora.values():
        weight.grad = None
    return found


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("budget", [64, 200, 100_000])
def test_micro_batches_give_the_gradient_of_the_whole_window(base: Path, rows: Path, budget: int, packed: bool) -> None:
    spec = make_spec(base, rows)
    model, items = make_model(spec, base), make_items(spec, base)[:7]
    expected = plain_loss(model, items)
    expected.backward()
    wanted = gradients(model)
    labels, total = sum(item.trained_tokens for item in items), 0.0
    for batch in micro_batches(items, budget, packed=packed):
        share = token_losses(model.states_of(batch), batch, model.head).sum() / labels
        share.backward()
        total += share.item()
    assert total == pytest.approx(expected.item(), rel=1e-5)
    found = gradients(model)
    assert found.keys() == wanted.keys() == model.lora.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=2e-4, atol=1e-6)


def plain_hits(model: AdaptedModel, items: list[Item]) -> int:
    """How many trained tokens have the highest score where they are predicted, row by row."""
    hits = 0
    with torch.no_grad(), eval_mode(model.peft):
        for item in items:
            best = model.peft(input_ids=torch.tensor([item.ids]), use_cache=False).logits[0].argmax(-1).tolist()
            hits += sum(best[at - 1] == item.ids[at] for at, flag in enumerate(item.loss_mask) if flag)
    return hits


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("budget", [64, 100_000])
def test_hits_are_those_of_argmax_however_a_window_is_cut(base: Path, rows: Path, budget: int, packed: bool) -> None:
    spec = make_spec(base, rows)
    model, items = load_adapted(spec, base, lambda event: None), make_items(spec, base)[:7]
    optimizer, passes = MasterAdamW(model.lora, spec.optim), micro_batches(items, budget, packed=packed)
    for _ in range(20):  # until it knows some of them
        for batch in passes:
            token_losses(model.states_of(batch), batch, model.head).sum().backward()
            optimizer.accumulate()
        optimizer.step(learning_rate=0.03, norm=optimizer.grad_norm())
    hits = sum(int(loss_and_correct(model.states_of(one), one, model.head)[1]) for one in passes)
    assert 0 < hits < sum(item.trained_tokens for item in items)
    assert hits == plain_hits(model, items)


def test_padding_changes_no_row(base: Path, rows: Path) -> None:
    spec = make_spec(base, rows)
    model, items = make_model(spec, base), make_items(spec, base)[:6]
    together = micro_batches(items, 100_000)[0]
    alone = [micro_batches([item], 1)[0] for item in items]
    with torch.no_grad():
        of_all = token_losses(model.hidden(together.ids), together, model.head).sum()
        of_each = sum(token_losses(model.hidden(one.ids), one, model.head).sum() for one in alone)
    torch.testing.assert_close(of_all, of_each, rtol=1e-5, atol=1e-5)
    assert sum(item.length for item in items) < together.ids.numel()


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_only_lora_weights_change(base: Path, rows: Path, tmp_path: Path, quantization: str) -> None:
    spec = make_spec(base, rows, model={"quantization": quantization}, optim={"max_steps": 3})
    model = load_adapted(spec, base, lambda event: None)
    items, optimizer = make_items(spec, base), MasterAdamW(model.lora, spec.optim)
    before = {name: value.clone() for name, value in model.peft.state_dict().items()}
    for batch in micro_batches(items[:8], 512):
        token_losses(model.hidden(batch.ids), batch, model.head).sum().backward()
        optimizer.accumulate()
    optimizer.step(learning_rate=0.01, norm=optimizer.grad_norm())
    after = model.peft.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed and all(".lora_B." in name for name in changed)  # A waits for B to leave zero
    assert len(changed) == len(model.lora) / 2


def test_an_untrained_adapter_is_the_base(base: Path, rows: Path) -> None:
    spec = make_spec(base, rows)
    model = load_adapted(spec, base, lambda event: None)
    plain = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    ids = torch.arange(40)[None]
    with torch.no_grad():
        ours = model.head.logits(model.hidden(ids))
        theirs = plain(ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_loss_falls_and_the_same_seed_gives_the_same_losses(base: Path, tmp_path: Path) -> None:
    rows = make_rows(tmp_path, count=10)
    optim = {"epochs": 10.0, "learning_rate": 2e-2}
    spec = make_spec(base, rows, data={"holdout": 0.0}, lora={"lora_dropout": 0.1}, optim=optim)
    first = Training(spec, tmp_path / "one").run()
    assert first.losses[-1] < first.losses[0] / 2
    assert Training(spec, tmp_path / "two").run().losses == first.losses
    other = Training(make_spec(base, rows, optim={"seed": 7, "max_steps": 3}), tmp_path / "three").run()
    assert other.losses[:3] != first.losses[:3]


def test_events_tell_the_whole_story(base: Path, rows: Path, tmp_path: Path) -> None:
    spec = make_spec(base, rows, optim={"max_steps": 5}, evaluation={"every_steps": 2, "probes": ["Hello"]})
    training = Training(spec, tmp_path).run()
    steps = training.of(Progress)
    assert [one.step for one in steps] == [1, 2, 3, 4, 5] and {one.of for one in steps} == {5}
    assert all(one.tokens_per_second > 0 and one.memory_bytes > 0 and one.grad_norm > 0 for one in steps)
    # The last evaluation is still to come, and as long as the one before.
    assert steps[-1].seconds_left > 0 and steps[-1].trained_tokens > steps[0].trained_tokens > 0
    assert [one.step for one in training.measured] == [0, 2, 4, 5]
    assert [one.step for one in training.of(Sample)] == [0, 2, 4, 5]
    last = training.measured[-1]
    assert last.loss < training.measured[0].loss and last.perplexity == pytest.approx(math.exp(last.loss))
    assert 0 <= last.accuracy <= 1 and last.rows == 2
    names = [one.name for one in training.of(Phase)]
    assert names[:3] == ["preparing", "loading", "training"] and names[-1] == "saving"
    facts = training.of(Finished)[0].facts
    assert facts["steps"] == 5 and facts["trained_tokens"] == steps[-1].trained_tokens
    assert facts["evaluation_loss"] == last.loss


@pytest.mark.parametrize("poison", ["loss", "gradient"])
def test_divergence_is_named_at_its_step(
    base: Path, rows: Path, tmp_path: Path, poison: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A head with one infinite weight makes the loss NaN; a gradient of infinity comes with a finite loss."""
    training = Training(make_spec(base, rows, evaluation={"every_steps": 100}), tmp_path)
    seen: dict[str, Any] = {}

    def watch(weights: Any, spec: OptimSpec) -> MasterAdamW:
        seen["lora"] = weights
        return MasterAdamW(weights, spec)

    def spoil(event: Any) -> None:
        if isinstance(event, Progress) and event.step == 3:
            weight = next(iter(seen["lora"].values()))
            if poison == "loss":
                weight.data.fill_(float("nan"))
            else:
                weight.register_hook(lambda gradient: gradient * float("inf"))

    monkeypatch.setattr("trainer.preparation.MasterAdamW", watch)
    with pytest.raises(TrainerError, match=f"step 4: the {poison}") as caught:
        training.run(emit=spoil)
    assert caught.value.code == "diverged" and training.of(Progress)[-1].step == 3
    assert not (tmp_path / "adapter").exists()
    assert "the last valid checkpoint is of step 3" in caught.value.text
    verify(tmp_path / "checkpoints" / "step-000003", name=MANIFEST)
    kept = load_file(tmp_path / "checkpoints" / "step-000003" / "lora.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in kept.values())


def test_a_rate_that_makes_weights_infinite_ends_at_its_step(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradient and loss are finite, the update is not: what was before it is kept."""
    rates = iter([1e-3, 1e-3, 1e39])
    monkeypatch.setattr("trainer.sft.learning_rate_at", lambda *given: next(rates))
    training = Training(make_spec(base, rows), tmp_path)
    with pytest.raises(TrainerError, match="diverged at step 3: a weight is no longer") as caught:
        training.run()
    assert caught.value.code == "diverged" and len(training.losses) == 2
    for file in tmp_path.glob("checkpoints/*/lora.safetensors"):
        assert all(bool(weight.isfinite().all()) for weight in load_file(file).values())


def test_real_nf4_runs_and_learns_on_a_cpu(base: Path, rows: Path, tmp_path: Path) -> None:
    """bitsandbytes itself, with the weights left packed: the layers are 4-bit ones all the way."""
    spec = make_spec(base, rows, model={"quantization": "nf4", "dtype": "auto"})
    device = Device(torch.device("cpu"), find_device("auto").dtype)
    model = adapt(load_base(base, spec.model, device), spec, device, print)
    packed = quantized_layers(model.peft)
    assert len(packed) == 14 and all(one.weight.dtype == torch.uint8 for one in packed.values())
    assert all(one.weight.quant_state.nested for one in packed.values())  # double quantisation
    items, optimizer, losses = make_items(spec, base)[:8], MasterAdamW(model.lora, spec.optim), []
    labels = sum(item.trained_tokens for item in items)
    for _ in range(12):
        for batch in micro_batches(items, 256):
            loss = token_losses(model.hidden(batch.ids), batch, model.head).sum() / labels
            loss.backward()
            optimizer.accumulate()
            losses.append(loss.item())
        optimizer.step(learning_rate=0.01, norm=optimizer.grad_norm())
    assert losses[-1] < losses[0] / 1.5


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_unpacked_weights_are_the_quantised_ones(base: Path, quantization: str) -> None:
    spec = ModelSpec(base=str(base), quantization=quantization)  # type: ignore[arg-type]
    device = Device(torch.device("cpu"), torch.float32)
    plain = load_base(base, ModelSpec(base=str(base), quantization="none"), device)
    causal = load_base(base, spec, device)
    ids = torch.arange(50)[None]
    with torch.no_grad(), eval_mode(causal):
        packed = causal(ids).logits
        dequantize(causal, torch.float32)
        unpacked, full = causal(ids).logits, plain(ids).logits
    assert not quantized_layers(causal)
    assert (unpacked - packed).abs().max() <= 1e-5 < (full - packed).abs().max() / 100


def test_gradient_checkpointing_changes_no_gradient(base: Path, rows: Path) -> None:
    found = []
    for every in (0, 2, 1):
        spec = make_spec(base, rows)
        model, items = make_model(spec, base), make_items(spec, base)[:4]
        if every:
            model.recompute(every)
        batch = micro_batches(items, 100_000)[0]
        token_losses(model.hidden(batch.ids), batch, model.head).sum().backward()
        found.append(gradients(model))
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]) and torch.equal(gradient, found[2][name])


def test_fast_weights_follow_float32_masters(base: Path, rows: Path) -> None:
    """An update far below bfloat16's resolution is lost in bfloat16 alone; the masters add it up."""
    spec = make_spec(base, rows, model={"dtype": "bfloat16"})
    model = load_adapted(spec, base, lambda event: None)
    optimizer = MasterAdamW(model.lora, spec.optim)
    name = next(name for name in model.lora if ".lora_A." in name)
    start = optimizer.masters[name].clone()
    assert model.lora[name].dtype == torch.bfloat16
    for _ in range(50):
        model.lora[name].grad = torch.ones_like(model.lora[name])
        optimizer.accumulate()
        optimizer.step(learning_rate=1e-6, norm=0.0)
    torch.testing.assert_close(optimizer.masters[name], start - 50e-6, rtol=0, atol=2e-6)
    assert torch.equal(model.lora[name], optimizer.masters[name].bfloat16())


def test_learning_rates() -> None:
    spec = OptimSpec(learning_rate=1.0, warmup_ratio=0.2, schedule="linear")
    rates = [learning_rate_at(step, 10, spec) for step in range(10)]
    assert rates == pytest.approx([0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125])
    cosine = OptimSpec(learning_rate=1.0, warmup_ratio=0.0)
    assert learning_rate_at(0, 10, cosine) == 1.0 and learning_rate_at(5, 10, cosine) == pytest.approx(0.5)
    assert learning_rate_at(9, 10, OptimSpec(learning_rate=0.5, warmup_ratio=0.0, schedule="constant")) == 0.5


def test_gradients_are_clipped(base: Path, rows: Path) -> None:
    weight = torch.nn.Parameter(torch.zeros(4))
    optimizer = MasterAdamW({"w": weight}, OptimSpec(max_grad_norm=1.0))
    weight.grad = torch.full((4,), 5.0)
    optimizer.accumulate()
    assert optimizer.grad_norm() == pytest.approx(10.0)
    optimizer.step(learning_rate=0.0, norm=10.0)
    torch.testing.assert_close(optimizer.state()["0.exp_avg"], torch.full((4,), 0.1 * 0.5))


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        ("attention", {"q_proj", "k_proj", "v_proj", "o_proj"}),
        ("mlp", {"gate_proj", "up_proj", "down_proj"}),
        (("q_proj", "down_proj"), {"q_proj", "down_proj"}),
    ],
)
def test_target_modules(base: Path, rows: Path, targets: Any, expected: set[str]) -> None:
    model = load_adapted(make_spec(base, rows, lora={"target_modules": targets}), base, lambda event: None)
    assert {name.split(".")[-3] for name in model.lora} == expected


def test_finished_adapter_gives_the_same_scores_in_plain_peft(base: Path, rows: Path, tmp_path: Path) -> None:
    training = Training(make_spec(base, rows, optim={"max_steps": 6}), tmp_path).run()
    model = load_adapted(training.spec, base, lambda event: None)
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    for name, weight in model.lora.items():
        weight.data.copy_(weights[name])
    plain = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(tmp_path / "adapter")
    )
    ids = torch.arange(40)[None]
    with torch.no_grad():
        ours, theirs = model.head.logits(model.hidden(ids)), plain(ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)
    with torch.no_grad(), plain.disable_adapter():
        assert not torch.allclose(plain(ids).logits, theirs, atol=1e-2)


def test_log_tells_about_cut_and_empty_rows(base: Path, tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    long = {"messages": [{"role": "user", "content": "cat " * 200}, {"role": "assistant", "content": "Yes."}]}
    rows.write_text(rows.read_text() + "\n" + json.dumps(long))
    training = Training(make_spec(base, rows, optim={"max_steps": 1}), tmp_path / "out").run()
    texts = [one.text for one in training.of(Log)]
    cut = next(one for one in texts if one.startswith("1 row is longer than 128 tokens, and cut: "))
    enough = int(cut.split("max_seq_length of ")[1].split()[0])
    assert f"{enough - 128:,} of " in cut, "the one long row lost all that is beyond"
    for length, warnings in ((enough, 0), (enough - 1, 1)):
        said: list[Any] = []
        spec = make_spec(base, rows, data={"max_seq_length": length})
        load_dataset(spec, Renderer.load(base), said.append)
        assert len([one for one in said if ", and cut: " in one.text]) == warnings
    line = len(rows.read_text().splitlines())
    assert f"1 row left out for having no token to learn: line {line}" in texts


@pytest.mark.parametrize(
    ("at", "said"), [(0, "The base model's loss on the held-out rows"), (4, "held-out rows after step 4")]
)
def test_a_loss_on_held_out_rows_that_is_no_number_keeps_the_steps_made(
    base: Path, rows: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, said: str
) -> None:
    spec = make_spec(base, rows, optim={"max_steps": 8}, evaluation={"every_steps": 4})
    training = Training(spec, tmp_path)
    genuine = evaluation.loss_and_correct

    def spoilt(*given: Any) -> Any:
        loss, correct = genuine(*given)
        return loss * (float("nan") if len(training.losses) == at else 1.0), correct

    monkeypatch.setattr(evaluation, "loss_and_correct", spoilt)
    with pytest.raises(TrainerError, match=said) as caught:
        training.run()
    assert caught.value.code == "diverged" and len(training.losses) == at
    assert ("model.dtype" in caught.value.fix) is (at == 0)
    assert (tmp_path / "checkpoints" / "step-000004").is_dir() is (at == 4)
