"""From canonical rows to training data: rendered and tokenised once, split, and batched into windows."""

import hashlib
import math
import random
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from trainer.errors import TrainerError
from trainer.estimate import optimizer_steps
from trainer.events import Emit, Log, counted
from trainer.formats import Row, iter_rows
from trainer.holding_out import Found, divide
from trainer.method_spec import kind_issues
from trainer.raw_data import canonical_rows
from trainer.rendering import Example, Renderer
from trainer.spec import TrainSpec

MAX_NAMED_LINES = 5


@dataclass
class Item:
    """A tokenised example, up to its last trained token.

    loss_mask: one byte per token, 1 where it is trained.
    source: how many of the tokens an encoder reads, 0 without one; the rest goes through the decoder.
    reference_logprob: summed log p of the trained tokens under the initial weights, for DPO and KTO.
    """

    ids: "array[int]"
    loss_mask: bytes
    source: int = 0
    reference_logprob: float = 0.0

    @property
    def trained_tokens(self) -> int:
        """The number of trained tokens. The first token of a row is never trained: nothing predicts it."""
        return sum(self.loss_mask)

    @property
    def length(self) -> int:
        """Tokens that go through the model, encoder and decoder together. The last one is only predicted."""
        return len(self.ids) - 1

    @property
    def width(self) -> int:
        """Tokens that go through the decoder."""
        return self.length - self.source

    @property
    def sequences(self) -> "tuple[Item, ...]":
        """The sequences of a row that go through the model: here the example itself."""
        return (self,)


@dataclass(frozen=True)
class PreferencePair:
    """A chosen and a rejected answer to the same prompt, for DPO."""

    chosen: Item
    rejected: Item

    @property
    def trained_tokens(self) -> int:
        return self.chosen.trained_tokens + self.rejected.trained_tokens

    @property
    def length(self) -> int:
        return self.chosen.length + self.rejected.length

    @property
    def sequences(self) -> tuple[Item, ...]:
        return (self.chosen, self.rejected)


@dataclass(frozen=True)
class LabelledAnswer:
    """An answer labelled desirable or not, for KTO. `mismatch`: its prompt with another prompt's answer, set later."""

    answer: Item
    desirable: bool
    mismatch: Item | None = None

    @property
    def trained_tokens(self) -> int:
        return self.answer.trained_tokens

    @property
    def length(self) -> int:
        return self.answer.length

    @property
    def sequences(self) -> tuple[Item, ...]:
        return (self.answer,)


Trainable = Item | PreferencePair | LabelledAnswer  # a row ready to train; all rows of a file are of one kind


@dataclass
class Truncation:
    """What `max_seq_length` cuts off: rows, `tokens` of `of` tokens, and the longest row's uncut length."""

    rows: int = 0
    tokens: int = 0
    of: int = 0
    longest: int = 0

    def count(self, examples: Sequence[Example]) -> None:
        """Add one row: its examples are one, or two for a preference, and the row counts once however many are cut."""
        self.rows += any(example.truncated for example in examples)
        self.of += sum(example.whole for example in examples)
        self.tokens += sum(example.whole - len(example.ids) for example in examples)
        self.longest = max(self.longest, *(example.whole for example in examples))


@dataclass(frozen=True)
class Dataset:
    """All rows of a run. `content_hash` depends on the rows alone, not on the file's format.

    untrained: lines of the rows that are left out because no token of their answer would be trained.
    """

    train: list[Trainable]
    holdout: list[Trainable]
    content_hash: str
    rows: int
    truncation: Truncation
    untrained: list[int]

    @property
    def tokens(self) -> int:
        return sum(item.length for item in self.train)


@dataclass(frozen=True)
class _Rendered:
    """The rows of one file, ready to train but not divided yet; the fields are as in Dataset."""

    found: list[Found[Trainable]]
    content_hash: str
    rows: int
    truncation: Truncation
    untrained: list[int]


