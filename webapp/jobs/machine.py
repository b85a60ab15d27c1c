"""What machine a worker runs on, in words and bytes, found without torch."""

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Machine:
    device: str  # such as "NVIDIA H200" or "CPU, 2 cores"
    memory_bytes: int  # of the device that trains


def this_machine() -> Machine:
    """The GPUs that `nvidia-smi` knows, else the processor."""
    return _gpu() or Machine(device=f"CPU, {_cores()} cores", memory_bytes=_memory())


def _gpu() -> Machine | None:
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    if not shutil.which(command[0]):
        return None
    try:
        said = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
        rows = [line.rsplit(",", 1) for line in said.splitlines() if "," in line]
        memory = max(int(mebibytes) for _, mebibytes in rows) * 1024 * 1024
    except (OSError, subprocess.SubprocessError, ValueError):  # a driver without a device answers in prose
        return None
    name = rows[0][0].strip()
    return Machine(device=name if len(rows) == 1 else f"{len(rows)} × {name}", memory_bytes=memory)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _memory() -> int:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return 0
    total = next((line for line in meminfo.read_text().splitlines() if line.startswith("MemTotal:")), "MemTotal: 0")
    return int(total.split()[1]) * 1024
