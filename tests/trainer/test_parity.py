"""Side by side with TRL: the same rows in the same order from the same weights give the same loss at each step."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset as Table
from datasets import disable_progress_bars
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from tests.trainer.training import Training, make_judged, make_pairs, make_rows, make_spec
from trainer.data import Item, LabelledAnswer, Plan, PreferencePair, load_dataset
from trainer.events import Progress
from trainer.model import load_adapted
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _quiet() -> None:
    disable_progress_bars()


def plan_of(spec: TrainSpec, base: Path) -> Plan:
    return Plan(load_dataset(spec, Renderer.load(base), lambda event: None).train, spec)


def in_order(plan: Plan) -> Iterator[Any]:
    """What our steps learn from, one row after the other, over all epochs."""
    for step in range(plan.steps):
        yield from plan.window(step)


def twin(spec: TrainSpec, base: Path) -> PeftModel:
    """The same base in plain PEFT, with the LoRA weights that our training begins with."""
    config = LoraConfig(
        r=spec.lora.r, lora_alpha=int(spec.lora.lora_alpha), target_modules="all-linear", task_type="CAUSAL_LM"
    )
    made = get_peft_model(AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), config)
    ours = load_adapted(spec, base, lambda event: None).lora
    for name, weight in made.named_parameters():
        if weight.requires_grad:
            weight.data.copy_(ours[name.replace(".default.", ".")].data)
    return made


def plainly(spec: TrainSpec, out: Path, *, rows: int) -> dict[str, Any]:
    """Our values under TRL's names; `rows` go through at once, the rest of a window is accumulated."""
    return {
        "output_dir": str(out),
        "learning_rate": spec.optim.learning_rate,
        "lr_scheduler_type": spec.optim.schedule,
        "warmup_steps": 0,
        "max_grad_norm": spec.optim.max_grad_norm,
        "weight_decay": spec.optim.weight_decay,
        "num_train_epochs": 1,
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": spec.optim.batch_size // rows,
        "train_sampling_strategy": "sequential",
        "max_length": spec.data.max_seq_length,
        "gradient_checkpointing": False,
        "bf16": False,
        "use_cpu": True,
        "logging_steps": 1,
        "disable_tqdm": True,
        "report_to": "none",
        "save_strategy": "no",
    }


def logged(trainer: Any, name: str) -> list[float]:
    return [one[name] for one in trainer.state.log_history if name in one]


@pytest.mark.parametrize("rows_at_once", [4, 2])
def test_sft_losses_are_those_of_trl(base: Path, tmp_path: Path, rows_at_once: int) -> None:
    optim = {"epochs": 2.0, "batch_size": 4, "learning_rate": 5e-3, "warmup_ratio": 0.0, "weight_decay": 0.01}
    spec = make_spec(base, make_rows(tmp_path), data={"holdout": 0.0}, optim=optim)
    ours = Training(spec, tmp_path / "ours").run()
    items: list[Item] = list(in_order(plan_of(spec, base)))
    table = Table.from_list(
        [
            {"input_ids": list(one.ids), "completion_mask": list(one.loss_mask), "labels": labels_of(one)}
            for one in items
        ]
    )
    trl = SFTTrainer(
        model=twin(spec, base),
        args=SFTConfig(**plainly(spec, tmp_path / "trl", rows=rows_at_once), completion_only_loss=True),
        train_dataset=table,
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trl.train()
    assert len(ours.losses) == 12 and ours.losses[-1] < ours.losses[0]
    assert ours.losses == pytest.approx(logged(trl, "loss"), abs=TOLERANCE)
    norms = [one.grad_norm for one in ours.of(Progress)]
    assert norms == pytest.approx(logged(trl, "grad_norm"), rel=1e-3)


def labels_of(item: Item) -> list[int]:
    return [one if flag else -100 for one, flag in zip(item.ids, item.loss_mask, strict=True)]


def parts_of(item: Item) -> tuple[list[int], list[int]]:
    """Prompt and answer of an example in which all after the prompt is learnt."""
    begin = item.loss_mask.find(1)
    return list(item.ids[:begin]), list(item.ids[begin:])


def as_text(item: Item, base: Path) -> tuple[str, str]:
    """Prompt and answer as the text that TRL tokenises to the same ids, without the end, which it adds."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    prompt, answer = (tokenizer.decode(ids) for ids in parts_of(item))
    assert tokenizer(prompt + answer)["input_ids"] == list(item.ids)
    return prompt, answer


@pytest.mark.parametrize("rows_at_once", [4, 2])
def test_dpo_losses_are_those_of_trl(base: Path, tmp_path: Path, rows_at_once: int) -> None:
    optim = {"epochs": 2.0, "batch_size": 4, "learning_rate": 5e-3, "warmup_ratio": 0.0, "micro_batch_tokens": 300}
    data = {"method": "dpo", "holdout": 0.0}
    spec = make_spec(base, make_pairs(tmp_path), data=data, optim=optim, preference={"beta": 0.2})
    ours = Training(spec, tmp_path / "ours").run()
    pairs: list[PreferencePair] = list(in_order(plan_of(spec, base)))
    table = []
    for pair in pairs:
        (prompt, chosen), (_, rejected) = as_text(pair.chosen, base), as_text(pair.rejected, base)
        table.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
    trl = DPOTrainer(
        model=twin(spec, base),
        args=DPOConfig(**plainly(spec, tmp_path / "trl", rows=rows_at_once), beta=0.2),
        train_dataset=Table.from_list(table),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trl.train()
    assert len(ours.losses) == 12 and ours.losses[-1] < ours.losses[0] / 2
    assert ours.losses == pytest.approx(logged(trl, "loss"), abs=TOLERANCE)


def test_kto_losses_are_those_of_trl(base: Path, tmp_path: Path) -> None:
    """All rows in one window: there TRL's mismatched answers, the neighbours', are ours, half the list away."""
    optim = {"epochs": 8.0, "batch_size": 3, "learning_rate": 5e-3, "warmup_ratio": 0.0}
    weights = {"beta": 0.3, "desirable_weight": 1.5, "undesirable_weight": 0.5}
    data = {"method": "kto", "holdout": 0.0}
    spec = make_spec(base, make_judged(tmp_path, 3), data=data, optim=optim, preference=weights)
    ours = Training(spec, tmp_path / "ours").run()
    rows: list[LabelledAnswer] = load_dataset(spec, Renderer.load(base), lambda event: None).train  # type: ignore[assignment]
    texts = [as_text(row.answer, base) for row in rows]
    table = [
        {"prompt": prompt, "completion": answer, "label": row.desirable}
        for (prompt, answer), row in zip(texts, rows, strict=True)
    ]
    trl = KTOTrainer(
        model=twin(spec, base),
        args=KTOConfig(**plainly(spec, tmp_path / "trl", rows=3) | {"num_train_epochs": 8}, **weights),
        train_dataset=Table.from_list(table),
        processing_class=AutoTokenizer.from_pretrained(base),
    )
    trl.train()
    assert len(ours.losses) == 8 and ours.losses[-1] < ours.losses[0] - 0.1
    assert ours.losses == pytest.approx(logged(trl, "loss"), abs=TOLERANCE)
