"""Seconds and memory to check a JSONL file, beside `datasets.load_dataset` of the same: fresh processes in turn."""

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROUNDS = 3
PEER = """
import sys, datasets
datasets.disable_progress_bars()
print(len(datasets.load_dataset("json", data_files=sys.argv[1], cache_dir=sys.argv[2])["train"]))
"""
WORDS = ("the", "model", "answers", "a", "question", "über", "naïve", "data", "quoted", '"text"', "line\\n", "{code}")


def main() -> None:
    size = int(os.environ.get("MB", "200")) * 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        rows = write_rows(file, size)
        print(f"{rows:,} rows, {file.stat().st_size / 1e6:,.0f} MB")
        ours, peer = [], []
        for number in range(ROUNDS):
            out = Path(folder) / str(number)
            ours.append(measured([sys.executable, "-m", "trainer", "check", str(file), "--out", str(out / "ours")]))
            peer.append(measured([sys.executable, "-c", PEER, str(file), str(out / "peer")]))
            for name, (seconds, memory) in (("check", ours[-1]), ("load_dataset", peer[-1])):
                print(f"{name:<12} {seconds:6.1f} s {memory:7.0f} MB")
        seconds, theirs = min(one[0] for one in ours), min(one[0] for one in peer)
        memory, others = max(one[1] for one in ours), max(one[1] for one in peer)
        print(f"check takes {seconds / theirs:.2f} of its time and {memory / others:.2f} of its memory")


def write_rows(file: Path, size: int) -> int:
    """Alpaca rows of 2 kB: half in plain ASCII, half with other letters."""
    dice, written, rows = random.Random(0), 0, 0
    with file.open("w", encoding="utf-8") as out:
        while written < size:
            question, answer = (" ".join(dice.choices(WORDS, k=count)) for count in (60, 260))
            row = {"instruction": f"{question} {rows}", "input": "", "output": answer}
            written += out.write(json.dumps(row, ensure_ascii=bool(rows % 2)) + "\n")
            rows += 1
    return rows


def measured(command: list[str]) -> tuple[float, float]:
    """Wall seconds, and the most memory that the process and its children held together, in MB."""
    begun, most = time.monotonic(), 0.0
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, memory_of(process.pid))
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"{command} ended with {process.returncode}")
    return time.monotonic() - begun, most


def memory_of(pid: int) -> float:
    """Resident MB of a process and its children."""
    try:
        fields = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return 0.0
    own = next((int(line.split()[1]) / 1000 for line in fields.splitlines() if line.startswith("VmRSS")), 0.0)
    return own + sum(memory_of(int(child)) for child in children)
