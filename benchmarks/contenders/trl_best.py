"""TRL's SFTTrainer at its best here: packed, nothing computed again, bfloat16 weights."""

from typing import Any

from benchmarks.contenders.clock import run
from benchmarks.contenders.trl_defaults import trl


def trl_best(work: dict[str, Any]) -> dict[str, Any]:
    return trl(work, packing=True, packing_strategy="bfd", gradient_checkpointing=False)


if __name__ == "__main__":
    run(trl_best)
