"""Maps any exception to a TrainerError; an unknown one becomes an internal error with a reference."""

import errno
import functools
import os
import sys
import traceback
from collections.abc import Callable
from typing import TypeVar
from uuid import uuid4

from trainer.errors import TrainerError
from trainer.events import Failed
from trainer.process import peak_memory

T = TypeVar("T")

OOM_MESSAGES = (
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "cannot allocate memory",
    "cublas_status_alloc_failed",
)
MAY_REPORT = "LOWRANK_MAY_REPORT"  # a file descriptor, set if several processes train together
# Messages of gloo, NCCL and torch's store about a lost peer. Any other error is this process's own failure.
LOST_PEER_MESSAGES = ("closed by peer", "reset by peer", "broken pipe", "remote process exit", "distnetworkerror")
DISK_FULL_MESSAGES = ("no space left", "disk quota exceeded", "os error 28", "os error 122")
MEMORY_FIX = (
    "Lower data.max_seq_length or optim.micro_batch_tokens, turn on optim.gradient_checkpointing, "
    "use nf4, or choose a smaller base model."
)


def to_trainer_error(error: BaseException) -> TrainerError:
    """The failure to report. An unknown error's traceback goes to stderr, under the reference shown to the user."""
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
    """The error to raise. `where` follows "ran out of memory", and begins with a space."""
    text = f"The machine ran out of memory{where}; the trainer held {_peak_bytes() / 1e9:.1f} GB at its peak."
    return TrainerError("out_of_memory", text, MEMORY_FIX)


def is_out_of_memory(error: BaseException) -> bool:
    """torch's error class is recognised by its name, as this module must not import torch."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in OOM_MESSAGES)


def retry_on_oom(work: Callable[[], T], *, make_room: Callable[[], None], failure: Callable[[], TrainerError]) -> T:
    """Call `work`; if it runs out of memory, call `make_room` and try once more. Then raise `failure()`."""
    try:
        return work()
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not is_out_of_memory(error):
            raise
    make_room()  # outside the except block: the exception keeps all tensors of the failed pass alive
    try:
        return work()
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
    raise failure()


def is_lost_peer(error: BaseException) -> bool:
    """Whether this error only means that another training process is gone, which reported why or was killed.

    The error is written to stderr in case none of them reports why.
    """
    if "RANK" not in os.environ or not isinstance(error, RuntimeError):
        return False
    text = f"{type(error).__name__}: {error}"
    is_lost = any(words in text.lower() for words in LOST_PEER_MESSAGES)
    if is_lost:
        sys.stderr.write(f"process {os.environ['RANK']} lost another: {text}\n")
    return is_lost


def may_report() -> bool:
    """Whether this process may report its failure: of several, only the first to take the byte from the pipe.

    All processes would find the same problem in a spec, a file or a base model. The answer never changes.
    """
    pipe = os.environ.get(MAY_REPORT)
    return pipe is None or _took_byte(int(pipe))


@functools.cache
def _took_byte(pipe: int) -> bool:
    return bool(os.read(pipe, 1))


def _disk_full(error: BaseException) -> TrainerError:
    path = getattr(error, "filename2", None) or getattr(error, "filename", None)  # of a copy the first is its source
    fix = "Free some space and run it again; --resume continues a run from its last checkpoint."
    return TrainerError("disk_full", f"The disk is full{f' at {path}' if path else ''}.", fix)


def _is_disk_full(error: BaseException) -> bool:
    """safetensors and pyarrow wrap the system error in one of their own, so its text is checked as well."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return True
    return any(words in str(error).lower() for words in DISK_FULL_MESSAGES)


def _peak_bytes() -> int:
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved())
    return peak_memory()
