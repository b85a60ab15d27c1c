"""Data-parallel training, one process per GPU: how rows are split, and the collectives between processes."""

import heapq
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import Store, TCPStore  # type: ignore[attr-defined] # public, and left out of __all__

from trainer.errors import TrainerError
from trainer.events import Checkpoint, Emit, Event
from trainer.process import STORE_FD

TIMEOUT = timedelta(hours=2)  # the others wait while one evaluates or writes files


class HasLength(Protocol):
    @property
    def length(self) -> int: ...


Item = TypeVar("Item", bound=HasLength)
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One of `world_size` data-parallel processes. The main process, rank 0, reports and writes files.

    Every method but `share` is a collective: all processes must call it, in the same order. When one is missing, the
    error that torch raises in the others is recognised by `failures.is_lost_peer`.
    """

    rank: int = 0
    world_size: int = 1

    @property
    def is_alone(self) -> bool:
        return self.world_size == 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def share(self, rows: Sequence[Item]) -> list[Item]:
        """This process's rows of a window, split so that all processes have nearly the same number of tokens.

        Longest first, each row to the process with the fewest tokens so far (Graham 1969, doi.org/10.1137/0117039).
        """
        if self.is_alone:
            return list(rows)
        loads = [(0, rank) for rank in range(self.world_size)]
        mine = []
        for row in sorted(rows, key=lambda row: row.length, reverse=True):
            load, rank = loads[0]
            heapq.heapreplace(loads, (load + row.length, rank))
            if rank == self.rank:
                mine.append(row)
        return mine

    def broadcast(self, tensor: Tensor) -> bool:
        """Overwrite `tensor` with the main process's values. Returns whether any process had different ones."""
        if self.is_alone:
            return False
        own = tensor.clone()
        dist.broadcast(tensor, 0)
        return self.any(flag=not torch.equal(own, tensor))

    def all_reduce(self, tensor: Tensor) -> None:
        """Sum `tensor` over all processes, in place."""
        if not self.is_alone:
            dist.all_reduce(tensor)

    def totals(self, *values: float) -> list[float]:
        """Each value summed over all processes."""
        if self.is_alone:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=_place())
        self.all_reduce(summed)
        totals: list[float] = summed.tolist()
        return totals

    def any(self, *, flag: bool) -> bool:
        """Whether the flag is set in at least one process."""
        return bool(self.totals(float(flag))[0]) if not self.is_alone else flag

    def main_process_first(self, work: Callable[[], T]) -> T:
        """Run `work` in the main process first, which may write files for all, and then in the others."""
        if not self.is_main:
            self.broadcast_object(None)
        result = work()
        if self.is_main:
            self.broadcast_object(None)
        return result

    def in_turn(self, work: Callable[[], T]) -> T:
        """Run `work` in one process after the other, when memory does not suffice for all at once."""
        results: list[T] = []
        for rank in range(self.world_size):
            if rank == self.rank:
                results.append(work())
            self.broadcast_object(None)
        return results[0]

    def minimum(self, number: int) -> int:
        """The smallest of all processes' numbers."""
        if self.is_alone:
            return number
        smallest = torch.tensor(number, device=_place())
        dist.all_reduce(smallest, dist.ReduceOp.MIN)
        return int(smallest)

    def broadcast_object(self, value: T) -> T:
        """The main process's value, in every process. With None this serves as a barrier."""
        if self.is_alone:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]


def _place() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def join_ranks() -> Ranks:
    """Join the process group of torchrun's environment, and select this process's GPU. Without it, train alone."""
    rank, of = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if of == 1:
        return Ranks()
    local = int(os.environ.get("LOCAL_RANK", rank))
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            text = f"The spec asks for {of} GPUs and this machine has {torch.cuda.device_count()}."
            raise TrainerError("user_config", text, "Lower model.gpus.")
        torch.cuda.set_device(local)
    if not dist.is_initialized():
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, timeout=TIMEOUT, store=_local_store(rank, of), rank=rank, world_size=of)
    return Ranks(rank, of)


def _local_store(rank: int, of: int) -> Store | None:
    """The store of processes that `launch` started. None: that of torchrun's environment, on all interfaces."""
    listening = os.environ.get(STORE_FD)
    if listening is None:
        return None
    own = int(listening) if rank == 0 else None
    port = int(os.environ["MASTER_PORT"])
    return TCPStore("127.0.0.1", port, of, is_master=rank == 0, timeout=TIMEOUT, master_listen_fd=own)


def leave_ranks(ranks: Ranks) -> None:
    """Wait for the other processes and leave the process group."""
    if not ranks.is_alone:
        ranks.broadcast_object(None)
        dist.destroy_process_group()


def only_checkpoints(emit: Emit) -> Emit:
    """`emit` for all but the main process: only checkpoints, which a failing one may write in the main one's place."""

    def report(event: Event) -> None:
        if isinstance(event, Checkpoint):
            emit(event)

    return report
