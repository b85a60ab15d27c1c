"""Training objectives (SFT, DPO, KTO): the loss of the rows of a step, and how held-out rows are evaluated."""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from trainer.data import Dataset, LabelledAnswer, Trainable
from trainer.evaluation import evaluate
from trainer.events import Evaluated
from trainer.loss import loss_and_correct, sequence_logprobs
from trainer.micro_batch import MicroBatch
from trainer.model import AdaptedModel, eval_mode
from trainer.rank_sync import idle_pass_count, run_idle_pass, run_idle_passes
from trainer.ranks import Ranks
from trainer.spec import PreferenceSpec, TrainSpec

BeforePass = Callable[[int, int], None]
# Tokens per forward pass when the reference log probabilities are computed. Fixed, rather than following the size of
# training passes: a run that fell back to smaller passes must get bit-identical references when it is resumed.
REFERENCE_PASS_TOKENS = {"cpu": 1024, "cuda": 4096}


class Objective(Protocol):
    """A training method. A window (the rows of one optimizer step) is processed in passes (micro-batches).

    The loss of a window is the sum of its passes' losses divided by `units`.
    """

    def prepare(self, dataset: Dataset, *, before_pass: BeforePass) -> None:
        """Run once before the first step, while the model still has its initial weights."""

    def units(self, window: Sequence[Trainable]) -> int:
        """What the loss is averaged over: trained tokens for SFT, rows for DPO and KTO."""

    def kl_estimate(self, window: Sequence[Trainable], *, budget: int) -> float:
        """KTO's reference point z0 for this window, in nats; 0 for other methods."""

    def loss_and_correct(self, batch: MicroBatch, kl_estimate: float) -> tuple[Tensor, Tensor]:
        """The summed loss of a pass, with gradient, and how many of its units the model gets right."""

    def evaluate(self, rows: Sequence[Trainable], *, step: int, budget: int, before_pass: BeforePass) -> Evaluated: ...


def objective_of(spec: TrainSpec, model: AdaptedModel, ranks: Ranks) -> Objective:
    """The objective of `data.method`; `prepare` it before its first pass."""
    if spec.data.method == "sft":
        return SupervisedFineTuning(model, ranks)
    return (DPO if spec.data.method == "dpo" else KTO)(model, ranks, spec.preference)


class SupervisedFineTuning:
    """Next-token cross entropy on the answers; every trained token of a window has the same weight."""

    def __init__(self, model: AdaptedModel, ranks: Ranks) -> None:
        self._model = model
        self._ranks = ranks

    def prepare(self, dataset: Dataset, *, before_pass: BeforePass) -> None:
        """SFT has no reference model."""

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
    """What DPO and KTO share: the policy is compared with its initial weights, the reference.

    The implicit reward of an answer is beta * (log p_policy - log p_reference). Reference log probabilities are
    computed once, before the first step, and stored with the rows, so no second model is held in memory.
    """

    def __init__(self, model: AdaptedModel, ranks: Ranks, values: PreferenceSpec) -> None:
        self._model = model
        self._ranks = ranks
        self._values = values

    def prepare(self, dataset: Dataset, *, before_pass: BeforePass) -> None:
        rows = [*dataset.train, *dataset.holdout]
        rows += _mismatches(rows)
        budget = REFERENCE_PASS_TOKENS[self._model.device.place.type]
        items = [item for row in rows for item in row.sequences]
        places = {id(item): place for place, item in enumerate(items)}
        logprobs = torch.zeros(len(items), dtype=torch.float64)  # zero where another process computes them
        passes = self._model.passes(self._ranks.share(rows), budget)
        # `before_pass` may be a collective call, so every process makes it as often as the one with the most passes.
        pass_count = len(passes) + idle_pass_count(self._model, self._ranks, rows, budget)
        with eval_mode(self._model.peft):
            for number in range(1, pass_count + 1):
                before_pass(number, pass_count)
                if number <= len(passes):
                    batch = passes[number - 1]
                    logprobs[[places[id(item)] for item in batch.items]] = self._logprobs(batch).double().cpu()
                else:  # in between, not after all: gathering a sharded layer is a collective call like the other
                    run_idle_pass(self._model)
        for item, logprob in zip(items, self._ranks.totals(*logprobs.tolist()), strict=True):
            item.reference_logprob = logprob

    def units(self, window: Sequence[Trainable]) -> int:
        return len(window)

    def kl_estimate(self, window: Sequence[Trainable], *, budget: int) -> float:
        return 0.0

    def loss_and_correct(self, batch: MicroBatch, kl_estimate: float) -> tuple[Tensor, Tensor]:
        margins = self._margins(batch, kl_estimate)
        return self._losses(batch, margins).sum(), (margins > 0).sum()

    def evaluate(self, rows: Sequence[Trainable], *, step: int, budget: int, before_pass: BeforePass) -> Evaluated:
        """Mean loss and mean reward margin; accuracy is the share of rows with a margin above zero."""
        loss = margin = correct = 0.0  # sums over this process's share
        passes = self._model.passes(self._ranks.share(rows), budget)
        with eval_mode(self._model.peft):
            kl_estimate = self.kl_estimate(rows, budget=budget)
            for number, batch in enumerate(passes, start=1):
                before_pass(number, len(passes))
                margins = self._margins(batch, kl_estimate)
                loss += float(self._losses(batch, margins).sum())
                margin += float(margins.sum())
                correct += int((margins > 0).sum())
            run_idle_passes(self._model, self._ranks, rows, budget)
        loss, margin, correct = self._ranks.totals(loss, margin, correct)
        count = len(rows)
        return Evaluated(step=step, loss=loss / count, accuracy=correct / count, margin=margin / count, rows=count)

    def _logprobs(self, batch: MicroBatch) -> Tensor:
        on_device = batch.to(self._model.device.place)
        return sequence_logprobs(self._model.states_of(on_device), on_device, self._model.head)

    def _log_ratios(self, batch: MicroBatch) -> Tensor:
        """log p_policy - log p_reference of each sequence. (sequences,)"""
        logprobs = self._logprobs(batch)
        return logprobs - torch.tensor([item.reference_logprob for item in batch.items], device=logprobs.device)

    def _margins(self, batch: MicroBatch, kl_estimate: float) -> Tensor:
        """The reward margin of each row, positive where the model ranks it correctly. (rows,)"""
        raise NotImplementedError

    def _losses(self, batch: MicroBatch, margins: Tensor) -> Tensor:
        """(rows,)"""
        raise NotImplementedError


