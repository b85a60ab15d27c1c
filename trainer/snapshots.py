"""Adapters on the way: the weights of a few steps, each a folder that loads in plain PEFT, for people to compare.

Other than checkpoints they hold nothing to go on from. At most three are kept: one about each third of the run, and the
best on the held-out rows where the adapter itself is another.
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
    """About each third of the run; at an evaluation, where there are any, so that every snapshot was measured."""
    of = run.plan.steps
    every = run.evaluation_interval if run.evaluates else 1
    near = {max(1, round(of * part / PARTS_OF_RUN / every)) * every for part in range(1, PARTS_OF_RUN)}
    return {step for step in near if step < of}


def snapshot_due(run: Run) -> bool:
    """Whether the weights as they are now are to be kept, and are not yet."""
    step = run.position.step
    if not 0 < step < run.plan.steps or step in run.position.snapshots:
        return False
    return step in planned_steps(run) or _is_best(run, step)


def _is_best(run: Run, step: int) -> bool:
    """Where the best is published it needs no second place."""
    return step == run.position.best_step and not run.spec.evaluation.keep_best


def keep_snapshot(run: Run) -> None:
    """Write the weights of this step as an adapter. A disk that is full costs the snapshot, not the training."""
    step = run.position.step
    facts = adapter_facts(run, step) | {"step": step, "is_snapshot": True}
    try:
        write_adapter(run, run.out / FOLDER / folder_name(step), facts)
    except (OSError, SafetensorError) as error:  # the latter where the weights themselves do not fit
        why = error.strerror if isinstance(error, OSError) else error
        run.emit(Log(level="warning", text=f"The weights of step {step:,} could not be kept: {why}"))
        return
    run.position.snapshots.append(step)
    for old in set(run.position.snapshots) - planned_steps(run) - {run.position.best_step, step}:
        run.position.snapshots.remove(old)
        shutil.rmtree(run.out / FOLDER / folder_name(old), ignore_errors=True)


def kept_snapshots(run: Run) -> list[dict[str, Any]]:
    """What is there beside the adapter: the folder below `run.out`, the hash of the weights, what was measured."""
    found = []
    for step in sorted(run.position.snapshots):
        folder = run.out / FOLDER / folder_name(step)
        if step == run.published_step or not _is_intact(folder):
            continue
        manifest = verify(folder, name=MANIFEST)
        told = {name: manifest[name] for name in REPORTED if name in manifest}
        place = {"folder": f"{FOLDER}/{folder.name}", "weights_sha256": manifest["files"][WEIGHTS]["sha256"]}
        found.append(place | told)
    return found


def adopt_snapshots(run: Run) -> None:
    """Link what an earlier attempt kept up to its checkpoint into this attempt's folder; what is damaged is let go.

    Of several processes the first does so, as it alone keeps snapshots: two would take each other's folders away.
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
    """The same files under a second name: nobody writes into a snapshot."""
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
