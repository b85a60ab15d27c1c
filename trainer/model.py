"""A base model with LoRA layers, ready to train: loaded, quantised, and split into transformer body and output head."""

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
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, BitsAndBytesConfig, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from trainer import sharding, short_attention
from trainer.base_facts import read_config, read_task, weight_files
from trainer.base_layers import has_stacked_experts, linear_paths
from trainer.data import Trainable
from trainer.device import Device, find_device, release_memory
from trainer.errors import TrainerError
from trainer.estimate import DEQUANTIZED_SHARE
from trainer.events import Emit, Log
from trainer.lean_layers import make_lean
from trainer.lora_layers import add_lora
from trainer.lora_start import init_lora
from trainer.loss import Head
from trainer.micro_batch import EncoderInputs, MicroBatch, Passes, micro_batches
from trainer.neftune import Neftune
from trainer.packing import is_stochastic, packed_inputs, supports_packing
from trainer.prefixes import Segment
from trainer.ranks import Ranks
from trainer.spec import ModelSpec, TrainSpec

CPU = torch.device("cpu")
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")  # config names for it
# Relative to the largest logit: two kernels round differently.
LOGITS_TOLERANCE = {torch.float32: 1e-3, torch.float16: 0.01, torch.bfloat16: 0.05}


@dataclass(frozen=True)
class AdaptedModel:
    """A frozen base and its trainable weights, `lora`, under the names they have in PEFT's files.

    `initial`: their initial values, if the initial update is not zero. `dequantized`: quantised base weights are held
    in the compute dtype, see `dequantize`. `is_sharded`: each process holds a shard of the base.
    `packing`: rows are packed end to end, see `trainer.packing`. `prefix_sharing`: so are their common prefixes, once.
    """

    peft: PeftModel
    body: Callable[[Tensor, EncoderInputs | None, tuple[Segment, ...]], Tensor]  # see `hidden`
    lora: dict[str, nn.Parameter]
    device: Device
    dequantized: bool = False
    initial: Mapping[str, Tensor] = field(default_factory=dict)
    is_sharded: bool = False
    packing: bool = False
    prefix_sharing: bool = False
    neftune: Neftune | None = None

    @property
    def head(self) -> Head:
        """The output head with its current weights, which may be trainable too."""
        return _head(self.peft.get_base_model())

    @property
    def is_seq2seq(self) -> bool:
        return is_seq2seq(self.peft.get_base_model())

    def hidden(
        self, ids: Tensor, encoder_inputs: EncoderInputs | None = None, segments: tuple[Segment, ...] = ()
    ) -> Tensor:
        """Last hidden states. ids: (rows, width), padded on the right -> (rows, width, hidden).

        No attention mask: causal attention never looks right, so padding there changes nothing. An encoder is
        bidirectional, so its padding is masked. `segments`: the packed rows in `ids`, none of which attends to another.
        """
        if self.neftune is None:
            return self.body(ids, encoder_inputs, segments)
        with self.neftune.of(tuple(one.length for one in segments)):
            return self.body(ids, encoder_inputs, segments)

    def states_of(self, batch: MicroBatch) -> Tensor:
        """Last hidden states of a micro-batch."""
        return self.hidden(batch.ids, batch.encoder_inputs, batch.segments)

    def passes(self, samples: Sequence[Trainable], budget: int) -> Passes:
        """Split rows into micro-batches of at most `budget` tokens, packed if this model supports it."""
        return micro_batches(samples, budget, packed=self.packing, sharing=self.prefix_sharing)

    def recompute(self, every: int) -> None:
        """Turn on gradient checkpointing for one layer in `every`: only its input is kept for the backward pass."""
        causal: Any = self.peft.get_base_model()
        causal.activation_checkpointing_enable({"use_reentrant": False}, every_n_layers=every)


def load_adapted(
    spec: TrainSpec, base: Path, emit: Emit, *, dequantized: bool | None = None, ranks: Ranks | None = None
) -> AdaptedModel:
    """Load the base of a spec and add fresh LoRA layers. Raises TrainerError(user_config) if the two do not fit.

    `dequantized`: what an earlier attempt of the same run chose, since the other kernels round differently.
    """
    device, ranks = find_device(spec.model.dtype), ranks or Ranks()
    if not sharding.should_shard(spec, base, device, ranks):
        return _checked(_load(spec, base, emit, device, dequantized=dequantized), spec)
    # One process at a time, through main memory: it holds one whole base at a time, and no GPU ever does.
    mesh = sharding.mesh_of(device, ranks)
    adapted = ranks.in_turn(
        lambda: _sharded(_load(spec, base, emit, device, dequantized=bool(dequantized), into=CPU), device, mesh)
    )
    emit(Log(text=f"The base model is sharded over {ranks.world_size} GPUs"))
    return _checked(adapted, spec)


