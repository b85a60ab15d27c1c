"""Dry steps: the largest passes are tried before the first step, so running out of memory shows at once.

They leave no trace: no gradient, no changed weight, and the same random numbers for the steps to come.
"""

import heapq
from collections.abc import Sequence
from functools import partial

import torch

from trainer.base_facts import inspect_folder
from trainer.data import Trainable
from trainer.estimate import ADAM_BYTES, Estimate, Hardware, estimate, with_evaluation_rows
from trainer.events import Log, Memory
from trainer.micro_batch import MicroBatch
from trainer.process import recent_peak_memory, restart_peak
from trainer.run import Run

# On a GPU two passes take a moment. On a CPU they take as long as two steps, so they are only worth it if the upper
# estimate exceeds this share of the memory.
NEAR_LIMIT = 0.7
MAX_WINDOWS = 2_000  # searched for the largest pass
CANDIDATES = 20  # windows actually cut into passes: shared prefixes only show there
SAMPLED_ROWS = 2_000  # sampled for their lengths


def estimate_run(run: Run) -> Estimate:
    """The same estimate as the job form's, from the actual lengths of the rows."""
    device, rows = run.model.device, run.dataset.train
    lengths = [max(item.length for item in row.sequences) for row in rows[:: max(1, len(rows) // SAMPLED_ROWS)]]
    memory = device.free_bytes() + device.held_bytes()
    hardware = Hardware(device.place.type, memory, auto_dtype=device.dtype_name)
    facts = inspect_folder(run.base)
    spec, together = with_evaluation_rows(run.spec, len(rows), len(run.dataset.holdout))
    tokens = round(run.dataset.tokens * together / len(rows))
    return estimate(spec, facts, rows=together, tokens=tokens, lengths=lengths, on=hardware)


def needs_dry_steps(run: Run, estimated: Estimate) -> bool:
    """Always on a GPU; on a CPU if the upper estimate, in bytes, exceeds NEAR_LIMIT of free and held memory."""
    device = run.model.device
    return device.is_cuda or estimated.high > NEAR_LIMIT * (device.free_bytes() + device.held_bytes())


def run_dry_steps(run: Run) -> float:
    """Two forward and backward passes of the largest size, with memory set aside for AdamW's state. Peak in bytes.

    On a CPU allocations do not fail in time. There the first pass has half the rows, and MemoryError is raised if
    its peak shows that the full pass would not fit.
    """
    device, largest = run.model.device, largest_pass(run)
    rows, tokens = largest.rows, largest.ids.numel()
    half = rows if device.is_cuda else rows[: max(1, len(rows) // 2)]
    values = run.optimizer.gradient.numel() * ADAM_BYTES[run.spec.optim.optimizer]
    kept = torch.ones(values, dtype=torch.uint8, device=device.place)  # stands in for AdamW's moments
    before, free = device.held_bytes(), device.free_bytes()
    with torch.random.fork_rng(devices=[device.place] if device.is_cuda else []):
        restart_peak()  # reading the base may have held more than a pass ever will
        tried = _dry_pass(run, half)
        taken = (recent_peak_memory() - before) * tokens // tried
        if len(half) < len(rows) and taken > free:
            raise MemoryError(f"a part of a pass predicts {taken:,} bytes of {free:,}")
        _dry_pass(run, rows)
    del kept
    peak = device.peak_bytes()
    run.emit(Log(text=f"Two dry passes of up to {tokens:,} tokens: {peak / 1e9:.1f} GB at the peak"))
    return peak


def largest_pass(run: Run) -> MicroBatch:
    """The largest pass of any step."""
    budget = run.position.budget
    windows = [run.plan.window(step) for step in range(min(run.plan.steps, MAX_WINDOWS))]
    likely = heapq.nlargest(CANDIDATES, windows, key=partial(_size, budget=budget))
    passes = (batch for window in likely for batch in run.model.passes(window, budget))
    return max(passes, key=lambda batch: batch.ids.numel())


def _size(rows: Sequence[Trainable], *, budget: int) -> tuple[int, int]:
    """Tokens of the largest pass and of the whole window, ignoring shared prefixes."""
    lengths = [row.length for row in rows]
    return max(min(budget, sum(lengths)), *lengths), sum(lengths)


def _dry_pass(run: Run, rows: Sequence[Trainable]) -> int:
    """One forward and backward pass over `rows`. Returns the tokens that went through the model."""
    tokens = 0
    for batch in run.model.passes(rows, run.position.budget):
        loss, _ = run.objective.loss_and_correct(batch, 0.0)
        mean = loss / max(1, run.objective.units(rows))
        (mean * run.optimizer.loss_scale).backward()  # type: ignore[no-untyped-call]
        run.optimizer.accumulate()
        tokens += batch.ids.numel()
    run.optimizer.zero_grad()
    return tokens


def memory_used(run: Run, estimated: Estimate) -> Memory:
    """This process's memory peak so far, beside the estimate for the same parts."""
    device = run.model.device
    return Memory(
        step=run.position.step,
        peak_bytes=device.peak_bytes(),
        foretold_bytes=estimated.in_peak,
        device=device.place.type,
    )
