"""Code that torch and oneDNN make for the shapes they meet: kept for a pass, not for a whole training."""

import subprocess
import sys

import pytest

from trainer.device import find_device

MEGABYTE = 1 << 20
GROWTH = """
import trainer
import ctypes, resource, torch
from pathlib import Path

def held():
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

queries = torch.randn(3, 384, 64).bfloat16()
before = held()
for number in range(900):
    keys = torch.randn(3, 20 + number % 300, 64).bfloat16()
    torch.bmm(queries[:, : 384 - number // 300], keys.transpose(1, 2))
print(held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.skipif(str(find_device().dtype) != "torch.bfloat16", reason="a processor without products in bfloat16")
def test_memory_does_not_follow_the_number_of_lengths() -> None:
    """900 shapes took 0.6 GB."""
    done = subprocess.run([sys.executable, "-c", GROWTH], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 200 * MEGABYTE