def _load(
    spec: TrainSpec,
    base: Path,
    emit: Emit,
    device: Device,
    *,
    dequantized: bool | None,
    into: torch.device | None = None,
) -> AdaptedModel:
    # A reference without dropout and a policy with it would differ before anything is learnt.
    causal = load_base(base, spec.model, device, into=into, dropout=spec.data.method == "sft")
    is_quantized = spec.model.quantization != "none"
    dequantized = is_quantized and (_fits_dequantized(causal, device) if dequantized is None else dequantized)
    if dequantized:
        dequantize(causal, device.dtype)
        emit(Log(text=f"The {spec.model.quantization} weights fit in memory unpacked: the same model, faster steps"))
    if has_stacked_experts(causal):
        emit(Log(level="warning", text="This model's experts are one stacked tensor and get no LoRA; other layers do"))
    full_weights = _full_weights(base, spec.model) if spec.lora.init_lora_weights == "loftq" else None
    return _assemble(causal, spec, device, emit, dequantized=dequantized, full_weights=full_weights)


def _sharded(whole: AdaptedModel, device: Device, mesh: DeviceMesh) -> AdaptedModel:
    """The same model with its frozen weights sharded and everything trainable on the device."""
    for weight in whole.lora.values():
        weight.data = weight.data.to(device.place)
    causal = whole.peft.get_base_model()
    sharding.shard(causal, mesh, list(whole.lora.values()))
    initial = {name: weight.to(device.place) for name, weight in whole.initial.items()}
    body = sharding.as_fsdp_forward(causal, whole.body)
    release_memory()
    return dataclasses.replace(whole, body=body, initial=initial, is_sharded=True)


def _full_weights(base: Path, spec: ModelSpec) -> dict[str, Tensor]:
    """The unquantised weights of all linear layers, in main memory."""
    plain = dataclasses.replace(spec, quantization="none")
    causal = load_base(base, plain, Device(torch.device("cpu"), torch.float32))
    return {path: causal.get_submodule(path).weight for path in linear_paths(causal)}


