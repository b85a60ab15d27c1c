"""Sharding of the frozen base over GPUs: each holds a shard of every weight, and layers are gathered while in use."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from bitsandbytes.autograd._functions import matmul
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from trainer.base_facts import inspect_folder
from trainer.device import Device
from trainer.estimate import Hardware, estimate
from trainer.ranks import Ranks
from trainer.spec import TrainSpec


def should_shard(spec: TrainSpec, base: Path, device: Device, ranks: Ranks) -> bool:
    """Whether to shard the base. The main process decides for all."""
    if ranks.is_alone or spec.model.shard == "never":
        return False
    return spec.model.shard == "always" or ranks.broadcast_object(not fits(spec, base, device))


def fits(spec: TrainSpec, base: Path, device: Device) -> bool:
    """Whether training with the whole base on this device is expected to fit into its free memory.

    Estimated for rows of `max_seq_length` tokens.
    """
    free = device.free_bytes()
    hardware = Hardware(device=device.place.type, memory_bytes=free, auto_dtype=device.dtype_name)
    whole = dataclasses.replace(spec, model=dataclasses.replace(spec.model, shard="never"))
    return estimate(whole, inspect_folder(base), rows=1, tokens=spec.data.max_seq_length, on=hardware).expected <= free


def mesh_of(device: Device, ranks: Ranks) -> DeviceMesh:
    """A one-dimensional device mesh of all processes. A collective call."""
    return init_device_mesh(device.place.type, (ranks.world_size,))


def shard(causal: Any, mesh: DeviceMesh, trainable: Sequence[nn.Parameter]) -> None:
    """Shard the frozen weights with FSDP2 (Zhao et al. 2023, arxiv.org/abs/2304.11277). Trainable ones are replicated.

    A layer is gathered for its forward and its backward pass alone; modules outside of layers (embeddings, final norm,
    head) stay gathered during a whole pass. Quantised weights are gathered in their quantised form.
    """
    quantized: list[Any] = [one for one in causal.modules() if isinstance(one, (Linear4bit, Linear8bitLt))]
    for module in quantized:
        if isinstance(module, Linear8bitLt):
            _make_int8_shardable(module, mesh)
        else:  # FSDP replaces the Params4bit by a plain parameter; bitsandbytes then looks for the state here
            module.quant_state = module.weight.quant_state
    ignored = set(trainable)
    for layer in _transformer_blocks(causal):
        fully_shard(layer, mesh=mesh, ignored_params=ignored, reshard_after_forward=True)
    fully_shard(causal, mesh=mesh, ignored_params=ignored)


def as_fsdp_forward(causal: Any, work: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let FSDP treat `work`, which calls parts of a sharded model, like the model's own forward."""
    causal.partial_pass = work
    register_fsdp_forward_method(causal, "partial_pass")

    def forward(*args: Any) -> Tensor:
        with ExitStack() as on_error:  # otherwise the next pass would continue in the middle of a failed one
            on_error.callback(causal.reset_iter_state)
            out: Tensor = causal.partial_pass(*args)
            on_error.pop_all()
        return out

    return forward


def _transformer_blocks(causal: Any) -> Iterator[nn.Module]:
    """The entries of the outermost module lists: any transformer's blocks, of the encoder too if there is one."""
    for child in causal.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _transformer_blocks(child)


def _make_int8_shardable(module: Any, mesh: DeviceMesh) -> None:
    """Keep int8 weights in the parameter alone: bitsandbytes' own reference to them is invisible to FSDP."""
    if module.weight.CB is not None:
        module.init_8bit_state()
    module.state.SCB = module.state.SCB.to(mesh.device_type)
    module.state.CB = None
    module.weight = nn.Parameter(module.weight.data, requires_grad=False)
    module.forward = partial(_int8_forward, module)


def _int8_forward(module: Linear8bitLt, x: Tensor) -> Tensor:
    module.state.is_training = module.training
    module.state.CB = module.weight.data  # as gathered now; FSDP refills the same storage for the backward pass
    out: Tensor = matmul(x, module.weight, bias=module.bias, state=module.state)
    return out
