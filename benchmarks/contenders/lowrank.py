"""Lowrank itself, as its command trains."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trainer.sft
from benchmarks.contenders.clock import Clock, row_tokens, run
from trainer.events import Progress
from trainer.spec import TrainSpec


def lowrank(work: dict[str, Any]) -> dict[str, Any]:
    """`items`: what our estimate says of the peak's parts, in bytes. `chosen`: what the trainer decided by itself."""
    clock = Clock()

    def emit(event: Any) -> None:
        if isinstance(event, Progress):
            clock.step(event.loss)

    # The model is needed afterwards, and what was estimated of its training.
    with tempfile.TemporaryDirectory() as out, _remembered("prepare") as runs, _remembered("estimate_run") as estimated:
        spec = TrainSpec.from_dict(work["spec"])
        trainer.sft.train(spec, out=Path(out), resume=None, emit=emit, should_stop=lambda: False)
    made = runs[-1]
    chosen = f"passes of {made.position.budget:,} tokens, {'unpacked' if made.model.dequantized else 'as stored'}"
    return {
        **clock.result(work, made.model.peft, row_tokens(work)),
        "items": {item.name: item.expected for item in estimated[-1].items if item.in_peak},
        "chosen": f"{chosen}, {'sharing' if made.model.prefix_sharing else 'sharing nothing'}",
    }


@contextmanager
def _remembered(name: str) -> Iterator[list[Any]]:
    """What this function of the training returns meanwhile."""
    seen: list[Any] = []
    made_by = getattr(trainer.sft, name)

    def remembering(*given: Any, **named: Any) -> Any:
        seen.append(made_by(*given, **named))
        return seen[-1]

    with patch.object(trainer.sft, name, remembering):
        yield seen


if __name__ == "__main__":
    run(lowrank)
