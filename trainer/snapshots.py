"""Snapshots: the weights of a few intermediate steps, each a folder that loads in plain PEFT.

Unlike checkpoints they hold no optimizer state to resume from. At most three are kept: one at about each third of the
run, and the best on the held-out rows unless that is published as the adapter.
"""

import os
import shutil
from pathlib import Path
from typing import Any
from uuid import uuid4

from safetensors import SafetensorError

from trainer.adapter import adapter_facts, write_adapter
from trainer.adapter_format import MANIFEST, WEIGHTS
from trainer.errors import TrainerError
from trainer.events import Log
from trainer.manifest import verify
from trainer.run import Run

FOLDER = "snapshots"
PARTS_OF_RUN = 3
REPORTED = ("step", "loss", "trained_tokens", "evaluation_loss", "perplexity", "accuracy", "margin", "evaluation_rows")


def planned_steps(run: Run) -> set[int]:
    """About each third of the run, rounded to steps with an evaluation if there are any."""
    total = run.plan.steps
    every = run.evaluation_interval if run.evaluates else 1
    planned = {max(1, round(total * part / PARTS_OF_RUN / every)) * every for part in range(1, PARTS_OF_RUN)}
    return {step for step in planned if step < total}


def snapshot_due(run: Run) -> bool:
    """Whether the current weights should be kept, and have not been yet."""
    step = run.position.step
    if not 0 < step < run.plan.steps or step in run.position.snapshots:
        return False
    return step in planned_steps(run) or _is_best(run, step)


def _is_best(run: Run, step: int) -> bool:
    """Whether this is the best step so far, and will not be published as the adapter anyway."""
    return step == run.position.best_step and not run.spec.evaluation.keep_best


def keep_snapshot(run: Run) -> None:
    """Write the weights of this step as an adapter. A full disk loses the snapshot, not the training run."""
    step = run.position.step
    facts = adapter_facts(run, step) | {"step": step, "is_snapshot": True}
    try:
        write_adapter(run, run.out / FOLDER / folder_name(step), facts)
    except (OSError, SafetensorError) as error:  # the latter when the disk fills up while weights are written
        why = error.strerror if isinstance(error, OSError) else error
        run.emit(Log(level="warning", text=f"The weights of step {step:,} could not be saved: {why}"))
        return
    run.position.snapshots.append(step)
    for old in set(run.position.snapshots) - planned_steps(run) - {run.position.best_step, step}:
        run.position.snapshots.remove(old)
        shutil.rmtree(run.out / FOLDER / folder_name(old), ignore_errors=True)


def kept_snapshots(run: Run) -> list[dict[str, Any]]:
    """The snapshots beside the adapter: folder below `run.out`, hash of the weights, and metrics."""
    snapshots = []
    for step in sorted(run.position.snapshots):
        folder = run.out / FOLDER / folder_name(step)
        if step == run.published_step or not _is_intact(folder):
            continue
        manifest = verify(folder, name=MANIFEST)
        metrics = {name: manifest[name] for name in REPORTED if name in manifest}
        facts = {"folder": f"{FOLDER}/{folder.name}", "weights_sha256": manifest["files"][WEIGHTS]["sha256"]}
        snapshots.append(facts | metrics)
    return snapshots


def adopt_snapshots(run: Run) -> None:
    """Hard-link an earlier attempt's snapshots, up to its checkpoint, into this attempt's folder. Drops damaged ones.

    Only the main process does this: two would delete each other's folders.
    """
    if run.resumed_from is None or not run.ranks.is_main:
        return
    earlier = run.resumed_from.parent.parent / FOLDER
    for step in list(run.position.snapshots):
        target = run.out / FOLDER / folder_name(step)
        if not _is_intact(target) and _is_intact(earlier / target.name):
            _link_folder(earlier / target.name, target)
        if not _is_intact(target):
            run.position.snapshots.remove(step)


def folder_name(step: int) -> str:
    return f"step-{step:06d}"


def _is_intact(folder: Path) -> bool:
    try:
        verify(folder, name=MANIFEST)
    except TrainerError:
        return False
    return True


def _link_folder(source: Path, target: Path) -> None:
    """Hard links are safe here: nothing writes into a finished snapshot."""
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.parent / f".tmp-{uuid4().hex}"
    try:
        shutil.copytree(source, aside, copy_function=_link)
        shutil.rmtree(target, ignore_errors=True)
        aside.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copyfile(source, target)
