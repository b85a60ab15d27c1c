"""Checkpoints: what they contain, when one is due, and which one to resume from."""

import dataclasses
import json
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.errors import TrainerError
from trainer.events import Checkpoint, Emit, Log
from trainer.manifest import put_back, verify, whole_folder
from trainer.optimizer import MasterAdamW
from trainer.spec import PARTS, Dtype, SpecError, TrainSpec
from trainer.spec_values import shown

MANIFEST = "MANIFEST.json"
BEST = "best.safetensors"
CHECKPOINTS_KEPT = 2
INTERVAL_SECONDS = 300.0
SHARE_OF_STEPS = 0.1
SAVING_SHARE = 0.02  # at most this share of an attempt's time goes into periodic checkpoints
BYTES_A_SECOND = 200e6  # assumed speed of writing and verifying, until the first checkpoint was timed
STARTED = time.time()
NAME = re.compile(r"step-\d{6,}")

# Values that may differ between attempts: paths on a machine, and how work is split to fit its memory.
MAY_DIFFER = {
    "model": ("base", "revision", "shard"),
    "data": ("path", "holdout_path"),
    "optim": ("micro_batch_tokens", "gradient_checkpointing"),
}


@dataclass
class Position:
    """The progress of a run: all that is needed beside weights and optimizer state to resume exactly where it stopped.

    Rows and dropout of a step are functions of the seed and the step number, so `step` also stands for the position in
    the data and the state of the random number generator.

    started: what chat templates take as the current time.
    budget: tokens per pass. It is kept because another split of a window would round differently.
    halvings: how often `budget` was halved because a step ran out of memory.
    measuring_halvings: the same for evaluation passes.
    dtype: the number format of the computation; `auto` depends on the device. "auto" in those of older trainers.
    unpacked: whether quantised weights are dequantised once, which also affects rounding.
    measured: the last step whose evaluation is complete, -1 before the first.
    best_step: the step with the lowest held-out loss, -1 before there is one.
    """

    started: str
    dtype: Dtype = "auto"
    budget: int = 0
    halvings: int = 0
    measuring_halvings: int = 0
    unpacked: bool = False
    measured: int = -1
    best_step: int = -1
    step: int = 0
    trained_tokens: int = 0
    seconds: float = 0.0
    metrics: list[dict[str, Any]] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)  # steps of the snapshots that are kept

    @property
    def measuring_budget(self) -> int:
        """Tokens per evaluation pass."""
        return max(1, self.budget >> self.measuring_halvings)


@dataclass(frozen=True)
class Inputs:
    """What a run is made from. A checkpoint can only be resumed with the same inputs.

    stop_ids: the tokens that end an answer, which a base model's generation_config.json decides.
    """

    spec: TrainSpec
    dataset_hash: str
    base_fingerprint: str
    of: int
    stop_ids: tuple[int, ...] = ()

    def facts(self) -> dict[str, Any]:
        """The same as plain data, for the manifest; of the spec only the values that must not change."""
        return {
            "spec": _bound_values(self.spec),
            "dataset_hash": self.dataset_hash,
            "base_fingerprint": self.base_fingerprint,
            "of": self.of,
            "stop_ids": list(self.stop_ids),
        }


def _bound_values(spec: TrainSpec) -> dict[str, Any]:
    """The values of a spec that must not change between attempts."""
    plain: dict[str, Any] = json.loads(json.dumps(spec.to_dict()))
    return {
        part: {name: value for name, value in plain[part].items() if name not in MAY_DIFFER.get(part, ())}
        for part in PARTS
    }


def find_checkpoint(
    path: Path, spec: TrainSpec, emit: Emit, *, base_fingerprint: str, dataset_hash: Callable[[], str]
) -> Path | None:
    """The checkpoint to resume from: `path` itself, or the latest valid one in a run's folder or a folder of runs.

    In a folder, damaged checkpoints are skipped, and so are those of another spec, base model or dataset. If all are
    foreign, the latest valid one is returned, so that `check_inputs` can report what differs.
    `dataset_hash` reads all rows, and is called only if the checkpoints are of more than one dataset.
    Raises TrainerError(input_changed) if `path` is a damaged checkpoint.
    """
    if NAME.fullmatch(path.name) or (path / MANIFEST).is_file():
        verify(path, name=MANIFEST)
        return path
    for parent in (path, *path.glob("checkpoints"), *path.glob("*/checkpoints")):
        put_back(parent)
    latest_first = list(reversed(checkpoints_in(path)))
    facts = {folder: _stored_facts(folder) for folder in latest_first}
    expected = {"spec": _bound_values(spec), "base_fingerprint": base_fingerprint}
    ours = [one for one in latest_first if expected.items() <= facts[one].items()]
    if len({facts[one].get("dataset_hash") for one in ours}) > 1:
        wanted = dataset_hash()
        ours = [one for one in ours if facts[one].get("dataset_hash") == wanted]
    readable = [one for one in latest_first if facts[one]]
    for folder in [one for one in latest_first if one in (ours or readable) or one not in readable]:
        try:
            verify(folder, name=MANIFEST)
        except TrainerError as error:
            emit(Log(level="warning", text=error.text))
        else:
            return folder
    emit(Log(level="warning", text="No usable checkpoint was found: starting from the beginning"))
    return None


