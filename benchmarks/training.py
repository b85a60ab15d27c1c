"""Training speed and memory beside the peers: TRL at its defaults, TRL at its best, a plain transformers + PEFT loop.

    make bench ARGS=training            DATA=rows.json STEPS=12 ROUNDS=3 BASE=folder from the environment
    SHAPE=8b ROWS=64 CHOICES=1 …        random weights in that shape (8b, 135m, tiny); rows a step; our own choices too

The same rows in the same order, the same tokens, loss on the answers alone, nf4 with double quantisation and LoRA of
rank 16 on all linear layers; every contender in a fresh process, in turn, on the first GPU where there is one. Only
real tokens count. The first two steps are warm-up. A ratio is that of one round, minutes apart; what is told is the
rounds' median. ONLY="lowrank;plain" leaves the others out, AT_ONCE=8 says how many rows the peers put through at once
where they compute nothing again.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from trainer.data import Plan, load_dataset
from trainer.rendering import Renderer
from trainer.spec import TrainSpec

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "webapp/datasets/sample/lowrank_assistant.jsonl"
ROWS_A_STEP, LENGTH, RANK, ALPHA, RATE = 8, 512, 16, 32, 2e-4
LOOKED_AT = 16  # rows at least that nobody has learnt from, for the loss in the end
# `import trainer`, above, sets these for us; the peers have them as they come.
OURS_ALONE = ("GOMP_SPINCOUNT", "LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY")
OURS = "lowrank"


class Contender(NamedTuple):
    """A module of benchmarks.contenders, and what it is told beside the work."""

    title: str
    module: str
    told: tuple[str, ...] = ()


def _choice(title: str, told: str) -> Contender:
    return Contender(f"Lowrank, {title}", "lowrank_choices", (told,))


CONTENDERS = {
    OURS: Contender("Lowrank", "lowrank"),
    "lowrank_bf16": Contender("Lowrank, base not quantised", "lowrank_bf16"),
    "trl_defaults": Contender("TRL SFTTrainer, defaults", "trl_defaults"),
    "trl_best": Contender("TRL, packing, no checkpointing, bf16", "trl_best"),
    "plain": Contender("transformers + PEFT loop, bf16", "plain"),
}
CHOICES = {
    "unpacked": _choice("weights unpacked once", "unpacked"),
    "packed": _choice("weights unpacked at each use", "packed"),
    "apart": _choice("no beginning shared", "apart"),
    "small_passes": _choice("passes of one row", "small_passes"),
    "large_passes": _choice("a step in one pass", "large_passes"),
}
Found = dict[str, dict[str, Any]]  # what contenders told, by name


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = prepare(Path(folder))
        rounds = [compete(work) for _ in range(int(os.environ.get("ROUNDS", "2")))]
    if not report(rounds):
        sys.exit("Not every contender came to an end; see above.")


def wanted() -> dict[str, Contender]:
    every = CONTENDERS | (CHOICES if os.environ.get("CHOICES") else {})
    only = {OURS, *os.environ.get("ONLY", "").split(";")} if os.environ.get("ONLY") else set(every)
    return {name: one for name, one in every.items() if name in only}


def prepare(folder: Path) -> Path:
    """Everything a contender needs in one file: base, rows as tokens with their loss mask, in the order of training."""
    base = base_folder(folder)
    steps, rows_a_step = int(os.environ.get("STEPS", "12")), int(os.environ.get("ROWS", ROWS_A_STEP))
    spec = TrainSpec.from_dict(
        {
            "model": {"base": str(base), "quantization": "nf4"},
            "lora": {"r": RANK, "lora_alpha": ALPHA},
            "data": {"path": os.environ.get("DATA") or str(SAMPLE), "max_seq_length": LENGTH, "holdout": 0.0},
            "optim": {"batch_size": rows_a_step, "epochs": 100, "max_steps": steps, "learning_rate": RATE,
                      "schedule": "constant", "warmup_ratio": 0.0},
        }
    )  # fmt: skip
    plan = Plan(load_dataset(spec, Renderer.load(base), lambda event: None).train, spec)
    work = folder / "work.json"
    values = {
        "spec": spec.to_dict(),
        "base": str(base),
        "rows": _rows(plan, range(steps)),
        "next": _rows(plan, range(steps, steps + -(-LOOKED_AT // rows_a_step))),
        "rows_a_step": rows_a_step,
        "at_once": int(os.environ.get("AT_ONCE", "0")),
        "length": LENGTH,
        "rank": RANK,
        "alpha": ALPHA,
        "rate": RATE,
    }
    work.write_text(json.dumps(values))
    return work


def base_folder(folder: Path) -> Path:
    """The demo model, or the base that is named; with a shape that one's tokenizer and random weights."""
    base = Path(os.environ.get("BASE") or folder / "base")
    if not base.is_dir():
        _run(["-m", "trainer", "fetch", "demo", "--out", str(base)])
    if shape := os.environ.get("SHAPE"):
        _run(["-m", "benchmarks.contenders.shapes", shape, str(base), str(folder / shape)])
        return folder / shape
    return base


