"""The estimate of memory beside what trainings really take, and beside two other estimates of the same runs.

    make bench ARGS=estimate            ONLY="text;text" BASE=folder KEEP=1 from the environment

Each case is trained for a few steps in a fresh process, by the trainer's own command; what it took is the peak that its
last step reports. What was measured is kept under benchmarks/results, and measured again when the trainer's code (other
than the estimate's own) has changed; KEEP=1 takes it as it is. Nothing here depends on how busy the machine is.
"""

import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.memory import peers
from benchmarks.memory.bases import ROOT, base_folder
from benchmarks.memory.cases import Case, cases
from trainer.base_facts import inspect_folder
from trainer.estimate import PROCESS_BYTES, Estimate, Hardware, estimate
from trainer.estimate_layers import MAX_SHORT_LENGTH, compute_bytes, saved_values
from trainer.estimate_memory import HEAD_CHUNK, SCORE_BYTES
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

WORK = ROOT / "benchmarks" / "results" / "estimate"
MEASURED = ("workspace of the computation", "the process itself")  # items that are not counted but measured
FITS_AT = (1.0, 1.1)  # limits, as shares of what was taken: under the first nothing may be said to fit


@dataclass(frozen=True)
class Found:
    """A case with what was measured, and what was said beforehand. Bytes. `a_layer`: what one keeps but for scores."""

    case: Case
    peak: int
    ours: Estimate
    fitcheck: float
    unsloth: float
    a_layer: float


def main() -> None:
    wanted = os.environ.get("ONLY", "").split(";")
    found = []
    for case in cases():
        if any(one in case.name for one in wanted):
            found.append(tell(case))
            print(_line(found[-1]), flush=True)
    report(found)
    fit(found)


def tell(case: Case) -> Found:
    base = base_folder(case.base, WORK)
    spec, facts = case.spec(base, WORK), inspect_folder(base)
    measured = measured_before(case) or measure(case, spec)
    memory = round(case.memory * 1e9) or os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    lengths = row_lengths(base, spec)
    said = estimate(spec, facts, rows=len(lengths), tokens=sum(lengths), lengths=lengths, on=Hardware("cpu", memory))
    done = {"unpacked": measured["unpacked"], "again": measured["again"]}
    process = PROCESS_BYTES["cpu"]
    by_fitcheck = peers.fitcheck(case, spec, facts, **done) + process
    by_unsloth = peers.unsloth(case, spec, facts, **done) + process
    a_layer = case.tokens * compute_bytes(spec) * saved_values(spec, facts, device="cpu", width=0)
    return Found(case, measured["peak"], said, by_fitcheck, by_unsloth, a_layer)


def row_lengths(base: Path, spec: TrainSpec) -> list[int]:
    """Tokens of each row as the job form counts them: of the longer answer, where there are two."""
    renderer, found = Renderer.load(base), []
    for line in Path(spec.data.path).read_text().splitlines():
        row = json.loads(line)
        text = row.get("text") or f"{row['prompt']}\n{row.get('completion') or row['rejected']}"
        found.append(min(spec.data.max_seq_length, len(renderer.text_example(text).ids)))
    return found


def measured_before(case: Case) -> dict[str, Any] | None:
    file = WORK / "measured" / f"{_key(case)}.json"
    if not file.is_file():
        return None
    kept: dict[str, Any] = json.loads(file.read_text())
    return kept if os.environ.get("KEEP") or kept["code"] == code_hash() else None