def load_dataset(spec: TrainSpec, renderer: Renderer, emit: Emit, *, out: Path | None = None) -> Dataset:
    """Read, render and split the rows of a spec. Raw files are first converted to canonical rows, in `out`.

    Raises TrainerError(dataset_invalid) if there is nothing to train on.
    """
    given = spec.data
    with canonical_rows(Path(given.path), out=out and out / "dataset", emit=emit) as path:
        rendered = _render_rows(_canonical_rows(path), spec, renderer)
    evaluation = None
    if given.holdout_path:
        with canonical_rows(Path(given.holdout_path), out=out and out / "holdout", emit=emit) as path:
            evaluation = _render_rows(_canonical_rows(path), spec, renderer, file="evaluation file")
        if not evaluation.found:
            raise nothing_left(
                f"the evaluation file {Path(given.holdout_path).name}", evaluation.rows, evaluation.truncation, spec
            )
    dataset = _divided(rendered, evaluation, spec, emit)
    _report(dataset, spec, emit)
    if evaluation:
        _report_cuts(evaluation, spec, emit, of=f" of the evaluation file {Path(given.holdout_path).name}")
    return dataset


def dataset_hash(spec: TrainSpec, *, out: Path | None = None) -> str:
    """The `content_hash` of `load_dataset`, without rendering the rows or reporting what is wrong with them."""
    hashes = []
    for given, name in ((spec.data.path, "dataset"), (spec.data.holdout_path, "holdout")):
        if given:
            with canonical_rows(Path(given), out=out and out / name, emit=lambda event: None) as path:
                hashes.append(_hash_of(_canonical_rows(path)))
    return _hash_of_both(*hashes) if len(hashes) > 1 else hashes[0]


def _hash_of(rows: Iterator[Row]) -> str:
    content = hashlib.sha256()
    for row in rows:
        content.update(row.to_bytes())
    return content.hexdigest()


def _hash_of_both(train: str, holdout: str) -> str:
    return hashlib.sha256(f"{train} {holdout}".encode()).hexdigest()


def _divided(rendered: _Rendered, evaluation: _Rendered | None, spec: TrainSpec, emit: Emit) -> Dataset:
    """The rows to train on, and those to evaluate on: some of them, or all of another file; the hash covers both."""
    share = 0 if evaluation else spec.data.holdout
    others = evaluation.found if evaluation else []
    train, holdout = divide(
        rendered.found, split=spec.data.split, share=share, seed=spec.optim.seed, emit=emit, evaluation=others
    )
    longest, content = spec.data.max_seq_length, rendered.content_hash
    train, holdout = _with_mismatches(train, longest), _with_mismatches(holdout, longest)
    both = _hash_of_both(content, evaluation.content_hash) if evaluation else content
    return Dataset(train, holdout, both, rendered.rows, rendered.truncation, rendered.untrained)


def _canonical_rows(path: Path) -> Iterator[Row]:
    try:
        yield from iter_rows(path)
    except (pa.ArrowException, KeyError) as error:
        raise TrainerError(
            "dataset_invalid",
            f"{path.name} is damaged, or contains no canonical rows.",
            "Recreate it with `python -m trainer check`.",
        ) from error


def _render_rows(rows: Iterator[Row], spec: TrainSpec, renderer: Renderer, *, file: str = "dataset") -> _Rendered:
    content = hashlib.sha256()
    found: list[Found[Trainable]] = []
    truncation, untrained, total = Truncation(), list[int](), 0
    for row in rows:
        total += 1
        content.update(row.to_bytes())
        if problems := kind_issues(spec.data.method, row.kind):
            raise TrainerError("user_config", f"data.method: {problems[0].problem}", problems[0].fix)
        examples = render_row(row, spec, renderer, file=file)
        truncation.count(examples)
        sample = to_trainable(row, examples)
        if sample is None:
            untrained.append(row.line)
        else:
            found.append(Found(row.content_id, row.split, sample))
    return _Rendered(found, content.hexdigest(), total, truncation, untrained)


