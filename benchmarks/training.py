"""Training speed and memory beside the peers: TRL at its defaults, TRL at its best, a plain transformers + PEFT loop.

    make bench ARGS=training            DATA=rows.json STEPS=12 ROUNDS=3 BASE=folder from the environment

The same rows in the same order, the same tokens, loss on the answers alone, nf4 with double quantisation and LoRA of
rank 16 on all linear layers, eight rows a step; every contender in a fresh process, in turn. Only real tokens count.
The first two steps are warm-up. A ratio is that of one round, minutes apart; what is told is the rounds' median.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "webapp/datasets/sample/lowrank_assistant.jsonl"
ROWS_A_STEP, LENGTH, RANK, ALPHA, RATE = 8, 512, 16, 32, 2e-4
WARM_UP = 2
CONTENDERS = ("lowrank", "trl", "trl-best", "plain")
TITLES = {
    "lowrank": "Lowrank",
    "trl": "TRL SFTTrainer, defaults",
    "trl-best": "TRL, packing, no checkpointing, bf16",
    "plain": "transformers + PEFT loop, bf16",
}


def main() -> None:
    if len(sys.argv) > 2 and sys.argv[1] == "--contender":
        print(json.dumps(CONTENDER[sys.argv[2]](json.loads(Path(sys.argv[3]).read_text()))))
        return
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(Path(folder))
        rounds = [{name: measure(name, work) for name in CONTENDERS} for _ in range(int(os.environ.get("ROUNDS", "2")))]
    report(rounds)


def prepare(folder: Path) -> Path:
    """Everything a contender needs in one file: base, rows as tokens with their loss mask, in the order of training."""
    from trainer.data import Plan, load_dataset
    from trainer.rendering import Renderer
    from trainer.spec import TrainSpec

    base = Path(os.environ.get("BASE") or folder / "base")
    if not base.is_dir():
        command = [sys.executable, "-m", "trainer", "fetch", "demo", "--out", str(base)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    steps = int(os.environ.get("STEPS", "12"))
    spec = TrainSpec.from_dict(
        {
            "model": {"base": str(base), "quantization": "nf4"},
            "lora": {"r": RANK, "lora_alpha": ALPHA},
            "data": {"path": os.environ.get("DATA") or str(SAMPLE), "max_seq_length": LENGTH, "holdout": 0.0},
            "optim": {"batch_size": ROWS_A_STEP, "epochs": 100, "max_steps": steps, "learning_rate": RATE,
                      "schedule": "constant", "warmup_ratio": 0.0},
        }
    )  # fmt: skip
    plan = Plan(load_dataset(spec, Renderer.load(base), lambda event: None).train, spec)
    rows = [item for step in range(steps) for item in plan.window(step)]
    plain = [{"input_ids": list(item.ids), "completion_mask": list(item.trained)} for item in rows]
    work = folder / "work.json"
    work.write_text(json.dumps({"spec": spec.to_dict(), "base": str(base), "steps": steps, "rows": plain}))
    return work


def measure(name: str, work: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.training", "--contender", name, str(work)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {TITLES[name]:<40} {found['speed']:7.1f} tok/s  {found['peak'] / 1e9:5.2f} GB", flush=True)
    return found


def report(rounds: list[dict[str, dict[str, Any]]]) -> None:
    print(f"\n{'':<40} {'tok/s':>7} {'ours is':>9} {'peak GB':>8} {'ours is':>9} {'matmul peak':>12} {'loss':>7}")
    for name in CONTENDERS:
        runs = [one[name] for one in rounds]
        speed, peak = (statistics.median(run[key] for run in runs) for key in ("speed", "peak"))
        faster = statistics.median(one["lowrank"]["speed"] / one[name]["speed"] for one in rounds)
        leaner = statistics.median(one["lowrank"]["peak"] / one[name]["peak"] for one in rounds)
        share = statistics.median(run["share"] for run in runs)
        print(
            f"{TITLES[name]:<40} {speed:7.1f} {faster:8.2f}x {peak / 1e9:8.2f} {leaner:8.2f}x {share:11.0%} "
            f"{runs[0]['loss']:7.4f}"
        )


class Clock:
    """When each step ended. Speed is that of the real tokens after the warm-up."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.losses: list[float] = []

    def step(self, loss: float | None = None) -> None:
        self.ends.append(time.perf_counter())
        if loss is not None:
            self.losses.append(loss)

    def result(self, tokens: list[int], model: Any) -> dict[str, Any]:
        speed = sum(tokens[WARM_UP:]) / (self.ends[-1] - self.ends[WARM_UP - 1])
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        loss = statistics.fmean(self.losses[-4:])
        return {"speed": speed, "peak": peak, "loss": loss, "losses": self.losses, "share": _share(speed, model)}


def _share(speed: float, model: Any) -> float:
    """Of the matrix products this machine can do in the same minute: 4 N for the frozen weights, 6 N for LoRA's."""
    import torch

    trained = sum(weight.numel() for name, weight in model.named_parameters() if "lora_" in name)
    config = model.config
    width, middle = config.hidden_size, config.intermediate_size
    keys = config.num_key_value_heads * width // config.num_attention_heads
    frozen = config.num_hidden_layers * (2 * width * width + 2 * width * keys + 3 * width * middle)
    frozen += config.vocab_size * width
    a, b = torch.randn(2048, 2048).bfloat16(), torch.randn(2048, 2048).bfloat16()
    a @ b
    began = time.perf_counter()
    for _ in range(10):
        a @ b
    peak = 10 * 2 * 2048**3 / (time.perf_counter() - began)
    return speed * (4 * frozen + 6 * trained) / peak


