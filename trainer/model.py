"""A base model with LoRA layers on it, ready to train: loaded, quantised, and taken apart into body and output head."""

import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.pytorch_utils import Conv1D
from transformers.utils import logging as transformers_logging

from trainer import short_attention
from trainer.base_facts import read_config, weight_files
from trainer.device import Device, find_device
from trainer.errors import TrainerError
from trainer.estimate import UNPACKED_SHARE
from trainer.events import Emit, Log
from trainer.loss import Head
from trainer.spec import ModelSpec, TrainSpec

# The words in a layer's path that tell what it belongs to, across model families.
GROUP_WORDS = {
    "attention": re.compile(r"attn|attention", re.I),
    "mlp": re.compile(r"mlp|feed_forward|ffn|expert", re.I),
}
NAMES_OF_EXPERTS = ("gate", "gate_proj", "up_proj", "down_proj", "w1", "w2", "w3")
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")  # what families call it
# What the same scores may differ by, as a share of the largest: kernels round at different places.
LOGITS_AGREE = {torch.float32: 1e-3, torch.float16: 0.01, torch.bfloat16: 0.05}


@dataclass(frozen=True)
class AdaptedModel:
    """A frozen base with trainable LoRA weights. `lora` names them as PEFT's files do.

    `unpacked`: the base's quantised weights are kept in the computing format, see `unpack`.
    """

    peft: PeftModel
    body: nn.Module
    head: Head
    lora: dict[str, nn.Parameter]
    device: Device
    unpacked: bool = False

    def hidden(self, ids: Tensor) -> Tensor:
        """Last hidden states. ids: (rows, width), padded on the right -> (rows, width, hidden).

        No attention mask: causal attention never looks at what stands to the right, so padding there changes nothing.
        """
        states: Tensor = self.body(input_ids=ids, attention_mask=None, use_cache=False).last_hidden_state
        return states


def load_adapted(spec: TrainSpec, base: Path, emit: Emit, *, unpacked: bool | None = None) -> AdaptedModel:
    """Load the base of a spec and put fresh LoRA layers on it. Raises TrainerError(user_config) for what cannot be.

    `unpacked` is how an earlier attempt computed: other products would round differently.
    """
    device = find_device(spec.model.dtype)
    causal = load_base(base, spec.model, device)
    unpacks = spec.model.quantization != "none" and (_can_unpack(causal, device) if unpacked is None else unpacked)
    if unpacks:
        unpack(causal, device.dtype)
        emit(Log(text=f"The {spec.model.quantization} weights fit in memory unpacked: the same base, faster steps"))
    if _has_stacked_experts(causal):
        emit(Log(level="warning", text="This model's experts lie in one piece and get no update; other layers do"))
    longest = getattr(causal.config, "max_position_embeddings", None)
    if longest is not None and spec.data.max_seq_length > longest:
        raise TrainerError(
            "user_config",
            f"The base model reads at most {longest} tokens and data.max_seq_length is {spec.data.max_seq_length}.",
            f"Use at most {longest}.",
        )
    return adapt(causal, spec, device, unpacked=unpacks)


def load_base(base: Path, spec: ModelSpec, device: Device) -> Any:
    """The base model of a folder, frozen and quantised. Only safetensors are read; no code of the folder runs."""
    weight_files(base)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        causal = AutoModelForCausalLM.from_pretrained(
            base,
            dtype=device.dtype,
            quantization_config=_quantization(spec, device),
            device_map={"": device.place},
            attn_implementation=_attention(base, device),
            use_safetensors=True,
            local_files_only=True,
        )
    except ValueError as error:
        raise TrainerError(
            "user_config", f"The base model cannot be loaded: {error}.", "Choose another base model."
        ) from error
    causal.requires_grad_(requires_grad=False)
    # Quantised layers must stay in training mode: on a CPU their first pass in evaluation mode repacks the weights in
    # place, and `unpack` would then read other values.
    causal.train()
    return causal


def _attention(base: Path, device: Device) -> str:
    """The fastest attention that does what the model's own does.

    Some families say through their class that fused kernels leave a part of theirs out (sinks, for one); a custom name
    would pass transformers' own check of that.
    """
    kind = AutoModelForCausalLM._model_mapping[type(AutoConfig.from_pretrained(base, local_files_only=True))]
    if read_config(base).get("attn_logit_softcapping") or not getattr(kind, "_supports_sdpa", False):
        return "eager"
    ours = not device.is_cuda and getattr(kind, "_supports_attention_backend", False)
    return short_attention.NAME if ours else "sdpa"


def _quantization(spec: ModelSpec, device: Device) -> BitsAndBytesConfig | None:
    if spec.quantization == "nf4":  # Dettmers et al. 2023, arxiv.org/abs/2305.14314
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=device.dtype,
        )
    if spec.quantization == "int8":  # Dettmers et al. 2022, arxiv.org/abs/2208.07339
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    return None


def _can_unpack(causal: Any, device: Device) -> bool:
    """Whether the quantised weights fit unpacked as well, with room to train in."""
    values: int = sum(module.in_features * module.out_features for module in quantized_layers(causal).values())
    return values * device.dtype.itemsize < device.free_bytes() * UNPACKED_SHARE


