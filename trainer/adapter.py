"""The published adapter: a folder that loads in plain PEFT and records how it was trained, written atomically."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.adapter_format import CONFIG, MANIFEST, WEIGHTS
from trainer.base_source import source_of
from trainer.errors import TrainerError
from trainer.lora_start import published, published_config
from trainer.manifest import sha256_of, whole_folder
from trainer.model_card import model_card
from trainer.run import Run, write_jsonl
from trainer.spec import TrainSpec
from trainer.tokenizer_copy import copy_tokenizer


def save_adapter(run: Run) -> dict[str, Any]:
    """Write and verify `run.out`/adapter, replacing one of an earlier attempt. Returns its facts."""
    return write_adapter(run, run.out / "adapter", adapter_facts(run, run.published_step))


def write_adapter(run: Run, target: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the current weights as an adapter, atomically. Returns `facts` with the hash of the weights."""
    spec = portable(run)
    origin = {
        "base": spec.model.base,
        "base_revision": spec.model.revision,
        "task": "seq2seq" if run.model.is_seq2seq else "causal",
        "base_fingerprint": run.inputs.base_fingerprint,
        "dataset_hash": run.inputs.dataset_hash,
        "dataset_rows": run.dataset.rows,
        "learnt_rows": len(run.dataset.train),
        "held_out_rows": len(run.dataset.holdout),
    }
    with whole_folder(target, name=MANIFEST, facts={**origin, **facts}) as folder:
        _write_config(run, spec, folder)
        weights = adapter_weights(run)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        _check_written(weights, folder / WEIGHTS)
        facts["weights_sha256"] = sha256_of(folder / WEIGHTS)
        copy_tokenizer(run.base, folder)
        (folder / "spec.json").write_text(json.dumps(spec.to_dict(), indent=2), encoding="utf-8")
        write_jsonl(folder / "metrics.jsonl", run.position.metrics)
        (folder / "README.md").write_text(model_card(spec, {**origin, **facts}), encoding="utf-8")
    return facts


def adapter_weights(run: Run) -> dict[str, Tensor]:
    """The trained weights in float32, as an update of the untouched base."""
    masters = run.optimizer.masters_on_cpu()
    return published(masters, run.model.initial) if run.spec.lora.has_nonzero_init else masters


def adapter_facts(run: Run, published: int) -> dict[str, Any]:
    """The run's metrics for an adapter with the weights of step `published`."""
    steps, evaluations = run.metrics("progress"), run.metrics("evaluated")
    facts: dict[str, Any] = {
        "steps": run.position.step,
        "planned_steps": run.plan.steps,
        "published_step": published,
        "loss": next(one["loss"] for one in reversed(steps) if one["step"] == published),
        "trained_tokens": run.position.trained_tokens,
        "seconds": round(run.position.seconds, 3),
        "peak_memory_bytes": run.model.device.peak_bytes(),
        "parameters": sum(weight.numel() for weight in run.model.lora.values()),
    }
    if evaluations:
        first, last = evaluations[0], next(one for one in reversed(evaluations) if one["step"] <= published)
        facts |= {"evaluation_loss": last["loss"], "perplexity": last["perplexity"], "accuracy": last["accuracy"]}
        if last.get("margin") is not None:
            facts["margin"] = last["margin"]
        facts |= {"evaluation_loss_before": first["loss"], "evaluation_rows": last["rows"]}
        if last.get("general_kl") is not None:
            facts |= {"general_kl": last["general_kl"], "general_perplexity": last["general_perplexity"]}
            facts |= {"general_perplexity_before": first["general_perplexity"]}
    return facts


def portable(run: Run) -> TrainSpec:
    """The spec without this machine's paths."""
    spec = run.spec
    name, revision = source_of(run.base)
    return dataclasses.replace(
        spec,
        model=dataclasses.replace(spec.model, base=name, revision=revision),
        data=dataclasses.replace(
            spec.data, path=Path(spec.data.path).name, holdout_path=Path(spec.data.holdout_path).name
        ),
    )


def _write_config(run: Run, spec: TrainSpec, folder: Path) -> None:
    """Write adapter_config.json like PEFT, for inference and with the base's name in place of its path."""
    config = run.model.peft.peft_config["default"].to_dict()
    if spec.lora.has_nonzero_init:
        config = published_config(config)
    config |= {
        "base_model_name_or_path": spec.model.base,
        "revision": spec.model.revision or None,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }
    text = json.dumps(config, indent=2, sort_keys=True, default=_to_json)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _to_json(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def _check_written(expected: dict[str, Tensor], path: Path) -> None:
    """Read the file back and check names, shapes, and that all values are finite."""
    written = load_file(path)
    shapes = {name: weight.shape for name, weight in expected.items()}
    if {name: weight.shape for name, weight in written.items()} != shapes:
        raise TrainerError("internal", "The written adapter is not the one that was trained.", "Try again.")
    # A NaN or infinity shows in the sum, which needs no copies; torch.isfinite makes two of a whole embedding.
    if not all(math.isfinite(float(weight.sum())) for weight in written.values()):
        raise TrainerError(
            "diverged", "The trained weights are not finite.", "Use a lower learning rate and train again."
        )
