"""What the model has learnt: loss and accuracy on held-out rows, and its answers to probe prompts."""

import math
from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache, EncoderDecoderCache

from trainer.data import Trainable
from trainer.errors import TrainerError
from trainer.events import Evaluated, Sample
from trainer.loss import loss_and_correct
from trainer.model import AdaptedModel, eval_mode
from trainer.pacing import run_idle_passes
from trainer.ranks import Ranks
from trainer.rendering import Renderer

PROBE_TOKENS = 96
HIGHEST_EXPONENT = 80.0  # a perplexity beyond e^80 says no more, and stays a number


def evaluate(
    model: AdaptedModel,
    ranks: Ranks,
    items: Sequence[Trainable],
    *,
    step: int,
    budget: int,
    before_pass: Callable[[int, int], None],
) -> Evaluated:
    """Score held-out rows in passes of at most `budget` tokens, each process its share.

    `before_pass(number, of)` may end it by raising. Raises TrainerError(diverged) when the loss is no number.
    """
    total = hits = 0.0
    passes = model.passes(ranks.share(items), budget)
    with eval_mode(model.peft):
        for number, whole in enumerate(passes, start=1):
            before_pass(number, len(passes))
            batch = whole.to(model.device.place)
            loss, right = loss_and_correct(model.states_of(batch), batch, model.head)
            total += float(loss)
            hits += int(right)
        run_idle_passes(model, ranks, items, budget)
    total, hits = ranks.totals(total, hits)
    labels = sum(item.trained_tokens for item in items)
    mean = require_finite(total / labels, step)
    return Evaluated(step=step, loss=mean, perplexity=perplexity_of(mean), accuracy=hits / labels, rows=len(items))


def perplexity_of(loss: float) -> float:
    """Of a mean loss in nats per token."""
    return math.exp(min(loss, HIGHEST_EXPONENT))


def require_finite(loss: float, step: int) -> float:
    """The loss on held-out rows. Raises TrainerError(diverged) when it is no number."""
    if not math.isfinite(loss):
        raise TrainerError(
            "diverged",
            f"Training diverged by step {step}: the loss on held-out rows is no longer a finite number.",
            "Use a lower learning rate or a longer warm-up, and look for odd rows in the dataset.",
        )
    return loss


def answer_probe(model: AdaptedModel, renderer: Renderer, prompt: str, *, step: int) -> Sample:
    """The model's greedy answer to a prompt, cut short."""
    ids = torch.tensor([renderer.prompt_ids([{"role": "user", "content": prompt}])], device=model.device.place)
    with eval_mode(model.peft):
        made = model.peft.generate(  # type: ignore[no-untyped-call]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=PROBE_TOKENS,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            synced_gpus=model.is_sharded,  # no process may end before the others: all put each layer together
            eos_token_id=sorted(renderer.stop_ids) or None,
            pad_token_id=min(renderer.stop_ids, default=0),
            # One that grows by itself: generate counts the encoder's layers where it needs the decoder's.
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()) if model.is_seq2seq else None,
        )
    answered = made[0, 1:] if model.is_seq2seq else made[0, ids.shape[1] :]
    return Sample(step=step, prompt=prompt, completion=renderer.decode(answered.tolist()))
