"""What this machine computes with: the device, the number format it is fast in, and how much memory is left."""

import ctypes
import gc
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer.estimate import PROCESS_BYTES
from trainer.process import peak_memory

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
CUDA_BFLOAT16 = (8, 0)  # older GPUs emulate it, slower than float32
CGROUP = Path("/sys/fs/cgroup")  # what a container says of its own memory


@dataclass(frozen=True)
class Device:
    """One accelerator, or the processor."""

    place: torch.device
    dtype: torch.dtype

    @property
    def is_cuda(self) -> bool:
        return self.place.type == "cuda"

    def free_bytes(self) -> int:
        """Memory that this process could still take."""
        if self.is_cuda:
            free, _ = torch.cuda.mem_get_info(self.place)
            return free + torch.cuda.memory_reserved(self.place) - torch.cuda.memory_allocated(self.place)
        return _free_ram()

    def held_bytes(self) -> int:
        """What this process holds now; with `free_bytes` that is all it could ever have."""
        if self.is_cuda:  # the driver's context is no longer free, and torch does not count it
            return torch.cuda.memory_allocated(self.place) + round(PROCESS_BYTES["cuda"])
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
        except OSError:  # not Linux
            return self.peak_bytes()
        return pages * resource.getpagesize()

    def clock(self) -> float:
        """Seconds of a clock that never jumps, once the device has done what it was given."""
        if self.is_cuda:
            torch.cuda.synchronize(self.place)
        return time.perf_counter()

    def peak_bytes(self) -> int:
        """The most memory this process held so far, on the device it computes on; reading the base counts as well.

        On a GPU without the driver's context: only torch's own memory is counted at its height. An estimate is held to
        this without that item, see `trainer.estimate_memory.MemoryItem`.
        """
        if self.is_cuda:
            return torch.cuda.max_memory_reserved(self.place)
        return peak_memory()


def find_device(dtype: str = "auto") -> Device:
    """The first GPU or else the processor, with the wanted number format or the fastest sound one."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    return Device(device, DTYPES[dtype] if dtype != "auto" else _fast_dtype(device))


def _fast_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= CUDA_BFLOAT16
    else:
        fast = bool({"avx512_bf16", "amx_bf16"} & _processor_flags())
    return torch.bfloat16 if fast else torch.float32


def _processor_flags() -> set[str]:
    """What the processor can do, in Linux's words; empty where Linux does not say."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return next((set(line.split(":", 1)[1].split()) for line in lines if line.startswith("flags")), set())


def _free_ram() -> int:
    """Available memory of the machine, or what its container may still take where that is less."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except OSError:  # not Linux: half of all memory is a fair guess
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text()) - _seldom_read_files()
    except (OSError, ValueError):
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - used))


def _seldom_read_files() -> int:
    """Bytes of files that Linux keeps at hand for the container and gives up for whoever needs the memory."""
    lines = (CGROUP / "memory.stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def release_memory() -> None:
    """Return memory that only loading needed to the system; 0.3 GB for the demo model."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):  # glibc has it
        library.malloc_trim(0)
