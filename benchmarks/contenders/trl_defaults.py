"""TRL's SFTTrainer as it comes."""

import tempfile
from typing import Any

import torch
from datasets import Dataset
from transformers import AutoTokenizer, TrainerCallback
from trl import SFTConfig, SFTTrainer

from benchmarks.contenders.clock import Clock, run
from benchmarks.contenders.peft_base import lora_config, quantised
from benchmarks.contenders.place import IS_CUDA

DEFAULT_ROWS = 8  # on a device


def trl(work: dict[str, Any], *, attention: str = "sdpa", **better: Any) -> dict[str, Any]:
    """Without more said: at its defaults, which reach more rows a step than theirs by accumulating."""
    clock = Clock()
    packed = bool(better)
    if not packed:
        rows = min(DEFAULT_ROWS, work["rows_a_step"])
        better = {"per_device_train_batch_size": rows, "gradient_accumulation_steps": work["rows_a_step"] // rows}

    class Steps(TrainerCallback):
        def on_step_end(self, *given: Any, **named: Any) -> None:
            clock.step()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
            if logs and "loss" in logs:
                clock.losses.append(logs["loss"])

    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out,
            learning_rate=work["rate"],
            lr_scheduler_type="constant",
            num_train_epochs=1,
            logging_steps=1,
            train_sampling_strategy="sequential",
            report_to="none",
            save_strategy="no",
            use_cpu=not IS_CUDA,
            max_length=work["length"],
            disable_tqdm=True,
            bf16=True,
            completion_only_loss=True,  # it would not look at the mask of rows that are tokens already
            **better,
        )
        sft = SFTTrainer(
            # At its defaults TRL loads float32 and casts as it goes.
            model=quantised(work["base"], torch.bfloat16 if packed else torch.float32, attn_implementation=attention),
            args=config,
            train_dataset=Dataset.from_list(work["rows"]),
            processing_class=AutoTokenizer.from_pretrained(work["base"]),
            peft_config=lora_config(work),
            callbacks=[Steps()],
        )
        lengths = [len(ids) for ids in sft.train_dataset["input_ids"]]
        size = config.per_device_train_batch_size * config.gradient_accumulation_steps
        sft.train()
    tokens = [sum(lengths[at : at + size]) for at in range(0, len(lengths), size)]
    found = clock.result(work, sft.model, tokens)
    # Packs are made of all rows: no step has the rows of ours, so only what was learnt in the end can be compared.
    return {**found, "loss": None} if packed else found


if __name__ == "__main__":
    run(trl)
