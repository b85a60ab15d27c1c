"""Puts on a base model what learns: layers with an update, and other weights that are set free; nothing else may."""

import re
from collections.abc import Iterable
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from trainer.errors import TrainerError
from trainer.lora_spec import LoraSpec

# The words in a layer's path that tell what it belongs to, across model families.
GROUP_WORDS = {
    "attention": re.compile(r"attn|attention", re.I),
    "mlp": re.compile(r"mlp|feed_forward|ffn|expert|DenseReluDense|\bfc[12]$", re.I),
}
NAMES_OF_EXPERTS = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
PREFIX = "base_model.model."  # PEFT's name for the wrapped base model


def put_lora(causal: Any, lora: LoraSpec) -> tuple[PeftModel, dict[str, nn.Parameter]]:
    """Put LoRA layers (Hu et al. 2021, arxiv.org/abs/2106.09685) on a loaded base; their output starts at zero.

    Returns the model and all that learns, by the names that PEFT's files have for it. Raises TrainerError(user_config)
    naming what the base does not have.
    """
    saved = saved_paths(causal, lora.modules_to_save)
    paths = [path for path in target_paths(causal, lora.target_modules) if path not in saved]
    paths = _in_layers(paths, lora.layers_to_transform)
    for name in ("rank_pattern", "alpha_pattern"):
        _check_pattern(f"lora.{name}", getattr(lora, name), paths)
    _check_tokens(causal, lora, saved)
    if lora.use_dora and any(isinstance(causal.get_submodule(path), Linear8bitLt) for path in paths):
        text = "lora.use_dora reads the base's weights in every pass, and packed int8 ones cannot be read so."
        raise _refused(text, "Memory has no room to unpack them: set model.quantization to nf4.")
    wanted = _learning(causal, lora, paths, saved)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type] # PEFT only multiplies by it
        lora_dropout=lora.lora_dropout,
        target_modules=_peft_names(causal, paths),
        rank_pattern=dict(lora.rank_pattern),
        alpha_pattern=dict(lora.alpha_pattern),
        use_rslora=lora.use_rslora,
        use_dora=lora.use_dora,
        bias=lora.bias,
        modules_to_save=saved or None,
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


def linear_paths(causal: Any) -> list[str]:
    """Paths of the layers that can get an update: every linear one but the output head.

    Where experts are stacked, PEFT takes the names of their parts for parts of the stack, wherever else they stand.
    """
    head = causal.get_output_embeddings()
    taken = NAMES_OF_EXPERTS if has_stacked_experts(causal) else ()
    linear = [name for name, one in causal.named_modules() if one is not head and _is_linear(one)]
    return [name for name in linear if _leaf(name) not in taken]


def _is_linear(module: nn.Module) -> bool:
    """A class made from a linear layer may return something else, as routers of experts do."""
    if type(module) in (nn.Linear, Linear4bit, Linear8bitLt, Conv1D):
        return True
    if not isinstance(module, nn.Linear):
        return False
    with torch.no_grad():
        return isinstance(module(module.weight.new_zeros(1, module.in_features)), Tensor)


def target_paths(causal: Any, targets: str | tuple[str, ...]) -> list[str]:
    """Paths of the layers that a group or a list of names means. Raises TrainerError naming what the model has."""
    paths = linear_paths(causal)
    known = sorted({_leaf(path) for path in paths})
    if isinstance(targets, str):
        words = GROUP_WORDS.get(targets)
        found = [path for path in paths if words is None or words.search(path)]
        missing = [] if found else [targets]
    else:
        found = [path for path in paths if _leaf(path) in targets]
        missing = sorted(set(targets) - set(known))
    if missing:
        raise _refused(f"The base model has no layers called {', '.join(missing)}.", f"It has {', '.join(known)}.")
    return found


def _in_layers(paths: list[str], numbers: tuple[int, ...]) -> list[str]:
    """Those of the paths that lie in the decoder layers with these numbers; all when there is no number."""
    if not numbers:
        return paths
    layer_of = {path: int(found[1]) for path in paths if (found := re.search(r"\.(\d+)\.", path))}
    if missing := sorted(set(numbers) - set(layer_of.values())):
        last = max(layer_of.values(), default=0)
        text = f"lora.layers_to_transform names layer {missing[0]}, which has no layer that could get an update."
        raise _refused(text, f"The base model's layers are 0 to {last}.")
    return [path for path in paths if layer_of.get(path) in numbers]


