"""Lowrank itself, as its command trains."""

import tempfile
from pathlib import Path
from typing import Any

import trainer.sft
from benchmarks.contenders.clock import Clock, row_tokens, run
from trainer.events import Progress
from trainer.spec import TrainSpec


def lowrank(work: dict[str, Any]) -> dict[str, Any]:
    clock, seen = Clock(), []
    prepare_run = trainer.sft.prepare

    def remembered(*given: Any, **named: Any) -> Any:
        seen.append(prepare_run(*given, **named))
        return seen[0]

    trainer.sft.prepare = remembered  # the model is needed afterwards, for its size

    def emit(event: Any) -> None:
        if isinstance(event, Progress):
            clock.step(event.loss)

    with tempfile.TemporaryDirectory() as out:
        spec = TrainSpec.from_dict(work["spec"])
        trainer.sft.train(spec, out=Path(out), resume=None, emit=emit, should_stop=lambda: False)
    return clock.result(row_tokens(work), seen[0].model.peft)


if __name__ == "__main__":
    run(lowrank)
