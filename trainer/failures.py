"""From whatever was raised to a failure with a name; an unknown one becomes an internal error with a reference."""

import errno
import functools
import os
import resource
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar
from uuid import uuid4

from trainer.errors import TrainerError
from trainer.events import Failed

T = TypeVar("T")

OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "cannot allocate memory",
    "cublas_status_alloc_failed",
)
MAY_REPORT = "LOWRANK_MAY_TELL_FAILURE"  # a file descriptor, for processes that train together
# Of gloo, of NCCL, and of torch's own store. Whatever else they say is a failure of this process itself.
LOST_PEER = ("closed by peer", "reset by peer", "broken pipe", "remote process exit", "distnetworkerror")
DISK_FULL = ("no space left", "disk quota exceeded", "os error 28", "os error 122")
MEMORY_FIX = (
    "Lower data.max_seq_length or optim.micro_batch_tokens, turn on optim.gradient_checkpointing, "
    "use nf4, or choose a smaller base model."
)


def to_trainer_error(error: BaseException) -> TrainerError:
    """The failure to report. An unknown one is written to stderr in full, under the reference the person sees."""
    if isinstance(error, TrainerError):
        return error
    if is_out_of_memory(error):
        return out_of_memory()
    if _is_disk_full(error):
        return _disk_full(error)
    reference = uuid4().hex[:8]
    sys.stderr.write(f"internal error {reference}\n{''.join(traceback.format_exception(error))}")
    return TrainerError(
        "internal",
        f"The trainer failed unexpectedly ({type(error).__name__}, reference {reference}).",
        "The log holds the details under this reference.",
    )


def as_event(error: TrainerError) -> Failed:
    return Failed(code=error.code, text=error.text, fix=error.fix)


def out_of_memory(where: str = "") -> TrainerError:
    text = f"The machine ran out of memory{where}; the trainer held {_peak_bytes() / 1e9:.1f} GB at its peak."
    return TrainerError("out_of_memory", text, MEMORY_FIX)


def is_out_of_memory(error: BaseException) -> bool:
    """torch's own error is told by its name, for this module must not import torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)


def retry_on_oom(work: Callable[[], T], *, make_room: Callable[[], None], failure: Callable[[], TrainerError]) -> T:
    """Call `work`; if it runs out of memory, call `make_room` and try once more. Then raise `failure()`."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:  # torch's own is a RuntimeError
        if not is_out_of_memory(error):
            raise
    make_room()  # not before: the error holds on to all tensors of the failed pass
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    raise failure()


def is_lost_peer(error: BaseException) -> bool:
    """Whether a process that works with others missed one of them: that one said why it went, or was killed.

    What it missed is written to stderr, for the case that none of them says why.
    """
    if "RANK" not in os.environ or not isinstance(error, RuntimeError):
        return False
    said = f"{type(error).__name__}: {error}"
    is_lost = any(words in said.lower() for words in LOST_PEER)
    if is_lost:
        sys.stderr.write(f"process {os.environ['RANK']} lost another: {said}\n")
    return is_lost


def may_report() -> bool:
    """Whether this process may tell why it failed: of those that train together, whoever is first to take the byte.

    What is wrong with a spec, a file or a base model, every one of them finds. Who may, may always.
    """
    pipe = os.environ.get(MAY_REPORT)
    return pipe is None or _took_byte(int(pipe))


@functools.cache
def _took_byte(pipe: int) -> bool:
    return bool(os.read(pipe, 1))


def _disk_full(error: BaseException) -> TrainerError:
    at = getattr(error, "filename", None)
    fix = "Free some space and run it again; a training goes on from its last checkpoint with --resume."
    return TrainerError("disk_full", f"The disk is full{f' at {at}' if at else ''}.", fix)


def _is_disk_full(error: BaseException) -> bool:
    """safetensors and pyarrow wrap the system's error in one of their own, so its text tells too."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error).lower() for words in DISK_FULL)


def _peak_bytes() -> int:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
