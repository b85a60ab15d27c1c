"""Training speed and memory beside the peers: TRL at its defaults, TRL at its best, a plain transformers + PEFT loop.

    make bench ARGS=training            DATA=rows.json STEPS=12 ROUNDS=3 BASE=folder from the environment

The same rows in the same order, the same tokens, loss on the answers alone, nf4 with double quantisation and LoRA of
rank 16 on all linear layers, eight rows a step; every contender in a fresh process, in turn. Only real tokens count.
The first two steps are warm-up. A ratio is that of one round, minutes apart; what is told is the rounds' median.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from trainer.data import Plan, load_dataset
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "webapp/datasets/sample/lowrank_assistant.jsonl"
ROWS_A_STEP, LENGTH, RANK, ALPHA, RATE = 8, 512, 16, 32, 2e-4
WAITING = ("GOMP_SPINCOUNT",)
CONTENDERS = {  # modules of benchmarks.contenders
    "lowrank": "Lowrank",
    "lowrank_bf16": "Lowrank, base not quantised",
    "trl_defaults": "TRL SFTTrainer, defaults",
    "trl_best": "TRL, packing, no checkpointing, bf16",
    "plain": "transformers + PEFT loop, bf16",
}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(Path(folder))
        rounds = [{name: measure(name, work) for name in CONTENDERS} for _ in range(int(os.environ.get("ROUNDS", "2")))]
    report(rounds)


def prepare(folder: Path) -> Path:
    """Everything a contender needs in one file: base, rows as tokens with their loss mask, in the order of training."""
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
    values = {"rows_a_step": ROWS_A_STEP, "length": LENGTH, "rank": RANK, "alpha": ALPHA, "rate": RATE}
    work.write_text(json.dumps({"spec": spec.to_dict(), "base": str(base), "rows": plain, **values}))
    return work


def measure(name: str, work: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.contenders.{name}", str(work)]
    # How OpenMP's threads wait is set by `import trainer`, above: the peers have it as it comes.
    surroundings = {key: value for key, value in os.environ.items() if "lowrank" in name or key not in WAITING}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=surroundings)
    if done.returncode:
        sys.exit(f"{name} failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"  {CONTENDERS[name]:<40} {found['speed']:7.1f} tok/s  {found['peak'] / 1e9:5.2f} GB", flush=True)
    return found


def report(rounds: list[dict[str, dict[str, Any]]]) -> None:
    print(f"\n{'':<40} {'tok/s':>7} {'ours is':>9} {'peak GB':>8} {'ours is':>9} {'matmul peak':>12} {'loss':>7}")
    for name, title in CONTENDERS.items():
        runs = [one[name] for one in rounds]
        speed, peak = (statistics.median(run[key] for run in runs) for key in ("speed", "peak"))
        faster = statistics.median(one["lowrank"]["speed"] / one[name]["speed"] for one in rounds)
        leaner = statistics.median(one["lowrank"]["peak"] / one[name]["peak"] for one in rounds)
        share = statistics.median(run["share"] for run in runs)
        print(
            f"{title:<40} {speed:7.1f} {faster:8.2f}x {peak / 1e9:8.2f} {leaner:8.2f}x {share:11.0%} "
            f"{runs[0]['loss']:7.4f}"
        )


if __name__ == "__main__":
    main()
