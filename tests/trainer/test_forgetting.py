"""What a model forgets: zero for the base itself, and else exactly the divergence from the base on general text."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.trainer.families import make_family
from tests.trainer.training import Training, make_rows, make_spec
from trainer.errors import TrainerError
from trainer.events import Finished
from trainer.forgetting import PARAGRAPH_TOKENS, TEXT, Forgotten, measure_forgetting, read_general_text
from trainer.model import load_adapted
from trainer.rendering import Renderer


@pytest.fixture(scope="module")
def trained(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Training:
    folder = tmp_path_factory.mktemp("trained")
    return Training(make_spec(base, make_rows(folder), optim={"max_steps": 8, "learning_rate": 0.02}), folder).run()


def paragraphs() -> list[str]:
    return TEXT.read_text(encoding="utf-8").split("\n\n")


def test_the_base_has_forgotten_nothing(trained: Training) -> None:
    first, *later = trained.measured
    assert first.step == 0 and first.general_kl == 0.0 and first.general_perplexity > 1
    assert all(one.general_kl > 0 for one in later)


def test_it_is_the_divergence_of_plain_peft_from_its_base(base: Path, trained: Training) -> None:
    """Token by token, each paragraph alone, with the published adapter in plain PEFT and with it switched off."""
    peft = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), str(trained.out / "adapter")
    )
    renderer = Renderer.load(base)
    divergence, loss, tokens = 0.0, 0.0, 0
    for paragraph in paragraphs():
        ids = torch.tensor([renderer.plain_ids(paragraph.strip())[:PARAGRAPH_TOKENS]])
        with torch.no_grad():
            now = peft(ids).logits[0, :-1].log_softmax(-1)
            with peft.disable_adapter():
                was = peft(ids).logits[0, :-1].log_softmax(-1)
        divergence += float(torch.nn.functional.kl_div(now, was, log_target=True, reduction="sum"))
        loss += float(torch.nn.functional.nll_loss(now, ids[0, 1:], reduction="sum"))
        tokens += len(now)
    facts = trained.of(Finished)[0].facts
    assert facts["general_kl"] == pytest.approx(divergence / tokens, rel=1e-3)
    assert facts["general_perplexity"] == pytest.approx(math.exp(loss / tokens), rel=1e-4)
    assert facts["general_perplexity_before"] == trained.measured[0].general_perplexity
    card = (trained.out / "adapter" / "README.md").read_text()
    assert f"| {facts['general_kl']:.4f} |" in card


@pytest.mark.parametrize("family", ["gemma2", "gpt2"])
def test_other_heads(family: str, tmp_path: Path) -> None:
    """Capped scores, and tied embeddings with learnt positions: an untrained adapter is the base."""
    base = make_family(tmp_path / "base", family)
    model = load_adapted(make_spec(base, make_rows(tmp_path)), base, lambda event: None)
    text = read_general_text(model, Renderer.load(base))
    assert measure_forgetting(model, text, before_pass=lambda number, of: None).kl == 0.0
    for weight in model.lora.values():
        weight.data.normal_(0, 0.1)
    assert measure_forgetting(model, text, before_pass=lambda number, of: None).kl > 0.001


@pytest.mark.parametrize(
    ("at", "said"), [(0, "The base model's loss on general text"), (4, "the loss on general text .* after step 4")]
)
def test_a_measure_that_is_no_number_is_named_and_keeps_the_steps_made(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, said: str
) -> None:
    """Overflow in float16, say: held-out rows may still have a finite loss then."""
    spec = make_spec(base, make_rows(tmp_path), optim={"max_steps": 8}, evaluation={"every_steps": 4})
    training = Training(spec, tmp_path)

    def spoilt(*given: Any, **options: Any) -> Forgotten:
        found = measure_forgetting(*given, **options)
        return found if len(training.losses) < at else Forgotten(math.nan, found.perplexity)

    monkeypatch.setattr("trainer.run.measure_forgetting", spoilt)
    with pytest.raises(TrainerError, match=said) as caught:
        training.run()
    assert caught.value.code == "diverged" and len(training.losses) == at
    assert ("model.dtype" in caught.value.fix) is (at == 0)
    assert (tmp_path / "checkpoints" / "step-000004").is_dir() is (at == 4)


def test_it_can_be_left_out(base: Path, tmp_path: Path) -> None:
    spec = make_spec(base, make_rows(tmp_path), optim={"max_steps": 2}, evaluation={"forgetting": False})
    training = Training(spec, tmp_path).run()
    assert {one.general_kl for one in training.measured} == {None}
    assert "general_kl" not in training.of(Finished)[0].facts
    assert "general text" not in (tmp_path / "adapter" / "README.md").read_text()


def test_the_text_is_varied_and_small() -> None:
    assert len(paragraphs()) == 40 == len(set(paragraphs()))
    assert TEXT.stat().st_size < 10_000
    assert "def " in TEXT.read_text() and "x = 5" in TEXT.read_text() and "Dear " in TEXT.read_text()
