"""Everything before the first step: data, model, optimizer and checkpoint are assembled into a `Run`."""

from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from trainer.base_facts import fingerprint, inspect_folder
from trainer.checkpoint import (
    Checkpoints,
    Inputs,
    Position,
    check_inputs,
    checkpoints_in,
    find_checkpoint,
    load_best,
    load_checkpoint,
    read_position,
)
from trainer.data import Dataset, Plan, dataset_hash
from trainer.device import find_device, release_memory
from trainer.errors import Stopped
from trainer.estimate import micro_batch_tokens, recompute_every, with_dtype
from trainer.eva import start_from_data
from trainer.events import Emit, Heartbeat, Log, Phase
from trainer.forgetting import GeneralText, read_general_text
from trainer.model import AdaptedModel, load_adapted
from trainer.objective import Objective, objective_of
from trainer.optimizer import MasterAdamW
from trainer.process import giving_back_memory
from trainer.rank_sync import sync_initial_weights
from trainer.ranks import Ranks
from trainer.readiness import make_ready
from trainer.rendering import Renderer
from trainer.run import CHECKPOINTS, Run, retry_freed
from trainer.spec import TrainSpec
from trainer.token_limits import load_readable

T = TypeVar("T")


def prepare(
    spec: TrainSpec, *, out: Path, resume: Path | None, emit: Emit, should_stop: Callable[[], bool], ranks: Ranks
) -> Run:
    """Read the data, load the model and restore the checkpoint, if there is one. Raises TrainerError.

    `should_stop` is a collective: all processes call it at the same points.
    """
    emit(Phase(name="preparing"))
    base = make_ready(spec, out=out, resume=resume, emit=emit, ranks=ranks)
    checkpoint = _find_checkpoint(resume, spec, base, out, emit, ranks) if resume else None
    position = read_position(checkpoint) if checkpoint else _start(out, emit, ranks)
    moment = datetime.fromisoformat(position.started)
    renderer = Renderer.load(base, moment=moment)
    dataset = ranks.main_process_first(lambda: load_readable(spec, renderer, emit, base=base, moment=moment, out=out))
    _raise_if_stopped(should_stop, emit)
    plan = Plan(dataset.train, spec)
    inputs = Inputs(spec, dataset.content_hash, fingerprint(base), plan.steps, tuple(sorted(renderer.stop_ids)))
    if checkpoint:  # before anything is loaded or scored
        check_inputs(checkpoint, inputs)
    emit(Phase(name="loading"))
    model = _load(spec, base, position if checkpoint else None, emit, ranks)
    position.unpacked, position.dtype = model.dequantized, model.device.dtype_name
    _raise_if_stopped(should_stop, emit)
    if spec.lora.init_lora_weights == "eva" and not checkpoint:
        _init_from_data(model, plan, should_stop, emit, ranks)
    general = _general_text(model, renderer, emit, ranks) if spec.evaluation.forgetting and dataset.holdout else None
    optimizer = MasterAdamW(model.lora, spec.optim)
    sync_initial_weights(model, optimizer, ranks)
    release_memory()
    facts = inspect_folder(base)
    budget = _fit_memory(model, with_dtype(spec, position.dtype), facts, position, emit, ranks)
    objective = objective_of(spec, model, ranks)
    _score_answers(objective, dataset, should_stop, emit, ranks)
    if checkpoint:
        load_checkpoint(checkpoint, optimizer)
    position.budget = budget
    run = Run(
        spec=spec,
        base=base,
        out=out,
        emit=emit,
        should_stop=should_stop,
        renderer=renderer,
        dataset=dataset,
        plan=plan,
        model=model,
        objective=objective,
        optimizer=optimizer,
        inputs=inputs,
        checkpoints=Checkpoints(out / CHECKPOINTS, inputs, emit, resumed=position.step, size=optimizer.bytes_on_disk),
        position=position,
        general=general,
        ranks=ranks,
        resumed_from=checkpoint,
        best=load_best(checkpoint, position) if checkpoint and spec.evaluation.keep_best else {},
    )
    _log_setup(run, of=int(facts["parameters"]))
    return run


def _find_checkpoint(resume: Path, spec: TrainSpec, base: Path, out: Path, emit: Emit, ranks: Ranks) -> Path | None:
    """The same checkpoint in every process: the one that the main process finds."""
    if not ranks.is_main:
        return ranks.broadcast_object(None)
    rows = partial(dataset_hash, spec, out=out)
    found = find_checkpoint(resume, spec, emit, base_fingerprint=fingerprint(base), dataset_hash=rows)
    return ranks.broadcast_object(found)


