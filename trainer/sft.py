"""Fine-tuning of LoRA weights: one visible loop for every method; what a window teaches is the objective's."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch

from trainer.adapter import save_adapter
from trainer.data import Trainable
from trainer.dry_steps import dry_steps_due, foretell, largest_pass, memory_taken, take_dry_steps
from trainer.errors import Stopped, TrainerError
from trainer.estimate import Estimate
from trainer.events import Emit, Finished, Log, Phase
from trainer.failures import within_memory
from trainer.optimizer import learning_rate_at
from trainer.pacing import keep_pace
from trainer.ranks import join_ranks, leave_ranks, only_checkpoints
from trainer.run import Run, prepare
from trainer.snapshots import keep_snapshot, kept_snapshots, snapshot_due, take_over
from trainer.spec import TrainSpec

STANDSTILL = 5  # steps in a row without a gradient that are worth a word


def train(spec: TrainSpec, *, out: Path, resume: Path | None, emit: Emit, should_stop: Callable[[], bool]) -> None:
    """Train an adapter as `spec` says, from the start or from a checkpoint, and write it to `out`/adapter.

    Each step learns from a window of `batch_size` rows; its loss is the mean over all trained tokens of the window
    (where answers are compared, over its rows), however the window is cut into passes. Same spec, same data, same
    machine: same weights, with or without a stop in between. Raises TrainerError for failures with a name, and Stopped
    after a checkpoint when `should_stop()` is true.
    """
    ranks = join_ranks()
    emit = emit if ranks.is_first else only_checkpoints(emit)

    def wished() -> bool:
        return ranks.any(wish=should_stop())

    run = prepare(spec, out=out, resume=resume, emit=emit, should_stop=wished, ranks=ranks)
    foretold = begin(run)

    while True:
        # -- measure, before the first step (the base model), at intervals and at the end
        if run.evaluation_due():
            run.evaluate()
        snap(run)
        if run.position.step == run.plan.steps or run.patience_is_spent():
            break
        if wished():
            run.stop()

        # -- gradient of the window, pass by pass; with half as much at a time where memory does not hold it
        began = run.model.device.clock()
        step = run.position.step
        window = run.plan.window(step)
        loss, right = ranks.totals(*gradient_within_memory(run, window))
        ranks.add_up(run.optimizer.gradient)

        # -- update
        norm = run.optimizer.norm()
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
        run.position.trained_tokens += sum(item.labels for item in window)
        run.position.seconds += seconds
        accuracy = right / run.objective.units(window)
        run.record("progress", run.progress(loss=loss, accuracy=accuracy, learning_rate=learning_rate, norm=norm))
        tell_standstill(run)

        # -- keep
        if ranks.is_first and run.checkpoints.due(run.position.step):
            run.save()

    emit(memory_taken(run, foretold))
    emit(Phase(name="saving"))
    run.finish()
    if ranks.is_first:
        emit(Finished(folder="adapter", facts=save_adapter(run) | {"checkpoints": kept_snapshots(run)}))
    leave_ranks(ranks)


def begin(run: Run) -> Estimate:
    """Take over what an earlier attempt kept, and see whether memory holds a step. Returns what was foretold of it."""
    take_over(run)
    run.position.snapshots = run.ranks.agree(run.position.snapshots)
    foretold = foretell(run)
    run.emit(Phase(name="training"))
    if run.ranks.any(wish=dry_steps_due(run, foretold)):

        def give_way() -> None:
            run.halve_passes(largest_pass(run).ids.numel())

        within_memory(partial(take_dry_steps, run), give_way=give_way, ended=run.too_large)
        run.agree_on_passes()
        run.emit(memory_taken(run, foretold))
    return foretold


def gradient_within_memory(run: Run, window: Sequence[Trainable]) -> tuple[float, int]:
    """What `gradient_of` gives, in smaller passes from now on where memory does not hold those there were."""

    def give_way() -> None:
        run.halve_passes(sum(row.length for row in run.ranks.share(window)))

    made = within_memory(partial(gradient_of, run, window), give_way=give_way, ended=run.too_large)
    run.agree_on_passes()
    return made


def gradient_of(run: Run, window: Sequence[Trainable]) -> tuple[float, int]:
    """Collect the gradient of this process's share of a window, pass by pass.

    Returns its part of the window's loss, and how many units (tokens, or rows that are compared) came out right.
    """
    step = run.position.step
    units = run.objective.units(window)
    seed_step(run.spec.optim.seed + run.ranks.rank, step)
    drift = run.objective.drift(window, budget=run.position.budget)
    loss, right = 0.0, 0
    passes = run.model.passes(run.ranks.share(window), run.position.budget)
    for number, batch in enumerate(passes, start=1):
        summed, hits = run.objective.summed(batch, drift)
        share = summed / units
        (share * run.optimizer.loss_scale).backward()  # type: ignore[no-untyped-call]
        run.optimizer.collect()
        loss += share.item()
        right += int(hits)
        # The last of this pass's blocks, above all others: with them the heap would not shrink before the next.
        del summed, hits, share
        if run.may_stop_here():  # half a window is no step: forget it, and keep the last whole one
            run.optimizer.discard()
            run.stop()
        run.sign_of_life(f"Step {step + 1}: pass {number} of {len(passes)} is done")
    keep_pace(run.model, run.ranks, window, run.position.budget)
    return loss, right


def snap(run: Run) -> None:
    """Keep the weights of this step as an adapter, where they are due; all processes know which are kept."""
    if not snapshot_due(run):
        return
    if run.ranks.is_first:
        keep_snapshot(run)
    run.position.snapshots = run.ranks.agree(run.position.snapshots)


def seed_step(seed: int, step: int) -> None:
    """Dropout of a step depends on nothing but the seed and the step's number."""
    torch.manual_seed(seed * 1_000_003 + step)


def tell_standstill(run: Run) -> None:
    """Warn once, as soon as several steps in a row had no gradient at all: such a run seldom learns again."""
    norms = [one["grad_norm"] for one in run.position.metrics[-3 * STANDSTILL :] if one["kind"] == "progress"]
    still = next((count for count, norm in enumerate(reversed(norms)) if norm), len(norms))
    if still == STANDSTILL:
        step = run.position.step
        text = (
            f"The gradient has been exactly 0 since step {step - still + 1:,}, and nothing is learnt: use a lower "
            "optim.learning_rate or lora.lora_alpha, and leave optim.max_grad_norm at 1"
        )
        run.emit(Log(level="warning", text=text))


def diverged(run: Run, what: str) -> TrainerError:
    """All processes find it at the same step, and the first one tells. Raises Stopped in the others."""
    if not run.ranks.is_first:
        raise Stopped
    step = run.position.step + 1
    return TrainerError(
        "diverged",
        f"Training diverged at step {step}: {what} is no longer a finite number{run.keep()}.",
        "Use a lower learning rate or a longer warm-up, and look for odd rows in the dataset.",
    )
