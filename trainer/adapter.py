"""The finished adapter: a folder that loads in plain PEFT and carries what made it, written whole and read back."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from trainer.adapter_format import CONFIG, MANIFEST, TOKENIZER_FILES, WEIGHTS
from trainer.base_source import source_of
from trainer.errors import TrainerError
from trainer.lora_start import published, published_config
from trainer.manifest import sha256_of, whole_folder
from trainer.model_card import model_card
from trainer.run import Run, write_jsonl
from trainer.spec import TrainSpec


def save_adapter(run: Run) -> dict[str, Any]:
    """Write and verify `run.out`/adapter, replacing one of an earlier attempt. Returns what to remember of it."""
    return write_adapter(run, run.out / "adapter", adapter_facts(run, run.published_step))


def write_adapter(run: Run, target: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """The weights as they are now, as an adapter that is there whole or not at all. Returns its facts."""
    spec = portable(run)
    made_from = {
        "base": spec.model.base,
        "base_revision": spec.model.revision,
        "task": "seq2seq" if run.model.is_seq2seq else "causal",
        "base_fingerprint": run.inputs.base_fingerprint,
        "dataset_hash": run.inputs.dataset_hash,
        "dataset_rows": run.dataset.rows,
        "learnt_rows": len(run.dataset.train),
        "held_out_rows": len(run.dataset.holdout),
    }
    with whole_folder(target, name=MANIFEST, facts={**made_from, **facts}) as folder:
        _write_config(run, spec, folder)
        weights = adapter_weights(run)
        save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
        _check_weights(weights, folder / WEIGHTS)
        facts["weights_sha256"] = sha256_of(folder / WEIGHTS)
        for name in TOKENIZER_FILES:
            if (run.base / name).is_file():
                shutil.copyfile(run.base / name, folder / name)
        (folder / "spec.json").write_text(json.dumps(spec.to_dict(), indent=2), encoding="utf-8")
        write_jsonl(folder / "metrics.jsonl", run.position.metrics)
        (folder / "README.md").write_text(model_card(spec, {**made_from, **facts}), encoding="utf-8")
    return facts


def adapter_weights(run: Run) -> dict[str, Tensor]:
    """What was learnt, in float32, for the base as it is in its folder."""
    masters = run.optimizer.masters_on_cpu()
    return published(masters, run.model.initial) if run.spec.lora.has_nonzero_init else masters


def adapter_facts(run: Run, published: int) -> dict[str, Any]:
    """What a run came to, in numbers, when the weights of step `published` are shown."""
    steps, measured = run.metrics("progress"), run.metrics("evaluated")
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
    if measured:
        first, last = measured[0], next(one for one in reversed(measured) if one["step"] <= published)
        facts |= {"evaluation_loss": last["loss"], "perplexity": last["perplexity"], "accuracy": last["accuracy"]}
        if last.get("margin") is not None:
            facts["margin"] = last["margin"]
        facts |= {"evaluation_loss_before": first["loss"], "evaluation_rows": last["rows"]}
        if last.get("general_kl") is not None:
            facts |= {"general_kl": last["general_kl"], "general_perplexity": last["general_perplexity"]}
            facts |= {"general_perplexity_before": first["general_perplexity"]}
    return facts


def portable(run: Run) -> TrainSpec:
    """The spec without paths of this machine."""
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
    """adapter_config.json as PEFT writes it, for inference and with a base name that a person can change."""
    config = run.model.peft.peft_config["default"].to_dict()
    if spec.lora.has_nonzero_init:
        config = published_config(config)
    config |= {
        "base_model_name_or_path": spec.model.base,
        "revision": spec.model.revision or None,
        "inference_mode": True,
        "target_modules": sorted(config["target_modules"]),
    }
    text = json.dumps(config, indent=2, sort_keys=True, default=_plain)
    (folder / CONFIG).write_text(text, encoding="utf-8")


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, (set, frozenset)) else str(value)


def _check_weights(expected: dict[str, Tensor], path: Path) -> None:
    """Read back what was written: the same names and shapes, and no number that is none."""
    written = load_file(path)
    shapes = {name: weight.shape for name, weight in expected.items()}
    if {name: weight.shape for name, weight in written.items()} != shapes:
        raise TrainerError("internal", "The written adapter is not the one that was trained.", "Try again.")
    if not all(bool(torch.isfinite(weight).all()) for weight in written.values()):
        raise TrainerError(
            "diverged", "The trained weights are not finite numbers.", "Use a lower learning rate and train again."
        )
