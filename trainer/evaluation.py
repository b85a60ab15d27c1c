"""Evaluation: loss and accuracy on held-out rows, and answers to probe prompts."""

import math
from collections.abc import Callable, Sequence

import torch
from transformers import DynamicCache, EncoderDecoderCache

from trainer.data import Trainable
from trainer.events import Evaluated, Sample
from trainer.loss import loss_and_correct
from trainer.model import AdaptedModel, eval_mode
from trainer.rank_sync import run_idle_passes
from trainer.ranks import Ranks
from trainer.rendering import Renderer

PROBE_TOKENS = 96
HIGHEST_EXPONENT = 80.0  # keeps the perplexity finite


def evaluate(
    model: AdaptedModel,
    ranks: Ranks,
    items: Sequence[Trainable],
    *,
    step: int,
    budget: int,
    before_pass: Callable[[int, int], None],
) -> Evaluated:
    """Evaluate on held-out rows in passes of at most `budget` tokens, split among the processes.

    `before_pass(number, of)` may raise to stop. The loss may be NaN or infinite.
    """
    total = correct = 0.0
    passes = model.passes(ranks.share(items), budget)
    with eval_mode(model.peft):
        for number, whole in enumerate(passes, start=1):
            before_pass(number, len(passes))
            batch = whole.to(model.device.place)
            loss, hits = loss_and_correct(model.states_of(batch), batch, model.head)
            total += float(loss)
            correct += int(hits)
        run_idle_passes(model, ranks, items, budget)
    total, correct = ranks.totals(total, correct)
    tokens = sum(item.trained_tokens for item in items)
    mean = total / tokens
    return Evaluated(step=step, loss=mean, perplexity=perplexity_of(mean), accuracy=correct / tokens, rows=len(items))


def perplexity_of(loss: float) -> float:
    """`loss`: mean, in nats per token."""
    return math.exp(min(loss, HIGHEST_EXPONENT))


def probe_ids(renderer: Renderer, prompt: str) -> list[int]:
    """The tokens that a probe prompt is given as: a conversation of one message."""
    return renderer.prompt_ids([{"role": "user", "content": prompt}])


def answer_probe(model: AdaptedModel, renderer: Renderer, prompt: str, *, step: int) -> Sample:
    """The model's greedy answer to a prompt, up to PROBE_TOKENS tokens."""
    ids = torch.tensor([probe_ids(renderer, prompt)], device=model.device.place)
    with eval_mode(model.peft):
        output = model.peft.generate(  # type: ignore[no-untyped-call]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=PROBE_TOKENS,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            synced_gpus=model.is_sharded,  # sharded layers are gathered from all processes: none may stop early
            eos_token_id=sorted(renderer.stop_ids) or None,
            pad_token_id=min(renderer.stop_ids, default=0),
            # A cache that grows: generate would size it by the number of encoder layers, not decoder layers.
            past_key_values=EncoderDecoderCache(DynamicCache(), DynamicCache()) if model.is_seq2seq else None,
        )
    completion = output[0, 1:] if model.is_seq2seq else output[0, ids.shape[1] :]
    return Sample(step=step, prompt=prompt, completion=renderer.decode(completion.tolist()))
