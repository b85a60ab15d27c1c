"""Processes that train together, one a GPU: who takes which rows, and what they add up or agree on."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from trainer.errors import Stopped, TrainerError
from trainer.events import Event

PATIENCE = timedelta(hours=2)  # one may still measure or write while the others wait for it


class HasLength(Protocol):
    @property
    def length(self) -> int: ...


Item = TypeVar("Item", bound=HasLength)
T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """One of `of` processes that hold the same weights; `rank` counts from 0. The first one reports and writes files.

    Every method but `share` is a meeting: all processes must come to it, in the same order.
    """

    rank: int = 0
    of: int = 1

    @property
    def is_alone(self) -> bool:
        return self.of == 1

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, rows: Sequence[Item]) -> list[Item]:
        """This process's rows of a window: as many tokens as any other's, nearly, and each row with one process."""
        if self.is_alone:
            return list(rows)
        return sorted(rows, key=lambda row: row.length)[self.rank :: self.of]

    def add_up(self, tensor: Tensor) -> None:
        """Put the sum over all processes in place of each one's values."""
        if not self.is_alone:
            _meet(dist.all_reduce, tensor)

    def totals(self, *values: float) -> list[float]:
        """The sum over all processes of each value."""
        if self.is_alone:
            return list(values)
        summed = torch.tensor(values, dtype=torch.float64, device=_place())
        self.add_up(summed)
        found: list[float] = summed.tolist()
        return found

    def any(self, *, wish: bool) -> bool:
        """Whether one of them wishes it."""
        return bool(self.totals(float(wish))[0]) if not self.is_alone else wish

    def first_one_first(self, work: Callable[[], T]) -> T:
        """What `work` gives, begun by the others once the first one is done with it: it may write files for all."""
        if not self.is_first:
            self.agree(None)
        found = work()
        if self.is_first:
            self.agree(None)
        return found

    def in_turn(self, work: Callable[[], T]) -> T:
        """What `work` gives, one process after the other: it may need more memory than there is for all at once."""
        found: list[T] = []
        for rank in range(self.of):
            if rank == self.rank:
                found.append(work())
            self.agree(None)
        return found[0]

    def least(self, number: int) -> int:
        """The smallest of their numbers."""
        if self.is_alone:
            return number
        smallest = torch.tensor(number, device=_place())
        _meet(dist.all_reduce, smallest, dist.ReduceOp.MIN)
        return int(smallest)

    def agree(self, value: T) -> T:
        """The first one's value, for all."""
        if self.is_alone:
            return value
        box = [value]
        _meet(dist.broadcast_object_list, box, 0)
        return box[0]


def _meet(meeting: object, *arguments: object) -> None:
    """A process whose peer has gone has nothing left to say: the peer said why, or was killed."""
    try:
        meeting(*arguments)  # type: ignore[operator]
    except RuntimeError as error:
        raise Stopped from error


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
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)
    return Ranks(rank, of)


def leave_ranks(ranks: Ranks) -> None:
    """Wait for the others and part."""
    if not ranks.is_alone:
        ranks.agree(None)
        dist.destroy_process_group()


def say_nothing(event: Event) -> None:
    """What all but the first process report."""
