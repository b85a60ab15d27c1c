"""Trains a spec as the trainer's command does, on a machine that is said to have so many GB of memory (0: its own).

python -m benchmarks.memory.run SPEC OUT MEMORY
"""

import sys
from pathlib import Path

import trainer.device
from trainer.__main__ import main


def held() -> int:
    """Bytes of this process now."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


if __name__ == "__main__":
    spec, out, memory = sys.argv[1:]
    if float(memory):
        trainer.device._free_ram = lambda: max(0, round(float(memory) * 1e9) - held())
    sys.exit(main(["train", spec, "--out", out]))