def load_base(
    base: Path, spec: ModelSpec, device: Device, *, into: torch.device | None = None, dropout: bool = True
) -> Any:
    """The base model of a folder, frozen and quantised. Only safetensors are read; no code of the folder runs.

    `into`: load it to this device instead, for shards of it to be moved to `device` later.
    `dropout`: whether the base's own dropout is active in training, as its config has it.
    """
    weight_files(base)
    config = AutoConfig.from_pretrained(base, local_files_only=True)
    if not dropout:
        _without_dropout(config)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        causal = _auto_class(base).from_pretrained(
            base,
            config=config,
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
        _copy_out_of_mmap(causal)
    # Quantised layers must stay in training mode: on a CPU their first forward pass in eval mode repacks the weights
    # in place, and `dequantize` would then read wrong values.
    causal.train()
    return causal


def _without_dropout(config: Any) -> None:
    """Families name it `attention_dropout`, `resid_pdrop`, `dropout_rate` and so on."""
    for name, value in vars(config).items():
        if isinstance(value, PreTrainedConfig):
            _without_dropout(value)
        elif isinstance(value, float) and ("dropout" in name or name.endswith("pdrop")):
            setattr(config, name, 0.0)


def _copy_out_of_mmap(causal: nn.Module) -> None:
    """Copy what was not quantised: on a CPU these are views of the mapped file, and one view keeps all of it."""
    for weight in causal.parameters():
        if weight.device.type == "cpu" and weight.is_floating_point():
            weight.data = weight.data.clone()


def _auto_class(base: Path) -> Any:
    return AutoModelForSeq2SeqLM if read_task(base) == "seq2seq" else AutoModelForCausalLM


def is_seq2seq(model: Any) -> bool:
    return bool(model.config.is_encoder_decoder)


def _attention(base: Path) -> str:
    """The fastest attention implementation that computes what the model's own does.

    Some families declare on their class that fused kernels miss a part of their attention (sinks, for one).
    transformers checks that for its own kernels but not for custom names, so it is checked here.
    """
    auto_class = _auto_class(base)
    model_class = auto_class._model_mapping[type(AutoConfig.from_pretrained(base, local_files_only=True))]
    if read_config(base).get("attn_logit_softcapping") or not getattr(model_class, "_supports_sdpa", False):
        return "eager"
    ours = auto_class is AutoModelForCausalLM and getattr(model_class, "_supports_attention_backend", False)
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


def _fits_dequantized(causal: Any, device: Device) -> bool:
    """Whether memory holds the quantised weights in the compute dtype and still has room to train."""
    values: int = sum(module.in_features * module.out_features for module in quantized_layers(causal).values())
    return values * device.dtype.itemsize < device.free_bytes() * DEQUANTIZED_SHARE


def quantized_layers(model: nn.Module) -> dict[str, Any]:
    return {name: one for name, one in model.named_modules() if isinstance(one, (Linear4bit, Linear8bitLt))}


def dequantize(causal: Any, dtype: torch.dtype) -> None:
    """Replace quantised layers by plain ones that hold the same, quantised, values.

    A QLoRA step dequantises each weight two or three times; doing it once trains the same model faster.
    """
    causal.dequantize(dtype=dtype)
    causal.requires_grad_(requires_grad=False)


def adapt(
    causal: Any,
    spec: TrainSpec,
    device: Device,
    emit: Emit,
    *,
    dequantized: bool = False,
    full_weights: Mapping[str, Tensor] | None = None,
) -> AdaptedModel:
    """Add LoRA layers to a loaded base; its outputs stay the same. `full_weights`: see `lora_start.init_lora`."""
    return _checked(_assemble(causal, spec, device, emit, dequantized=dequantized, full_weights=full_weights), spec)


def _assemble(
    causal: Any,
    spec: TrainSpec,
    device: Device,
    emit: Emit,
    *,
    dequantized: bool,
    full_weights: Mapping[str, Tensor] | None,
) -> AdaptedModel:
    torch.manual_seed(spec.optim.seed)
    peft, lora = add_lora(causal, spec.lora)
    for weight in lora.values():
        weight.data = weight.data.to(device.dtype)
    init_lora(peft, spec.lora, full_weights or {}, emit)
    make_lean(peft)
    return AdaptedModel(
        peft=peft,
        body=partial(_forward_body, causal),
        lora=lora,
        device=device,
        dequantized=dequantized,
        initial={name: weight.detach().clone() for name, weight in lora.items()} if spec.lora.has_nonzero_init else {},
        neftune=_neftune(causal, spec),
    )


def _neftune(causal: Any, spec: TrainSpec) -> Neftune | None:
    if not spec.optim.neftune_noise_alpha:
        return None
    model = causal.get_encoder() if is_seq2seq(causal) else causal
    return Neftune(model.get_input_embeddings(), spec.optim.neftune_noise_alpha)


def _forward_body(
    causal: Any, ids: Tensor, encoder_inputs: EncoderInputs | None, segments: tuple[Segment, ...]
) -> Tensor:
    """See `AdaptedModel.hidden`."""
    options: dict[str, Any] = packed_inputs(ids, segments) if segments else {"attention_mask": None}
    if encoder_inputs is not None:
        encoder, mask = causal.get_encoder(), encoder_inputs.mask
        states = encoder(input_ids=encoder_inputs.ids, attention_mask=mask).last_hidden_state
        options |= {"encoder_hidden_states": states, "encoder_attention_mask": mask}
    hidden: Tensor = _body(causal)(input_ids=ids, use_cache=False, **options).last_hidden_state
    return hidden


def _body(causal: Any) -> Any:
    """The model without its output head."""
    return causal.get_decoder() if is_seq2seq(causal) or causal.base_model is causal else causal.base_model


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """No dropout, no gradients. Quantised layers stay in training mode, see `load_base`."""
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
    """The output head and what the model does to its logits."""
    layer, config = causal.get_output_embeddings(), causal.config
    scale = float(getattr(config, "logit_scale", None) or 1.0) / float(getattr(config, "logits_scaling", None) or 1.0)
    if getattr(config, "scale_decoder_outputs", False):  # T5 scales the head's input
        scale = config.d_model**-0.5
    softcap = next((value for name in SOFTCAPS if (value := getattr(config, name, None))), 0.0)
    bias = getattr(layer, "bias", None)
    if (logits_bias := getattr(causal, "final_logits_bias", None)) is not None:  # BART keeps it outside its head
        bias = logits_bias.view(-1).to(layer.weight.dtype)
    return Head(layer.weight, bias, scale, float(softcap))


def _checked(adapted: AdaptedModel, spec: TrainSpec) -> AdaptedModel:
    """Compare our logits with the model's own on a few tokens: a family may transform them in a way unknown here."""
    causal: Any = adapted.peft.get_base_model()
    tolerance = LOGITS_TOLERANCE[adapted.device.dtype]
    ids = torch.arange(4, 12, device=adapted.device.place)[None] % causal.config.get_text_config().vocab_size
    encoder_inputs = EncoderInputs(ids.flip(1), torch.ones_like(ids)) if adapted.is_seq2seq else None
    inputs = {"input_ids": encoder_inputs.ids, "decoder_input_ids": ids} if encoder_inputs else {"input_ids": ids}
    with eval_mode(adapted.peft):
        own = causal(**inputs, use_cache=False).logits[0].float()
        ours = adapted.head.logits(adapted.hidden(ids, encoder_inputs)[0])
    if not own.isfinite().all():
        raise TrainerError(
            "user_config",
            f"The base model's logits are not finite in {adapted.device.dtype_name}.",
            "Set model.dtype to bfloat16 or float32."
            if adapted.device.dtype == torch.float16
            else "Its files are damaged, or contain NaN: fetch it again, or choose another base model.",
        )
    if float((own - ours).abs().max()) > tolerance * float(own.abs().max()):
        raise TrainerError(
            "user_config",
            f"The architecture {type(causal).__name__} computes its logits in a way that is not supported.",
            "Choose another base model.",
        )
    with eval_mode(adapted.peft):
        packing = supports_packing(adapted, longest=spec.data.max_seq_length, tolerance=tolerance)
    # On a GPU prefix sharing needs many small kernels, and launching them costs more than the saved tokens.
    prefix_sharing = packing and not adapted.device.is_cuda and not is_stochastic(adapted)
    return dataclasses.replace(adapted, packing=packing, prefix_sharing=prefix_sharing)
