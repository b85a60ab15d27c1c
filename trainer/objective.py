"""What a training makes of a window of rows: its loss, and how held-out rows are measured."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from trainer.data import Dataset, LabelledAnswer, Trainable
from trainer.evaluation import evaluate, require_finite
from trainer.events import Evaluated
from trainer.loss import loss_and_correct, sequence_logprobs
from trainer.micro_batch import MicroBatch
from trainer.model import AdaptedModel, undisturbed
from trainer.pacing import idle_pass_count, run_idle_passes
from trainer.ranks import Ranks
from trainer.spec import PreferenceSpec, TrainSpec

BeforePass = Callable[[int, int], None]
# Tokens scored at once before the first step: always the same, whatever memory holds of a step, so that a run that went
# over to smaller passes compares with the same numbers after a resume. Nothing is kept for a way back.
REFERENCE_PASS_TOKENS = {"cpu": 1024, "cuda": 4096}


class Objective(Protocol):
    """A method of training. The loss of a window is the sum over its passes, divided by `units`."""

    def prepare(self, dataset: Dataset, *, before_pass: BeforePass) -> None:
        """Look at the rows once, before the first step, while the weights are still those that training starts from."""

    def units(self, window: Sequence[Trainable]) -> int: ...

    def kl_estimate(self, window: Sequence[Trainable], *, budget: int) -> float:
        """How far the model went as a whole, where the loss of a row depends on it."""

    def loss_and_correct(self, batch: MicroBatch, kl_estimate: float) -> tuple[Tensor, Tensor]:
        """The loss of a pass, with gradient, and how many of its units came out right."""

    def evaluate(self, rows: Sequence[Trainable], *, step: int, budget: int, before_pass: BeforePass) -> Evaluated: ...


def objective_of(spec: TrainSpec, model: AdaptedModel, ranks: Ranks) -> Objective:
    if spec.data.method == "sft":
        return SupervisedFineTuning(model, ranks)
    return (DPO if spec.data.method == "dpo" else KTO)(model, ranks, spec.preference)


class SupervisedFineTuning:
    """Supervised fine-tuning: the next token of each answer, every token of a window alike."""

    def __init__(self, model: AdaptedModel, ranks: Ranks) -> None:
        self._model = model
        self._ranks = ranks

    def prepare(self, dataset: Dataset, *, before_pass: BeforePass) -> None:
        """Nothing to compare with."""

    def units(self, window: Sequence[Trainable]) -> int:
        return sum(row.trained_tokens for row in window)

    def kl_estimate(self, window: Sequence[Trainable], *, budget: int) -> float:
        return 0.0

    def loss_and_correct(self, batch: MicroBatch, kl_estimate: float) -> tuple[Tensor, Tensor]:
        on_device = batch.to(self._model.device.place)
        return loss_and_correct(self._model.states_of(on_device), on_device, self._model.head)

    def evaluate(self, rows: Sequence[Trainable], *, step: int, budget: int, before_pass: BeforePass) -> Evaluated:
        return evaluate(self._model, self._ranks, rows, step=step, budget=budget, before_pass=before_pass)


class _ReferenceObjective:
    """Answers against the model as it was: what DPO and KTO share.

    An answer's reward is beta times what its log probability gained over the starting weights, whose scores are kept
    with the rows: no second model, and one pass for them in a whole training.
    """

    def __init__(self, model: AdaptedModel, ranks: Ranks, values: PreferenceSpec) -> None:
        self._model = model
        self._ranks = ranks
        self._values = values

    def prepare(self, dataset: Dataset, *, before_pass: BeforePass) -> None:
        rows = [*dataset.train, *dataset.holdout]
        rows += _mismatches(rows)
        at_once = REFERENCE_PASS_TOKENS[self._model.device.place.type]
        items = [item for row in rows for item in row.sequences]
        places = {id(item): place for place, item in enumerate(items)}
        found = torch.zeros(len(items), dtype=torch.float64)  # zeros where another process scores
        passes = self._model.passes(self._ranks.share(rows), at_once)
        # Before a pass the processes may agree on an end, so each is asked as often as the one with the most passes.
        most = len(passes) + idle_pass_count(self._model, self._ranks, rows, at_once)
        with undisturbed(self._model.peft):
            for number in range(1, most + 1):
                before_pass(number, most)
                if number <= len(passes):
                    batch = passes[number - 1]
                    found[[places[id(item)] for item in batch.items]] = self._logprobs(batch).double().cpu()
            run_idle_passes(self._model, self._ranks, rows, at_once)
        for item, score in zip(items, self._ranks.totals(*found.tolist()), strict=True):
            item.reference_logprob = score

    def units(self, window: Sequence[Trainable]) -> int:
        return len(window)

    def kl_estimate(self, window: Sequence[Trainable], *, budget: int) -> float:
        return 0.0

    def loss_and_correct(self, batch: MicroBatch, kl_estimate: float) -> tuple[Tensor, Tensor]:
        margins = self._margins(batch, kl_estimate)
        return self._losses(batch, margins).sum(), (margins > 0).sum()

    def evaluate(self, rows: Sequence[Trainable], *, step: int, budget: int, before_pass: BeforePass) -> Evaluated:
        """Loss, mean margin, and as accuracy the share of rows whose margin is above zero."""
        loss = margin = right = 0.0  # sums over this process's share
        passes = self._model.passes(self._ranks.share(rows), budget)
        with undisturbed(self._model.peft):
            kl_estimate = self.kl_estimate(rows, budget=budget)
            for number, batch in enumerate(passes, start=1):
                before_pass(number, len(passes))
                margins = self._margins(batch, kl_estimate)
                loss += float(self._losses(batch, margins).sum())
                margin += float(margins.sum())
                right += int((margins > 0).sum())
            run_idle_passes(self._model, self._ranks, rows, budget)
        loss, margin, right = self._ranks.totals(loss, margin, right)
        count = len(rows)
        mean = require_finite(loss / count, step)
        return Evaluated(step=step, loss=mean, accuracy=right / count, margin=margin / count, rows=count)

    def _logprobs(self, batch: MicroBatch) -> Tensor:
        on_device = batch.to(self._model.device.place)
        return sequence_logprobs(self._model.states_of(on_device), on_device, self._model.head)

    def _log_ratios(self, batch: MicroBatch) -> Tensor:
        """What the log probability of each answer gained over the starting weights. (sequences,)"""
        scores = self._logprobs(batch)
        return scores - torch.tensor([item.reference_logprob for item in batch.items], device=scores.device)

    def _margins(self, batch: MicroBatch, kl_estimate: float) -> Tensor:
        """How far the rewards of each row are on the right side. (rows,)"""
        raise NotImplementedError

    def _losses(self, batch: MicroBatch, margins: Tensor) -> Tensor:
        """(rows,)"""
        raise NotImplementedError


class DPO(_ReferenceObjective):
    """DPO (Rafailov et al. 2023, arxiv.org/abs/2305.18290, equation 7); with label smoothing its conservative form
    (Mitchell 2023, ericmitchell.ai/cdpo.pdf)."""

    def _margins(self, batch: MicroBatch, kl_estimate: float) -> Tensor:
        log_ratios = self._log_ratios(batch)
        return self._values.beta * (log_ratios[0::2] - log_ratios[1::2])

    def _losses(self, batch: MicroBatch, margins: Tensor) -> Tensor:
        wrong = self._values.label_smoothing
        return -(1 - wrong) * logsigmoid(margins) - wrong * logsigmoid(-margins)


class KTO(_ReferenceObjective):
    """KTO (Ethayarajh et al. 2024, arxiv.org/abs/2402.01306, equation 7)."""

    _kl_cache: tuple[object, float] = (None, 0.0)  # the newest kl_estimate, and of which rows under which weights it is

    def kl_estimate(self, window: Sequence[Trainable], *, budget: int) -> float:
        """The paper's z0: the mean gain of answers to other prompts, at least 0; no gradient flows through it.

        The processes share these answers and meet. One whose memory does not hold a pass makes its window again, and
        must not come to that meeting a second time: so what was found stays until rows or weights are others.
        """
        of = [*map(id, window)], [weight._version for weight in self._model.lora.values()]
        if self._kl_cache[0] != of:
            self._kl_cache = of, self._mean_log_ratio(_mismatches(window), budget)
        return max(0.0, self._kl_cache[1])

    def _mean_log_ratio(self, rows: Sequence[Trainable], budget: int) -> float:
        total = torch.zeros((), dtype=torch.float64, device=self._model.device.place)
        with undisturbed(self._model.peft):
            for batch in self._model.passes(self._ranks.share(rows), budget):
                total += self._log_ratios(batch).sum(dtype=torch.float64)
            run_idle_passes(self._model, self._ranks, rows, budget)
        [summed] = self._ranks.totals(float(total))
        return summed / len(rows)

    def _margins(self, batch: MicroBatch, kl_estimate: float) -> Tensor:
        return (
            self._values.beta
            * self._per_row(batch, desirable=1.0, undesirable=-1.0)
            * (self._log_ratios(batch) - kl_estimate)
        )

    def _losses(self, batch: MicroBatch, margins: Tensor) -> Tensor:
        values = self._values
        weights = self._per_row(batch, desirable=values.desirable_weight, undesirable=values.undesirable_weight)
        return weights * (1 - margins.sigmoid())

    def _per_row(self, batch: MicroBatch, *, desirable: float, undesirable: float) -> Tensor:
        """One value for desirable answers, another for undesirable ones. (rows,)"""
        is_desirable = [isinstance(row, LabelledAnswer) and row.desirable for row in batch.rows]
        values = [desirable if one else undesirable for one in is_desirable]
        return torch.tensor(values, device=self._model.device.place)


def _mismatches(rows: Sequence[Trainable]) -> list[Trainable]:
    """The prompts of judged rows with answers to others."""
    return [row.mismatch for row in rows if isinstance(row, LabelledAnswer) and row.mismatch]
