"""What nf4 costs a step, beside the same training on the base that is not quantised: step by step, in one process.

    make bench ARGS=quantised           DATA=rows.json STEPS=24 BASE=folder from the environment

Fresh processes are minutes apart, and what else a machine does changes in between by more than is asked about here. So
both trainings are there at once and take the steps of the same windows in turn, who comes first changing as well. A
ratio is that of two steps beside each other; what is told is their median, with the middle half of them.
"""

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.contenders.lowrank_bf16 import unquantised
from benchmarks.training import prepare as prepare_work
from trainer.events import Event
from trainer.preparation import prepare
from trainer.ranks import Ranks
from trainer.run import Run
from trainer.sft import accumulate_gradient
from trainer.spec import TrainSpec

WARM_UP = 4  # steps
QUANTISED, PLAIN = "nf4", "none"


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = json.loads(prepare_work(Path(folder)).read_text())
        runs = {
            kind: _prepared(one, Path(folder) / kind) for kind, one in ((QUANTISED, work), (PLAIN, unquantised(work)))
        }
        steps = runs[PLAIN].plan.steps
        seconds = [_both(runs, step) for step in range(steps)][WARM_UP:]
    ratios = [one[PLAIN] / one[QUANTISED] for one in seconds]
    low, middle, high = statistics.quantiles(ratios, n=4)
    for kind, run in runs.items():
        lengths = [sum(item.length for item in run.plan.window(step)) for step in range(WARM_UP, steps)]
        speed = statistics.median(n / one[kind] for n, one in zip(lengths, seconds, strict=True))
        print(f"  {kind:<8} {speed:7.1f} tok/s")
    print(f"nf4 is {middle:.3f}x as fast over {len(ratios)} pairs of steps (middle half {low:.3f} to {high:.3f})")


def _prepared(work: dict[str, Any], out: Path) -> Run:
    out.mkdir()
    spec = TrainSpec.from_dict(work["spec"])
    return prepare(spec, out=out, resume=None, emit=_say_nothing, should_stop=lambda: False, ranks=Ranks())


def _both(runs: dict[str, Run], step: int) -> dict[str, float]:
    """Seconds of one step of each."""
    order = (QUANTISED, PLAIN) if step % 2 else (PLAIN, QUANTISED)
    return {kind: _step(runs[kind], step) for kind in order}


def _step(run: Run, step: int) -> float:
    began = run.model.device.clock()
    accumulate_gradient(run, run.plan.window(step))
    run.optimizer.step(learning_rate=run.spec.optim.learning_rate, norm=run.optimizer.grad_norm())
    run.position.step += 1
    return run.model.device.clock() - began


def _say_nothing(event: Event) -> None:
    """A table is all there is to see."""


if __name__ == "__main__":
    main()
