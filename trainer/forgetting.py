"""What a model forgets while it learns: how far it has moved away from its base on general text."""

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
PARAGRAPH_TOKENS = 64  # a paragraph is cut here: some tokenizers would make a long way of it
TOKENS_AT_ONCE = 256  # always the same, so that an attempt on a smaller machine measures the same; few, so that it can

BeforePass = Callable[[int, int], None]


@dataclass(frozen=True)
class GeneralText:
    """Short paragraphs about everything, as passes, with the base model's hidden states where a token is predicted.

    The states are a hundredth of the scores they stand for, so the base goes through its layers only once in a run.
    """

    passes: list[MicroBatch]
    states: list[Tensor]
    head: Head


@dataclass(frozen=True)
class Forgotten:
    """kl: mean over all tokens of KL(base ‖ model), in nats; 0 for the base itself. perplexity: the model's own."""

    kl: float
    perplexity: float


def read_general_text(model: AdaptedModel, renderer: Renderer) -> GeneralText:
    """Prepare the measure with a model whose adapter is fresh: it still scores as its base does."""
    items = []
    for paragraph in TEXT.read_text(encoding="utf-8").split("\n\n"):
        seen = renderer.general_example(paragraph.strip(), longest=PARAGRAPH_TOKENS)
        items.append(Item(array("i", seen.ids), bytes(seen.trained), seen.source))
    passes = [one.to(model.device.place) for one in model.passes(items, TOKENS_AT_ONCE)]
    with eval_mode(model.peft):
        return GeneralText(passes, [_states(model, one) for one in passes], model.head.frozen_copy())


def measure_forgetting(model: AdaptedModel, text: GeneralText, *, before_pass: BeforePass) -> Forgotten:
    """Compare the model with its base, token by token. `before_pass(number, of)` may end it by raising.

    The direction is that of Shenfeld et al. 2025 (arxiv.org/abs/2509.04259), who measured it on the new task's text:
    it grows where the base was sure of something that the model no longer says.
    """
    divergence, loss, tokens = 0.0, 0.0, 0
    with eval_mode(model.peft):
        for number, (batch, before) in enumerate(zip(text.passes, text.states, strict=True), start=1):
            before_pass(number, len(text.passes))
            now = _states(model, batch)
            size = model.head.chunk_size()
            for start in range(0, len(batch.labels), size):
                chunk = slice(start, start + size)
                was = text.head.logits(before[chunk]).log_softmax(-1)
                scores = model.head.logits(now[chunk]).log_softmax(-1)
                loss -= float(scores.gather(1, batch.labels[chunk, None]).sum())
                divergence += float(((was - scores) * was.exp()).sum())
            tokens += len(batch.labels)
    return Forgotten(divergence / tokens, perplexity_of(loss / tokens))


def _states(model: AdaptedModel, batch: MicroBatch) -> Tensor:
    return model.states_of(batch).flatten(0, 1).index_select(0, batch.positions)
