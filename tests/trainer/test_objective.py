"""Learning from compared answers: the losses, what they do to rewards, and the same run over a stop."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.trainer.families import make_family
from tests.trainer.seq2seq_bases import make_seq2seq
from tests.trainer.training import Training, make_judged, make_pairs, make_rows, make_spec, write_lines
from trainer.data import Item, LabelledAnswer, PreferencePair, Trainable, load_dataset, mismatched_rows
from trainer.errors import Stopped, TrainerError
from trainer.events import Checkpoint, Log
from trainer.loss import sequence_logprobs
from trainer.micro_batch import micro_batches
from trainer.model import AdaptedModel, load_adapted
from trainer.objective import objective_of
from trainer.packing import is_stochastic
from trainer.ranks import Ranks
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

MAKERS = {"dpo": make_pairs, "kto": make_judged}


def make_job(base: Path, folder: Path, method: str, **parts: dict[str, Any]) -> TrainSpec:
    data = {"method": method, **parts.pop("data", {})}
    lora = {"lora_dropout": 0.1}
    optim = {
        "epochs": 10.0,
        "max_steps": 10,
        "learning_rate": 1e-2,
        "micro_batch_tokens": 512,
        **parts.pop("optim", {}),
    }
    return make_spec(base, MAKERS[method](folder), data=data, lora=lora, optim=optim, **parts)


def moved(spec: TrainSpec, base: Path) -> tuple[AdaptedModel, list[Trainable], Any]:
    """A model some way from where it started, its rows with their references, and the objective."""
    model = load_adapted(spec, base, lambda event: None)
    dataset = load_dataset(spec, Renderer.load(base), lambda event: None)
    objective = objective_of(spec, model, Ranks())
    objective.prepare(dataset, before_pass=lambda number, of: None)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.lora.values():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.05)
    return model, dataset.train, objective


def plain_score(model: AdaptedModel, item: Item) -> torch.Tensor:
    """log p of an answer, written as simply as it can be."""
    ids = torch.tensor(item.ids)
    scores = model.peft(input_ids=ids[None], use_cache=False).logits[0, :-1].log_softmax(-1)
    wanted = torch.tensor(list(item.loss_mask), dtype=torch.bool)[1:]
    return scores.gather(1, ids[1:, None])[wanted].sum()


def test_row_scores_are_plain_log_probabilities(base: Path, tmp_path: Path) -> None:
    spec = make_job(base, tmp_path, "dpo")
    model, rows, _ = moved(spec, base)
    [batch] = micro_batches(rows[:3], 100_000)
    with torch.no_grad():
        model.peft.eval()
        found = sequence_logprobs(model.hidden(batch.ids), batch, model.head)
        torch.testing.assert_close(found, torch.stack([plain_score(model, one) for one in batch.items]))


@pytest.mark.parametrize("budget", [1, 150, 100_000])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_dpo_loss_is_the_papers_however_it_is_cut(
    base: Path, tmp_path: Path, smoothing: float, budget: int
) -> None:
    spec = make_job(base, tmp_path, "dpo", preference={"beta": 0.5, "label_smoothing": smoothing})
    model, rows, objective = moved(spec, base)
    model.peft.eval()
    window, expected, right = rows[:5], 0.0, 0
    for row in window:
        assert isinstance(row, PreferencePair)
        log_ratios = [float(plain_score(model, one)) - one.reference_logprob for one in row.sequences]
        margin = 0.5 * (log_ratios[0] - log_ratios[1])
        expected += (1 - smoothing) * math.log1p(math.exp(-margin)) + smoothing * math.log1p(math.exp(margin))
        right += margin > 0
    found = [objective.loss_and_correct(one, 0.0) for one in micro_batches(window, budget)]
    assert sum(float(loss) for loss, _ in found) == pytest.approx(expected, rel=1e-4)
    assert sum(int(hits) for _, hits in found) == right


def test_references_are_the_scores_of_the_base(base: Path, tmp_path: Path) -> None:
    model, rows, _ = moved(make_job(base, tmp_path, "kto"), base)
    with torch.no_grad(), model.peft.disable_adapter():
        for row in rows[:4]:
            assert isinstance(row, LabelledAnswer) and row.mismatch
            for item in (row.answer, row.mismatch):
                assert item.reference_logprob == pytest.approx(float(plain_score(model, item)), rel=1e-5)


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_the_margin_grows_and_answers_are_told_apart(base: Path, tmp_path: Path, method: str) -> None:
    spec = make_job(base, tmp_path, method, optim={"max_steps": 20}, evaluation={"every_steps": 10})
    training = Training(spec, tmp_path / "out").run()
    first, *_, last = training.measured
    assert first.margin == pytest.approx(0.0, abs=1e-4) and first.perplexity is None
    assert first.loss == pytest.approx(math.log(2) if method == "dpo" else 0.5, abs=1e-4)
    assert last.margin is not None and last.margin > 0.2
    assert last.loss < first.loss and last.accuracy == training.accuracies[-1] == 1.0


@pytest.mark.parametrize("method", ["dpo", "kto"])
def test_a_resumed_run_is_the_same_run(base: Path, tmp_path: Path, method: str) -> None:
    spec = make_job(base, tmp_path, method)
    whole = Training(spec, tmp_path / "whole").run()
    first = Training(spec, tmp_path / "first", stop_at=4)
    with pytest.raises(Stopped):
        first.run()
    second = Training(spec, tmp_path / "second").run(resume=tmp_path / "first" / "checkpoints")
    assert first.losses + second.losses == whole.losses and len(second.losses) == 6
    assert first.accuracies + second.accuracies == whole.accuracies
    assert first.measured + second.measured == whole.measured
    files = [one.out / "adapter" / "adapter_model.safetensors" for one in (second, whole)]
    resumed, unbroken = (load_file(file) for file in files)
    assert all(torch.equal(resumed[name], weight) for name, weight in unbroken.items())


def test_scoring_before_training_is_not_silent_and_can_be_stopped(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainer.events.HEARTBEAT_SECONDS", 0.0)
    training = Training(make_job(base, tmp_path, "dpo"), tmp_path / "out")
    said = lambda: [one.text for one in training.of(Log) if "Scoring the answers" in one.text]  # noqa: E731
    training._should_stop = lambda: bool(said())  # type: ignore[method-assign] # in the midst of it
    with pytest.raises(Stopped):
        training.run()
    assert len(said()) == 1 and "pass 1 of" in said()[0] and not training.of(Checkpoint)


@pytest.mark.parametrize(("label", "said"), [(True, "labelled desirable"), (False, "labelled undesirable")])
def test_kto_without_contrast_is_warned_of(base: Path, tmp_path: Path, label: bool, said: str) -> None:
    rows = [{"prompt": f"What is {one}?", "completion": "A cat.", "label": label} for one in range(4)]
    spec = make_spec(base, write_lines(tmp_path / "same.jsonl", rows), data={"method": "kto"})
    logs: list[Any] = []
    load_dataset(spec, Renderer.load(base), logs.append)
    assert [one.level for one in logs if isinstance(one, Log) and said in one.text] == ["warning"]
    load_dataset(make_job(base, tmp_path, "kto"), Renderer.load(base), (mixed := []).append)
    assert not [one for one in mixed if isinstance(one, Log) and "is labelled" in one.text]


def test_rows_that_a_method_cannot_learn_from_are_named(base: Path, tmp_path: Path) -> None:
    wrong = make_spec(base, make_rows(tmp_path), data={"method": "dpo"})
    with pytest.raises(TrainerError, match="these rows are conversations") as caught:
        Training(wrong, tmp_path / "out").run()
    assert caught.value.code == "user_config" and caught.value.fix == "Use sft."


def test_impossible_values_are_named(base: Path, tmp_path: Path) -> None:
    def paths(**parts: dict[str, Any]) -> list[str]:
        return [one.path for one in make_spec(base, tmp_path / "rows.jsonl", **parts).issues()]

    assert paths(data={"method": "dpo"}) == []
    assert paths(data={"method": "kto", "train_on": "everything"}) == ["data.train_on"]
    assert paths(preference={"label_smoothing": 0.1}) == ["preference.label_smoothing"]
    nothing = {"desirable_weight": 0.0, "undesirable_weight": 0.0}
    assert paths(data={"method": "kto"}, preference=nothing) == ["preference.desirable_weight"]


def test_plain_text_is_learnt_to_its_end(base: Path, tmp_path: Path) -> None:
    """No template around it, special tokens in it are ordinary text, and every token but the first is learnt."""
    text = "The cat <|im_end|> sat."
    rows = write_lines(tmp_path / "rows.jsonl", [{"text": text}] * 2)
    spec = make_spec(base, rows, data={"holdout": 0.0})
    renderer = Renderer.load(base)
    [item, _] = load_dataset(spec, renderer, lambda event: None).train
    assert isinstance(item, Item) and item.trained_tokens == item.length
    assert item.ids[-1] == 2 and 2 not in item.ids[:-1]
    assert renderer.decode(list(item.ids)) == text
    assert len(Training(spec, tmp_path / "out").run().losses) == 2


@pytest.mark.parametrize("count", [2, 3, 4, 9, 40])
def test_a_mismatch_answers_another_prompt(count: int) -> None:
    """Also where all good answers come first and then the bad ones to the same prompts, half the list apart."""
    for prompts in ([*range(count)] * 2, [one // 2 for one in range(2 * count)], [0] * count + [1], [*range(count)]):
        others = mismatched_rows(prompts)
        assert all(prompts[other] != prompt for prompt, other in zip(prompts, others, strict=True))
    assert mismatched_rows([*range(count)]) == [(at - count // 2) % count for at in range(count)]


def test_where_all_prompts_are_the_same_another_row_still_answers() -> None:
    assert mismatched_rows([7] * 4) == [2, 3, 0, 1]
    assert (mismatched_rows([7]), mismatched_rows([])) == ([0], [])


def test_mismatches_of_a_file_with_good_and_bad_answers_apart(base: Path, tmp_path: Path) -> None:
    good = [{"prompt": f"What is {one}?", "completion": f"It is {one}.", "label": True} for one in range(8)]
    bad = [one | {"completion": "Go away.", "label": False} for one in good]
    file = write_lines(tmp_path / "apart.jsonl", good + bad)
    spec = make_spec(base, file, data={"method": "kto", "holdout": 0.0})
    rows = load_dataset(spec, Renderer.load(base), lambda event: None).train
    prompts = [one.answer.ids[: one.answer.loss_mask.find(1)] for one in rows if isinstance(one, LabelledAnswer)]
    answers = {bytes(one.answer.ids[len(prompt) :]): prompt for one, prompt in zip(rows[:8], prompts, strict=False)}
    for row, prompt in zip(rows, prompts, strict=True):
        assert isinstance(row, LabelledAnswer) and row.mismatch
        assert row.mismatch.ids[: len(prompt)] == prompt
        assert answers.get(bytes(row.mismatch.ids[len(prompt) :])) != prompt


@pytest.mark.parametrize(("name", "dropout"), [("gpt2", "resid_pdrop"), ("t5", "dropout_rate"), ("bart", "dropout")])
def test_dropout_of_the_base_does_not_part_the_policy_from_its_reference(
    tmp_path: Path, name: str, dropout: str
) -> None:
    """An update of zero is the reference, so the first loss is ln 2; supervised training keeps the base's dropout."""
    make = make_family if name == "gpt2" else make_seq2seq
    base = make(tmp_path / "base", name, **{dropout: 0.3})
    for method, pairs in (("dpo", make_pairs(tmp_path)), ("sft", make_rows(tmp_path))):
        spec = make_spec(base, pairs, data={"method": method, "holdout": 0.0}, optim={"max_steps": 1})
        assert is_stochastic(load_adapted(spec, base, lambda event: None)) == (method == "sft")
        loss = Training(spec, tmp_path / method).run().losses[0]
        assert method == "sft" or loss == pytest.approx(math.log(2), abs=1e-6)
