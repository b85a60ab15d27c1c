"""What the trainer tells the C library of memory."""

import subprocess
import sys

import pytest

HOLES = """
import contextlib, sys
from pathlib import Path
from trainer.process import giving_back_memory

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

bytearray(b"x") * (30 << 20)  # freed: from now on glibc takes blocks as large as this one from its heap
before, kept = held(), []
with giving_back_memory() if sys.argv[1] == "giving back" else contextlib.nullcontext():
    large = []
    for _ in range(20):
        large.append(bytearray(b"x") * (4 << 20))
        kept.append(b"small" * 2000)
    large.clear()
    print(held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of a process")
def test_what_is_freed_between_kept_blocks_is_given_back() -> None:
    def held(how: str) -> int:
        command = [sys.executable, "-c", HOLES, how]
        return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)

    assert held("as it is") > 60 << 20
    assert held("giving back") < 8 << 20
