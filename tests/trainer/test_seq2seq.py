"""Encoder–decoder base models: the same training, with two texts where others have one."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from tests.trainer.seq2seq_bases import SEQ2SEQ, make_seq2seq
from tests.trainer.training import Training, make_judged, make_pairs, make_rows, make_spec
from trainer.base_facts import inspect_folder
from trainer.data import Item, Plan, PreferencePair, load_dataset
from trainer.device import Device
from trainer.errors import Stopped, TrainerError
from trainer.evaluation import answer_probe
from trainer.events import Progress, Sample
from trainer.loss import sequence_logprobs, token_losses
from trainer.micro_batch import micro_batches
from trainer.model import AdaptedModel, adapt, eval_mode, load_adapted, load_base, quantized_layers
from trainer.optimizer import MasterAdamW
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

families = pytest.mark.parametrize("base", sorted(SEQ2SEQ), indirect=True)


@pytest.fixture(scope="module", params=["t5"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_seq2seq(tmp_path_factory.mktemp(request.param), request.param)


def items_of(spec: TrainSpec, base: Path) -> list[Any]:
    return load_dataset(spec, Renderer.load(base), lambda event: None).train


def model_of(spec: TrainSpec, base: Path) -> AdaptedModel:
    """A model whose B is not zero, so that A has a gradient too."""
    model = load_adapted(spec, base, lambda event: None)
    random = torch.Generator().manual_seed(1)
    for name, weight in model.lora.items():
        if ".lora_B." in name:
            weight.data = torch.randn(weight.shape, generator=random) * 0.1
    return model


def own(model: AdaptedModel, item: Item) -> tuple[torch.Tensor, int]:
    """transformers' own loss of one row, from its labels alone, and how many there are."""
    source, labels = list(item.ids[: item.source]), list(item.ids[item.source + 1 :])
    found = model.peft(input_ids=torch.tensor([source]), labels=torch.tensor([labels]))
    return found.loss, len(labels)


def plain_loss(model: AdaptedModel, items: Sequence[Item]) -> torch.Tensor:
    found = [own(model, item) for item in items]
    return sum(loss * count for loss, count in found) / sum(count for _, count in found)  # type: ignore[return-value]


def gradients(model: AdaptedModel) -> dict[str, torch.Tensor]:
    found = {name: weight.grad.clone() for name, weight in model.lora.items() if weight.grad is not None}
    for weight in model.lora.values():
        weight.grad = None
    return found


@families
@pytest.mark.parametrize("budget", [80, 300, 100_000])
def test_loss_and_gradient_of_a_window_are_transformers_own(base: Path, tmp_path: Path, budget: int) -> None:
    spec = make_spec(base, make_rows(tmp_path))
    model, items = model_of(spec, base), items_of(spec, base)[:7]
    expected = plain_loss(model, items)
    expected.backward()
    wanted = gradients(model)
    labels, total = sum(item.trained_tokens for item in items), 0.0
    batches = micro_batches(items, budget)
    for batch in batches:
        share = token_losses(model.hidden(batch.ids, batch.encoder_inputs), batch, model.head).sum() / labels
        share.backward()
        total += share.item()
    assert total == pytest.approx(expected.item(), rel=1e-5)
    found = gradients(model)
    assert found.keys() == wanted.keys() == model.lora.keys()
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wanted[name], rtol=5e-4, atol=2e-6)
    for batch in batches:
        assert batch.encoder_inputs is not None
        assert len(batch.rows) == 1 or batch.ids.numel() + batch.encoder_inputs.ids.numel() <= budget


@families
def test_padding_on_either_side_changes_no_token(base: Path, tmp_path: Path) -> None:
    spec = make_spec(base, make_rows(tmp_path))
    model, items = model_of(spec, base), items_of(spec, base)[:6]
    batch = micro_batches(items, 100_000)[0]
    with torch.no_grad():
        together = token_losses(model.hidden(batch.ids, batch.encoder_inputs), batch, model.head)
        alone = []
        for item in batch.items:
            one = micro_batches([item], 1)[0]
            alone.append(token_losses(model.hidden(one.ids, one.encoder_inputs), one, model.head))
    torch.testing.assert_close(together, torch.cat(alone), rtol=1e-4, atol=1e-4)
    assert batch.encoder_inputs is not None and not bool(batch.encoder_inputs.mask.all())


