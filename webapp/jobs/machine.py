"""What machine a worker runs on, in words and bytes, found without torch."""

import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

from trainer import auto_dtype
from trainer.spec import Dtype


@dataclass(frozen=True)
class Machine:
    device: str  # such as "NVIDIA H200" or "CPU, 2 cores"
    memory_bytes: int  # of the device that trains
    auto_dtype: Dtype  # what `model.dtype: auto` is there


def this_machine() -> Machine:
    """The GPUs that `nvidia-smi` knows, else the processor."""
    return _gpu() or Machine(f"CPU, {_cores()} cores", _memory(), auto_dtype.on_cpu())


def _gpu() -> Machine | None:
    try:
        rows = [line.rsplit(",", 1) for line in _nvidia_smi("name,memory.total") if "," in line]
        memory = max(int(mebibytes) for _, mebibytes in rows) * 1024 * 1024
    except (OSError, subprocess.SubprocessError, ValueError):  # a driver without a device answers in prose
        return None
    name = rows[0][0].strip()
    return Machine(name if len(rows) == 1 else f"{len(rows)} × {name}", memory, _gpu_dtype())


def _gpu_dtype() -> Dtype:
    """A driver too old to tell the compute capability is asked for it apart, so that its GPU is still found."""
    try:
        major, minor = _nvidia_smi("compute_cap")[0].strip().split(".")
        return auto_dtype.on_gpu((int(major), int(minor)))
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return "bfloat16"


def _nvidia_smi(query: str) -> list[str]:
    """What it says of each GPU."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return 0
    total = next((line for line in meminfo.read_text().splitlines() if line.startswith("MemTotal:")), "MemTotal: 0")
    return int(total.split()[1]) * 1024
