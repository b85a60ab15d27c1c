"""The inference engine: one base model in memory, many LoRA adapters, and batches in which every row has its own."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from trainer.adapter_files import load_adapter
from trainer.adapter_layers import context_length
from trainer.answer_row import Chunk, Row
from trainer.batch import Batch
from trainer.device import find_device
from trainer.errors import TrainerError
from trainer.model import load_base
from trainer.opening import Opening
from trainer.penalties import PenaltyParams, TokenCounts
from trainer.rendering import Renderer
from trainer.sampling import Sampler
from trainer.seq2seq_batch import Seq2SeqBatch
from trainer.shared_steps import StepScheduler
from trainer.spec import Dtype, ModelSpec, Quantization
from trainer.stacked_lora import LoraWeights, add_adapter_hooks
from trainer.stopping import StopStrings
from trainer.text_stream import TextStream

__all__ = ["Chunk", "Engine", "Request"]

UNBOUNDED = 1 << 25


@dataclass(frozen=True, kw_only=True)
class Request:
    """One row: the prompt's tokens, the adapter's key (None: the base model), and how to sample.

    Temperature 0 is greedy. Without a seed each answer is random. `stop`: strings that end the answer and are not part
    of it. `top_logprobs`: return each token's log probability, and those of so many most likely ones. `openings`: the
    answer begins with one of these token sequences.
    """

    prompt_ids: Sequence[int]
    adapter: str | None = None
    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    top_k: int = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    stop: Sequence[str] = ()
    top_logprobs: int | None = None
    openings: Sequence[Sequence[int]] = ()


class Engine:
    """Generates from a base model. Thread-safe: concurrent requests share each step (continuous batching)."""

    def __init__(
        self, base: Path, *, dtype: Dtype = "auto", quantization: Quantization = "none", max_adapters: int = 64
    ) -> None:
        self._renderer = Renderer.load(base)
        device = find_device(dtype)
        self.device, self.dtype = device.place, device.dtype
        self._model = load_base(base, ModelSpec(quantization=quantization), device).eval()
        self.context_length = context_length(self._model.config) or UNBOUNDED
        self._active_adapters, self._layers = add_adapter_hooks(self._model, self._model.get_output_embeddings())
        self._max_adapters = max_adapters
        self._folders: dict[str, Path] = {}
        self._adapters: OrderedDict[str, LoraWeights] = OrderedDict()  # least recently used first
        self._adapters_lock = threading.Lock()
        head = self._model.get_output_embeddings()
        self.vocabulary: int = head.weight.shape[0] if head is not None else self._model.config.vocab_size
        self._steps = StepScheduler(self._make_batch, self._active_adapters)

    def load_adapter(self, key: str, folder: Path) -> None:
        """Load an adapter under `key`, once. Raises TrainerError unless it is a valid adapter of the base."""
        with self._adapters_lock:
            if key not in self._folders:
                self._adapters[key] = self._read(folder)
                self._folders[key] = folder
                self._evict()

    def drop_adapter(self, key: str) -> None:
        """Unload an adapter. Answers in progress continue."""
        with self._adapters_lock:
            self._folders.pop(key, None)
            self._adapters.pop(key, None)

    def generate(
        self, requests: Sequence[Request], should_stop: Callable[[], bool], *, background: bool = False
    ) -> Iterator[Chunk]:
        """Generate all requests; `Chunk.row` is the index of the request.

        `should_stop` is called before every step; after a stop each row emits what it held back, without a finish.
        `background` work leaves most steps to interactive requests.
        Raises TrainerError for a prompt that fills the context, an unknown adapter or invalid sampling values.
        """
        rows = [self._row(number, request) for number, request in enumerate(requests)]
        yield from self._steps.run(rows, should_stop, background=background)

    def _make_batch(self, rows: list[Row]) -> Batch:
        if self._renderer.start is None:
            return Batch(self._model, rows, device=self.device)
        return Seq2SeqBatch(self._model, rows, device=self.device, start=self._renderer.start)

    def _row(self, number: int, request: Request) -> Row:
        room = self.context_length - len(request.prompt_ids)
        if not request.prompt_ids or room < 1:
            text = f"The prompt has {len(request.prompt_ids)} tokens; the model reads {self.context_length}."
            raise TrainerError("user_config", text, "Shorten it.")
        if request.max_tokens < 1:
            raise TrainerError("user_config", "An answer needs at least one token.", "Raise max_tokens.")
        penalties = PenaltyParams(
            presence=request.presence_penalty,
            frequency=request.frequency_penalty,
            repetition=request.repetition_penalty,
            bias=request.logit_bias,
        )
        penalties.validate(self.vocabulary)
        if not all(one and max(one) < self.vocabulary for one in request.openings):
            raise TrainerError("user_config", "The model has no such tokens to begin with.", "Use its own token ids.")
        return Row(
            number=number,
            prompt_ids=request.prompt_ids,
            adapter=self._adapter(request.adapter) if request.adapter is not None else None,
            limit=min(request.max_tokens, room),
            stop_ids=self._renderer.stop_ids,
            sampler=Sampler(request.temperature, request.top_p, request.seed, request.top_k, request.min_p),
            text=TextStream(self._renderer.decode),
            stops=StopStrings(tuple(request.stop)),
            token_counts=None if penalties.is_empty else TokenCounts(penalties, request.prompt_ids),
            opening=Opening(request.openings) if request.openings else None,
            top_logprobs=request.top_logprobs,
        )

    def _adapter(self, key: str) -> LoraWeights:
        """A loaded adapter's weights, read again if they were evicted."""
        with self._adapters_lock:
            if key not in self._folders:
                raise TrainerError("internal", f"The adapter {key} is not loaded.", "Try again.")
            if key not in self._adapters:
                self._adapters[key] = self._read(self._folders[key])
            self._adapters.move_to_end(key)
            self._evict()
            return self._adapters[key]

    def _read(self, folder: Path) -> LoraWeights:
        # On a CPU products of such low rank take ten times as long in bfloat16. PEFT keeps A and B in float32 too.
        dtype = torch.float32 if self.device.type == "cpu" else self.dtype
        return load_adapter(folder, self._layers, device=self.device, dtype=dtype, model=self._model)

    def _evict(self) -> None:
        """Evict least recently used adapters. A running batch keeps references to those it uses."""
        while len(self._adapters) > self._max_adapters:
            self._adapters.popitem(last=False)