def _stored_facts(folder: Path) -> dict[str, Any]:
    """What the manifest of a checkpoint says it was made from; empty if it cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {**manifest, "spec": _with_defaults(manifest.get("spec"))}
    except (OSError, ValueError, TypeError, AttributeError, RecursionError):
        return {}


def read_position(folder: Path) -> Position:
    """The position stored in a verified checkpoint. Fields that an older trainer did not write have their defaults.

    Raises TrainerError(input_changed) if it has fields that this trainer does not know.
    """
    values = json.loads(_state_of(folder))
    if unknown := sorted(values.keys() - {one.name for one in dataclasses.fields(Position)}):
        text = f"{folder.name} was written by a newer trainer: it contains {unknown[0]}."
        raise TrainerError("input_changed", text, "Update this trainer, or start the training afresh.")
    return Position(**values)


def check_inputs(folder: Path, inputs: Inputs) -> None:
    """Raises TrainerError(input_changed), with what differs, if a checkpoint was made from other inputs."""
    facts = _stored_facts(folder)
    for name in _differing(facts, inputs):
        raise _changed(name, facts.get(name), inputs, folder.name)


def _differing(facts: Mapping[str, Any], inputs: Inputs) -> list[str]:
    """Which inputs are not those of a manifest. Older trainers did not write `stop_ids`."""
    missing = {"stop_ids": list(inputs.stop_ids)}
    return [name for name, value in inputs.facts().items() if facts.get(name, missing.get(name)) != value]


def load_checkpoint(folder: Path, optimizer: MasterAdamW) -> None:
    """Load a verified checkpoint's weights and state into `optimizer`. Raises TrainerError(input_changed)."""
    try:
        optimizer.load(load_file(folder / "lora.safetensors"), load_file(folder / "optimizer.safetensors"))
    except (KeyError, RuntimeError) as error:
        text = f"The weights in {folder.name} do not match this spec."
        raise TrainerError("input_changed", text, "Start the training afresh.") from error


def _state_of(folder: Path) -> str:
    return (folder / "state.json").read_text(encoding="utf-8")


def load_best(folder: Path, position: Position) -> dict[str, Tensor]:
    """The weights of `position.best_step` from a verified checkpoint; empty if it has none."""
    name = "lora.safetensors" if position.best_step == position.step else BEST
    return load_file(folder / name) if position.best_step >= 0 and (folder / name).is_file() else {}


def _with_defaults(old: Any) -> Any:
    """A spec written by an older trainer, with defaults for the values added since."""
    try:
        return _bound_values(TrainSpec.from_dict(old))
    except SpecError:
        return old


def _changed(name: str, old: Any, inputs: Inputs, checkpoint: str) -> TrainerError:
    """The error for a checkpoint with other inputs: what changed, and how to resume or start over."""
    given, new = inputs.spec, inputs.facts()[name]
    files = " and ".join(Path(one).name for one in (given.data.path, given.data.holdout_path) if one)
    folder = Path(given.model.base).name
    messages = {
        "dataset_hash": (f"The rows of {files} are not those that {checkpoint} was made from", f"Restore {files}"),
        "base_fingerprint": (f"{folder} is not the base model that {checkpoint} was made from", f"Restore {folder}"),
        "stop_ids": (
            f"The tokens that end an answer are {new}, and {old} for {checkpoint}",
            f"Restore generation_config.json of {folder}",
        ),
        "of": (f"{checkpoint} is from a run of {old} steps, and this one has {new}", "Use the same trainer"),
    }
    if name == "spec":
        what, fix = _changed_values(old, new)
        messages[name] = f"The spec differs from that of {checkpoint}: {what}", fix
    text, fix = messages[name]
    return TrainerError("input_changed", f"{text}.", f"{fix} to resume from it, or start the training afresh.")


