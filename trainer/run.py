"""A training run: everything the loop works on, built from a spec or restored from a checkpoint."""

import json
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError
from torch import Tensor

from trainer.checkpoint import Checkpoints, Inputs, Position
from trainer.data import Dataset, Plan
from trainer.device import release_memory
from trainer.errors import Stopped, TrainerError
from trainer.estimate import evaluations_after
from trainer.evaluation import answer_probe
from trainer.events import Emit, Evaluated, Heartbeat, Log, Phase, Progress
from trainer.failures import may_report, out_of_memory, retry_on_oom
from trainer.forgetting import GeneralText, measure_forgetting
from trainer.model import AdaptedModel
from trainer.objective import Objective
from trainer.optimizer import MasterAdamW
from trainer.ranks import Ranks
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

T = TypeVar("T")
CHECKPOINTS = "checkpoints"  # folder name
SPEED_STEPS = 20  # recent steps that speed and time left are computed from


@dataclass
class Run:
    """The state of one attempt."""

    spec: TrainSpec
    base: Path
    out: Path
    emit: Emit
    should_stop: Callable[[], bool]
    renderer: Renderer
    dataset: Dataset
    plan: Plan
    model: AdaptedModel
    objective: Objective
    optimizer: MasterAdamW
    inputs: Inputs
    checkpoints: Checkpoints
    position: Position
    general: GeneralText | None = None  # for measuring forgetting
    ranks: Ranks = field(default_factory=Ranks)
    resumed_from: Path | None = None  # the checkpoint
    best: dict[str, Tensor] = field(default_factory=dict)  # weights of position.best_step, if kept
    heartbeat: Heartbeat = field(init=False)
    evaluation_seconds: float = 0.0  # of this attempt's latest evaluation
    recent: "deque[tuple[int, float]]" = field(default_factory=lambda: deque(maxlen=SPEED_STEPS))

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.emit)

    def save(self) -> None:
        """Write a checkpoint of the last complete step."""
        if self.ranks.is_main:
            self.checkpoints.save(self.position, self.optimizer, self.best)

    def save_before_failure(self) -> str:
        """Before failing: discard the partial step, save the last complete one, and return a note on how to resume.

        A checkpoint that cannot be written is mentioned in the note: it must not hide the failure itself.
        With several processes the one that reports the failure does this, since the main process may be stuck waiting
        for it. Raises Stopped in the others.
        """
        if not may_report():
            raise Stopped
        self.optimizer.zero_grad()
        if not self.ranks.is_main:  # it has not tracked the main process's checkpoints: list the folder
            self.checkpoints = Checkpoints(self.out / CHECKPOINTS, self.inputs, self.emit, resumed=self.position.step)
        note = ""
        if self.position.step and self.optimizer.is_finite():
            try:
                self.checkpoints.save(self.position, self.optimizer, self.best)
            except (OSError, SafetensorError) as error:  # the latter when the disk fills up while weights are written
                why = error.strerror if isinstance(error, OSError) else error
                note = f"; step {self.position.step:,} could not be saved: {why}"
        newest = self.checkpoints.newest
        return note if newest is None else f"{note}; the last valid checkpoint is of step {newest:,}"

    def halve_passes(self, tokens: int) -> None:
        """Halve the tokens per pass; once a pass may hold less than one full-length row, recompute activations as well.

        `tokens`: the size that did not fit, which may be below the current limit. The gradient of a window stays the
        same. Raises TrainerError(out_of_memory) if the base is sharded: the other processes are in the middle of the
        pass, which cannot be repeated without them.
        """
        if self.model.is_sharded:
            raise self.out_of_memory_error()
        self.optimizer.zero_grad()
        self._halve_below(min(tokens, self.position.budget))

    def sync_pass_size(self) -> None:
        """Adopt the smallest pass size of all processes, in case one of them had to halve its own."""
        least = self.ranks.minimum(self.position.budget)
        if least < self.position.budget:
            self._halve_below(least + 1)

    def _halve_below(self, tokens: int) -> None:
        """Halve the pass size, at least once, until it is below `tokens`."""
        release_memory()
        before = self.position.budget
        while self.position.budget >= max(2, tokens):
            self.position.budget //= 2
            self.position.halvings += 1
        what = f"Out of memory at step {self.position.step + 1:,}: continuing with passes of up to"
        what = f"{what} {self.position.budget:,} tokens instead of {before:,}"
        if self.position.budget < self.spec.data.max_seq_length:
            self.model.recompute(1)
            what += ", and recomputing the activations of every layer"
        self.emit(Log(level="warning", text=what))

    def out_of_memory_error(self) -> TrainerError:
        step, budget = self.position.step + 1, self.position.budget
        return out_of_memory(f" at step {step}, in passes of {budget:,} tokens{self.save_before_failure()}")

    def diverged(self, what: str) -> TrainerError:
        """The error to raise for a non-finite value. Only the main process reports it; the others raise Stopped."""
        if not self.ranks.is_main:
            raise Stopped
        return TrainerError(
            "diverged",
            f"Training diverged at step {self.position.step + 1}: {what} is no longer a finite number"
            f"{self.save_before_failure()}.",
            "Use a lower learning rate or a longer warm-up, and look for odd rows in the dataset.",
        )

    def _evaluation_diverged(self, text: str) -> TrainerError:
        """The same for the loss on a text. The base model's own, before the first step, has other reasons."""
        if self.position.step:
            return self.diverged(f"the loss on {text} after step {self.position.step}")
        if not self.ranks.is_main:
            raise Stopped
        return TrainerError(
            "diverged",
            f"The base model's loss on {text} is not a finite number, before any training.",
            "Set model.dtype to bfloat16 or float32, whose numbers go further than float16's, or check the base model.",
        )

    def stop(self) -> None:
        """Write a checkpoint of the last complete step and raise Stopped."""
        self.emit(Log(text=f"Stopping by request after step {self.position.step:,} of {self.plan.steps:,}"))
        self.save()
        raise Stopped

    def may_stop_here(self) -> bool:
        """Whether to stop in the middle of a step or an evaluation. Several processes stop only between steps."""
        return self.ranks.is_alone and self.should_stop()

    def evaluation_due(self) -> bool:
        """Due before the first step, at each interval and at the end; each only once over all attempts."""
        if not self.evaluates:
            return False
        due = self.position.step % self.evaluation_interval == 0 or self.position.step == self.plan.steps
        return due and self.position.measured < self.position.step

    @property
    def evaluates(self) -> bool:
        return bool(self.dataset.holdout or self.spec.evaluation.probes)

    @property
    def evaluation_interval(self) -> int:
        return self.spec.evaluation.every_steps or self.plan.steps_per_epoch

    def evaluate(self) -> None:
        """Evaluate on the held-out rows and answer the probes. The step counts as evaluated once both are done."""
        step, began = self.position.step, time.monotonic()
        self.emit(Phase(name="evaluating"))
        evaluated = None
        if self.dataset.holdout:
            halve, failure = self._halve_evaluation_passes, self._evaluation_out_of_memory
            evaluated = retry_on_oom(self._evaluate_holdout, make_room=halve, failure=failure)
            evaluated = self.ranks.broadcast_object(self._with_forgetting(evaluated))
        for prompt in self.spec.evaluation.probes:
            if self.may_stop_here():
                self.stop()
            probe = partial(answer_probe, self.model, self.renderer, prompt, step=step)
            self.emit(self._retry_evaluation(probe, "a probe prompt", "evaluation.probes"))
        if evaluated:
            self.record("evaluated", evaluated)
            self._update_best(evaluated)
        most = -self.ranks.minimum(-self.position.measuring_halvings)
        while self.position.measuring_halvings < most:  # catch up with the other processes
            self._halve_evaluation_passes()
        self.position.measured = step
        self.evaluation_seconds = time.monotonic() - began
        if step < self.plan.steps:
            self.emit(Phase(name="training"))

    def _update_best(self, evaluated: Evaluated) -> None:
        """Track the step with the lowest held-out loss. Step 0, the base model itself, does not count."""
        if evaluated.step and evaluated.loss < self._holdout_loss_at(self.position.best_step):
            self.position.best_step = evaluated.step
            self.best = self.optimizer.masters_on_cpu() if self.spec.evaluation.keep_best else {}

    def _holdout_loss_at(self, step: int) -> float:
        return next((one["loss"] for one in self.metrics("evaluated") if one["step"] == step), math.inf)

    def patience_exhausted(self) -> bool:
        """Whether `patience` evaluations in a row brought no lower loss. Only changes right after an evaluation."""
        patience = self.spec.evaluation.patience
        if not patience or self.position.measured < self.position.step:
            return False
        worse = [one for one in self.metrics("evaluated") if one["step"] > max(0, self.position.best_step)]
        return len(worse) >= patience

    @property
    def published_step(self) -> int:
        """The step whose weights are published as the adapter."""
        return self.position.best_step if self.best else self.position.step

    def finish(self) -> None:
        """Log an early stop, and restore the best weights if later ones are worse."""
        step, of = self.position.step, self.plan.steps
        if step < of:
            waited = f"{self.spec.evaluation.patience:,} evaluations without a lower loss on held-out rows"
            self.emit(Log(text=f"Stopped early after step {step:,} of {of:,}: {waited}"))
        if self.published_step < step:
            self.optimizer.load(self.best, {})
            self.emit(Log(text=f"The adapter is from step {self.published_step:,}, the best on held-out rows"))
        evaluations = {one["step"]: one["loss"] for one in self.metrics("evaluated")}
        base, last = evaluations.get(0, math.inf), evaluations.get(self.published_step, 0.0)
        if last > base:
            text = f"The adapter predicts held-out rows worse than the base model (loss {last:.3f}, and {base:.3f})"
            self.emit(Log(level="warning", text=f"{text}: use a lower optim.learning_rate, or look at the dataset"))

    def _evaluate_holdout(self) -> Evaluated:
        rows, position = self.dataset.holdout, self.position
        step, budget = position.step, position.measuring_budget
        evaluated = self.objective.evaluate(rows, step=step, budget=budget, before_pass=self._before_pass)
        if not math.isfinite(evaluated.loss):
            raise self._evaluation_diverged("the held-out rows")
        return evaluated

    def _halve_evaluation_passes(self) -> None:
        """Halve the evaluation passes for the rest of the run; training passes keep their size."""
        if self.model.is_sharded:
            raise self._evaluation_out_of_memory()
        release_memory()
        before = self.position.measuring_budget
        self.position.measuring_halvings += 1
        what = f"Out of memory while evaluating at step {self.position.step:,}: continuing with passes of up to"
        self.emit(Log(level="warning", text=f"{what} {self.position.measuring_budget:,} tokens instead of {before:,}"))

    def _evaluation_out_of_memory(self) -> TrainerError:
        step, budget = self.position.step, self.position.measuring_budget
        where = f" while evaluating at step {step}, in passes of {budget:,} tokens"
        return out_of_memory(f"{where}{self.save_before_failure()}")

    def _retry_evaluation(self, work: Callable[[], T], what: str, field: str) -> T:
        """See `retry_freed`. what: the text that is evaluated. field: the value of the spec that asks for it."""
        doing = f"evaluating {what} ({field}) at step {self.position.step:,}"
        is_alone = not self.model.is_sharded  # otherwise the other processes are in the middle of the pass
        return retry_freed(work, doing, self.emit, may_retry=is_alone, note=self.save_before_failure)

    def _with_forgetting(self, evaluated: Evaluated) -> Evaluated:
        if self.general is None:
            return evaluated
        measure = partial(measure_forgetting, self.model, self.general, before_pass=self._before_pass)
        forgotten = self._retry_evaluation(measure, "general text", "evaluation.forgetting")
        if not (math.isfinite(forgotten.kl) and math.isfinite(forgotten.perplexity)):
            raise self._evaluation_diverged("general text (evaluation.forgetting)")
        return replace(evaluated, general_kl=forgotten.kl, general_perplexity=forgotten.perplexity)

    def _before_pass(self, number: int, of: int) -> None:
        if self.may_stop_here():
            self.stop()
        self.heartbeat(f"Evaluating: pass {number} of {of}")

    def record(self, kind: str, event: Any) -> None:
        """Emit an event and store it in the run's metrics."""
        self.position.metrics.append({"kind": kind, **event.__dict__})
        self.emit(event)
        self.heartbeat.reset()

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.position.metrics if one["kind"] == kind]

    def progress(self, *, loss: float, accuracy: float, learning_rate: float, norm: float) -> Progress:
        """The step just completed; speed and time left come from this attempt's recent steps and evaluations."""
        tokens, seconds = (sum(column) for column in zip(*self.recent, strict=True))
        step, left = self.position.step, self.plan.steps - self.position.step
        # If an evaluation is due at this step, it is still to come.
        evaluations = evaluations_after(step - 1, every=self.evaluation_interval, steps=self.plan.steps)
        evaluating = evaluations * self.evaluation_seconds * self.evaluates
        return Progress(
            step=step,
            of=self.plan.steps,
            loss=loss,
            accuracy=accuracy,
            learning_rate=learning_rate,
            grad_norm=norm,
            trained_tokens=self.position.trained_tokens,
            tokens_per_second=tokens / max(seconds, 1e-9),
            seconds_left=left * seconds / len(self.recent) + evaluating,
            memory_bytes=self.model.device.peak_bytes(),
        )


def retry_freed(work: Callable[[], T], doing: str, emit: Emit, *, may_retry: bool, note: Callable[[], str] = str) -> T:
    """Call `work`, and once more if it runs out of memory: its passes have a fixed size, so only freeing helps.

    doing: what the messages call it. note: a note for the failure, such as which checkpoint is left.
    """

    def failure() -> TrainerError:
        return out_of_memory(f" while {doing}{note()}")

    def make_room() -> None:
        if not may_retry:
            raise failure()
        release_memory()
        emit(Log(level="warning", text=f"Out of memory while {doing}: trying once more"))

    return retry_on_oom(work, make_room=make_room, failure=failure)


def write_jsonl(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(one, allow_nan=False) + "\n" for one in records), encoding="utf-8")
