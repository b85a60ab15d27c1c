"""EVA initialisation: A starts with the directions in which a layer's inputs vary most."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.data import Plan
from trainer.lora_start import Layer, lora_layers
from trainer.micro_batch import MicroBatch
from trainer.model import AdaptedModel, eval_mode

STEPS = 8  # windows of rows whose activations are used
PASS_TOKENS = 1024  # fixed, so that the result does not depend on a machine's memory
OVERSAMPLING = 2  # directions kept between passes, as a multiple of the rank


def start_from_data(model: AdaptedModel, plan: Plan, *, before_pass: Callable[[int, int], None]) -> None:
    """Initialise every A by EVA (Paischer et al. 2024, arxiv.org/abs/2410.07170) at its given rank; B stays zero.

    A's rows become the right singular vectors of the layer's inputs at trained tokens, in the first windows of the run.
    The SVD is incremental: after each pass the singular vectors so far, scaled by their singular values, are decomposed
    together with the new inputs. `before_pass` is given the pass's number and how many there are; it may raise.
    """
    directions: dict[str, Tensor] = {}
    current: list[MicroBatch] = []
    layers = list(lora_layers(model.peft))
    windows = [plan.window(step) for step in range(min(STEPS, plan.steps))]
    passes = [batch for window in windows for batch in model.passes(window, PASS_TOKENS)]
    hooks = [one.module.register_forward_pre_hook(_update(one, directions, current)) for one in layers]
    try:
        with eval_mode(model.peft):
            for number, batch in enumerate(passes, start=1):
                before_pass(number, len(passes))
                current[:] = [batch.to(model.device.place)]
                model.states_of(current[0])
    finally:
        for hook in hooks:
            hook.remove()
    for layer in layers:
        if layer.path in directions:  # an expert that no token reached keeps its random A
            rows = torch.nn.functional.normalize(directions[layer.path][: layer.a.shape[0]], dim=1)
            layer.a.data[: len(rows)] = rows.to(layer.a)


def _update(
    layer: Layer, directions: dict[str, Tensor], current: list[MicroBatch]
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A forward hook that updates `layer`'s directions with the inputs of the `current` pass."""

    def hook(_module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs = args[0].flatten(0, -2).float()
        if len(inputs) == current[0].ids.numel():  # an expert gets only its own tokens, reordered
            inputs = inputs[current[0].positions]
        if len(inputs):
            earlier = [directions[layer.path]] if layer.path in directions else []
            _, values, right = torch.linalg.svd(torch.cat([*earlier, inputs]), full_matrices=False)
            kept = OVERSAMPLING * layer.a.shape[0]
            directions[layer.path] = values[:kept, None] * right[:kept]

    return hook
