"""Starts updates from the data: A holds the directions in which the inputs of its layer vary most."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.data import Plan
from trainer.lora_start import Layer, lora_layers
from trainer.micro_batch import MicroBatch
from trainer.model import AdaptedModel, eval_mode

STEPS = 8  # windows of rows that are looked at
TOKENS_AT_ONCE = 1024  # always the same, so that every machine starts alike
SPARE = 2  # directions kept in between, as a multiple of the rank


def start_from_data(model: AdaptedModel, plan: Plan, *, before_pass: Callable[[], None]) -> None:
    """EVA (Paischer et al. 2024, arxiv.org/abs/2410.07170) with the asked rank in every layer; B stays zero.

    The right singular vectors of each layer's inputs, at the places where a token is learnt, in the first windows of
    the run. They are followed pass by pass: what was found, weighted by its singular values, and the new inputs are
    taken apart together. `before_pass` may end it by raising.
    """
    found: dict[str, Tensor] = {}
    seen: list[MicroBatch] = []
    layers = list(lora_layers(model.peft))
    hooks = [one.module.register_forward_pre_hook(_follow(one, found, seen)) for one in layers]
    try:
        with eval_mode(model.peft):
            for step in range(min(STEPS, plan.steps)):
                for batch in model.passes(plan.window(step), TOKENS_AT_ONCE):
                    before_pass()
                    seen[:] = [batch.to(model.device.place)]
                    model.states_of(seen[0])
    finally:
        for hook in hooks:
            hook.remove()
    for layer in layers:
        if layer.path in found:  # an expert that no token reached keeps its plain start
            directions = torch.nn.functional.normalize(found[layer.path][: layer.a.shape[0]], dim=1)
            layer.a.data[: len(directions)] = directions.to(layer.a)


def _follow(
    layer: Layer, found: dict[str, Tensor], seen: list[MicroBatch]
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    def look(_module: nn.Module, given: tuple[Any, ...]) -> None:
        inputs = given[0].flatten(0, -2).float()
        if len(inputs) == seen[0].ids.numel():  # an expert gets its own tokens alone, in an order of their own
            inputs = inputs[seen[0].positions]
        if len(inputs):
            known = [found[layer.path]] if layer.path in found else []
            _, values, right = torch.linalg.svd(torch.cat([*known, inputs]), full_matrices=False)
            kept = SPARE * layer.a.shape[0]
            found[layer.path] = values[:kept, None] * right[:kept]

    return look