@families
def test_an_untrained_adapter_is_the_base(base: Path, tmp_path: Path) -> None:
    spec = make_spec(base, make_rows(tmp_path))
    model = load_adapted(spec, base, lambda event: None)
    plain = AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    batch = micro_batches(items_of(spec, base)[:1], 1)[0]
    assert batch.encoder_inputs is not None
    with eval_mode(model.peft):
        ours = model.head.logits(model.hidden(batch.ids, batch.encoder_inputs))
        theirs = plain(input_ids=batch.encoder_inputs.ids, decoder_input_ids=batch.ids).logits
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("base", ["bart", "mt5", "t5"], indirect=True)
def test_only_lora_weights_change(base: Path, tmp_path: Path, quantization: str) -> None:
    """Packed where it is quantised."""
    spec = make_spec(base, make_rows(tmp_path), model={"quantization": quantization})
    device = Device(torch.device("cpu"), torch.float32)
    model = adapt(load_base(base, spec.model, device), spec, device, print)
    assert bool(quantized_layers(model.peft)) == (quantization != "none")
    items, optimizer = items_of(spec, base), MasterAdamW(model.lora, spec.optim)
    before = {name: value.clone() for name, value in model.peft.state_dict().items()}
    for batch in micro_batches(items[:8], 512):
        token_losses(model.hidden(batch.ids, batch.encoder_inputs), batch, model.head).sum().backward()
        optimizer.accumulate()
    optimizer.step(learning_rate=0.01, norm=optimizer.grad_norm())
    changed = {name for name, value in model.peft.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(".lora_B." in name for name in changed)  # A waits for B to leave zero
    assert len(changed) == len(model.lora) / 2


@pytest.mark.parametrize("base", ["bart", "t5"], indirect=True)
def test_computing_layers_again_changes_no_gradient(base: Path, tmp_path: Path) -> None:
    spec = make_spec(base, make_rows(tmp_path))
    found = []
    for every in (0, 2, 1):
        model = model_of(spec, base)
        if every:
            model.recompute(every)
        batch = micro_batches(items_of(spec, base)[:4], 100_000)[0]
        token_losses(model.hidden(batch.ids, batch.encoder_inputs), batch, model.head).sum().backward()
        found.append(gradients(model))
    for name, gradient in found[0].items():
        for other in found[1:]:
            torch.testing.assert_close(other[name], gradient, rtol=1e-3, atol=1e-5)


@families
def test_losses_are_those_of_a_plain_loop(base: Path, tmp_path: Path) -> None:
    """transformers and PEFT alone, one window a step, its loss from transformers' own labels."""
    optim = {"epochs": 2.0, "batch_size": 4, "learning_rate": 1e-3, "warmup_ratio": 0.0, "schedule": "constant"}
    spec = make_spec(base, make_rows(tmp_path), data={"holdout": 0.0}, optim=optim)
    ours = Training(spec, tmp_path / "ours").run()
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="SEQ_2_SEQ_LM")
    plain = get_peft_model(AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32), config)
    begun = load_adapted(spec, base, lambda event: None).lora
    learnt = {name.replace(".default.", "."): one for name, one in plain.named_parameters() if one.requires_grad}
    for name, weight in learnt.items():
        weight.data.copy_(begun[name].data)
    adamw, plan, losses = torch.optim.AdamW(learnt.values(), lr=1e-3, weight_decay=0.0), plan_of(spec, base), []
    for step in range(plan.steps):
        losses.append(_padded_loss(plain, plan.window(step)))
        losses[-1].backward()
        torch.nn.utils.clip_grad_norm_(learnt.values(), 1.0)
        adamw.step()
        adamw.zero_grad()
    assert len(ours.losses) == 12 and ours.losses[-1] < ours.losses[0]
    assert ours.losses == pytest.approx([loss.item() for loss in losses], abs=1e-4)


def plan_of(spec: TrainSpec, base: Path) -> Plan:
    return Plan(items_of(spec, base), spec)


