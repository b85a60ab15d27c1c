"""The README.md that travels with an adapter: where it comes from, what it reached, how to use it."""

from typing import Any

from trainer.spec import TrainSpec

CARD = """---
base_model: {base}
library_name: peft
pipeline_tag: {pipeline}
tags:
- lora
- lowrank
---
# LoRA adapter for {base}

Trained with Lowrank on {learnt:,} rows for {steps:,} steps{held_out}.{ended}

| | |
|---|---|
| Base model | {base} |
| Quantization while training | {quantization} |
| Rank (`r`), `lora_alpha` | {r}, {alpha:g} |
| Layers | {targets} |
| Learning rate, schedule | {rate:g}, {schedule} |
| Trained tokens | {trained_tokens:,} |
| Loss at the end | {loss:.4f} |
{measured}{forgot}| Dataset (sha256 of its rows) | `{dataset_hash}` |

## Use

```python
from peft import PeftModel
from transformers import {auto_class}, AutoTokenizer

base = {auto_class}.from_pretrained({base!r})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

`spec.json` holds every value of the training, `metrics.jsonl` its course, `manifest.json` hashes and library versions.
"""

FORGOT = """| Perplexity on general text, before and after | {general_perplexity_before:.2f}, {general_perplexity:.2f} |
| Distance from the base there (KL, nats a token) | {general_kl:.4f} |
"""
MEASURED = """| Loss on {evaluation_rows:,} held-out rows, before | {evaluation_loss_before:.4f} |
| Loss on {evaluation_rows:,} held-out rows, after | {evaluation_loss:.4f} |
"""


def model_card(spec: TrainSpec, facts: dict[str, Any]) -> str:
    """The card's Markdown. `facts` are the manifest's."""
    targets = spec.lora.target_modules
    is_seq2seq = facts.get("task") == "seq2seq"
    return CARD.format(
        pipeline="text2text-generation" if is_seq2seq else "text-generation",
        auto_class="AutoModelForSeq2SeqLM" if is_seq2seq else "AutoModelForCausalLM",
        base=facts["base"],
        learnt=facts["learnt_rows"],
        held_out=f"; {facts['held_out_rows']:,} more were held out to measure" if facts["held_out_rows"] else "",
        steps=facts["steps"],
        ended=_ended(spec, facts),
        quantization=spec.model.quantization,
        r=spec.lora.r,
        alpha=spec.lora.lora_alpha,
        targets=targets if isinstance(targets, str) else ", ".join(targets),
        rate=spec.optim.learning_rate,
        schedule=spec.optim.schedule,
        trained_tokens=facts["trained_tokens"],
        loss=facts["loss"],
        measured=MEASURED.format(**facts) if "evaluation_loss" in facts else "",
        forgot=FORGOT.format(**facts) if "general_kl" in facts else "",
        dataset_hash=facts["dataset_hash"],
    )


def _ended(spec: TrainSpec, facts: dict[str, Any]) -> str:
    """Which step's weights these are and why training ended early, where it is not all as planned."""
    if facts.get("is_snapshot"):
        return f" This is a checkpoint on the way to {facts['planned_steps']:,} steps."
    said = ""
    if facts["published_step"] < facts["steps"]:
        said += f" The weights are those of step {facts['published_step']:,}, the best on the held-out rows."
    if facts["steps"] < facts["planned_steps"]:
        said += (
            f" It ended after step {facts['steps']:,} of {facts['planned_steps']:,}, when "
            f"{spec.evaluation.patience:,} measurements in a row were no better."
        )
    return said
