"""An adapter's model card (README.md): what it was trained from, its metrics, and how to use it."""

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

Trained with Lowrank on {rows:,} rows for {steps:,} steps{held_out}.{ended}

| | |
|---|---|
| Base model | {base} |
| Quantization while training | {quantization} |
| Rank (`r`), `lora_alpha` | {r}, {alpha:g} |
| Layers | {targets} |
| Learning rate, schedule | {rate:g}, {schedule} |
| Trained tokens | {trained_tokens:,} |
| Loss of step {published_step}, whose weights these are | {loss:.4f} |
{evaluated}{general}| Dataset (sha256 of its rows) | `{dataset_hash}` |

## Use

```python
from peft import PeftModel
from transformers import {auto_class}, AutoTokenizer

base = {auto_class}.from_pretrained({base!r})
model = PeftModel.from_pretrained(base, "path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```

`spec.json` has the settings, `metrics.jsonl` the metrics over time, `manifest.json` hashes and library versions.
"""

GENERAL = """\
| Perplexity on general text, before and after | {general_perplexity_before:.2f}, {general_perplexity:.2f} |
| KL divergence from the base on it, nats per token | {general_kl:.4f} |
"""
EVALUATED = """\
| Loss on {evaluation_rows:,} held-out rows, before | {evaluation_loss_before:.4f} |
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
        rows=facts["learnt_rows"],
        held_out=f"; {facts['held_out_rows']:,} more were held out for evaluation" if facts["held_out_rows"] else "",
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
        published_step=facts["published_step"],
        evaluated=EVALUATED.format(**facts) if "evaluation_loss" in facts else "",
        general=GENERAL.format(**facts) if "general_kl" in facts else "",
        dataset_hash=facts["dataset_hash"],
    )


def _ended(spec: TrainSpec, facts: dict[str, Any]) -> str:
    """Which step's weights these are, and why training ended early, if it did."""
    if facts.get("is_snapshot"):
        return f" This is a checkpoint on the way to {facts['planned_steps']:,} steps."
    text = ""
    if facts["published_step"] < facts["steps"]:
        text += f" The weights are those of step {facts['published_step']:,}, the best on the held-out rows."
    if facts["steps"] < facts["planned_steps"]:
        text += (
            f" It ended after step {facts['steps']:,} of {facts['planned_steps']:,}, when "
            f"{spec.evaluation.patience:,} evaluations in a row were no better."
        )
    return text
