"""TRL's SFTTrainer at its best here: packed, nothing computed again, bfloat16 weights, flash attention where it is."""

from typing import Any

from transformers.utils import is_flash_attn_2_available

from benchmarks.contenders.clock import run
from benchmarks.contenders.peft_base import at_once
from benchmarks.contenders.trl_defaults import trl


def trl_best(work: dict[str, Any]) -> dict[str, Any]:
    """A step has half as many packs as rows: packs are of the longest row's length, about two rows each."""
    packs = max(1, work["rows_a_step"] // 2)
    size = min(packs, at_once(work))
    return trl(
        work,
        attention="flash_attention_2" if is_flash_attn_2_available() else "sdpa",
        packing=True,
        packing_strategy="bfd",
        gradient_checkpointing=False,
        per_device_train_batch_size=size,
        gradient_accumulation_steps=max(1, packs // size),
    )


if __name__ == "__main__":
    run(trl_best)
