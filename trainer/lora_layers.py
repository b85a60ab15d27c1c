"""Adds LoRA to a base model and makes the other weights trainable that a spec selects, and no others."""

from collections.abc import Iterable, Sequence
from typing import Any

from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers.pytorch_utils import Conv1D

from trainer.adapter_format import PREFIX
from trainer.adapter_layers import parts_in
from trainer.errors import TrainerError
from trainer.lora_names import Selection, select_modules
from trainer.lora_spec import LoraSpec


def add_lora(causal: Any, lora: LoraSpec) -> tuple[PeftModel, dict[str, nn.Parameter]]:
    """Put LoRA layers (Hu et al. 2021, arxiv.org/abs/2106.09685) on a loaded base; their output starts at zero.

    Returns the model and its trainable weights under their names in PEFT's files. Names that the base does not have are
    reported earlier, by `trainer.readiness`. Raises TrainerError(user_config) for what only a loaded base can show.
    """
    parts = parts_in(causal)
    selection = select_modules(parts, lora)
    _check_quantized(causal, lora, selection)
    expected = _trainable_names(causal, lora, selection, parts.table)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type] # PEFT only multiplies by it
        lora_dropout=lora.lora_dropout,
        target_modules=_peft_names(parts.targets, selection.adapted),
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        fan_in_fan_out=_is_transposed(causal, selection.adapted),
        bias=lora.bias,
        modules_to_save=selection.saved or None,
        trainable_token_indices=list(lora.trainable_token_indices) or None,
        task_type="SEQ_2_SEQ_LM" if causal.config.is_encoder_decoder else "CAUSAL_LM",
    )
    peft = get_peft_model(causal, config)
    named = {name: weight for name, weight in peft.named_parameters() if weight.requires_grad}
    _check_trainable(named, expected)
    return peft, {name_in_files(name): named[name] for name in sorted(named)}


def name_in_files(name: str) -> str:
    """A parameter's name in PEFT's files, which leave out the adapter's name."""
    name = name.replace(".modules_to_save.default.", ".")
    name = name.replace(".lora_magnitude_vector.default.weight", ".lora_magnitude_vector")
    return name.replace(".default.", ".").removesuffix(".default")


def _check_quantized(causal: Any, lora: LoraSpec, selection: Selection) -> None:
    """Refuse what quantised layers do not support. Only now is it known whether they could be dequantised in memory."""
    kinds = (Linear4bit, Linear8bitLt)
    if quantized := [path for path in selection.saved if isinstance(causal.get_submodule(path), kinds)]:
        name = quantized[0].rpartition(".")[2]
        text = f"{name} is quantised and cannot be trained in full: see lora.modules_to_save."
        raise _refused(text, "Set model.quantization to none, or name it in lora.target_modules instead.")
    if lora.use_dora and any(isinstance(causal.get_submodule(path), Linear8bitLt) for path in selection.adapted):
        text = "lora.use_dora reads the base's weights in every pass, which does not work with int8 ones."
        raise _refused(text, "There is no memory to dequantise them: set model.quantization to nf4.")


def _trainable_names(causal: Any, lora: LoraSpec, selection: Selection, table: str) -> set[str]:
    """The exact names of all parameters to train, in the model that PEFT has wrapped."""
    parts = ["lora_A", "lora_B", *(["lora_magnitude_vector"] if lora.use_dora else [])]
    names = {f"{path}.{part}.default.weight" for path in selection.adapted for part in parts}
    names |= {f"{path}.base_layer.bias" if path in selection.adapted else f"{path}.bias" for path in selection.biased}
    for path in selection.saved:
        names |= {f"{path}.modules_to_save.default.{one}" for one, _ in causal.get_submodule(path).named_parameters()}
    if lora.trainable_token_indices:
        names.add(f"{table}.token_adapter.trainable_tokens_delta.default")
    return {PREFIX + name for name in names}


def _peft_names(targets: Sequence[str], paths: list[str]) -> list[str]:
    """PEFT's target_modules for these paths: short names, or whole paths where short names would match other layers."""
    short, wanted = {path.rpartition(".")[2] for path in paths}, set(paths)
    only_wanted = all(path in wanted for path in targets if path.rpartition(".")[2] in short)
    return sorted(short) if only_wanted else paths


def _is_transposed(causal: Any, paths: Sequence[str]) -> bool:
    """Whether these layers' weights are stored as (in, out), as in GPT-2. PEFT would detect it too, but warn."""
    return bool(paths) and all(isinstance(causal.get_submodule(path), Conv1D) for path in paths)


def _check_trainable(names: Iterable[str], expected: set[str]) -> None:
    """Exactly the selected parameters must be trainable: PEFT has rules of its own for some families."""
    if difference := sorted(expected ^ set(names)):
        raise _refused(
            f"In this architecture PEFT would train other weights than the spec selects: {difference[0]}.",
            "Choose another base model, or name other layers in lora.target_modules.",
        )


def _refused(text: str, fix: str) -> TrainerError:
    return TrainerError("user_config", text, fix)
