"""Lowrank on the base as it is: what quantising it costs in speed."""

from typing import Any

from benchmarks.contenders.clock import run
from benchmarks.contenders.lowrank import lowrank


def unquantised(work: dict[str, Any]) -> dict[str, Any]:
    """The same work on the base as it is."""
    model = {**work["spec"]["model"], "quantization": "none"}
    return {**work, "spec": {**work["spec"], "model": model}}


def lowrank_bf16(work: dict[str, Any]) -> dict[str, Any]:
    return lowrank(unquantised(work))


if __name__ == "__main__":
    run(lowrank_bf16)