def render_row(row: Row, spec: TrainSpec, renderer: Renderer, *, file: str = "dataset") -> list[Example]:
    """A row's token sequences for this base model. Raises TrainerError naming the row's line in the `file`."""
    try:
        return renderer.examples(row, train_on=spec.data.train_on, max_seq_length=spec.data.max_seq_length)
    except TrainerError as error:
        raise TrainerError(error.code, f"Line {row.line} of the {file}: {error.text}", error.fix) from error


def to_trainable(row: Row, examples: Sequence[Example]) -> Trainable | None:
    """The row ready to train; None if no trained token is left of an answer after truncation."""
    items = [item for example in examples if (item := _item(example))]
    if len(items) < len(examples):
        return None
    if row.kind == "preference":
        return PreferencePair(items[0], items[1])
    return LabelledAnswer(items[0], desirable=bool(row.label)) if row.kind == "labelled" else items[0]


def _item(example: Example) -> Item | None:
    """The example up to its last trained token: nothing after that affects the loss."""
    trained = example.learnt
    end = trained.rfind(1) + 1
    return Item(array("i", example.ids[:end]), trained[:end], example.source) if end else None


def _with_mismatches(samples: list[Trainable], longest: int) -> list[Trainable]:
    """Pair each labelled answer's prompt with another row's answer: on these KTO estimates its reference point."""
    rows = [one for one in samples if isinstance(one, LabelledAnswer)]
    others = mismatched_rows([hash(_prompt(one.answer).tobytes()) for one in rows])
    paired = [
        replace(one, mismatch=_mismatch(one.answer, rows[other].answer, longest))
        for one, other in zip(rows, others, strict=True)
    ]
    return list(paired) if rows else samples


