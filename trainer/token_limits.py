"""What a base model can read: tokens that its embeddings have, and no more of them at once than its context holds."""

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

from transformers import AutoConfig

from trainer.adapter_layers import context_length, layers_of
from trainer.data import Dataset
from trainer.evaluation import PROBE_TOKENS, probe_ids
from trainer.events import Emit
from trainer.forgetting import general_items
from trainer.rendering import Renderer
from trainer.spec import TrainSpec
from trainer.spec_values import Issue, refusal, shown
from trainer.token_cache import load_tokens

TOKENIZER_FIX = (
    "Use the tokenizer that belongs to it, or widen its embeddings (resize_token_embeddings in transformers)."
)


def load_readable(
    spec: TrainSpec, renderer: Renderer, emit: Emit, *, base: Path, moment: datetime, out: Path
) -> Dataset:
    """`load_tokens`, but what the base model cannot read is refused: prompts before the rows are read, tokens after."""
    check_probes(spec, renderer, base)
    dataset = load_tokens(spec, renderer, emit, base=base, moment=moment, out=out)
    check_tokens(spec, renderer, dataset, base)
    return dataset


def check_probes(spec: TrainSpec, renderer: Renderer, base: Path) -> None:
    """Raises TrainerError(user_config) for prompts whose answers might not fit in the context any more.

    With learnt positions (GPT-2, BART) the model has none beyond it, and would fail while it writes.
    """
    limit = context_length(AutoConfig.from_pretrained(base, local_files_only=True))
    if limit is None:
        return
    found = []
    for number, prompt in enumerate(spec.evaluation.probes, start=1):
        tokens = len(probe_ids(renderer, prompt))
        if tokens + PROBE_TOKENS > limit:
            text = (
                f"Prompt {number}, {shown(prompt)}, has {tokens:,} tokens. With the {PROBE_TOKENS} that its answer may "
                f"have they are more than the {limit:,} that the base model reads."
            )
            found.append(Issue("evaluation.probes", text, "Shorten it, or leave it out."))
    if found:
        raise refusal(found)


def check_tokens(spec: TrainSpec, renderer: Renderer, dataset: Dataset, base: Path) -> None:
    """Raises TrainerError(user_config) for a token that the base model's embeddings have no row for.

    A tokenizer may well have such tokens, and those of many published models do, as long as nothing contains them.
    """
    parts = layers_of(base)
    rows, _ = parts.modules[parts.table]["weight"]
    if renderer.largest_id < rows:  # as nearly always: no need to look through the rows
        return
    for where, sequences in _read_by_model(spec, renderer, dataset):
        largest = max((max(ids, default=0) for ids in sequences), default=0)
        if largest >= rows:
            token = shown(renderer.decode([largest], skip_special=False))
            text = f"Token {largest:,} of its tokenizer, {token}, is in {where}, but its embeddings have {rows:,} rows."
            raise refusal([Issue("model.base", text, TOKENIZER_FIX)])


def _read_by_model(
    spec: TrainSpec, renderer: Renderer, dataset: Dataset
) -> Iterable[tuple[str, Iterable[Iterable[int]]]]:
    """The token sequences that a run gives to the model, by what they come from."""
    for where, rows in (("the rows to learn from", dataset.train), ("the held-out rows", dataset.holdout)):
        yield where, (one.ids for row in rows for one in row.sequences)
    yield "evaluation.probes", (probe_ids(renderer, one) for one in spec.evaluation.probes)
    if spec.evaluation.forgetting and dataset.holdout:
        yield "the general text of evaluation.forgetting", (one.ids for one in general_items(renderer))