def row_tokens(work: dict[str, Any]) -> list[int]:
    """Real tokens of each step."""
    lengths = [len(row["input_ids"]) - 1 for row in work["rows"]]
    return [sum(lengths[at : at + ROWS_A_STEP]) for at in range(0, len(lengths), ROWS_A_STEP)]


def lowrank(work: dict[str, Any]) -> dict[str, Any]:
    import trainer.sft
    from trainer.events import Progress
    from trainer.spec import TrainSpec

    clock, seen = Clock(), []
    prepare_run = trainer.sft.prepare

    def remembered(*given: Any, **named: Any) -> Any:
        seen.append(prepare_run(*given, **named))
        return seen[0]

    trainer.sft.prepare = remembered  # the model is needed afterwards, for its size

    def emit(event: Any) -> None:
        if isinstance(event, Progress):
            clock.step(event.loss)

    with tempfile.TemporaryDirectory() as out:
        spec = TrainSpec.from_dict(work["spec"])
        trainer.sft.train(spec, out=Path(out), resume=None, emit=emit, should_stop=lambda: False)
    return clock.result(row_tokens(work), seen[0].model.peft)


def quantised(base: str, dtype: Any = None) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )
    return AutoModelForCausalLM.from_pretrained(base, quantization_config=config, dtype=dtype or torch.bfloat16)


def lora_config() -> Any:
    from peft import LoraConfig

    return LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear", task_type="CAUSAL_LM")


def trl(work: dict[str, Any], **better: Any) -> dict[str, Any]:
    import torch
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    clock = Clock()

    class Steps(TrainerCallback):
        def on_step_end(self, *given: Any, **named: Any) -> None:
            clock.step()

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **named: Any) -> None:
            if logs and "loss" in logs:
                clock.losses.append(logs["loss"])

    packed = bool(better)
    with tempfile.TemporaryDirectory() as out:
        config = SFTConfig(
            output_dir=out, learning_rate=RATE, lr_scheduler_type="constant", num_train_epochs=1, logging_steps=1,
            train_sampling_strategy="sequential", report_to="none", save_strategy="no", use_cpu=True, max_length=LENGTH,
            disable_tqdm=True, bf16=True, per_device_train_batch_size=4 if packed else ROWS_A_STEP, **better,
        )  # fmt: skip
        sft = SFTTrainer(
            # At its defaults TRL loads float32 and casts as it goes.
            model=quantised(work["base"], torch.bfloat16 if packed else torch.float32),
            args=config,
            train_dataset=Dataset.from_list(work["rows"]),
            processing_class=AutoTokenizer.from_pretrained(work["base"]),
            peft_config=lora_config(),
            callbacks=[Steps()],
        )
        lengths = [len(ids) for ids in sft.train_dataset["input_ids"]]
        size = config.per_device_train_batch_size
        sft.train()
    tokens = [sum(lengths[at : at + size]) for at in range(0, len(lengths), size)]
    return clock.result(tokens, sft.model)


def trl_best(work: dict[str, Any]) -> dict[str, Any]:
    return trl(work, packing=True, packing_strategy="bfd", gradient_checkpointing=False)


def plain(work: dict[str, Any]) -> dict[str, Any]:
    """What a careful person writes: bfloat16, no checkpointing, padded to the longest of four rows, twice a step."""
    import torch
    from peft import get_peft_model

    model = get_peft_model(quantised(work["base"]), lora_config())
    model.train()
    optimizer = torch.optim.AdamW([one for one in model.parameters() if one.requires_grad], lr=RATE, weight_decay=0.0)
    clock = Clock()
    for start in range(0, len(work["rows"]), ROWS_A_STEP):
        window = work["rows"][start : start + ROWS_A_STEP]
        labels_in = sum(sum(row["completion_mask"][1:]) for row in window)
        total = 0.0
        for at in range(0, len(window), 4):
            ids, mask, labels = _padded(window[at : at + 4])
            loss = model(input_ids=ids, attention_mask=mask, labels=labels, num_items_in_batch=labels_in).loss
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        clock.step(total)
    return clock.result(row_tokens(work), model)


def _padded(rows: list[dict[str, Any]]) -> tuple[Any, Any, Any]:
    import torch

    width = max(len(row["input_ids"]) for row in rows)
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    for at, row in enumerate(rows):
        these = torch.tensor(row["input_ids"])
        ids[at, : len(these)], mask[at, : len(these)] = these, 1
        trained = torch.tensor(row["completion_mask"], dtype=torch.bool)
        labels[at, : len(these)] = torch.where(trained, these, -100)
    return ids, mask, labels


CONTENDER: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "lowrank": lowrank,
    "trl": trl,
    "trl-best": trl_best,
    "plain": plain,
}

if __name__ == "__main__":
    main()