def mismatched_rows(prompts: Sequence[int]) -> list[int]:
    """For each row another one with a different prompt, where there is any.

    It is half the list away, as neighbours often share a prompt, or the next one from there that differs.
    """
    count = len(prompts)
    differing = list(range(count))  # for each row the next one with another prompt; the list goes round
    for at in reversed(range(2 * count)):
        here, after = at % count, (at + 1) % count
        differing[here] = differing[after] if prompts[here] == prompts[after] else after
    found = []
    for at, prompt in enumerate(prompts):
        half = (at - count // 2) % count
        found.append(differing[half] if prompts[half] == prompt != prompts[differing[half]] else half)
    return found


def _prompt(row: Item) -> "array[int]":
    return row.ids[: row.loss_mask.find(1)]


def _mismatch(row: Item, other: Item, longest: int) -> Item:
    """The prompt of `row` with the answer of `other`."""
    prompt, answer = row.loss_mask.find(1), other.loss_mask.find(1)
    ids = _prompt(row) + other.ids[answer:]
    return Item(ids[:longest], (bytes(prompt) + other.loss_mask[answer:])[:longest], row.source)


def _report(dataset: Dataset, spec: TrainSpec, emit: Emit) -> None:
    if not dataset.rows:
        raise TrainerError("dataset_invalid", "The dataset has no rows.", "Upload a file with at least one row.")
    if not dataset.train:
        raise nothing_left("the dataset", dataset.rows, dataset.truncation, spec)
    check_held_out(dataset, spec)
    emit(
        Log(
            text=f"{counted(len(dataset.train), 'row', 'rows')} to learn from ({dataset.tokens:,} tokens), "
            f"{len(dataset.holdout):,} held out"
        )
    )
    if spec.data.holdout and not dataset.holdout:
        text = f"Nothing is held out: {_why_none(dataset)}. There is no evaluation on unseen rows"
        emit(Log(level="warning", text=text))
    _report_cuts(dataset, spec, emit)
    labels = {row.desirable for row in dataset.train if isinstance(row, LabelledAnswer)}
    if len(labels) == 1:
        which, other = ("desirable", "undesirable") if True in labels else ("undesirable", "desirable")
        text = f"Every row to learn from is labelled {which}: KTO learns from contrast, so add {other} answers"
        emit(Log(level="warning", text=text))


def nothing_left(name: str, rows: int, cuts: Truncation, spec: TrainSpec) -> TrainerError:
    """Why no row of a file is of use: the spec's limit where that cuts every row, else the rows themselves."""
    none = f"The only row of {name} has no" if rows == 1 else f"None of the {rows:,} rows of {name} has a"
    if rows and cuts.rows == rows:
        text = f"{none} token to learn within {spec.data.max_seq_length} tokens: every answer begins after them."
        fix = f"Raise it; {cuts.longest} would cut none."
        return TrainerError("user_config", f"data.max_seq_length: {text}", fix)
    fix = "Check that the rows contain answers of the assistant, and that data.max_seq_length leaves room for them."
    return TrainerError("dataset_invalid", f"{none} token to learn.", fix)


def _report_cuts(file: Dataset | _Rendered, spec: TrainSpec, emit: Emit, *, of: str = "") -> None:
    """Warn of rows that are cut or left out. `of`: names the file, unless it is the dataset itself."""
    truncation, untrained = file.truncation, file.untrained
    if truncation.rows:
        are = " is" if truncation.rows == 1 else " are"
        text = (
            f"{counted(truncation.rows, 'row', 'rows')}{of}{are} longer than {spec.data.max_seq_length} tokens, "
            f"and cut: {truncation.tokens:,} of {truncation.of:,} tokens are lost; "
            f"a data.max_seq_length of {truncation.longest} would cut none"
        )
        emit(Log(level="warning", text=text))
    if untrained:
        text = f"{counted(len(untrained), 'row', 'rows')}{of} left out for having no token to learn"
        emit(Log(level="warning", text=f"{text}: {_named_lines(untrained)}"))


def _named_lines(lines: Sequence[int]) -> str:
    """The first lines of the dataset file by number, and how many more there are."""
    named = ", ".join(f"{one:,}" for one in lines[:MAX_NAMED_LINES])
    more = f" and {len(lines) - MAX_NAMED_LINES:,} more" if len(lines) > MAX_NAMED_LINES else ""
    return f"{'line' if len(lines) == 1 else 'lines'} {named}{more}"


def check_held_out(dataset: Dataset, spec: TrainSpec) -> None:
    """Raises TrainerError(user_config) if early stopping is asked for without held-out rows."""
    if spec.evaluation.patience and not dataset.holdout:
        text = f"evaluation.patience: Nothing is held out to evaluate on: {_why_none(dataset)}."
        fix = "Use 0, add other rows, or name an evaluation file in data.holdout_path."
        raise TrainerError("user_config", text, fix)


def _why_none(dataset: Dataset) -> str:
    """Why no row could be held out: identical rows stay on the same side of the split."""
    return "there is one row to learn from" if len(dataset.train) == 1 else "all rows to learn from are the same"


class Plan:
    """Which rows each optimizer step trains on: a pure function of the seed and the step number.

    Every epoch is a new shuffle, cut into windows of `batch_size` rows; the last window of an epoch may be shorter.
    """

    def __init__(self, items: Sequence[Trainable], spec: TrainSpec) -> None:
        self._items = items
        self._rows = spec.optim.batch_size
        self._seed = spec.optim.seed
        self.steps_per_epoch = math.ceil(len(items) / self._rows)
        self.steps = optimizer_steps(spec, rows=len(items))
        self._epoch = -1
        self._order: list[int] = []

    def window(self, step: int) -> list[Trainable]:
        """The rows of step `step`, counted from 0."""
        epoch, within = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            self._order = list(range(len(self._items)))
            random.Random(f"{self._seed}:{epoch}").shuffle(self._order)  # noqa: S311 # an order, not a secret
            self._epoch = epoch
        return [self._items[at] for at in self._order[within * self._rows :][: self._rows]]
