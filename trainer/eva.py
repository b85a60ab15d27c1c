"""EVA initialisation from the data: the rows of A are the top right singular vectors of its layer's inputs."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from trainer.data import Plan
from trainer.lora_start import Layer, lora_layers
from trainer.micro_batch import MicroBatch
from trainer.model import AdaptedModel, eval_mode

STEPS = 8  # windows whose inputs are used
PASS_TOKENS = 1024  # fixed, so that the result does not depend on the machine's memory
OVERSAMPLING = 2  # singular vectors kept between passes, as a multiple of the rank


def start_from_data(model: AdaptedModel, plan: Plan, *, before_pass: Callable[[], None]) -> None:
    """EVA (Paischer et al. 2024, arxiv.org/abs/2410.07170) without rank redistribution; B stays zero.

    Uses each layer's inputs at the positions of trained tokens, in the first windows of the run. The SVD is
    incremental: each pass decomposes the vectors found so far, times their singular values, together with its inputs.
    `before_pass` may stop it by raising.
    """
    components: dict[str, Tensor] = {}  # singular vectors times singular values, by layer. (vectors, in)
    current: list[MicroBatch] = []
    layers = list(lora_layers(model.peft))
    hooks = [one.module.register_forward_pre_hook(_update_hook(one, components, current)) for one in layers]
    try:
        with eval_mode(model.peft):
            for step in range(min(STEPS, plan.steps)):
                for batch in model.passes(plan.window(step), PASS_TOKENS):
                    before_pass()
                    current[:] = [batch.to(model.device.place)]
                    model.states_of(current[0])
    finally:
        for hook in hooks:
            hook.remove()
    for layer in layers:
        if layer.path in components:  # an expert that got no token keeps its default initialisation
            vectors = torch.nn.functional.normalize(components[layer.path][: layer.a.shape[0]], dim=1)
            layer.a.data[: len(vectors)] = vectors.to(layer.a)


def _update_hook(
    layer: Layer, components: dict[str, Tensor], current: list[MicroBatch]
) -> Callable[[nn.Module, tuple[Any, ...]], None]:
    """A forward pre-hook that adds the inputs of a pass to the layer's components."""

    def update(_module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs = args[0].flatten(0, -2).float()
        if len(inputs) == current[0].ids.numel():  # not so for an expert, which gets only the tokens routed to it
            inputs = inputs[current[0].positions]
        if len(inputs):
            previous = [components[layer.path]] if layer.path in components else []
            _, values, right = torch.linalg.svd(torch.cat([*previous, inputs]), full_matrices=False)
            kept = OVERSAMPLING * layer.a.shape[0]
            components[layer.path] = values[:kept, None] * right[:kept]

    return update