def _changed_values(old: Any, new: dict[str, Any]) -> tuple[str, str]:
    """The values of a spec that differ from a checkpoint's, and the fix."""
    values = [f"{part}.{key}" for part, inner in new.items() for key in inner]
    changed = [one for one in values if _value_at(old, one) != _value_at(new, one)] if isinstance(old, dict) else []
    if not changed:
        return "it has another version", "Use the trainer that wrote it"
    before, after = ([shown(_value_at(spec, path)) for path in changed] for spec in (old, new))
    what = ", ".join(f"{path} is {now}, and was {was}" for path, was, now in zip(changed, before, after, strict=True))
    return what, f"Set {', '.join(f'{path} to {was}' for path, was in zip(changed, before, strict=True))}"


def _value_at(spec: dict[str, Any], path: str) -> Any:
    part, key = path.split(".")
    inner = spec.get(part)
    return inner.get(key) if isinstance(inner, dict) else None


class Checkpoints:
    """The checkpoints of a run, in one folder. One is due every five minutes, and every tenth of the steps.

    If writing them took more than SAVING_SHARE of the time, they are delayed until it does not. `size`: bytes of one.
    Checkpoints that an earlier attempt left in the folder, up to step `resumed`, count as this one's.
    """

    def __init__(self, folder: Path, inputs: Inputs, emit: Emit, *, resumed: int = 0, size: int = 0) -> None:
        self._folder = folder
        self._inputs = inputs
        self._emit = emit
        self._every = max(1, round(inputs.of * SHARE_OF_STEPS))
        self._began = self._last = time.monotonic()
        self._saved = resumed
        self._spent = 0.0
        self._cost = size / BYTES_A_SECOND
        self._written = [one for one in checkpoints_in(folder) if self._is_ours(one, resumed)]
        self._is_swept = False

    @property
    def newest(self) -> int | None:
        """The step of the latest checkpoint."""
        return int(self._written[-1].name.removeprefix("step-")) if self._written else None

    def due(self, step: int) -> bool:
        """Whether to write one after `step` complete steps. Never after the last one: the adapter follows."""
        now = time.monotonic()
        affordable = self._spent + self._cost <= (now - self._began) * SAVING_SHARE
        if step >= self._inputs.of or not affordable:
            return False
        return now - self._last >= INTERVAL_SECONDS or step - self._saved >= self._every

    def save(self, position: Position, optimizer: MasterAdamW, best: Mapping[str, Tensor]) -> None:
        """Write and verify a checkpoint, report it, and remove all but the newest two.

        One that was written at this step is replaced if an evaluation or a snapshot has come since.
        `best`: the weights of `position.best_step`, or empty. Each checkpoint includes them, so that it is
        self-contained and can be moved.
        """
        began = time.monotonic()
        target = self._folder / f"step-{position.step:06d}"
        state = json.dumps(vars(position))
        if target not in self._written or _state_of(target) != state:
            self._sweep()
            with whole_folder(target, name=MANIFEST, facts={"step": position.step, **self._inputs.facts()}) as folder:
                save_file(optimizer.masters_on_cpu(), folder / "lora.safetensors")
                save_file(optimizer.state(), folder / "optimizer.safetensors")
                if best and position.best_step != position.step:
                    save_file(dict(best), folder / BEST)
                (folder / "state.json").write_text(state, encoding="utf-8")
            if target not in self._written:
                self._written.append(target)
        self._emit(Checkpoint(step=position.step, folder=f"{self._folder.name}/{target.name}"))
        while len(self._written) > CHECKPOINTS_KEPT:
            shutil.rmtree(self._written.pop(0), ignore_errors=True)
        self._saved, self._last = position.step, time.monotonic()
        self._cost = self._last - began
        self._spent += self._cost

    def _sweep(self) -> None:
        """Before the first write, remove partial checkpoints of attempts that were killed.

        Those newer than this process may be another process's of the same attempt, and stay.
        """
        if not self._is_swept:
            for partial in self._folder.glob(".tmp-*"):
                if partial.stat().st_mtime < STARTED:
                    shutil.rmtree(partial, ignore_errors=True)
        self._is_swept = True

    def _is_ours(self, folder: Path, resumed: int) -> bool:
        try:
            manifest = verify(folder, name=MANIFEST)
        except TrainerError:
            return False
        return manifest.get("step", resumed + 1) <= resumed and not _differing(manifest, self._inputs)


def checkpoints_in(folder: Path) -> list[Path]:
    """Checkpoints in `folder`, or in the run or runs that it contains, by step. It need not be there."""
    candidates = [*folder.glob("*"), *folder.glob("checkpoints/*"), *folder.glob("*/checkpoints/*")]
    checkpoints = [one for one in candidates if NAME.fullmatch(one.name) and one.is_dir()]
    return sorted(checkpoints, key=lambda one: int(one.name.removeprefix("step-")))
