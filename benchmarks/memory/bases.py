"""Base models to measure memory on: the demo model, and random weights in the shapes of known families.

Those that are held out were never looked at when the estimate's constants were chosen.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
DEMO = "smollm-135m"


@dataclass(frozen=True)
class Shape:
    """A family of transformers by the name of its classes, and the values of its config."""

    family: str
    values: dict[str, Any]
    held_out: bool = False


def _llama(layers: int, hidden: int, middle: int, heads: int, keys: int, **more: Any) -> dict[str, Any]:
    return {
        "num_hidden_layers": layers,
        "hidden_size": hidden,
        "intermediate_size": middle,
        "num_attention_heads": heads,
        "num_key_value_heads": keys,
        "max_position_embeddings": 8192,
        "vocab_size": 49152,
        "tie_word_embeddings": True,
        **more,
    }


SHAPES = {
    DEMO: Shape("", {}),
    "llama-wide": Shape("Llama", _llama(8, 1024, 4096, 16, 16)),
    "llama-500m": Shape("Llama", _llama(6, 2048, 8192, 32, 8, tie_word_embeddings=False)),
    "qwen2-vocabulary": Shape("Qwen2", _llama(12, 896, 4864, 14, 2, vocab_size=151936)),
    "qwen3": Shape("Qwen3", _llama(14, 1024, 3072, 16, 8, head_dim=128, vocab_size=151936)),
    "pythia": Shape("GPTNeoX", _llama(12, 768, 3072, 12, 12, vocab_size=50304, tie_word_embeddings=False)),
    "gpt2": Shape("GPT2", {"n_layer": 12, "n_embd": 768, "n_head": 12, "n_positions": 2048, "vocab_size": 50257}),
    "llama-deep": Shape("Llama", _llama(40, 384, 1024, 6, 6), held_out=True),
    "mistral": Shape("Mistral", _llama(16, 1280, 3584, 20, 5, tie_word_embeddings=False), held_out=True),
    "granite": Shape("Granite", _llama(20, 640, 2048, 10, 2, vocab_size=64000), held_out=True),
}


def base_folder(name: str, work: Path) -> Path:
    """The folder of a base model; made when it is first asked for."""
    folder = work / "bases" / name
    if not folder.exists():
        if name == DEMO:
            _fetch_demo(folder)
        else:
            command = [sys.executable, "-m", "benchmarks.memory.bases", name, str(work)]
            subprocess.run(command, check=True, cwd=ROOT)  # in its own process: this one stays small
    return folder


def _fetch_demo(folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    if given := os.environ.get("BASE"):
        folder.symlink_to(Path(given).resolve())
        return
    command = [sys.executable, "-m", "trainer", "fetch", "demo", "--out", str(folder)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=ROOT)


def make(name: str, work: Path) -> None:
    """Write random weights in bfloat16, and the demo model's tokenizer beside them."""
    import torch  # noqa: PLC0415 # only the process that makes a base may grow by it
    import transformers  # noqa: PLC0415

    shape, folder, demo = SHAPES[name], work / "bases" / name, base_folder(DEMO, work)
    aside = work / "bases" / f"{name}.{os.getpid()}"
    config = getattr(transformers, f"{shape.family}Config")(**shape.values, bos_token_id=1, eos_token_id=2)
    suffix = "LMHeadModel" if shape.family == "GPT2" else "ForCausalLM"
    torch.manual_seed(0)
    torch.set_default_dtype(torch.bfloat16)
    model = getattr(transformers, f"{shape.family}{suffix}")(config)
    model.save_pretrained(aside)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(demo / file, aside / file)
    aside.rename(folder)


if __name__ == "__main__":
    make(sys.argv[1], Path(sys.argv[2]))
