"""A frozen base that lies in parts on several GPUs: each process keeps a share of every weight, and all put a layer
together while it is used."""

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
from torch.distributed.tensor import DTensor

from trainer.base_facts import inspect_folder
from trainer.device import Device
from trainer.estimate import Hardware, estimate
from trainer.ranks import Ranks
from trainer.spec import TrainSpec


def should_shard(spec: TrainSpec, base: Path, device: Device, ranks: Ranks) -> bool:
    """Whether the processes share the base out; the first one's view holds for all."""
    if ranks.is_alone or spec.model.shard == "never":
        return False
    return spec.model.shard == "always" or ranks.broadcast_object(not fits(spec, base, device))


def fits(spec: TrainSpec, base: Path, device: Device) -> bool:
    """Whether a training of these rows' length is to be expected in the device's free memory, with the whole base."""
    free = device.free_bytes()
    hardware = Hardware(device=device.place.type, memory_bytes=free)
    whole = dataclasses.replace(spec, model=dataclasses.replace(spec.model, shard="never"))
    return estimate(whole, inspect_folder(base), rows=1, tokens=spec.data.max_seq_length, on=hardware).expected <= free


def mesh_of(device: Device, ranks: Ranks) -> DeviceMesh:
    """The processes as FSDP wants them. All must come to it."""
    return init_device_mesh(device.place.type, (ranks.world_size,))


def shard(causal: Any, mesh: DeviceMesh, learning: Sequence[nn.Parameter]) -> None:
    """Keep this process's share of each frozen weight, and let go of the rest (FSDP2, Zhao et al. 2023,
    arxiv.org/abs/2304.11277). What learns stays whole everywhere.

    A layer is whole only while it computes, forwards and backwards; what is outside of layers (embeddings, last norm,
    head) from the beginning of a pass to its end. Packed weights travel packed.
    """
    packed: list[Any] = [one for one in causal.modules() if isinstance(one, (Linear4bit, Linear8bitLt))]
    for module in packed:
        if isinstance(module, Linear8bitLt):
            _let_travel(module, mesh)
        else:  # where it is found once the parameter comes back as a plain one
            module.quant_state = module.weight.quant_state
    ignored = set(learning)
    for layer in _layers(causal):
        fully_shard(layer, mesh=mesh, ignored_params=ignored, reshard_after_forward=True)
    fully_shard(causal, mesh=mesh, ignored_params=ignored)


def as_fsdp_forward(causal: Any, work: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`work` on parts of a sharded model, taken by FSDP for a pass of the whole."""
    causal.partial_pass = work
    register_fsdp_forward_method(causal, "partial_pass")

    def whole_pass(*given: Any) -> Tensor:
        with ExitStack() as undo:  # when it fails: else the next pass would go on in the middle of this one
            undo.callback(causal.reset_iter_state)
            found: Tensor = causal.partial_pass(*given)
            undo.pop_all()
        return found

    return whole_pass


def local_bytes(model: nn.Module) -> int:
    """What the parameters of a model take in this process."""
    local = [one.to_local() if isinstance(one, DTensor) else one for one in model.parameters()]
    return sum(one.numel() * one.element_size() for one in local)


def _layers(causal: Any) -> Iterator[nn.Module]:
    """The outermost entries of lists: the blocks of any transformer, on both sides where there are two."""
    for child in causal.children():
        if isinstance(child, nn.ModuleList):
            yield from child
        else:
            yield from _layers(child)


def _let_travel(module: Any, mesh: DeviceMesh) -> None:
    """bitsandbytes keeps int8 weights beside the parameter too, where FSDP does not see them: let it have one place."""
    if module.weight.CB is not None:
        module.init_8bit_state()
    module.state.SCB = module.state.SCB.to(mesh.device_type)
    module.state.CB = None
    module.weight = nn.Parameter(module.weight.data, requires_grad=False)
    module.forward = partial(_int8_product, module)


def _int8_product(module: Linear8bitLt, x: Tensor) -> Tensor:
    module.state.is_training = module.training
    module.state.CB = module.weight.data  # where it lies now; its storage is filled again on the way back
    made: Tensor = matmul(x, module.weight, bias=module.bias, state=module.state)
    return made
