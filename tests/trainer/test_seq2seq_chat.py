"""Chat with encoder–decoder base models: one pass reads, and every row of a batch answers with its own adapter."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForSeq2SeqLM

from tests.trainer.seq2seq_bases import SEQ2SEQ, make_seq2seq
from tests.trainer.training import make_spec
from trainer.base_facts import inspect_folder
from trainer.engine import Chunk, Engine, Request
from trainer.estimate import Hardware, estimate, lora_parameters
from trainer.model import load_adapted
from trainer.rendering import Renderer

TOKENS = 12
PROMPTS = ("What is the capital of France?", "Who sat?", "Write a short answer to the question about the dog.")


def load(base: Path) -> Any:
    return AutoModelForSeq2SeqLM.from_pretrained(base, dtype=torch.float32).eval()


def make_adapter(base: Path, folder: Path, seed: int) -> Path:
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="SEQ_2_SEQ_LM")
    model, random = get_peft_model(load(base), config), torch.Generator().manual_seed(seed)
    for name, values in model.named_parameters():
        if "lora_" in name:
            values.data = torch.randn(values.shape, generator=random) * 0.3
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def plain_answer(model: Any, renderer: Renderer, prompt_ids: list[int]) -> str:
    """Greedy, with no cache, no batch and no padding."""
    assert renderer.start is not None
    written = [renderer.start]
    for _ in range(TOKENS):
        scores = model(input_ids=torch.tensor([prompt_ids]), decoder_input_ids=torch.tensor([written])).logits
        written.append(int(scores[0, -1].argmax()))
        if written[-1] in renderer.stop_ids:
            break
    return renderer.decode(written[1:])


@pytest.mark.parametrize("family", ["bart", "mt5", "t5"])
def test_rows_with_adapters_of_their_own_answer_as_plain_peft_does(family: str, tmp_path: Path) -> None:
    base = make_seq2seq(tmp_path / "base", family)
    renderer, engine = Renderer.load(base), Engine(base, dtype="float32")
    folders = {name: make_adapter(base, tmp_path / name, seed) for seed, name in enumerate("ab")}
    for name, folder in folders.items():
        engine.load_adapter(name, folder)
    asked = [(prompt, name) for prompt in PROMPTS for name in (None, "a", "b")]
    ids = [renderer.prompt_ids([{"role": "user", "content": prompt}]) for prompt, _ in asked]
    requests = [
        Request(prompt_ids=one, adapter=name, max_tokens=TOKENS) for one, (_, name) in zip(ids, asked, strict=True)
    ]
    answers = texts(list(engine.generate(requests, lambda: False)), len(asked))
    models: dict[str | None, Any] = {
        name: PeftModel.from_pretrained(load(base), path) for name, path in folders.items()
    }
    models[None] = load(base)
    wanted = [plain_answer(models[name].eval(), renderer, one) for one, (_, name) in zip(ids, asked, strict=True)]
    assert answers == wanted and len(set(wanted)) > 3


def texts(chunks: list[Chunk], rows: int) -> list[str]:
    return ["".join(chunk.text for chunk in chunks if chunk.row == row) for row in range(rows)]


def test_rows_that_come_later_do_not_disturb(tmp_path: Path) -> None:
    """Two askers at once: batches that began apart stay apart, and each ends as alone."""
    base = make_seq2seq(tmp_path / "base", "bart")
    renderer, engine = Renderer.load(base), Engine(base, dtype="float32")
    ids = [renderer.prompt_ids([{"role": "user", "content": prompt}]) for prompt in PROMPTS]
    alone = [texts(list(engine.generate([Request(prompt_ids=one, max_tokens=9)], lambda: False)), 1)[0] for one in ids]
    first = engine.generate([Request(prompt_ids=ids[0], max_tokens=9)], lambda: False)
    begun = [next(first), next(first)]
    second = list(engine.generate([Request(prompt_ids=one, max_tokens=9) for one in ids[1:]], lambda: False))
    assert texts([*begun, *first], 1) + texts(second, 2) == alone


@pytest.mark.parametrize("family", sorted(SEQ2SEQ))
@pytest.mark.parametrize("targets", ["all-linear", "attention", "mlp"])
def test_what_learns_is_counted_beforehand(family: str, targets: str, tmp_path: Path) -> None:
    base = make_seq2seq(tmp_path / "base", family)
    spec, facts = make_spec(base, Path("rows"), lora={"target_modules": targets}), inspect_folder(base)
    model, said = load_adapted(spec, base, lambda event: None), lora_parameters(spec, facts)
    learns = sum(weight.numel() for weight in model.lora.values())
    assert said == learns if family != "mt5" else said == pytest.approx(learns, rel=0.1)  # three decoder layers
    found = estimate(spec, facts, rows=100, tokens=20_000, on=Hardware("cpu", 1 << 33))
    assert found.low < found.expected < found.high and found.steps > 0


def test_rows_may_leave_before_and_between_the_steps(tmp_path: Path) -> None:
    base = make_seq2seq(tmp_path / "base", "t5")
    renderer, engine = Renderer.load(base), Engine(base, dtype="float32")
    ids = [renderer.prompt_ids([{"role": "user", "content": prompt}]) for prompt in PROMPTS]
    asked = [Request(prompt_ids=one, max_tokens=TOKENS) for one in ids]
    alone = texts(list(engine.generate([asked[2]], lambda: False)), 1)
    rows = [engine._row(number, request) for number, request in enumerate(asked)]
    batch = engine._make_batch(rows)
    batch.keep([1, 2])
    chunks = batch.step(engine._active_adapters)
    batch.keep([at for at, row in enumerate(batch.rows) if row.number == 2])
    while batch.rows:
        chunks += batch.step(engine._active_adapters)
    assert ["".join(chunk.text for row, chunk in chunks if row.number == 2)] == alone