class DPO(_ReferenceObjective):
    """DPO (Rafailov et al. 2023, arxiv.org/abs/2305.18290, equation 7).

    With label smoothing this is conservative DPO (Mitchell 2023, ericmitchell.ai/cdpo.pdf).
    """

    def _margins(self, batch: MicroBatch, kl_estimate: float) -> Tensor:
        log_ratios = self._log_ratios(batch)  # chosen and rejected alternate
        return self._values.beta * (log_ratios[0::2] - log_ratios[1::2])

    def _losses(self, batch: MicroBatch, margins: Tensor) -> Tensor:
        smoothing = self._values.label_smoothing
        return -(1 - smoothing) * logsigmoid(margins) - smoothing * logsigmoid(-margins)


class KTO(_ReferenceObjective):
    """KTO (Ethayarajh et al. 2024, arxiv.org/abs/2402.01306, equation 7)."""

    _kl_cache: tuple[object, float] = (None, 0.0)  # the latest estimate and its key: rows and weights

    def kl_estimate(self, window: Sequence[Trainable], *, budget: int) -> float:
        """The paper's z0: the mean log ratio of mismatched prompt-answer pairs, clamped at 0, without gradient.

        Computing it is a collective operation. A process that runs out of memory repeats its window, and must not enter
        the collective a second time, so the result is cached until the rows or the weights change.
        """
        key = [*map(id, window)], [weight._version for weight in self._model.lora.values()]
        if self._kl_cache[0] != key:
            self._kl_cache = key, self._mean_log_ratio(_mismatches(window), budget)
        return max(0.0, self._kl_cache[1])

    def _mean_log_ratio(self, rows: Sequence[Trainable], budget: int) -> float:
        total = torch.zeros((), dtype=torch.float64, device=self._model.device.place)
        with eval_mode(self._model.peft):
            for batch in self._model.passes(self._ranks.share(rows), budget):
                total += self._log_ratios(batch).sum(dtype=torch.float64)
            run_idle_passes(self._model, self._ranks, rows, budget)
        [summed] = self._ranks.totals(float(total))
        return summed / len(rows)

    def _margins(self, batch: MicroBatch, kl_estimate: float) -> Tensor:
        signs = self._per_row(batch, desirable=1.0, undesirable=-1.0)
        return self._values.beta * signs * (self._log_ratios(batch) - kl_estimate)

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
    """The mismatched pairs of labelled answers: each prompt with the answer to another one."""
    return [row.mismatch for row in rows if isinstance(row, LabelledAnswer) and row.mismatch]
