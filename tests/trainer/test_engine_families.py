"""Answering on models of many families: each gives what transformers gives, and each row its own adapter's answer."""

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.trainer.adapters import make_adapter
from tests.trainer.families import make_family
from trainer.engine import Engine, Request
from trainer.rendering import Renderer

TOKENS = 10
LENGTHS = (30, 7, 16)  # longer than the sliding windows, and shorter; the shorter ones are padded


def prompts() -> list[list[int]]:
    random = torch.Generator().manual_seed(5)
    return [torch.randint(3, 300, (length,), generator=random).tolist() for length in LENGTHS]


def load(base: Path, adapter: Path | None = None) -> Any:
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="eager").eval()
    return model if adapter is None else peft.PeftModel.from_pretrained(model, adapter).eval()


def expected(model: Any, prompt: list[int], renderer: Renderer) -> str:
    """Greedy decoding by the book: the whole text again for every token, no cache, no padding."""
    ids = list(prompt)
    with torch.inference_mode():
        while len(ids) < len(prompt) + TOKENS and (len(ids) == len(prompt) or ids[-1] not in renderer.stop_ids):
            ids.append(int(model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return renderer.decode([one for one in ids[len(prompt) :] if one not in renderer.stop_ids])


def answers(engine: Engine, keys: list[str | None]) -> list[str]:
    rows = [Request(prompt_ids=ids, adapter=key, max_tokens=TOKENS) for ids, key in zip(prompts(), keys, strict=True)]
    texts = [""] * len(rows)
    for chunk in engine.generate(rows, lambda: False):
        texts[chunk.row] += chunk.text
    return texts


@pytest.mark.parametrize("name", ["gpt2", "bloom", "qwen2", "mistral", "gemma2", "phi", "gpt_oss", "hunyuan_v1_moe"])
def test_a_batch_answers_as_transformers_alone(name: str, tmp_path: Path) -> None:
    base = make_family(tmp_path, name)
    engine, renderer, model = Engine(base, dtype="float32"), Renderer.load(base), load(base)
    wanted = [expected(model, prompt, renderer) for prompt in prompts()]
    assert answers(engine, [None] * len(wanted)) == wanted
    assert any(len(text) > 3 for text in wanted), "the model must say something"


def test_a_model_that_names_no_longest_context_answers(tmp_path: Path) -> None:
    """BLOOM's distances have no end."""
    file = make_family(tmp_path, "bloom") / "config.json"
    config = json.loads(file.read_text())
    del config["max_position_embeddings"]
    file.write_text(json.dumps(config))
    assert all(answers(Engine(tmp_path, dtype="float32"), [None] * len(LENGTHS)))


@pytest.mark.parametrize("name", ["opt", "qwen2_moe", "gpt2"])
def test_adapters_side_by_side_answer_as_peft_alone(name: str, tmp_path: Path) -> None:
    """OPT and the shared experts of Qwen2-MoE lay all rows end to end before a linear layer; GPT-2's are Conv1D."""
    base = make_family(tmp_path / "base", name)
    engine, renderer = Engine(base, dtype="float32"), Renderer.load(base)
    folders: dict[str | None, Path | None] = {None: None}
    for seed, key in enumerate(("a", "b")):
        folders[key] = make_adapter(base, tmp_path / key, seed=seed, r=4 + seed)
        engine.load_adapter(key, tmp_path / key)
    for keys in (["a", "b", None], ["a", "a", "a"]):
        wanted = [expected(load(base, folders[key]), ids, renderer) for key, ids in zip(keys, prompts(), strict=True)]
        assert answers(engine, list(keys)) == wanted
