"""Lowrank on the base as it is: what quantising it costs in speed."""

from typing import Any

from benchmarks.contenders.clock import run
from benchmarks.contenders.lowrank import lowrank


def lowrank_bf16(work: dict[str, Any]) -> dict[str, Any]:
    model = {**work["spec"]["model"], "quantization": "none"}
    return lowrank({**work, "spec": {**work["spec"], "model": model}})


if __name__ == "__main__":
    run(lowrank_bf16)
