"""Two published ways to tell a job's memory beforehand, on the same specs: fitcheck-llm, and Unsloth Studio's formula.

Both are for GPUs. Their constant for what a process holds besides tensors (a CUDA context) is 0 here, and what a
trainer's process holds on this machine before it loads anything is added to both: they are measured by their tensors.
Both are told what the trainer does where their questions allow it: whether the weights are unpacked, what a pass holds.
"""

from collections.abc import Mapping
from typing import Any

from fitcheck import ModelConfig, TrainingConfig, estimate, get_gpu

from benchmarks.memory.cases import Case
from trainer.estimate import lora_parameters
from trainer.spec import TrainSpec

MIB = 1 << 20
FITCHECK_NAMES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
UNSLOTH_OPTIMIZER = {"adamw": 6, "adamw_8bit": 4, "paged_adamw": 8, "paged_adamw_8bit": 4}


def fitcheck(case: Case, spec: TrainSpec, facts: Mapping[str, Any], *, unpacked: bool, again: bool) -> float:
    """Bytes, as its report adds them up. It knows the layers of the Llama family alone."""
    width = int(facts.get("head_dim") or facts["hidden_size"] // facts["heads"])
    model = ModelConfig(
        name=case.base,
        num_params=facts["parameters"],
        hidden_size=facts["hidden_size"],
        num_layers=facts["layers"],
        num_attention_heads=facts["heads"],
        num_kv_heads=facts["kv_heads"] or facts["heads"],
        intermediate_size=facts["intermediate_size"] or 4 * facts["hidden_size"],
        vocab_size=facts["vocab_size"],
        head_dim=width,
        tie_word_embeddings=facts["tied_embeddings"],
    )
    asked = TrainingConfig(
        precision="fp32" if case.dtype == "float32" else "bf16",
        quantization="none" if unpacked else case.quantization,
        double_quant=case.quantization == "nf4" and not unpacked,
        optimizer="adam8bit" if "8bit" in spec.optim.optimizer else "adamw",
        batch_size=case.rows,
        seq_len=case.length,
        lora_rank=spec.lora.r,
        lora_targets=_targets(spec),
        grad_checkpoint=again,
        flash_attn=True,  # none of the kernels here keeps scores in float32
    )
    found = estimate(model, asked, get_gpu(vram_mib=1 << 20))
    return (found.total_mib - found.overhead_mib) * MIB


def _targets(spec: TrainSpec) -> list[str]:
    groups = {"all-linear": FITCHECK_NAMES, "attention": FITCHECK_NAMES[:4], "mlp": FITCHECK_NAMES[4:]}
    targets = spec.lora.target_modules
    return list(groups[targets] if isinstance(targets, str) else targets)


def unsloth(case: Case, spec: TrainSpec, facts: Mapping[str, Any], *, unpacked: bool, again: bool) -> float:
    """Bytes by the formulas of its VRAM_ESTIMATION.md (sections 1 to 6), which count all values in two bytes."""
    hidden, layers, middle = (
        facts["hidden_size"],
        facts["layers"],
        facts["intermediate_size"] or 4 * facts["hidden_size"],
    )
    keys = hidden // facts["heads"] * (facts["kv_heads"] or facts["heads"])
    quantizable = ((hidden + keys + keys + hidden) * hidden + 3 * hidden * middle) * layers
    tables = 1 if facts["tied_embeddings"] else 2
    rest = 2 * hidden * layers + tables * facts["vocab_size"] * hidden
    packed = case.quantization == "nf4" and not unpacked
    weights = quantizable * 2 / (3.6 if packed else 1) + rest * 2
    learns = lora_parameters(spec, facts)
    optimizer = learns * UNSLOTH_OPTIMIZER[spec.optim.optimizer]
    tokens = case.rows * case.length
    a_layer = (tokens * (hidden + 2 * keys) + 2 * tokens + tokens * 2 * middle) * 2 * 1.25
    activations = a_layer * (1 if again else layers)
    gradients = max(learns * 2, min(weights * 0.15, max(activations, optimizer)))
    return weights + learns * 2 + optimizer + gradients + activations
