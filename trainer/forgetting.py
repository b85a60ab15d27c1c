"""Forgetting: the KL divergence of the model from its base on general text."""

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from trainer.data import Item
from trainer.evaluation import perplexity_of
from trainer.loss import Head
from trainer.micro_batch import MicroBatch
from trainer.model import AdaptedModel, eval_mode
from trainer.rendering import Renderer

TEXT = Path(__file__).with_name("general_text.txt")
PARAGRAPH_TOKENS = 64  # paragraphs are cut here: some tokenizers would make them very long
TOKENS_AT_ONCE = 256  # fixed, for equal results on any machine; few, to fit on small ones
CHUNK_PARTS = 4  # of the loss's chunk of logits: here those of two models are in memory

BeforePass = Callable[[int, int], None]


@dataclass(frozen=True)
class GeneralText:
    """Short paragraphs on various subjects, as passes, with the base model's hidden states at predicted positions.

    Hidden states take a hundredth of the memory of logits, so they are kept, and the base model runs once.
    """

    passes: list[MicroBatch]
    states: list[Tensor]
    head: Head


@dataclass(frozen=True)
class Forgotten:
    """kl: mean KL(base ‖ model) per token, in nats; 0 for the base itself. perplexity: of the tuned model."""

    kl: float
    perplexity: float


def general_items(renderer: Renderer) -> list[Item]:
    """The paragraphs as tokens, each cut to PARAGRAPH_TOKENS."""
    paragraphs = TEXT.read_text(encoding="utf-8").split("\n\n")
    examples = [renderer.general_example(one.strip(), longest=PARAGRAPH_TOKENS) for one in paragraphs]
    return [Item(array("i", one.ids), bytes(one.trained), one.source) for one in examples]


def read_general_text(model: AdaptedModel, renderer: Renderer) -> GeneralText:
    """Record the base's hidden states. Call this while the adapter is fresh, and the model still equals its base."""
    passes = [one.to(model.device.place) for one in model.passes(general_items(renderer), TOKENS_AT_ONCE)]
    with eval_mode(model.peft):
        return GeneralText(passes, [_states(model, one) for one in passes], model.head.frozen_copy())


def measure_forgetting(model: AdaptedModel, text: GeneralText, *, before_pass: BeforePass) -> Forgotten:
    """Compare the model with its base, token by token. `before_pass(number, of)` may raise to stop.

    The direction, KL(base ‖ model), follows Shenfeld et al. 2025 (arxiv.org/abs/2509.04259), who measured it on the new
    task's text: it grows where the model no longer says what the base was sure of.
    """
    divergence, loss, tokens = 0.0, 0.0, 0
    with eval_mode(model.peft):
        for number, (batch, before) in enumerate(zip(text.passes, text.states, strict=True), start=1):
            before_pass(number, len(text.passes))
            now = _states(model, batch)
            size = max(1, model.head.chunk_size() // CHUNK_PARTS)
            for start in range(0, len(batch.labels), size):
                chunk = slice(start, start + size)
                base = text.head.logits(before[chunk]).log_softmax(-1)
                tuned = model.head.logits(now[chunk]).log_softmax(-1)
                loss -= float(tuned.gather(1, batch.labels[chunk, None]).sum())
                divergence -= float(tuned.sub_(base).mul_(base.exp_()).sum())  # in place: two models' logits are large
            tokens += len(batch.labels)
    return Forgotten(divergence / tokens, perplexity_of(loss / tokens))


def _states(model: AdaptedModel, batch: MicroBatch) -> Tensor:
    return model.states_of(batch).flatten(0, 1).index_select(0, batch.positions)