def measure(case: Case, spec: TrainSpec) -> dict[str, Any]:
    """Train in a process of its own; what it took and how it went about it."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "spec.json"
        file.write_text(json.dumps(spec.to_dict()))
        command = [sys.executable, "-m", "benchmarks.memory.run", str(file), f"{folder}/out", str(case.memory)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{case.name}: {done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    said = [one["text"] for one in events if one["kind"] == "log"]
    peaks = [one["memory_bytes"] for one in events if one["kind"] == "progress"]
    measured = {
        "case": case.values,
        "peak": peaks[-1],
        "peaks": peaks,
        "unpacked": any("unpacked" in one for one in said),
        "again": any("recomputed" in one for one in said),
        "said": said,
        "code": code_hash(),
    }
    place = WORK / "measured" / f"{_key(case)}.json"
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(measured, indent=1))
    return measured


def _key(case: Case) -> str:
    return hashlib.sha256(json.dumps(case.values, sort_keys=True).encode()).hexdigest()[:16]


def code_hash() -> str:
    """Of the trainer's code, as far as memory may depend on it."""
    found = hashlib.sha256()
    for file in sorted((ROOT / "trainer").glob("*.py")):
        if not file.name.startswith("estimate"):
            found.update(file.read_bytes())
    return found.hexdigest()[:16]


def _line(one: Found) -> str:
    mark = "*" if one.case.held_out else " "
    items = " ".join(f"{item.name.split()[-1][:8]}={item.expected / 1e9:.2f}" for item in one.ours.items)
    told = "".join(f"{value / one.peak - 1:+8.1%}" for value in (one.ours.expected, one.fitcheck, one.unsloth))
    ends = f"{one.ours.low / one.peak:5.2f}-{one.ours.high / one.peak:4.2f}"
    return f"{mark}{one.case.name:<64.64} {one.peak / 1e9:6.2f} GB {told} {ends}  {items}"


def report(found: list[Found]) -> None:
    if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > 400 << 10:
        print("This process is large: a small child may have told its size instead of the child's own.")
    sides = {"all": found, "held out": [one for one in found if one.case.held_out]}
    print(f"\n{'':<28}{'mean':>7}{'worst':>8}")
    for side, some in sides.items():
        for name, told in _by_teller(some).items():
            errors = [abs(value / one.peak - 1) for value, one in zip(told, some, strict=True)]
            if errors:
                print(f"{name + ', ' + side:<28}{statistics.fmean(errors):7.1%}{max(errors):8.1%}")
    wrong = [one.case.name for one in found if one.ours.high < one.peak * FITS_AT[0]]
    refused = [one.case.name for one in found if one.ours.high > one.peak * FITS_AT[1]]
    low = [one.case.name for one in found if one.ours.low > one.peak]
    print(f"\n{len(found)} cases; wrong 'fits': {len(wrong)} {wrong}; the low end above the peak: {len(low)} {low}")
    print(f"said not to fit where a tenth would be left: {len(refused)}")


def fit(found: list[Found]) -> None:
    """What the measured constants of `trainer.estimate_memory` would best be, by the cases that are not held out.

    Where memory was made short something else may have decided: loading, or a layer that is unpacked while it is used;
    and long rows have a constant of their own.
    """
    rows, wanted = [], []
    for one in found:
        if not one.case.held_out and not one.case.memory and one.case.length <= MAX_SHORT_LENGTH:
            parts = {item.name: item.expected for item in one.ours.items}
            known = sum(size for name, size in parts.items() if name not in MEASURED)
            rows.append([1 / one.peak, one.a_layer / one.peak])  # so errors count as shares
            wanted.append(1 - (known + PROCESS_BYTES["cpu"] + HEAD_CHUNK * SCORE_BYTES) / one.peak)
    if len(rows) > 1:
        (fixed, share), *_ = np.linalg.lstsq(np.array(rows), np.array(wanted))
        print(f"WORKSPACE: {fixed / 1e9:.3f} GB and {share:.2f} of what a layer keeps")


def _by_teller(found: list[Found]) -> dict[str, list[float]]:
    return {
        "Lowrank": [one.ours.expected for one in found],
        "fitcheck-llm 0.3.1": [one.fitcheck for one in found],
        "Unsloth's formula": [one.unsloth for one in found],
    }


if __name__ == "__main__":
    main()
