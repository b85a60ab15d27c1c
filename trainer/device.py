"""The device to compute on, the dtype it is fast in, and its free memory."""

import ctypes
import gc
import os
import resource
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from trainer import auto_dtype
from trainer.estimate import PROCESS_BYTES
from trainer.process import peak_memory
from trainer.spec import Dtype

DTYPES: dict[Dtype, torch.dtype] = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}
CGROUP = Path("/sys/fs/cgroup")  # a container's memory limits


@dataclass(frozen=True)
class Device:
    """A GPU or the CPU, and the dtype to compute in."""

    place: torch.device
    dtype: torch.dtype

    @property
    def is_cuda(self) -> bool:
        return self.place.type == "cuda"

    @property
    def dtype_name(self) -> Dtype:
        """As in `model.dtype`."""
        return next(name for name, dtype in DTYPES.items() if dtype == self.dtype)

    def free_bytes(self) -> int:
        """Memory that this process could still take."""
        if self.is_cuda:
            free, _ = torch.cuda.mem_get_info(self.place)
            return free + torch.cuda.memory_reserved(self.place) - torch.cuda.memory_allocated(self.place)
        return _free_ram()

    def held_bytes(self) -> int:
        """Memory of this process now. The sum with `free_bytes` is all it could ever have."""
        if self.is_cuda:  # torch does not count the CUDA context
            return torch.cuda.memory_allocated(self.place) + round(PROCESS_BYTES["cuda"])
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
        except OSError:  # not Linux
            return self.peak_bytes()
        return pages * resource.getpagesize()

    def clock(self) -> float:
        """Seconds of a monotonic clock, after waiting for the device to finish its queued work."""
        if self.is_cuda:
            torch.cuda.synchronize(self.place)
        return time.perf_counter()

    def peak_bytes(self) -> int:
        """This process's peak memory so far on the device, loading the base included.

        On a GPU this leaves out the CUDA context, because only torch's own memory has a peak. Estimates are compared
        with it without that item, see `trainer.estimate_memory.MemoryItem`.
        """
        if self.is_cuda:
            return torch.cuda.max_memory_reserved(self.place)
        return peak_memory()


def find_device(dtype: Dtype = "auto") -> Device:
    """This process's GPU, or the CPU if there is none. `auto`: bfloat16 where it is fast, else float32."""
    device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
    if dtype == "auto" and device.type == "cuda":
        dtype = auto_dtype.on_gpu(torch.cuda.get_device_capability(device))
    return Device(device, DTYPES[auto_dtype.on_cpu() if dtype == "auto" else dtype])


def _free_ram() -> int:
    """Available memory of the machine, or of its container if that is less."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except OSError:  # not Linux: assume half of the memory
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    try:
        limit = (CGROUP / "memory.max").read_text().strip()
        used = int((CGROUP / "memory.current").read_text()) - _reclaimable_cache()
    except (OSError, ValueError):
        return free
    return free if limit == "max" else max(0, min(free, int(limit) - used))


def _reclaimable_cache() -> int:
    """Bytes of the container's inactive page cache, which Linux reclaims when memory is needed."""
    lines = (CGROUP / "memory.stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)


def release_memory() -> None:
    """Return memory freed after loading to the system; 0.3 GB for the demo model."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):  # glibc only
        library.malloc_trim(0)
