"""The training loop, one for every method; the loss itself is the objective's."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from trainer.adapter import save_adapter
from trainer.data import Trainable
from trainer.dry_steps import estimate_run, largest_pass, memory_used, needs_dry_steps, run_dry_steps
from trainer.estimate import Estimate
from trainer.events import Emit, Finished, Log, Phase
from trainer.failures import retry_on_oom
from trainer.optimizer import learning_rate_at
from trainer.preparation import prepare
from trainer.rank_sync import run_idle_passes
from trainer.ranks import join_ranks, leave_ranks, only_checkpoints
from trainer.run import Run
from trainer.snapshots import adopt_snapshots, keep_snapshot, kept_snapshots, snapshot_due
from trainer.spec import TrainSpec

STALLED_STEPS = 5  # consecutive steps with a zero gradient before a warning


def train(spec: TrainSpec, *, out: Path, resume: Path | None, emit: Emit, should_stop: Callable[[], bool]) -> None:
    """Train an adapter from the start or from a checkpoint, and write it to `out`/adapter.

    Each step learns from a window of `batch_size` rows, processed in passes (micro-batches). Its loss is the mean over
    all trained tokens of the window (DPO and KTO: over its rows), independent of how it is split into passes.
    The same spec and data give the same weights on the same machine, whether or not the run was interrupted.
    Raises TrainerError for known failures, and Stopped, after writing a checkpoint, once `should_stop()` is true.
    """
    ranks = join_ranks()
    emit = emit if ranks.is_main else only_checkpoints(emit)

    def stop_requested() -> bool:
        return ranks.any(flag=should_stop())

    run = prepare(spec, out=out, resume=resume, emit=emit, should_stop=stop_requested, ranks=ranks)
    estimated = start(run)

    while True:
        # -- evaluate: before the first step (the base model), at intervals and at the end
        if run.evaluation_due():
            run.evaluate()
        snapshot_if_due(run)
        if run.position.step == run.plan.steps or run.patience_exhausted():
            break
        if stop_requested():
            run.stop()

        # -- accumulate the gradient of the window pass by pass, halving the passes when memory runs out
        began = run.model.device.clock()
        step = run.position.step
        window = run.plan.window(step)
        loss, correct = ranks.totals(*gradient_within_memory(run, window))
        ranks.all_reduce(run.optimizer.gradient)

        # -- update
        norm = run.optimizer.grad_norm()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise run.diverged("the gradient" if math.isfinite(loss) else "the loss")
        learning_rate = learning_rate_at(step, run.plan.steps, spec.optim)
        run.optimizer.step(learning_rate=learning_rate, norm=norm)
        if not run.optimizer.is_finite():
            raise run.diverged("a weight")

        # -- report
        seconds = run.model.device.clock() - began
        run.recent.append((sum(item.length for item in window), seconds))
        run.position.step += 1
        run.position.trained_tokens += sum(item.trained_tokens for item in window)
        run.position.seconds += seconds
        accuracy = correct / run.objective.units(window)
        run.record("progress", run.progress(loss=loss, accuracy=accuracy, learning_rate=learning_rate, norm=norm))
        warn_if_stalled(run)

        # -- checkpoint
        if ranks.is_main and run.checkpoints.due(run.position.step):
            run.save()

    emit(memory_used(run, estimated))
    emit(Phase(name="saving"))
    run.finish()
    if ranks.is_main:
        emit(Finished(folder="adapter", facts=save_adapter(run) | {"checkpoints": kept_snapshots(run)}))
    leave_ranks(ranks)


def start(run: Run) -> Estimate:
    """Adopt an earlier attempt's snapshots and check that a step fits in memory. Returns the memory estimate."""
    adopt_snapshots(run)
    run.position.snapshots = run.ranks.broadcast_object(run.position.snapshots)
    estimated = estimate_run(run)
    run.emit(Phase(name="training"))
    if run.ranks.any(flag=needs_dry_steps(run, estimated)):

        def make_room() -> None:
            run.halve_passes(largest_pass(run).ids.numel())

        retry_on_oom(partial(run_dry_steps, run), make_room=make_room, failure=run.out_of_memory_error)
        run.sync_pass_size()
        run.emit(memory_used(run, estimated))
    return estimated


def gradient_within_memory(run: Run, window: Sequence[Trainable]) -> tuple[float, int]:
    """`accumulate_gradient`, falling back to smaller passes for the rest of the run when memory runs out."""

    def make_room() -> None:
        run.halve_passes(sum(row.length for row in run.ranks.share(window)))

    work = partial(accumulate_gradient, run, window)
    result = retry_on_oom(work, make_room=make_room, failure=run.out_of_memory_error)
    run.sync_pass_size()
    return result


def accumulate_gradient(run: Run, window: Sequence[Trainable]) -> tuple[float, int]:
    """Accumulate the gradient of this process's share of a window, pass by pass.

    Returns the share's part of the window's loss, and how many units (tokens; DPO and KTO: rows) the model got right.
    """
    step = run.position.step
    units = run.objective.units(window)
    seed_step(run.spec.optim.seed + run.ranks.rank, step)
    kl_estimate = run.objective.kl_estimate(window, budget=run.position.budget)
    loss, correct = 0.0, 0
    passes = run.model.passes(run.ranks.share(window), run.position.budget)
    for number, batch in enumerate(passes, start=1):
        loss_sum, right = run.objective.loss_and_correct(batch, kl_estimate)
        pass_loss = loss_sum / units
        (pass_loss * run.optimizer.loss_scale).backward()  # type: ignore[no-untyped-call]
        run.optimizer.accumulate()
        loss += pass_loss.item()
        correct += int(right)
        # These tensors lie at the top of the heap: while they live, it cannot shrink before the next pass.
        del loss_sum, right, pass_loss
        if run.may_stop_here():  # discard the partial window; the checkpoint holds the last complete step
            run.optimizer.zero_grad()
            run.stop()
        run.heartbeat(f"Step {step + 1}: pass {number} of {len(passes)} is done")
    run_idle_passes(run.model, run.ranks, window, run.position.budget)
    return loss, correct


def snapshot_if_due(run: Run) -> None:
    """Save the weights of this step as an adapter if a snapshot is due. Every process learns which ones are kept."""
    if not snapshot_due(run):
        return
    if run.ranks.is_main:
        keep_snapshot(run)
    run.position.snapshots = run.ranks.broadcast_object(run.position.snapshots)


def seed_step(seed: int, step: int) -> None:
    """Make the dropout of a step a function of the seed and the step number alone."""
    torch.manual_seed(seed * 1_000_003 + step)


def warn_if_stalled(run: Run) -> None:
    """Warn once after several consecutive steps with a zero gradient: such a run rarely recovers."""
    norms = [one["grad_norm"] for one in run.position.metrics[-3 * STALLED_STEPS :] if one["kind"] == "progress"]
    stalled = next((count for count, norm in enumerate(reversed(norms)) if norm), len(norms))
    if stalled == STALLED_STEPS:
        step = run.position.step
        text = (
            f"The gradient has been exactly 0 since step {step - stalled + 1:,}, so nothing is being learnt: use a "
            "lower optim.learning_rate or lora.lora_alpha, and leave optim.max_grad_norm at 1"
        )
        run.emit(Log(level="warning", text=text))
