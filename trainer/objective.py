"""What a training makes of a window of rows: its loss, and how held-out rows are measured."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from trainer.data import Dataset, Judged, Trainable
from trainer.evaluation import evaluate, finite
from trainer.events import Evaluated
from trainer.loss import loss_and_hits, row_scores
from trainer.micro_batch import MicroBatch
from trainer.model import AdaptedModel, undisturbed
from trainer.pacing import idle_passes, keep_pace
from trainer.ranks import Ranks
from trainer.spec import PreferenceSpec, TrainSpec

BeforePass = Callable[[int, int], None]
# Tokens scored at once before the first step: always the same, whatever memory holds of a step, so that a run that went
# over to smaller passes compares with the same numbers after a resume. Nothing is kept for a way back.
SCORED_AT_ONCE = {"cpu": 1024, "cuda": 4096}


class Objective(Protocol):
    """A method of training. The loss of a window is the sum over its passes, divided by `units`."""

    def prepare(self, dataset: Dataset, *, before_pass: BeforePass) -> None:
        """Look at the rows once, before the first step, while the weights are still those that training starts from."""

    def units(self, window: Sequence[Trainable]) -> int: ...

    def drift(self, window: Sequence[Trainable], *, budget: int) -> float:
        """How far the model went as a whole, where the loss of a row depends on it."""

    def summed(self, batch: MicroBatch, drift: float) -> tuple[Tensor, Tensor]:
        """The loss of a pass, with gradient, and how many of its units came out right."""

    def measure(self, rows: Sequence[Trainable], *, step: int, budget: int, before_pass: BeforePass) -> Evaluated: ...


def objective_of(spec: TrainSpec, model: AdaptedModel, ranks: Ranks) -> Objective:
    if spec.data.method == "sft":
        return Imitation(model, ranks)
    return (DirectPreference if spec.data.method == "dpo" else GoodAndBad)(model, ranks, spec.preference)


class Imitation:
    """Supervised fine-tuning: the next token of each answer, every token of a window alike."""

    def __init__(self, model: AdaptedModel, ranks: Ranks) -> None:
        self._model = model
        self._ranks = ranks

    def prepare(self, dataset: Dataset, *, before_pass: BeforePass) -> None:
        """Nothing to compare with."""

    def units(self, window: Sequence[Trainable]) -> int:
        return sum(row.labels for row in window)

    def drift(self, window: Sequence[Trainable], *, budget: int) -> float:
        return 0.0

    def summed(self, batch: MicroBatch, drift: float) -> tuple[Tensor, Tensor]:
        on_device = batch.to(self._model.device.place)
        return loss_and_hits(self._model.states_of(on_device), on_device, self._model.head)

    def measure(self, rows: Sequence[Trainable], *, step: int, budget: int, before_pass: BeforePass) -> Evaluated:
        return evaluate(self._model, self._ranks, rows, step=step, budget=budget, before_pass=before_pass)


class _Compared:
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
        at_once = SCORED_AT_ONCE[self._model.device.place.type]
        items = [item for row in rows for item in row.sequences]
        places = {id(item): place for place, item in enumerate(items)}
        found = torch.zeros(len(items), dtype=torch.float64)  # zeros where another process scores
        passes = self._model.passes(self._ranks.share(rows), at_once)
        # Before a pass the processes may agree on an end, so each is asked as often as the one with the most passes.
        most = len(passes) + idle_passes(self._model, self._ranks, rows, at_once)
        with undisturbed(self._model.peft):
            for number in range(1, most + 1):
                before_pass(number, most)
                if number <= len(passes):
                    batch = passes[number - 1]
                    found[[places[id(item)] for item in batch.items]] = self._scores(batch).double().cpu()
            keep_pace(self._model, self._ranks, rows, at_once)
        for item, score in zip(items, self._ranks.totals(*found.tolist()), strict=True):
            item.reference = score

    def units(self, window: Sequence[Trainable]) -> int:
        return len(window)

    def drift(self, window: Sequence[Trainable], *, budget: int) -> float:
        return 0.0

    def summed(self, batch: MicroBatch, drift: float) -> tuple[Tensor, Tensor]:
        margins = self._margins(batch, drift)
        return self._losses(batch, margins).sum(), (margins > 0).sum()

    def measure(self, rows: Sequence[Trainable], *, step: int, budget: int, before_pass: BeforePass) -> Evaluated:
        """Loss, mean margin, and as accuracy the share of rows whose margin is above zero."""
        loss = margin = right = 0.0  # sums over this process's share
        passes = self._model.passes(self._ranks.share(rows), budget)
        with undisturbed(self._model.peft):
            drift = self.drift(rows, budget=budget)
            for number, batch in enumerate(passes, start=1):
                before_pass(number, len(passes))
                margins = self._margins(batch, drift)
                loss += float(self._losses(batch, margins).sum())
                margin += float(margins.sum())
                right += int((margins > 0).sum())
            keep_pace(self._model, self._ranks, rows, budget)
        loss, margin, right = self._ranks.totals(loss, margin, right)
        count = len(rows)
        mean = finite(loss / count, step)
        return Evaluated(step=step, loss=mean, accuracy=right / count, margin=margin / count, rows=count)

    def _scores(self, batch: MicroBatch) -> Tensor:
        on_device = batch.to(self._model.device.place)
        return row_scores(self._model.states_of(on_device), on_device, self._model.head)

    def _gains(self, batch: MicroBatch) -> Tensor:
        """What the log probability of each answer gained over the starting weights. (sequences,)"""
        scores = self._scores(batch)
        return scores - torch.tensor([item.reference for item in batch.items], device=scores.device)

    def _margins(self, batch: MicroBatch, drift: float) -> Tensor:
        """How far the rewards of each row are on the right side. (rows,)"""
        raise NotImplementedError

    def _losses(self, batch: MicroBatch, margins: Tensor) -> Tensor:
        """(rows,)"""
        raise NotImplementedError


class DirectPreference(_Compared):
    """DPO (Rafailov et al. 2023, arxiv.org/abs/2305.18290, equation 7); with label smoothing its conservative form
    (Mitchell 2023, ericmitchell.ai/cdpo.pdf)."""

    def _margins(self, batch: MicroBatch, drift: float) -> Tensor:
        gains = self._gains(batch)
        return self._values.beta * (gains[0::2] - gains[1::2])

    def _losses(self, batch: MicroBatch, margins: Tensor) -> Tensor:
        wrong = self._values.label_smoothing
        return -(1 - wrong) * logsigmoid(margins) - wrong * logsigmoid(-margins)


class GoodAndBad(_Compared):
    """KTO (Ethayarajh et al. 2024, arxiv.org/abs/2402.01306, equation 7)."""

    _drifted: tuple[object, float] = (None, 0.0)  # the newest drift, and of which rows under which weights it is

    def drift(self, window: Sequence[Trainable], *, budget: int) -> float:
        """The paper's z0: the mean gain of answers to other prompts, at least 0; no gradient flows through it.

        The processes share these answers and meet. One whose memory does not hold a pass makes its window again, and
        must not come to that meeting a second time: so what was found stays until rows or weights are others.
        """
        of = [*map(id, window)], [weight._version for weight in self._model.lora.values()]
        if self._drifted[0] != of:
            self._drifted = of, self._mean_gain(_mismatches(window), budget)
        return max(0.0, self._drifted[1])

    def _mean_gain(self, rows: Sequence[Trainable], budget: int) -> float:
        total = torch.zeros((), dtype=torch.float64, device=self._model.device.place)
        with undisturbed(self._model.peft):
            for batch in self._model.passes(self._ranks.share(rows), budget):
                total += self._gains(batch).sum(dtype=torch.float64)
            keep_pace(self._model, self._ranks, rows, budget)
        [summed] = self._ranks.totals(float(total))
        return summed / len(rows)

    def _margins(self, batch: MicroBatch, drift: float) -> Tensor:
        return self._values.beta * self._of(batch, good=1.0, bad=-1.0) * (self._gains(batch) - drift)

    def _losses(self, batch: MicroBatch, margins: Tensor) -> Tensor:
        values = self._values
        weights = self._of(batch, good=values.desirable_weight, bad=values.undesirable_weight)
        return weights * (1 - margins.sigmoid())

    def _of(self, batch: MicroBatch, *, good: float, bad: float) -> Tensor:
        """One number for good rows and another for bad ones."""
        each = [good if isinstance(row, Judged) and row.good else bad for row in batch.rows]
        return torch.tensor(each, device=self._model.device.place)


def _mismatches(rows: Sequence[Trainable]) -> list[Trainable]:
    """The prompts of judged rows with answers to others."""
    return [row.mismatch for row in rows if isinstance(row, Judged) and row.mismatch]