def _padded_loss(model: Any, window: Sequence[Any]) -> torch.Tensor:
    """As data collators do it: both sides padded, labels of padding -100."""
    sources = [list(item.ids[: item.source]) for item in window]
    labels = [list(item.ids[item.source + 1 :]) for item in window]
    wide, long = max(map(len, sources)), max(map(len, labels))
    loss: torch.Tensor = model(
        input_ids=torch.tensor([one + [0] * (wide - len(one)) for one in sources]),
        attention_mask=torch.tensor([[1] * len(one) + [0] * (wide - len(one)) for one in sources]),
        labels=torch.tensor([one + [-100] * (long - len(one)) for one in labels]),
    ).loss
    return loss


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
@pytest.mark.parametrize("base", ["bart", "mt5"], indirect=True)
def test_a_quantised_base_learns_in_bfloat16(base: Path, tmp_path: Path, quantization: str) -> None:
    spec = make_spec(base, make_rows(tmp_path), model={"quantization": quantization, "dtype": "bfloat16"})
    training = Training(spec, tmp_path / "out").run()
    assert training.losses[-1] < training.losses[0] and training.measured[-1].loss < training.measured[0].loss


@pytest.mark.parametrize("base", ["bart", "t5"], indirect=True)
def test_a_resumed_run_is_the_run_without_a_stop(base: Path, tmp_path: Path) -> None:
    spec = make_spec(base, make_rows(tmp_path), lora={"lora_dropout": 0.1}, evaluation={"every_steps": 4})
    whole = Training(spec, tmp_path / "whole").run()
    broken = Training(spec, tmp_path / "broken", stop_at=5)
    with pytest.raises(Stopped):
        broken.run()
    resumed = Training(spec, tmp_path / "resumed").run(resume=tmp_path / "broken" / "checkpoints")
    assert broken.losses + resumed.losses == whole.losses
    assert broken.measured + resumed.measured == whole.measured
    weights = [load_file(tmp_path / name / "adapter" / "adapter_model.safetensors") for name in ("whole", "resumed")]
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


@pytest.mark.parametrize("base", ["bart", "t5"], indirect=True)
def test_plain_peft_gives_the_answer_of_the_probe(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.evaluation.PROBE_TOKENS", 24)
    prompt = "What is 5 and why do cats count to 35?"
    optim = {"epochs": 6.0, "batch_size": 4, "learning_rate": 2e-2}
    spec = make_spec(base, make_rows(tmp_path), data={"holdout": 0.0}, optim=optim, evaluation={"probes": [prompt]})
    training = Training(spec, tmp_path / "out").run()
    assert training.losses[-1] < training.losses[0] - 0.5
    renderer = Renderer.load(base)
    model = PeftModel.from_pretrained(
        AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32), tmp_path / "out" / "adapter"
    ).eval()
    assert json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())["task_type"] == "SEQ_2_SEQ_LM"
    source = torch.tensor([renderer.prompt_ids([{"role": "user", "content": prompt}])])
    written = torch.tensor([[model.config.decoder_start_token_id]])
    with torch.no_grad():
        for _ in range(24):
            scores = model(input_ids=source, decoder_input_ids=written).logits[0, -1]
            written = torch.cat([written, scores.argmax().view(1, 1)], dim=1)
            if int(written[0, -1]) in renderer.stop_ids:
                break
    assert "AutoModelForSeq2SeqLM.from_pretrained" in (tmp_path / "out" / "adapter" / "README.md").read_text()
    last: Sample = training.of(Sample)[-1]
    assert last.completion == renderer.decode(written[0, 1:].tolist()) and len(last.completion) > 3


def test_evaluations_say_what_was_forgotten(base: Path, tmp_path: Path) -> None:
    training = Training(make_spec(base, make_rows(tmp_path)), tmp_path / "out").run()
    first, last = training.measured[0], training.measured[-1]
    assert first.general_kl == 0.0 and last.general_kl > 0
    assert last.loss < first.loss and last.perplexity < first.perplexity