def _run(command: list[str]) -> None:
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def _rows(plan: Plan, steps: range) -> list[dict[str, Any]]:
    items = [item for step in steps for item in plan.window(step)]
    return [{"input_ids": list(item.ids), "completion_mask": list(item.loss_mask)} for item in items]


def compete(work: Path) -> Found:
    """One round: each contender that comes to an end."""
    found = {name: measure(one, work) for name, one in wanted().items()}
    return {name: one for name, one in found.items() if one is not None}


def measure(one: Contender, work: Path) -> dict[str, Any] | None:
    """What a contender tells. One that fails, as out of memory, must not take the others' figures with it."""
    command = [sys.executable, "-m", f"benchmarks.contenders.{one.module}", str(work), *one.told]
    ours = one.module.startswith(OURS)
    surroundings = {key: value for key, value in os.environ.items() if ours or key not in OURS_ALONE}
    surroundings.setdefault("CUDA_VISIBLE_DEVICES", "0")  # with more of them in sight TRL takes them all
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False, env=surroundings)
    if done.returncode:
        print(f"  {one.title:<40} failed:\n{done.stderr[-3000:]}", flush=True)
        return None
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    lived = f" ({found['lived'] / 1e9:.2f} of it values)" if found["lived"] else ""
    print(f"  {one.title:<40} {found['speed']:9.1f} tok/s  {found['peak'] / 1e9:6.2f} GB{lived}", flush=True)
    return found


def report(rounds: list[Found]) -> bool:
    """Print the table of all rounds; whether everybody came to an end in each of them."""
    rounds = [one for one in rounds if OURS in one]
    if not rounds:
        return False
    device = rounds[0][OURS]["device"]
    print(f"\nOn {device}; peak: {'what torch reserved on the GPU' if device == 'cuda' else 'of the process'}")
    print(
        f"{'':<40} {'tok/s':>9} {'ours is':>9} {'peak GB':>8} {'ours is':>9} {'matmul peak':>12} "
        f"{'last steps':>16} {'rows to come':>16}"
    )
    for name, contender in wanted().items():
        there = [one for one in rounds if name in one]
        if there:
            print(_line(contender.title, there, name))
    print("last steps: mean loss of four, where steps have our rows; rows to come: after all tokens. Beside them: ours")
    for name, contender in wanted().items():
        _print_items(contender.title, next((one[name] for one in rounds if name in one), {}))
    return all(len(one) == len(wanted()) for one in rounds)


def _line(title: str, rounds: list[Found], name: str) -> str:
    speed, peak, share = (statistics.median(one[name][key] for one in rounds) for key in ("speed", "peak", "share"))
    faster, leaner = (statistics.median(one[OURS][key] / one[name][key] for one in rounds) for key in ("speed", "peak"))
    losses = "".join(_compared(rounds[0], name, key) for key in ("loss", "after"))
    return f"{title:<40} {speed:9.1f} {faster:8.2f}x {peak / 1e9:8.2f} {leaner:8.2f}x {share:11.1%} {losses}"


def _compared(found: Found, name: str, key: str) -> str:
    """A loss, and how far ours is from it: 1 % is wanted at most."""
    ours, theirs = found[OURS][key], found[name][key]
    return f"{'-':>17}" if theirs is None else f"{theirs:9.4f} {ours / theirs - 1:+7.2%}"


def _print_items(title: str, found: dict[str, Any]) -> None:
    """What our estimate said of the peak, part by part, beside what was taken."""
    if items := found.get("items"):
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in items.items())
        told = f"{sum(items.values()) / 1e9:.2f} GB foretold, {found['peak'] / 1e9:.2f} taken"
        print(f"\n{title} ({found['chosen']}): {told}\n  {parts}")


if __name__ == "__main__":
    main()
