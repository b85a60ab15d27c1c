"""A base model with LoRA layers on it, ready to train: loaded, quantised, and taken apart into body and output head."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from trainer import short_attention
from trainer.base_facts import read_config, read_task, weight_files
from trainer.data import Sources
from trainer.device import Device, find_device
from trainer.errors import TrainerError
from trainer.estimate import UNPACKED_SHARE
from trainer.events import Emit, Log
from trainer.lean_layers import make_lean
from trainer.lora_layers import has_stacked_experts, linear_paths, put_lora
from trainer.lora_start import start
from trainer.loss import Head
from trainer.spec import ModelSpec, TrainSpec

SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")  # what families call it
# What the same scores may differ by, as a share of the largest: kernels round at different places.
LOGITS_AGREE = {torch.float32: 1e-3, torch.float16: 0.01, torch.bfloat16: 0.05}


@dataclass(frozen=True)
class AdaptedModel:
    """A frozen base and the weights that learn on it. `lora` names them as PEFT's files do.

    `first`: what they started with, where that is no plain zero update. `unpacked`: the base's quantised weights are
    kept in the computing format, see `unpack`.
    """

    peft: PeftModel
    body: nn.Module
    lora: dict[str, nn.Parameter]
    device: Device
    unpacked: bool = False
    first: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def head(self) -> Head:
        """The output head as it is now: it may learn as well."""
        return _head(self.peft.get_base_model())

    @property
    def is_seq2seq(self) -> bool:
        return is_seq2seq(self.peft.get_base_model())

    def hidden(self, ids: Tensor, sources: Sources | None = None) -> Tensor:
        """Last hidden states. ids: (rows, width), padded on the right -> (rows, width, hidden).

        No attention mask: causal attention never looks at what stands to the right, so padding there changes nothing.
        `sources` are what an encoder reads first; there each token looks both ways, and padding is masked.
        """
        read = {}
        if sources is not None:
            model: Any = self.peft.get_base_model()
            states = model.get_encoder()(input_ids=sources.ids, attention_mask=sources.mask).last_hidden_state
            read = {"encoder_hidden_states": states, "encoder_attention_mask": sources.mask}
        found: Tensor = self.body(input_ids=ids, attention_mask=None, use_cache=False, **read).last_hidden_state
        return found

    def recompute(self, every: int) -> None:
        """From now on keep only the input of one layer in `every` and compute the rest of it again on the way back."""
        causal: Any = self.peft.get_base_model()
        causal.activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=every)

    @contextmanager
    def as_base(self) -> Iterator[None]:
        """Compute as the base model does, whatever was learnt so far."""
        if not self.first:
            with self.peft.disable_adapter():
                yield
            return
        now = {name: weight.data for name, weight in self.lora.items()}
        try:
            for name, weight in self.lora.items():
                weight.data = self.first[name]
            yield
        finally:
            for name, weight in self.lora.items():
                weight.data = now[name]


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
    if has_stacked_experts(causal):
        emit(Log(level="warning", text="This model's experts lie in one piece and get no update; other layers do"))
    longest = getattr(causal.config, "max_position_embeddings", None)
    if longest is not None and spec.data.max_seq_length > longest:
        raise TrainerError(
            "user_config",
            f"The base model reads at most {longest} tokens and data.max_seq_length is {spec.data.max_seq_length}.",
            f"Use at most {longest}.",
        )
    whole = _whole_weights(base, spec.model) if spec.lora.init_lora_weights == "loftq" else None
    return adapt(causal, spec, device, unpacked=unpacks, whole=whole)


def require_fitting(spec: TrainSpec, base: Path) -> None:
    """Raise TrainerError(user_config) for what a spec asks of this kind of base model in vain."""
    if problems := spec.issues_on(read_task(base)):
        text = " ".join(f"{one.path}: {one.problem}" for one in problems)
        raise TrainerError("user_config", text, problems[0].fix)


def _whole_weights(base: Path, spec: ModelSpec) -> dict[str, Tensor]:
    """The weights of all linear layers as they were before quantisation, in plain memory."""
    plain = dataclasses.replace(spec, quantization="none")
    causal = load_base(base, plain, Device(torch.device("cpu"), torch.float32))
    return {path: causal.get_submodule(path).weight for path in linear_paths(causal)}


def load_base(base: Path, spec: ModelSpec, device: Device) -> Any:
    """The base model of a folder, frozen and quantised. Only safetensors are read; no code of the folder runs."""
    weight_files(base)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        causal = _kind(base).from_pretrained(
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


def _kind(base: Path) -> Any:
    return AutoModelForSeq2SeqLM if read_task(base) == "seq2seq" else AutoModelForCausalLM


def is_seq2seq(model: Any) -> bool:
    """Whether an encoder reads and a decoder writes."""
    return bool(model.config.is_encoder_decoder)


def _attention(base: Path, device: Device) -> str:
    """The fastest attention that does what the model's own does.

    Some families say through their class that fused kernels leave a part of theirs out (sinks, for one); a custom name
    would pass transformers' own check of that.
    """
    kind = _kind(base)._model_mapping[type(AutoConfig.from_pretrained(base, local_files_only=True))]
    if read_config(base).get("attn_logit_softcapping") or not getattr(kind, "_supports_sdpa", False):
        return "eager"
    causal = _kind(base) is AutoModelForCausalLM
    ours = causal and not device.is_cuda and getattr(kind, "_supports_attention_backend", False)
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


def adapt(
    causal: Any,
    spec: TrainSpec,
    device: Device,
    *,
    unpacked: bool = False,
    whole: Mapping[str, Tensor] | None = None,
) -> AdaptedModel:
    """Put what learns on a loaded base, so that it computes as the base does. `whole`: see `lora_start.start`."""
    torch.manual_seed(spec.optim.seed)
    peft, lora = put_lora(causal, spec.lora)
    for weight in lora.values():
        weight.data = weight.data.to(device.dtype)
    start(peft, spec.lora, whole or {})
    make_lean(peft)
    if spec.optim.neftune_noise_alpha:
        reader = causal.get_encoder() if is_seq2seq(causal) else causal
        reader.get_input_embeddings().register_forward_hook(_noise(spec.optim.neftune_noise_alpha))
    keeps_first = spec.lora.starts_elsewhere or spec.lora.bias != "none"
    adapted = AdaptedModel(
        peft=peft,
        body=_body(causal),
        lora=lora,
        device=device,
        unpacked=unpacked,
        first={name: weight.detach().clone() for name, weight in lora.items()} if keeps_first else {},
    )
    _check_head(adapted)
    return adapted


def _body(causal: Any) -> Any:
    """What gives the hidden states that the head scores."""
    return causal.get_decoder() if is_seq2seq(causal) or causal.base_model is causal else causal.base_model


def _noise(alpha: float) -> Callable[[nn.Module, tuple[Any, ...], Tensor], Tensor | None]:
    """NEFTune (Jain et al. 2023, arxiv.org/abs/2310.05914): uniform noise on what the embeddings give out in training.

    It comes from torch's own generator, which every step seeds anew: a resumed run has the same.
    """

    def add(embeddings: nn.Module, _given: tuple[Any, ...], states: Tensor) -> Tensor | None:
        if not embeddings.training:
            return None
        reach = alpha / math.sqrt(states.shape[-2] * states.shape[-1])
        return states + torch.empty_like(states).uniform_(-reach, reach)

    return add


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


def _head(causal: Any) -> Head:
    """The output head and what the model does to its scores."""
    layer, config = causal.get_output_embeddings(), causal.config
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    if getattr(config, "scale_decoder_outputs", False):  # of T5, before its head
        scale = config.d_model**-0.5
    softcap = next((value for name in SOFTCAPS if (value := getattr(config, name, None))), 0.0)
    bias = getattr(layer, "bias", None)
    if (beside := getattr(causal, "final_logits_bias", None)) is not None:  # of BART, apart from its head
        bias = beside.view(-1).to(layer.weight.dtype)
    return Head(layer.weight, bias, scale, float(softcap))


def _check_head(adapted: AdaptedModel) -> None:
    """Compare our scores with the model's own on a few tokens, for a family may do something to them we do not know."""
    ids = torch.arange(4, 12, device=adapted.device.place)[None] % adapted.head.weight.shape[0]
    sources = Sources(ids.flip(1), torch.ones_like(ids)) if adapted.is_seq2seq else None
    asked = {"input_ids": ids} if sources is None else {"input_ids": sources.ids, "decoder_input_ids": ids}
    with undisturbed(adapted.peft):
        own = adapted.peft(**asked, use_cache=False).logits[0].float()
        ours = adapted.head.logits(adapted.hidden(ids, sources)[0])
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
