"""Processes that train together, one a GPU: who takes which rows, and what they add up or agree on."""

import heapq
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.errors import TrainerError
from trainer.events import Checkpoint, Emit, Event

TIMEOUT = timedelta(hours=2)  # one may still measure or write while the others wait for it


class HasLength(Protocol):
    @property
    def length(self) -> int: ...


Item = TypeVar("Item", bound=HasLength)
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One of `of` processes that hold the same weights; `rank` counts from 0. The first one reports and writes files.

    Every method but `share` is a meeting: all processes must come to it, in the same order. What torch raises where one
    does not come goes up to `failures.is_lost_peer`.
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
        """This process's rows of a window: as many tokens as any other's, nearly, and each row with one process.

        The longest first, each to the one with the least so far (Graham 1969, doi.org/10.1137/0117039).
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
        """Put the first one's values in place of each one's. Whether they were other ones in any process."""
        if self.is_alone:
            return False
        own = tensor.clone()
        dist.broadcast(tensor, 0)
        return self.any(flag=not torch.equal(own, tensor))

    def all_reduce(self, tensor: Tensor) -> None:
        """Put the sum over all processes in place of each one's values."""
        if not self.is_alone:
            dist.all_reduce(tensor)

    def totals(self, *values: float) -> list[float]:
        """The sum over all processes of each value."""
        if self.is_alone:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=_place())
        self.all_reduce(summed)
        found: list[float] = summed.tolist()
        return found

    def any(self, *, flag: bool) -> bool:
        """Whether one of them wishes it."""
        return bool(self.totals(float(flag))[0]) if not self.is_alone else flag

    def main_process_first(self, work: Callable[[], T]) -> T:
        """What `work` gives, begun by the others once the first one is done with it: it may write files for all."""
        if not self.is_main:
            self.broadcast_object(None)
        found = work()
        if self.is_main:
            self.broadcast_object(None)
        return found

    def in_turn(self, work: Callable[[], T]) -> T:
        """What `work` gives, one process after the other: it may need more memory than there is for all at once."""
        found: list[T] = []
        for rank in range(self.world_size):
            if rank == self.rank:
                found.append(work())
            self.broadcast_object(None)
        return found[0]

    def minimum(self, number: int) -> int:
        """The smallest of their numbers."""
        if self.is_alone:
            return number
        smallest = torch.tensor(number, device=_place())
        dist.all_reduce(smallest, dist.ReduceOp.MIN)
        return int(smallest)

    def broadcast_object(self, value: T) -> T:
        """The first one's value, for all."""
        if self.is_alone:
            return value
        box = [value]
        dist.broadcast_object_list(box, 0)
        return box[0]


def _place() -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")


def join_ranks() -> Ranks:
    """Meet the processes that torchrun started beside this one; alone without it. Takes this process's own GPU."""
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
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    return Ranks(rank, of)


def leave_ranks(ranks: Ranks) -> None:
    """Wait for the others and part."""
    if not ranks.is_alone:
        ranks.broadcast_object(None)
        dist.destroy_process_group()


def only_checkpoints(emit: Emit) -> Emit:
    """How all but the first process report: nothing but a checkpoint that one left in the first one's place."""

    def report(event: Event) -> None:
        if isinstance(event, Checkpoint):
            emit(event)

    return report