def quantized_layers(model: nn.Module) -> dict[str, Any]:
    return {name: one for name, one in model.named_modules() if isinstance(one, (Linear4bit, Linear8bitLt))}


def unpack(causal: Any, dtype: torch.dtype) -> None:
    """Replace quantised layers by plain ones that hold the same, quantised, values.

    A QLoRA step unpacks each weight two or three times; once is enough. The model that is trained stays the same.
    """
    causal.dequantize(dtype=dtype)
    causal.requires_grad_(requires_grad=False)


def adapt(causal: Any, spec: TrainSpec, device: Device, *, unpacked: bool = False) -> AdaptedModel:
    """Put LoRA layers (Hu et al. 2021, arxiv.org/abs/2106.09685) on a loaded base; their output starts at zero."""
    head, lora = _head(causal), spec.lora
    paths = target_paths(causal, lora.target_modules)
    config = LoraConfig(
        r=lora.r,
        lora_alpha=lora.lora_alpha,  # type: ignore[arg-type] # PEFT only multiplies by it
        lora_dropout=lora.lora_dropout,
        target_modules=_peft_names(causal, paths),
        use_rslora=lora.use_rslora,
        bias="none",
        task_type="CAUSAL_LM",
    )
    if spec.optim.gradient_checkpointing:
        causal.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    torch.manual_seed(spec.optim.seed)
    peft = get_peft_model(causal, config)
    named = {name: weight for name, weight in peft.named_parameters() if weight.requires_grad}
    _check_trained(named, paths)
    for weight in named.values():
        weight.data = weight.data.to(device.dtype)
    adapted = AdaptedModel(
        peft=peft,
        body=causal.base_model if causal.base_model is not causal else causal.get_decoder(),
        head=head,
        lora={name.replace(".default.", "."): weight for name, weight in sorted(named.items())},
        device=device,
        unpacked=unpacked,
    )
    _check_head(adapted)
    return adapted


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Without dropout and gradients: for measuring. Quantised layers keep their mode, see `load_base`."""
    changed = [one for one in model.modules() if one.training and not isinstance(one, (Linear4bit, Linear8bitLt))]
    for module in changed:
        module.training = False
    try:
        with torch.no_grad():
            yield
    finally:
        for module in changed:
            module.training = True


def linear_paths(causal: Any) -> list[str]:
    """Paths of the layers that can get an update: every linear one but the output head.

    Where experts are stacked, PEFT takes the names of their parts for parts of the stack, wherever else they stand.
    """
    head = causal.get_output_embeddings()
    taken = NAMES_OF_EXPERTS if _has_stacked_experts(causal) else ()
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
        raise TrainerError(
            "user_config", f"The base model has no layers called {', '.join(missing)}.", f"It has {', '.join(known)}."
        )
    return found


def _leaf(path: str) -> str:
    return path.rpartition(".")[2]


def _has_stacked_experts(causal: Any) -> bool:
    """Whether experts lie in one tensor, of three dimensions, and not in linear layers."""
    return any(weight.ndim == 3 and "expert" in name for name, weight in causal.named_parameters())


def _peft_names(causal: Any, paths: list[str]) -> list[str]:
    """Target names as PEFT takes them: short, unless those would mean other layers too."""
    short = {_leaf(path) for path in paths}
    same = all(path in paths for path in linear_paths(causal) if _leaf(path) in short)
    return sorted(short) if same else paths


def _check_trained(named: Iterable[str], paths: list[str]) -> None:
    """What learns must be exactly what was asked for: PEFT has rules of its own for some families."""
    wanted = {f"base_model.model.{path}.lora_{matrix}.default.weight" for path in paths for matrix in "AB"}
    if other := sorted(wanted ^ set(named)):
        raise TrainerError(
            "user_config",
            f"In this architecture other layers would learn than those asked for: {other[0]}.",
            "Choose another base model, or name other layers in lora.target_modules.",
        )


def _head(causal: Any) -> Head:
    """The output head and what the model does to its scores."""
    layer, config = causal.get_output_embeddings(), causal.config
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    softcap = next((value for name in SOFTCAPS if (value := getattr(config, name, None))), 0.0)
    return Head(layer.weight.detach(), layer.bias, scale, float(softcap))


def _check_head(adapted: AdaptedModel) -> None:
    """Compare our scores with the model's own on a few tokens, for a family may do something to them we do not know."""
    ids = torch.arange(4, 12, device=adapted.device.place)[None] % adapted.head.weight.shape[0]
    with undisturbed(adapted.peft):
        own = adapted.peft(input_ids=ids, use_cache=False).logits[0].float()
        ours = adapted.head.logits(adapted.hidden(ids)[0])
    if not own.isfinite().all():
        raise TrainerError(
            "user_config",
            f"The base model's scores are no finite numbers in {str(adapted.device.dtype).removeprefix('torch.')}.",
            "Set model.dtype to bfloat16 or float32.",
        )
    if float((own - ours).abs().max()) > LOGITS_AGREE[adapted.device.dtype] * float(own.abs().max()):
        raise TrainerError(
            "user_config",
            f"The architecture {type(adapted.peft.get_base_model()).__name__} makes its scores in a way unknown here.",
            "Choose another base model.",
        )
