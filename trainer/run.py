"""A training run in preparation and in progress: everything the loop works on, made from a spec or a checkpoint."""

import hashlib
import json
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from trainer.base_facts import inspect_folder, weight_files
from trainer.bases import fetch_hub
from trainer.checkpoint import Checkpoints, Inputs, Position, find_checkpoint, load_checkpoint, started_at
from trainer.data import Dataset, Plan, load_dataset
from trainer.device import give_back_memory
from trainer.errors import Stopped, TrainerError
from trainer.estimate import micro_batch_tokens
from trainer.evaluation import answer, evaluate
from trainer.events import Emit, Log, Phase, Progress
from trainer.model import AdaptedModel, load_adapted
from trainer.optimizer import MasterAdamW
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

STEPS_IN_WINDOW = 20  # steps that speed and time left are told from
SAMPLED = 1 << 20  # bytes of each end of a weight file that stand for it


@dataclass
class Run:
    """All parts of one attempt."""

    spec: TrainSpec
    base: Path
    out: Path
    emit: Emit
    should_stop: Callable[[], bool]
    renderer: Renderer
    dataset: Dataset
    plan: Plan
    model: AdaptedModel
    optimizer: MasterAdamW
    inputs: Inputs
    checkpoints: Checkpoints
    position: Position
    recent: "deque[tuple[int, float]]" = field(default_factory=lambda: deque(maxlen=STEPS_IN_WINDOW))

    def stop(self) -> None:
        """Leave a checkpoint of the last whole step and end."""
        self.checkpoints.save(self.position, self.optimizer)
        raise Stopped

    def evaluation_due(self) -> bool:
        """Before the first step, at each interval and at the end, once each, over all attempts."""
        every = self.spec.evaluation.every_steps or self.plan.steps_per_epoch
        due = self.position.step % every == 0 or self.position.step == self.plan.steps
        return due and all(one["step"] != self.position.step for one in self.metrics("evaluated"))

    def evaluate(self) -> None:
        """Measure on the held-out rows and answer the probes; both are part of the record."""
        step = self.position.step
        if not self.dataset.holdout and not self.spec.evaluation.probes:
            return
        self.emit(Phase(name="evaluating"))
        if self.dataset.holdout:
            found = evaluate(
                self.model, self.dataset.holdout, step=step, budget=self.position.budget, should_stop=self.should_stop
            )
            if found is None:
                self.stop()
            else:
                self.record("evaluated", found)
        for prompt in self.spec.evaluation.probes:
            if self.should_stop():
                self.stop()
            self.emit(answer(self.model, self.renderer, prompt, step=step))
        if step < self.plan.steps:
            self.emit(Phase(name="training"))

    def record(self, kind: str, event: Any) -> None:
        """Emit an event and keep it with the adapter's metrics."""
        self.position.metrics.append({"kind": kind, **event.__dict__})
        self.emit(event)

    def metrics(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.position.metrics if one["kind"] == kind]

    def progress(self, *, loss: float, learning_rate: float, norm: float) -> Progress:
        """The step just made, with speed and time left from the last few steps of this attempt."""
        tokens, seconds = (sum(column) for column in zip(*self.recent, strict=True))
        left = self.plan.steps - self.position.step
        return Progress(
            step=self.position.step,
            of=self.plan.steps,
            loss=loss,
            learning_rate=learning_rate,
            grad_norm=norm,
            trained_tokens=self.position.trained_tokens,
            tokens_per_second=tokens / max(seconds, 1e-9),
            seconds_left=left * seconds / len(self.recent),
            memory_bytes=self.model.device.peak_bytes(),
        )


def prepare(spec: TrainSpec, *, out: Path, resume: Path | None, emit: Emit, should_stop: Callable[[], bool]) -> Run:
    """Read the data, load the model, and go back to the checkpoint, if one is given. Raises TrainerError."""
    if problems := spec.issues():
        raise TrainerError("user_config", " ".join(f"{one.path}: {one.problem}" for one in problems), problems[0].fix)
    out.mkdir(parents=True, exist_ok=True)
    checkpoint = find_checkpoint(resume, emit) if resume else None
    started = started_at(checkpoint) if checkpoint else datetime.now()
    emit(Phase(name="loading"))
    base = _find_base(spec, out, emit)
    emit(Phase(name="preparing"))
    renderer = Renderer.load(base, moment=started)
    dataset = load_dataset(spec, renderer, emit)
    if should_stop():
        raise Stopped
    plan = Plan(dataset.train, spec)
    model = load_adapted(spec, base, emit)
    optimizer = MasterAdamW(model.lora, spec.optim)
    give_back_memory()
    inputs = Inputs(spec, dataset.content_hash, fingerprint(base), plan.steps)
    position = Position(started=started.isoformat())
    if checkpoint:
        position = load_checkpoint(checkpoint, inputs, optimizer)
    facts, device = inspect_folder(base), model.device
    budget = micro_batch_tokens(spec, facts, free_bytes=device.free_bytes(), device=device.place.type)
    position.budget = spec.optim.micro_batch_tokens or position.budget or budget
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
        optimizer=optimizer,
        inputs=inputs,
        checkpoints=Checkpoints(out / "checkpoints", inputs, emit),
        position=position,
    )
    _say_what_learns(run, of=int(facts["parameters"]))
    return run


def _say_what_learns(run: Run, *, of: int) -> None:
    learn = sum(weight.numel() for weight in run.model.lora.values())
    device, rows = run.model.device, run.spec.optim.batch_size
    number_format = str(device.dtype).removeprefix("torch.")
    run.emit(Log(text=f"{learn:,} weights learn beside {of:,} frozen ones ({learn / of:.1%}), in {number_format}"))
    passes = f"in passes of up to {run.position.budget:,} tokens"
    run.emit(Log(text=f"{run.plan.steps:,} steps of {rows} rows, {passes}, on {device.place}"))
    if run.position.step:
        run.emit(Log(text=f"Going on after step {run.position.step:,}"))


def _find_base(spec: TrainSpec, out: Path, emit: Emit) -> Path:
    folder = Path(spec.model.base)
    if folder.is_dir():
        inspect_folder(folder)
        return folder
    if folder.is_absolute():
        raise TrainerError("user_config", f"There is no folder {folder.name}.", "Check model.base.")
    fetch_hub(spec.model.base, spec.model.revision, out / "base", emit)
    return out / "base"


def fingerprint(base: Path) -> str:
    """A hash that tells base models apart: config, tokenizer and template whole, of the weights size and both ends."""
    found = hashlib.sha256()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        if (base / name).is_file():
            found.update(hashlib.sha256((base / name).read_bytes()).digest())
    for file in weight_files(base):
        size = file.stat().st_size
        with file.open("rb") as opened:
            found.update(f"{file.name} {size}".encode() + opened.read(SAMPLED))
            opened.seek(max(0, size - SAMPLED))
            found.update(opened.read(SAMPLED))
    return found.hexdigest()


def write_lines(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(one, allow_nan=False) + "\n" for one in records), encoding="utf-8")


def seed_step(seed: int, step: int) -> None:
    """Dropout of a step depends on nothing but the seed and the step's number."""
    torch.manual_seed(seed * 1_000_003 + step)
