"""Lowrank with one of its own choices made otherwise, to see what it is worth: `-m … WORK CHOICE`."""

import copy
import dataclasses
import sys
from functools import partial
from typing import Any
from unittest.mock import patch

import trainer.preparation
from benchmarks.contenders.clock import run
from benchmarks.contenders.lowrank import lowrank
from trainer.model import AdaptedModel, load_adapted


def lowrank_choice(work: dict[str, Any], choice: str) -> dict[str, Any]:
    """`unpacked`: the base's weights once, `packed`: at each use; `apart`: no beginning of rows is shared; passes as
    small as a row may need, or of a whole step."""
    work = copy.deepcopy(work)
    if choice.endswith("_passes"):
        rows = 1 if choice == "small_passes" else work["rows_a_step"]
        work["spec"]["optim"]["micro_batch_tokens"] = rows * work["length"]
    with patch.object(trainer.preparation, "load_adapted", partial(_load, choice=choice)):
        return lowrank(work)


def _load(*given: Any, choice: str, **named: Any) -> AdaptedModel:
    if choice in ("unpacked", "packed"):
        named["dequantized"] = choice == "unpacked"
    adapted = load_adapted(*given, **named)
    return dataclasses.replace(adapted, prefix_sharing=adapted.prefix_sharing and choice != "apart")


if __name__ == "__main__":
    run(partial(lowrank_choice, choice=sys.argv[2]))