@pytest.mark.parametrize(("method", "make"), [("dpo", make_pairs), ("kto", make_judged)])
def test_answers_are_compared_as_well(base: Path, tmp_path: Path, method: str, make: Callable[[Path], Path]) -> None:
    spec = make_spec(base, make(tmp_path), data={"method": method, "holdout": 0.0}, optim={"epochs": 4.0})
    training = Training(spec, tmp_path / "out").run()
    assert training.losses[0] == pytest.approx(0.6931 if method == "dpo" else 0.5, abs=1e-3)
    assert training.losses[-1] < training.losses[0] - 0.05


def test_scores_of_answers_are_transformers_own(base: Path, tmp_path: Path) -> None:
    spec = make_spec(base, make_pairs(tmp_path), data={"method": "dpo", "holdout": 0.0})
    model = model_of(spec, base)
    pairs: list[PreferencePair] = items_of(spec, base)[:3]
    (batch,) = micro_batches(pairs, 100_000)
    with eval_mode(model.peft):
        found = sequence_logprobs(model.hidden(batch.ids, batch.encoder_inputs), batch, model.head)
        wanted = [-loss * count for loss, count in (own(model, item) for item in batch.items)]
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("targets", "count", "word"),
    [("attention", 2 * 4 + 2 * 8, "Attention"), ("mlp", 2 * 2 + 2 * 2, "DenseReluDense"), (["q", "wo"], 2 * 3 + 4, "")],
)
def test_groups_of_layers_are_found_on_both_sides(base: Path, targets: Any, count: int, word: str) -> None:
    model = load_adapted(make_spec(base, Path("rows"), lora={"target_modules": targets}), base, lambda event: None)
    names = [name for name in model.lora if ".lora_A." in name]
    assert len(names) == count and all(word in name for name in names)
    assert any(".encoder." in name for name in names) and any(".decoder." in name for name in names)


def test_noise_reaches_the_encoder(base: Path, tmp_path: Path) -> None:
    spec = make_spec(base, make_rows(tmp_path), optim={"neftune_noise_alpha": 5.0})
    model, (item, *_) = load_adapted(spec, base, lambda event: None), items_of(spec, base)
    batch = micro_batches([item], 1)[0]
    first, second = (model.hidden(batch.ids, batch.encoder_inputs) for _ in range(2))
    assert not torch.allclose(first, second)
    with eval_mode(model.peft):
        assert torch.equal(model.hidden(batch.ids, batch.encoder_inputs), model.hidden(batch.ids, batch.encoder_inputs))


@pytest.mark.parametrize(
    "parts",
    [
        {"data": {"train_on": "everything"}},
        {"lora": {"trainable_token_indices": [5]}},
        {"lora": {"init_lora_weights": "eva"}},
    ],
)
def test_what_cannot_be_is_named_before_anything_starts(base: Path, tmp_path: Path, parts: dict[str, Any]) -> None:
    spec = make_spec(base, make_rows(tmp_path), **parts)
    (issue,) = spec.issues_on("seq2seq")
    assert not spec.issues_on("causal") and f"{issue.path}".split(".")[1] in parts[issue.path.split(".")[0]]
    training = Training(spec, tmp_path / "out")
    with pytest.raises(TrainerError, match=issue.path) as caught:
        training.run()
    assert caught.value.code == "user_config" and not training.of(Progress)


def test_the_facts_say_its_kind(base: Path) -> None:
    facts = inspect_folder(base)
    assert facts == facts | {"task": "seq2seq", "layers": 2, "decoder_layers": 2, "heads": 4, "head_dim": 16}
    assert facts["has_chat_template"]  # or is written to without one, as plain text
    assert facts["context_length"] is None and facts["intermediate_size"] == 128  # T5 tells positions by distance


@pytest.mark.parametrize(
    "changed",
    [{"model_type": "whisper"}, {"architectures": ["T5EncoderModel"]}, {"architectures": ["BartForCausalLM"]}],
)
def test_other_kinds_of_encoders_are_refused(tmp_path: Path, changed: dict[str, Any]) -> None:
    folder = make_seq2seq(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    with pytest.raises(TrainerError, match="names no causal language model and no T5 or BART"):
        inspect_folder(folder)


def test_the_answer_can_be_asked_for_in_a_sentence(base: Path, tmp_path: Path) -> None:
    model = load_adapted(make_spec(base, Path("rows")), base, lambda event: None)
    assert answer_probe(model, Renderer.load(base), "Who are you?", step=3).step == 3