def _start(out: Path, emit: Emit, ranks: Ranks) -> Position:
    """Before the first step. Checkpoints of an earlier run in the same folder would be mixed with the new ones."""
    if earlier := checkpoints_in(out / CHECKPOINTS):
        text = (
            f"{out} has checkpoints of an earlier run, up to {earlier[-1].name}, and this run starts from the beginning"
        )
        emit(Log(level="warning", text=f"{text}: to resume that one, add --resume; else take another --out"))
    return Position(started=ranks.broadcast_object(datetime.now().isoformat()))


def _load(spec: TrainSpec, base: Path, resumed: Position | None, emit: Emit, ranks: Ranks) -> AdaptedModel:
    """A resumed run computes in the number format, and with the kernels, that it began with: others would round
    differently."""
    of_device = find_device(resumed.dtype if resumed else "auto").dtype_name
    dequantized = resumed.unpacked if resumed else None
    with giving_back_memory():
        return load_adapted(with_dtype(spec, of_device), base, emit, dequantized=dequantized, ranks=ranks)


def _init_from_data(model: AdaptedModel, plan: Plan, should_stop: Callable[[], bool], emit: Emit, ranks: Ranks) -> None:
    before_pass = _before_pass("Reading rows for EVA", should_stop, emit)
    _retry_setup(partial(start_from_data, model, plan, before_pass=before_pass), "reading rows for EVA", emit, ranks)


def _score_answers(
    objective: Objective, dataset: Dataset, should_stop: Callable[[], bool], emit: Emit, ranks: Ranks
) -> None:
    """The reference log probabilities of DPO and KTO."""
    before_pass = _before_pass("Scoring the answers", should_stop, emit)
    _retry_setup(partial(objective.prepare, dataset, before_pass=before_pass), "scoring the answers", emit, ranks)


def _fit_memory(model: AdaptedModel, spec: TrainSpec, facts: Any, position: Position, emit: Emit, ranks: Ranks) -> int:
    """Tokens per pass. Turns on gradient checkpointing where memory does not hold all activations of such a pass."""
    free = ranks.minimum(model.device.free_bytes())  # processes that shard a base need passes of the same size
    kind = model.device.place.type
    fitting = micro_batch_tokens(spec, facts, free_bytes=free, device=kind)
    budget = (spec.optim.micro_batch_tokens >> position.halvings) or position.budget or fitting
    every = recompute_every(spec, facts, tokens=budget, free_bytes=free, device=kind)
    if budget < spec.data.max_seq_length:  # an earlier attempt ran out of memory with less than one long row
        every = 1
    if every:
        model.recompute(every)
        which = {1: "Every layer is", 2: "Half of the layers are"}.get(every, f"One layer in {every} is")
        emit(Log(text=f"{which} recomputed in the backward pass, to fit in memory"))
    return budget


def _log_setup(run: Run, *, of: int) -> None:
    trainable = sum(weight.numel() for weight in run.model.lora.values())
    device, rows = run.model.device, run.spec.optim.batch_size
    if device.dtype == torch.float16 and device.place.type == "cpu":
        run.emit(Log(level="warning", text="A CPU is many times slower in float16; set model.dtype to auto"))
    run.emit(
        Log(text=f"{trainable:,} trainable parameters, {of:,} frozen ({trainable / of:.1%}), in {device.dtype_name}")
    )
    passes = f"in passes of up to {run.position.budget:,} tokens"
    where = device.place if run.ranks.is_alone else f"{run.ranks.world_size} × {device.place.type}"
    run.emit(Log(text=f"{run.plan.steps:,} steps of {rows} rows, {passes}, on {where}"))
    if run.position.step:
        checkpoint = "" if run.resumed_from is None else f", from {'/'.join(run.resumed_from.parts[-3:])}"
        run.emit(Log(text=f"Resuming after step {run.position.step:,}{checkpoint}"))


def _general_text(model: AdaptedModel, renderer: Renderer, emit: Emit, ranks: Ranks) -> GeneralText:
    return _retry_setup(partial(read_general_text, model, renderer), "reading general text", emit, ranks)


def _retry_setup(work: Callable[[], T], doing: str, emit: Emit, ranks: Ranks) -> T:
    """See `retry_freed`. Of several processes the others would be in the middle of their passes: no retry."""
    return retry_freed(work, f"{doing}, before the first step", emit, may_retry=ranks.is_alone)


def _raise_if_stopped(should_stop: Callable[[], bool], emit: Emit) -> None:
    """Stop without a checkpoint: before the first step there is nothing to save."""
    if should_stop():
        emit(Log(text="Stopping by request before the first step"))
        raise Stopped


def _before_pass(doing: str, should_stop: Callable[[], bool], emit: Emit) -> Callable[[int, int], None]:
    """A callback for the passes before the first step: stops early if asked to, and logs a sign of life."""
    heartbeat = Heartbeat(emit)

    def before_pass(number: int, of: int) -> None:
        _raise_if_stopped(should_stop, emit)
        heartbeat(f"{doing} before training: pass {number:,} of {of:,}")

    return before_pass
