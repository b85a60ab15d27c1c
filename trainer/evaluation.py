"""What the model has learnt: loss and accuracy on held-out rows, and its answers to probe prompts."""

import math
from collections.abc import Callable, Sequence

import torch

from trainer.data import Item, micro_batches
from trainer.events import Evaluated, Sample
from trainer.loss import summed_hits, summed_loss
from trainer.model import AdaptedModel, undisturbed
from trainer.rendering import Renderer

PROBE_TOKENS = 96
HIGHEST_EXPONENT = 80.0  # a perplexity beyond e^80 says no more, and stays a number


def evaluate(
    model: AdaptedModel, items: Sequence[Item], *, step: int, budget: int, should_stop: Callable[[], bool]
) -> Evaluated | None:
    """Score held-out rows. None when it was asked to stop."""
    total, hits = 0.0, 0
    with undisturbed(model.peft):
        for whole in micro_batches(items, budget):
            if should_stop():
                return None
            batch = whole.to(model.device.place)
            hidden = model.hidden(batch.ids)
            total += float(summed_loss(hidden, batch, model.head))
            hits += summed_hits(hidden, batch, model.head)
    labels = sum(item.labels for item in items)
    loss = total / labels
    perplexity = math.exp(min(loss, HIGHEST_EXPONENT))
    return Evaluated(step=step, loss=loss, perplexity=perplexity, accuracy=hits / labels, rows=len(items))


def answer(model: AdaptedModel, renderer: Renderer, prompt: str, *, step: int) -> Sample:
    """The model's greedy answer to a prompt, cut short."""
    ids = torch.tensor([renderer.prompt_ids([{"role": "user", "content": prompt}])], device=model.device.place)
    with undisturbed(model.peft):
        made = model.peft.generate(  # type: ignore[no-untyped-call]
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=PROBE_TOKENS,
            do_sample=False,
            use_cache=True,
            eos_token_id=sorted(renderer.stop_ids) or None,
            pad_token_id=min(renderer.stop_ids, default=0),
        )
    return Sample(step=step, prompt=prompt, completion=renderer.decode(made[0, ids.shape[1] :].tolist()))
