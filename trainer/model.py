"""A base model with LoRA layers on it, ready to train: loaded, quantised, and taken apart into body and output head."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit, Linear8bitLt
from peft import PeftModel
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from trainer import sharding, short_attention
from trainer.base_facts import read_config, read_task, weight_files
from trainer.base_layers import has_stacked_experts, linear_paths
from trainer.data import Trainable
from trainer.device import Device, find_device, give_back_memory
from trainer.errors import TrainerError
from trainer.estimate import UNPACKED_SHARE
from trainer.events import Emit, Log
from trainer.lean_layers import make_lean
from trainer.lora_layers import put_lora
from trainer.lora_start import start
from trainer.loss import Head
from trainer.micro_batch import MicroBatch, Sources, micro_batches
from trainer.neftune import Neftune
from trainer.packing import is_random, keeps_apart, told_apart
from trainer.prefixes import Segment
from trainer.ranks import Ranks
from trainer.spec import ModelSpec, TrainSpec

CPU = torch.device("cpu")
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")  # what families call it
# What the same scores may differ by, as a share of the largest: kernels round at different places.
LOGITS_AGREE = {torch.float32: 1e-3, torch.float16: 0.01, torch.bfloat16: 0.05}


@dataclass(frozen=True)
class AdaptedModel:
    """A frozen base and the weights that learn on it. `lora` names them as PEFT's files do.

    `first`: what they started with, where that is no plain zero update. `unpacked`: the base's quantised weights are
    kept in the computing format, see `unpack`. `is_sharded`: its weights lie in parts in several processes.
    `packs`: rows go through it end to end, see `packing`; `shares`: what they begin with alike does so once.
    """

    peft: PeftModel
    states: Callable[[Tensor, Sources | None, tuple[Segment, ...]], Tensor]  # see `hidden`
    lora: dict[str, nn.Parameter]
    device: Device
    unpacked: bool = False
    first: Mapping[str, Tensor] = field(default_factory=dict)
    is_sharded: bool = False
    packs: bool = False
    shares: bool = False
    neftune: Neftune | None = None

    @property
    def head(self) -> Head:
        """The output head as it is now: it may learn as well."""
        return _head(self.peft.get_base_model())

    @property
    def is_seq2seq(self) -> bool:
        return is_seq2seq(self.peft.get_base_model())

    def hidden(self, ids: Tensor, sources: Sources | None = None, segments: tuple[Segment, ...] = ()) -> Tensor:
        """Last hidden states. ids: (rows, width), padded on the right -> (rows, width, hidden).

        No attention mask: causal attention never looks at what stands to the right, so padding there changes nothing.
        `sources` are what an encoder reads first; there each token looks both ways, and padding is masked. `segments`
        are those of rows packed into one, where no row sees another.
        """
        if self.neftune is None:
            return self.states(ids, sources, segments)
        with self.neftune.of(tuple(one.length for one in segments)):
            return self.states(ids, sources, segments)

    def states_of(self, batch: MicroBatch) -> Tensor:
        """Last hidden states of a pass."""
        return self.hidden(batch.ids, batch.sources, batch.segments)

    def passes(self, samples: Sequence[Trainable], budget: int) -> list[MicroBatch]:
        """Cut rows into passes of at most `budget` tokens, as this model takes them."""
        return micro_batches(samples, budget, packed=self.packs, sharing=self.shares)

    def recompute(self, every: int) -> None:
        """From now on keep only the input of one layer in `every` and compute the rest of it again on the way back."""
        causal: Any = self.peft.get_base_model()
        causal.activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=every)


def load_adapted(
    spec: TrainSpec, base: Path, emit: Emit, *, unpacked: bool | None = None, ranks: Ranks | None = None
) -> AdaptedModel:
    """Load the base of a spec and put fresh LoRA layers on it. Raises TrainerError(user_config) for what cannot be.

    `unpacked` is how an earlier attempt computed: other products would round differently.
    """
    device, ranks = find_device(spec.model.dtype), ranks or Ranks()
    if not sharding.wanted(spec, base, device, ranks):
        return _checked(_load(spec, base, emit, device, unpacked=unpacked), spec)
    # One after the other, in main memory: that holds one whole base at a time, and no GPU ever does.
    mesh = sharding.mesh_of(device, ranks)
    adapted = ranks.in_turn(
        lambda: _sharded(_load(spec, base, emit, device, unpacked=bool(unpacked), into=CPU), device, mesh)
    )
    emit(Log(text=f"The base model lies in {ranks.world_size} parts, one a GPU"))
    return _checked(adapted, spec)


def _load(
    spec: TrainSpec, base: Path, emit: Emit, device: Device, *, unpacked: bool | None, into: torch.device | None = None
) -> AdaptedModel:
    causal = load_base(base, spec.model, device, into=into)
    unpacks = spec.model.quantization != "none" and (_can_unpack(causal, device) if unpacked is None else unpacked)
    if unpacks:
        unpack(causal, device.dtype)
        emit(Log(text=f"The {spec.model.quantization} weights fit in memory unpacked: the same base, faster steps"))
    if has_stacked_experts(causal):
        emit(Log(level="warning", text="This model's experts lie in one piece and get no update; other layers do"))
    whole = _whole_weights(base, spec.model) if spec.lora.init_lora_weights == "loftq" else None
    return _put_together(causal, spec, device, unpacked=unpacks, whole=whole)


def _sharded(whole: AdaptedModel, device: Device, mesh: DeviceMesh) -> AdaptedModel:
    """The same model with its frozen weights in parts, and all that learns on the device."""
    for weight in whole.lora.values():
        weight.data = weight.data.to(device.place)
    causal = whole.peft.get_base_model()
    sharding.shard(causal, mesh, list(whole.lora.values()))
    first = {name: weight.to(device.place) for name, weight in whole.first.items()}
    states = sharding.as_whole_pass(causal, whole.states)
    give_back_memory()
    return dataclasses.replace(whole, states=states, first=first, is_sharded=True)


def _whole_weights(base: Path, spec: ModelSpec) -> dict[str, Tensor]:
    """The weights of all linear layers as they were before quantisation, in plain memory."""
    plain = dataclasses.replace(spec, quantization="none")
    causal = load_base(base, plain, Device(torch.device("cpu"), torch.float32))
    return {path: causal.get_submodule(path).weight for path in linear_paths(causal)}


def load_base(base: Path, spec: ModelSpec, device: Device, *, into: torch.device | None = None) -> Any:
    """The base model of a folder, frozen and quantised. Only safetensors are read; no code of the folder runs.

    `into` another memory than the device's, from where parts of it will move there.
    """
    weight_files(base)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        causal = _kind(base).from_pretrained(
            base,
            dtype=device.dtype,
            quantization_config=_quantization(spec, device),
            device_map={"": into or device.place},
            attn_implementation=_attention(base),
            use_safetensors=True,
            local_files_only=True,
        )
    except ValueError as error:
        raise TrainerError(
            "user_config", f"The base model cannot be loaded: {error}.", "Choose another base model."
        ) from error
    causal.requires_grad_(requires_grad=False)
    if spec.quantization != "none":
        _let_go_of_file(causal)
    # Quantised layers must stay in training mode: on a CPU their first pass in evaluation mode repacks the weights in
    # place, and `unpack` would then read other values.
    causal.train()
    return causal


def _let_go_of_file(causal: nn.Module) -> None:
    """Copy what was not quantised: in main memory that is views of the mapped file, and each keeps all of it."""
    for weight in causal.parameters():
        if weight.device.type == "cpu" and weight.is_floating_point():
            weight.data = weight.data.clone()


def _kind(base: Path) -> Any:
    return AutoModelForSeq2SeqLM if read_task(base) == "seq2seq" else AutoModelForCausalLM


def is_seq2seq(model: Any) -> bool:
    """Whether an encoder reads and a decoder writes."""
    return bool(model.config.is_encoder_decoder)


def _attention(base: Path) -> str:
    """The fastest attention that does what the model's own does.

    Some families say through their class that fused kernels leave a part of theirs out (sinks, for one); a custom name
    would pass transformers' own check of that.
    """
    kind = _kind(base)._model_mapping[type(AutoConfig.from_pretrained(base, local_files_only=True))]
    if read_config(base).get("attn_logit_softcapping") or not getattr(kind, "_supports_sdpa", False):
        return "eager"
    ours = _kind(base) is AutoModelForCausalLM and getattr(kind, "_supports_attention_backend", False)
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
    return _checked(_put_together(causal, spec, device, unpacked=unpacked, whole=whole), spec)


def _put_together(
    causal: Any, spec: TrainSpec, device: Device, *, unpacked: bool, whole: Mapping[str, Tensor] | None
) -> AdaptedModel:
    torch.manual_seed(spec.optim.seed)
    peft, lora = put_lora(causal, spec.lora)
    for weight in lora.values():
        weight.data = weight.data.to(device.dtype)
    start(peft, spec.lora, whole or {})
    make_lean(peft)
    return AdaptedModel(
        peft=peft,
        states=partial(_states, causal),
        lora=lora,
        device=device,
        unpacked=unpacked,
        first={name: weight.detach().clone() for name, weight in lora.items()} if spec.lora.starts_elsewhere else {},
        neftune=_neftune(causal, spec),
    )


def _neftune(causal: Any, spec: TrainSpec) -> Neftune | None:
    if not spec.optim.neftune_noise_alpha:
        return None
    reader = causal.get_encoder() if is_seq2seq(causal) else causal
    return Neftune(reader.get_input_embeddings(), spec.optim.neftune_noise_alpha)


def _states(causal: Any, ids: Tensor, sources: Sources | None, segments: tuple[Segment, ...]) -> Tensor:
    """What `AdaptedModel.hidden` gives."""
    read: dict[str, Any] = {"attention_mask": None}
    if segments:
        read = told_apart(ids, segments)
    if sources is not None:
        states = causal.get_encoder()(input_ids=sources.ids, attention_mask=sources.mask).last_hidden_state
        read |= {"encoder_hidden_states": states, "encoder_attention_mask": sources.mask}
    found: Tensor = _body(causal)(input_ids=ids, use_cache=False, **read).last_hidden_state
    return found


def _body(causal: Any) -> Any:
    """What gives the hidden states that the head scores."""
    return causal.get_decoder() if is_seq2seq(causal) or causal.base_model is causal else causal.base_model


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


def _checked(adapted: AdaptedModel, spec: TrainSpec) -> AdaptedModel:
    """Compare our scores with the model's own on a few tokens, for a family may do something to them we do not know."""
    causal: Any = adapted.peft.get_base_model()
    ids = torch.arange(4, 12, device=adapted.device.place)[None] % causal.config.get_text_config().vocab_size
    sources = Sources(ids.flip(1), torch.ones_like(ids)) if adapted.is_seq2seq else None
    asked = {"input_ids": ids} if sources is None else {"input_ids": sources.ids, "decoder_input_ids": ids}
    with undisturbed(adapted.peft):
        own = causal(**asked, use_cache=False).logits[0].float()
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
            f"The architecture {type(causal).__name__} makes its scores in a way unknown here.",
            "Choose another base model.",
        )
    with undisturbed(adapted.peft):
        packs = keeps_apart(adapted, longest=spec.data.max_seq_length, agree=LOGITS_AGREE[adapted.device.dtype])
    # On a GPU the kernels for what rows share are many and small: dispatching them costs more than the tokens saved.
    shares = packs and not adapted.device.is_cuda and not is_random(adapted)
    return dataclasses.replace(adapted, packs=packs, shares=shares)
