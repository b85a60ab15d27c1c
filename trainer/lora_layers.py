"""Puts on a base model what learns: layers with an update, and other weights that are set free; nothing else may."""

from collections.abc import Iterable, Sequence
from typing import Any

from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from trainer.adapter_format import PREFIX
from trainer.adapter_layers import parts_in
from trainer.errors import TrainerError
from trainer.lora_names import Chosen, chosen_in
from trainer.lora_spec import LoraSpec


def add_lora(causal: Any, lora: LoraSpec) -> tuple[PeftModel, dict[str, nn.Parameter]]:
    """Put LoRA layers (Hu et al. 2021, arxiv.org/abs/2106.09685) on a loaded base; their output starts at zero.

    Returns the model and all that learns, by the names that PEFT's files have for it. What the base does not have was
    told before, see `trainer.readiness`. Raises TrainerError(user_config) for what shows only now.
    """
    parts = parts_in(causal)
    chosen = chosen_in(parts, lora)
    _check_packed(causal, lora, chosen)
    wanted = _learning(causal, lora, chosen, parts.table)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type] # PEFT only multiplies by it
        lora_dropout=lora.lora_dropout,
        target_modules=_peft_names(parts.targets, chosen.updated),
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        fan_in_fan_out=_lie_across(causal, chosen.updated),
        bias=lora.bias,
        modules_to_save=chosen.saved or None,
        trainable_token_indices=list(lora.trainable_token_indices) or None,
        task_type="SEQ_2_SEQ_LM" if causal.config.is_encoder_decoder else "CAUSAL_LM",
    )
    peft = get_peft_model(causal, config)
    named = {name: weight for name, weight in peft.named_parameters() if weight.requires_grad}
    _check_trained(named, wanted)
    return peft, {name_in_files(name): named[name] for name in sorted(named)}


def name_in_files(name: str) -> str:
    """What PEFT calls a weight of the wrapped model in its files, where no adapter has a name."""
    name = name.replace(".modules_to_save.default.", ".")
    name = name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
    return name.replace(".default.", ".").removesuffix(".default")


def _check_packed(causal: Any, lora: LoraSpec, chosen: Chosen) -> None:
    """What quantised layers cannot do; whether memory has room to unpack them shows only once they are loaded."""
    if packed := [path for path in chosen.saved if isinstance(causal.get_submodule(path), (Linear4bit, Linear8bitLt))]:
        text = f"{packed[0].rpartition('.')[2]} is quantised and cannot learn whole: see lora.modules_to_save."
        raise _refused(text, "Set model.quantization to none, or let it get an update instead.")
    if lora.use_dora and any(isinstance(causal.get_submodule(path), Linear8bitLt) for path in chosen.updated):
        text = "lora.use_dora reads the base's weights in every pass, and packed int8 ones cannot be read so."
        raise _refused(text, "Memory has no room to unpack them: set model.quantization to nf4.")


def _learning(causal: Any, lora: LoraSpec, chosen: Chosen, table: str) -> set[str]:
    """The exact names of all that shall learn, as the wrapped model has them."""
    parts = ["lora_A", "lora_B", *(["lora_magnitude_vector"] if lora.use_dora else [])]
    wanted = {f"{path}.{part}.default.weight" for path in chosen.updated for part in parts}
    wanted |= {f"{path}.base_layer.bias" if path in chosen.updated else f"{path}.bias" for path in chosen.biased}
    for path in chosen.saved:
        wanted |= {f"{path}.modules_to_save.default.{one}" for one, _ in causal.get_submodule(path).named_parameters()}
    if lora.trainable_token_indices:
        wanted.add(f"{table}.token_adapter.trainable_tokens_delta.default")
    return {PREFIX + name for name in wanted}


def _peft_names(targets: Sequence[str], paths: list[str]) -> list[str]:
    """Target names as PEFT takes them: short, unless those would mean other layers too."""
    short, meant = {path.rpartition(".")[2] for path in paths}, set(paths)
    same = all(path in meant for path in targets if path.rpartition(".")[2] in short)
    return sorted(short) if same else paths


def _lie_across(causal: Any, paths: Sequence[str]) -> bool:
    """Whether the weights of these layers are stored as (in, out). Not told, PEFT finds out, and warns."""
    return bool(paths) and all(isinstance(causal.get_submodule(path), Conv1D) for path in paths)


def _check_trained(named: Iterable[str], wanted: set[str]) -> None:
    """What learns must be exactly what was asked for: PEFT has rules of its own for some families."""
    if other := sorted(wanted ^ set(named)):
        raise _refused(
            f"In this architecture other layers would learn than those asked for: {other[0]}.",
            "Choose another base model, or name other layers in lora.target_modules.",
        )


def _refused(text: str, fix: str) -> TrainerError:
    return TrainerError("user_config", text, fix)
