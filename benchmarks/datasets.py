"""Seconds and memory to check a JSONL file, beside `datasets.load_dataset` of the same: fresh processes in turn."""

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).resolve().parent.parent
PEER = """
import sys, datasets
datasets.disable_progress_bars()
print(len(datasets.load_dataset("json", data_files=sys.argv[1], cache_dir=sys.argv[2])["train"]))
"""
WORDS = ("the", "model", "answers", "a", "question", "über", "naïve", "data", "quoted", '"text"', "line\\n", "{code}")


@dataclass(frozen=True)
class Run:
    """What a process and its children took together: seconds, seconds of the processors, and MB at the most."""

    wall: float
    cpu: float
    memory: float


def main() -> None:
    size = int(os.environ.get("MB", "200")) * 1_000_000
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "rows.jsonl", Path(folder) / "out"
        rows = write_rows(file, size)
        print(f"{rows:,} rows, {file.stat().st_size / 1e6:,.0f} MB")
        commands = {
            "check": [sys.executable, "-m", "trainer", "check", str(file), "--out", str(out)],
            "load_dataset": [sys.executable, "-c", PEER, str(file), str(out)],
        }
        runs: dict[str, list[Run]] = {name: [] for name in commands}
        for _ in range(int(os.environ.get("ROUNDS", "5"))):
            for name, command in commands.items():
                run = measured(command)
                shutil.rmtree(out)
                runs[name].append(run)
                print(f"{name:<12} {run.wall:6.1f} s, {run.cpu:6.1f} s of the processors, {run.memory:7.0f} MB")
    wall, cpu, memory = (
        median(getattr(run, what) for run in runs["check"]) / median(getattr(run, what) for run in runs["load_dataset"])
        for what in ("wall", "cpu", "memory")
    )
    print(
        f"check takes {wall:.2f} of its time, {cpu:.2f} of its processor time and {memory:.2f} of its memory (medians)"
    )


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


def measured(command: list[str]) -> Run:
    """One run in a fresh process."""
    begun, most, before = time.monotonic(), 0.0, resource.getrusage(resource.RUSAGE_CHILDREN)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            most = max(most, memory_of(process.pid))
            time.sleep(0.05)
        if process.returncode:
            raise SystemExit(f"{command} ended with {process.returncode}")
    wall, after = time.monotonic() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    return Run(wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, most)


def memory_of(pid: int) -> float:
    """Resident MB of a process and its children."""
    try:
        fields = Path(f"/proc/{pid}/status").read_text()
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:  # it has just ended
        return 0.0
    own = next((int(line.split()[1]) / 1000 for line in fields.splitlines() if line.startswith("VmRSS")), 0.0)
    return own + sum(memory_of(int(child)) for child in children)