def saved_paths(causal: Any, names: tuple[str, ...]) -> list[str]:
    """Paths of the modules that these names mean, each with weights of its own."""
    own = {path: one for path, one in causal.named_modules() if any(True for _ in one.parameters(recurse=False))}
    found = {name: [path for path in own if _means(name, path)] for name in names}
    if missing := [name for name in names if not found[name]]:
        known = ", ".join(sorted({_leaf(path) for path in own}))
        raise _refused(
            f"The base model has no module called {missing[0]}: see lora.modules_to_save.", f"It has {known}."
        )
    paths = [path for path in own if any(path in some for some in found.values())]
    if packed := [path for path in paths if isinstance(own[path], (Linear4bit, Linear8bitLt))]:
        text = f"{_leaf(packed[0])} is quantised and cannot learn whole: see lora.modules_to_save."
        raise _refused(text, "Set model.quantization to none, or let it get an update instead.")
    return paths


def _check_pattern(field: str, pattern: Iterable[str], paths: list[str]) -> None:
    """Each name must mean layers that get an update, and no layer two names: PEFT would take whichever is first."""
    taken: dict[str, str] = {}
    for name in pattern:
        meant = [path for path in paths if _means(name, path)]
        if not meant:
            known = ", ".join(sorted({_leaf(path) for path in paths}))
            raise _refused(f"{field} names {name}, and no such layer gets an update.", f"These do: {known}.")
        if twice := [path for path in meant if path in taken]:
            raise _refused(f"{field}: {taken[twice[0]]} and {name} both mean {twice[0]}.", "Name each layer once.")
        taken |= dict.fromkeys(meant, name)


def _check_tokens(causal: Any, lora: LoraSpec, saved: list[str]) -> None:
    if not lora.trainable_token_indices:
        return
    size = causal.get_input_embeddings().weight.shape[0]
    if max(lora.trainable_token_indices) >= size:
        text = f"lora.trainable_token_indices names token {max(lora.trainable_token_indices)}."
        raise _refused(text, f"The base model's tokens are 0 to {size - 1}.")
    embeddings = (causal.get_input_embeddings(), causal.get_output_embeddings())
    if both := [path for path in saved if causal.get_submodule(path) in embeddings]:
        text = f"{_leaf(both[0])} learns whole already: see lora.modules_to_save and lora.trainable_token_indices."
        raise _refused(text, "Use one of the two.")


def _learning(causal: Any, lora: LoraSpec, paths: list[str], saved: list[str]) -> set[str]:
    """The exact names of all that shall learn, as the wrapped model has them."""
    parts = ["lora_A", "lora_B", *(["lora_magnitude_vector"] if lora.use_dora else [])]
    wanted = {f"{path}.{part}.default.weight" for path in paths for part in parts}
    biases = _biases(causal, lora.bias, paths, saved)
    if lora.bias != "none" and not biases:
        raise _refused(f"lora.bias is {lora.bias}, and there are no such biases in the base model.", "Use none.")
    wanted |= {f"{module}.base_layer.bias" if module in paths else f"{module}.bias" for module in biases}
    for path in saved:
        wanted |= {f"{path}.modules_to_save.default.{one}" for one, _ in causal.get_submodule(path).named_parameters()}
    if lora.trainable_token_indices:
        embeddings = causal.get_input_embeddings()
        path = next(name for name, one in causal.named_modules() if one is embeddings)
        wanted.add(f"{path}.token_adapter.trainable_tokens_delta.default")
    return {PREFIX + name for name in wanted}


def _biases(causal: Any, kind: str, paths: list[str], saved: list[str]) -> list[str]:
    """The modules whose bias learns."""
    if kind == "none":
        return []
    if kind == "lora_only":
        return [path for path in paths if getattr(causal.get_submodule(path), "bias", None) is not None]
    named = [name for name, _ in causal.named_parameters() if _leaf(name) == "bias"]
    modules = [name.removesuffix(".bias") for name in named]
    return [module for module in modules if module not in saved]


def _means(name: str, path: str) -> bool:
    """Whether a name means a module: it is the whole path, or its end after a dot."""
    return path == name or path.endswith(f".{name}")


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def has_stacked_experts(causal: Any) -> bool:
    """Whether experts lie in one tensor, of three dimensions, and not in linear layers."""
    return any(weight.ndim == 3 and "expert" in name for name, weight in causal.named_parameters())


def _peft_names(causal: Any, paths: list[str]) -> list[str]:
    """Target names as PEFT takes them: short, unless those would mean other layers too."""
    short = {_leaf(path) for path in paths}
    same = all(path in paths for path in linear_paths(causal) if _leaf(path) in short)
    return sorted(short) if same else paths


def _check_trained(named: Iterable[str], wanted: set[str]) -> None:
    """What learns must be exactly what was asked for: PEFT has rules of its own for some families."""
    if other := sorted(wanted ^ set(named)):
        raise _refused(
            f"In this architecture other layers would learn than those asked for: {other[0]}.",
            "Choose another base model, or name other layers in lora.target_modules.",
        )


def _refused(text: str, fix: str) -> TrainerError:
    return TrainerError("user_config", text, fix)
