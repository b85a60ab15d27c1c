"""Fine-tuning of LoRA weights: one visible loop for every method; what a window teaches is the objective's."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from trainer.adapter import save_adapter
from trainer.data import Trainable
from trainer.dry_steps import estimate_run, largest_pass, memory_used, needs_dry_steps, run_dry_steps
from trainer.errors import Stopped, TrainerError
from trainer.estimate import Estimate
from trainer.events import Emit, Finished, Log, Phase
from trainer.failures import retry_on_oom
from trainer.optimizer import learning_rate_at
from trainer.pacing import run_idle_passes
from trainer.ranks import join_ranks, leave_ranks, only_checkpoints
from trainer.run import Run, prepare
from trainer.snapshots import adopt_snapshots, keep_snapshot, kept_snapshots, snapshot_due
from trainer.spec import TrainSpec

STALLED_STEPS = 5  # steps in a row without a gradient that are worth a word


def train(spec: TrainSpec, *, out: Path, resume: Path | None, emit: Emit, should_stop: Callable[[], bool]) -> None:
    """Train an adapter as `spec` says, from the start or from a checkpoint, and write it to `out`/adapter.

    Each step learns from a window of `batch_size` rows; its loss is the mean over all trained tokens of the window
    (where answers are compared, over its rows), however the window is cut into passes. Same spec, same data, same
    machine: same weights, with or without a stop in between. Raises TrainerError for failures with a name, and Stopped
    after a checkpoint when `should_stop()` is true.
    """
    ranks = join_ranks()
    emit = emit if ranks.is_main else only_checkpoints(emit)

    def stop_requested() -> bool:
        return ranks.any(flag=should_stop())

    run = prepare(spec, out=out, resume=resume, emit=emit, should_stop=stop_requested, ranks=ranks)
    estimated = start(run)

    while True:
        # -- measure, before the first step (the base model), at intervals and at the end
        if run.evaluation_due():
            run.evaluate()
        snapshot_if_due(run)
        if run.position.step == run.plan.steps or run.patience_exhausted():
            break
        if stop_requested():
            run.stop()

        # -- gradient of the window, pass by pass; with half as much at a time where memory does not hold it
        began = run.model.device.clock()
        step = run.position.step
        window = run.plan.window(step)
        loss, right = ranks.totals(*gradient_within_memory(run, window))
        ranks.all_reduce(run.optimizer.gradient)

        # -- update
        norm = run.optimizer.grad_norm()
        if not (math.isfinite(loss) and math.isfinite(norm)):
            raise diverged(run, "the gradient" if math.isfinite(loss) else "the loss")
        learning_rate = learning_rate_at(step, run.plan.steps, spec.optim)
        run.optimizer.step(learning_rate=learning_rate, norm=norm)
        if not run.optimizer.is_finite():
            raise diverged(run, "a weight")

        # -- report
        seconds = run.model.device.clock() - began
        run.recent.append((sum(item.length for item in window), seconds))
        run.position.step += 1
        run.position.trained_tokens += sum(item.trained_tokens for item in window)
        run.position.seconds += seconds
        accuracy = right / run.objective.units(window)
        run.record("progress", run.progress(loss=loss, accuracy=accuracy, learning_rate=learning_rate, norm=norm))
        warn_if_stalled(run)

        # -- keep
        if ranks.is_main and run.checkpoints.due(run.position.step):
            run.save()

    emit(memory_used(run, estimated))
    emit(Phase(name="saving"))
    run.finish()
    if ranks.is_main:
        emit(Finished(folder="adapter", facts=save_adapter(run) | {"checkpoints": kept_snapshots(run)}))
    leave_ranks(ranks)


def start(run: Run) -> Estimate:
    """Take over what an earlier attempt kept, and see whether memory holds a step. Returns what was estimated of it."""
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
    """What `accumulate_gradient` gives, in smaller passes from now on where memory does not hold those there were."""

    def make_room() -> None:
        run.halve_passes(sum(row.length for row in run.ranks.share(window)))

    made = retry_on_oom(partial(accumulate_gradient, run, window), make_room=make_room, failure=run.out_of_memory_error)
    run.sync_pass_size()
    return made


def accumulate_gradient(run: Run, window: Sequence[Trainable]) -> tuple[float, int]:
    """Collect the gradient of this process's share of a window, pass by pass.

    Returns its part of the window's loss, and how many units (tokens, or rows that are compared) came out right.
    """
    step = run.position.step
    units = run.objective.units(window)
    seed_step(run.spec.optim.seed + run.ranks.rank, step)
    kl_estimate = run.objective.kl_estimate(window, budget=run.position.budget)
    loss, right = 0.0, 0
    passes = run.model.passes(run.ranks.share(window), run.position.budget)
    for number, batch in enumerate(passes, start=1):
        summed, hits = run.objective.loss_and_correct(batch, kl_estimate)
        share = summed / units
        (share * run.optimizer.loss_scale).backward()  # type: ignore[no-untyped-call]
        run.optimizer.accumulate()
        loss += share.item()
        right += int(hits)
        # The last of this pass's blocks, above all others: with them the heap would not shrink before the next.
        del summed, hits, share
        if run.may_stop_here():  # half a window is no step: forget it, and keep the last whole one
            run.optimizer.zero_grad()
            run.stop()
        run.heartbeat(f"Step {step + 1}: pass {number} of {len(passes)} is done")
    run_idle_passes(run.model, run.ranks, window, run.position.budget)
    return loss, right


def snapshot_if_due(run: Run) -> None:
    """Keep the weights of this step as an adapter, where they are due; all processes know which are kept."""
    if not snapshot_due(run):
        return
    if run.ranks.is_main:
        keep_snapshot(run)
    run.position.snapshots = run.ranks.broadcast_object(run.position.snapshots)


def seed_step(seed: int, step: int) -> None:
    """Dropout of a step depends on nothing but the seed and the step's number."""
    torch.manual_seed(seed * 1_000_003 + step)


def warn_if_stalled(run: Run) -> None:
    """Warn once, as soon as several steps in a row had no gradient at all: such a run seldom learns again."""
    norms = [one["grad_norm"] for one in run.position.metrics[-3 * STALLED_STEPS :] if one["kind"] == "progress"]
    still = next((count for count, norm in enumerate(reversed(norms)) if norm), len(norms))
    if still == STALLED_STEPS:
        step = run.position.step
        text = (
            f"The gradient has been exactly 0 since step {step - still + 1:,}, and nothing is learnt: use a lower "
            "optim.learning_rate or lora.lora_alpha, and leave optim.max_grad_norm at 1"
        )
        run.emit(Log(level="warning", text=text))


def diverged(run: Run, what: str) -> TrainerError:
    """All processes find it at the same step, and the first one tells. Raises Stopped in the others."""
    if not run.ranks.is_main:
        raise Stopped
    step = run.position.step + 1
    return TrainerError(
        "diverged",
        f"Training diverged at step {step}: {what} is no longer a finite number{run.save_before_failure()}.",
        "Use a lower learning rate or a longer warm-up, and look for odd rows in the dataset.",
    )
