"""Adapters of several kinds in one batch: DoRA and learnt biases answer as PEFT does, beside plain ones."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from tests.tiny import make_tiny_base
from tests.trainer.adapters import load_tiny, load_with_peft, make_adapter
from tests.trainer.families import make_family
from tests.trainer.training import Training, make_rows, make_spec
from trainer.adapter_import import import_folder
from trainer.adapter_layers import layers_of
from trainer.base_parts import BaseParts
from trainer.batch import Batch
from trainer.engine import Engine, Request
from trainer.errors import TrainerError
from trainer.spec import Quantization

IDS = list(range(5, 25))


def make_kind(base: Path, folder: Path, **options: Any) -> Path:
    """A random adapter whose biases and lengths are learnt as well."""
    model = get_peft_model(
        load_tiny(base),
        LoraConfig(**{"r": 4, "target_modules": "all-linear", "lora_alpha": 8, "task_type": "CAUSAL_LM"} | options),
    )
    random = torch.Generator().manual_seed(7)
    for name, values in model.named_parameters():
        if values.requires_grad and "magnitude" in name:
            values.data *= 1 + 0.2 * torch.randn(values.shape, generator=random)
        elif values.requires_grad:
            values.data = torch.randn(values.shape, generator=random) * 0.2
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="module")
def kinds(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, biased = tmp_path_factory.mktemp("kinds"), "gpt2" in base.name
    bias = {"bias": "lora_only"} if biased else {}
    return {
        "dora": make_kind(base, folder / "dora", use_dora=True),
        "bias": make_kind(base, folder / "bias", **bias),
        "both": make_kind(base, folder / "both", use_dora=True, use_rslora=True, **bias),
        "plain": make_adapter(base, folder / "plain", seed=3),
    }


def first_scores(engine: Engine, keys: list[str | None]) -> torch.Tensor:
    """Of the same prompt; the first row has another one where two keys are the same, for it would be read once."""
    prompts = [IDS if len(set(keys)) == len(keys) or number else IDS[::-1] for number in range(len(keys))]
    asked = [Request(prompt_ids=ids, adapter=key) for ids, key in zip(prompts, keys, strict=True)]
    batch = Batch(
        engine._model,
        [engine._row(number, request) for number, request in enumerate(asked)],
        device=engine.device,
    )
    with torch.inference_mode(), engine._active_adapters.using(batch.changes):
        return batch._forward(batch.ids)


def test_kinds_of_one_batch_score_as_peft(base: Path, kinds: dict[str, Path]) -> None:
    engine = Engine(base, dtype="float32")
    ids = torch.tensor([IDS])
    with torch.inference_mode():
        wanted: dict[str | None, torch.Tensor] = {None: load_tiny(base)(input_ids=ids).logits[0, -1]}
        wanted |= {key: load_with_peft(base, folder)(input_ids=ids).logits[0, -1] for key, folder in kinds.items()}
    for key, folder in kinds.items():
        engine.load_adapter(key, folder)
        torch.testing.assert_close(first_scores(engine, [key, key])[1], wanted[key], atol=2e-4, rtol=1e-4)
    keys = ["dora", None, "plain", "both", "bias"]
    for row, key in zip(first_scores(engine, keys), keys, strict=True):
        torch.testing.assert_close(row, wanted[key], atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_dora_on_a_quantised_base_has_the_lengths_of_its_weights(
    base: Path, kinds: dict[str, Path], quantization: Quantization
) -> None:
    """Loaded before or after the first answer, which may repack the weights: the same scores."""
    fresh, used = (Engine(base, dtype="float32", quantization=quantization) for _ in range(2))
    first_scores(used, [None])
    for engine in (fresh, used):
        engine.load_adapter("dora", kinds["dora"])
    torch.testing.assert_close(first_scores(fresh, ["dora"]), first_scores(used, ["dora"]), atol=1e-4, rtol=1e-4)
    whole = Engine(base, dtype="float32")
    whole.load_adapter("dora", kinds["dora"])
    off = {key: (first_scores(used, [key]) - first_scores(whole, [key])).abs().mean() for key in ("dora", None)}
    assert off["dora"] < 2 * off[None]  # what quantisation costs the base itself


OWN = {
    "head": {"modules_to_save": ["lm_head"]},
    "table": {"modules_to_save": ["embed_tokens", "wte"]},
    "norms": {"modules_to_save": ["norm", "ln_1", "ln_f"]},
    "linear": {"modules_to_save": ["down_proj", "mlp.c_proj"], "target_modules": ["q_proj", "c_attn"]},
    "tokens": {"trainable_token_indices": IDS[::3]},
    "all biases": {"bias": "all"},
}


@pytest.fixture(scope="module")
def owns(base: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("owns")
    return {kind: make_kind(base, folder / kind.replace(" ", "_"), **options) for kind, options in OWN.items()}


def test_own_modules_and_tokens_answer_as_peft_beside_any_others(
    base: Path, kinds: dict[str, Path], owns: dict[str, Path]
) -> None:
    """The head, the embeddings, norms and linear layers whole, single tokens, biases of everything: by row."""
    engine, ids, wanted = Engine(base, dtype="float32"), torch.tensor([IDS]), {}
    for key, folder in (owns | kinds).items():
        engine.load_adapter(key, folder)
        with torch.inference_mode():
            wanted[key] = load_with_peft(base, folder)(input_ids=ids).logits[0, -1]
    for key in owns:
        torch.testing.assert_close(first_scores(engine, [key, key])[1], wanted[key], atol=2e-4, rtol=1e-4)
    keys = [*owns, None, *kinds]
    for row, key in zip(first_scores(engine, keys), keys, strict=True):
        if key is not None:
            torch.testing.assert_close(row, wanted[key], atol=2e-4, rtol=1e-4)
    with torch.inference_mode():
        plain = load_tiny(base)(input_ids=ids).logits[0, -1]
    torch.testing.assert_close(first_scores(engine, [None])[0], plain, atol=2e-4, rtol=1e-4)
    assert all((row - plain).abs().max() > 1e-3 for row in wanted.values())


@pytest.mark.parametrize("kind", OWN)
def test_what_others_made_of_their_own_is_imported_and_answers_as_peft(
    base: Path, owns: dict[str, Path], tmp_path: Path, kind: str
) -> None:
    """With the parts of the base as a file tells them: whoever checks the adapter has no torch."""
    folder = Path(shutil.copytree(owns[kind], tmp_path / "imported"))
    (tmp_path / "parts.json").write_text(json.dumps(layers_of(base).to_dict()))
    facts = import_folder(folder, base, BaseParts.read(tmp_path / "parts.json"))
    told = {name: facts["spec"]["lora"].get(name) for name in ("modules_to_save", "trainable_token_indices")}
    assert {name: value for name, value in told.items() if value} == {
        name: value for name, value in OWN[kind].items() if name in told
    }
    engine = Engine(base, dtype="float32")
    engine.load_adapter("a", folder)
    with torch.inference_mode():
        made, downloaded = (load_with_peft(base, one)(input_ids=torch.tensor([IDS])) for one in (owns[kind], folder))
    assert torch.equal(made.logits, downloaded.logits)
    torch.testing.assert_close(first_scores(engine, ["a", None])[0], made.logits[0, -1], atol=2e-4, rtol=1e-4)


def test_whole_answers_of_a_mixed_batch_are_those_of_each_alone(base: Path, owns: dict[str, Path]) -> None:
    engine = Engine(base, dtype="float32")
    for key, folder in owns.items():
        engine.load_adapter(key, folder)
    asked = [Request(prompt_ids=IDS[at:], adapter=key, max_tokens=8) for at, key in enumerate([*owns, None])]

    def answers(requests: list[Request]) -> list[str]:
        texts = [""] * len(requests)
        for chunk in engine.generate(requests, lambda: False):
            texts[chunk.row] += chunk.text
        return texts

    assert answers(asked) == [answers([one])[0] for one in asked]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_layer_that_learnt_whole_answers_on_a_packed_base(tmp_path: Path, quantization: Quantization) -> None:
    base = make_family(tmp_path, "llama")
    folder = make_kind(base, tmp_path / "adapter", modules_to_save=["down_proj"], target_modules=["q_proj"])
    packed, whole = Engine(base, dtype="float32", quantization=quantization), Engine(base, dtype="float32")
    for engine in (packed, whole):
        engine.load_adapter("a", folder)
    off = (first_scores(packed, ["a", None]) - first_scores(whole, ["a", None])).abs().mean(dim=-1)
    assert off[0] < 2 * off[1]  # what quantisation costs the base itself


@pytest.mark.parametrize(
    "lora", [{"modules_to_save": ["norm", "lm_head"]}, {"trainable_token_indices": [5, 9]}], ids=str
)
def test_what_training_made_of_its_own_answers_as_peft(tmp_path: Path, lora: dict[str, Any]) -> None:
    base = make_tiny_base(tmp_path / "base")
    Training(make_spec(base, make_rows(tmp_path, 8), lora=lora, optim={"max_steps": 2}), tmp_path / "out").run()
    engine, trained = Engine(base, dtype="float32"), tmp_path / "out" / "adapter"
    imported = Path(shutil.copytree(trained, tmp_path / "imported"))
    import_folder(imported, base, layers_of(base))
    for key, folder in (("a", trained), ("b", imported)):
        engine.load_adapter(key, folder)
    with torch.inference_mode():
        wanted = load_with_peft(base, tmp_path / "out" / "adapter")(input_ids=torch.tensor([IDS])).logits[0, -1]
    for row in first_scores(engine, ["a", "b", None])[:2]:
        torch.testing.assert_close(row, wanted, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"modules_to_save": ["mlp"]}, "not a single layer"),
        ({"trainable_token_indices": [10**6]}, "a token that the base lacks"),
        ({"trainable_token_indices": {"embed_tokens": [5]}}, "not a list of token ids"),
        ({"modules_to_save": ["(a+)+$"]}, "not a list of plain module names"),
        ({"bias": "every"}, "bias is"),
    ],
    ids=str,
)
def test_what_cannot_be_another_one_by_row_is_refused(
    base: Path, owns: dict[str, Path], tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    folder = Path(shutil.copytree(owns["tokens"], tmp_path / "adapter"))
    config = json.loads((folder / "adapter_config.json").read_text()) | changed
    (folder / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(TrainerError, match=said) as caught:
        Engine(base, dtype="float32").load_adapter("a", folder)
    assert caught.value.code == "user_config"


def test_trained_dora_from_pissa_answers_as_peft(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "base")
    lora = {"use_dora": True, "init_lora_weights": "pissa", "layers_to_transform": [1]}
    Training(make_spec(base, make_rows(tmp_path, 8), lora=lora, optim={"max_steps": 2}), tmp_path / "out").run()
    engine, trained = Engine(base, dtype="float32"), tmp_path / "out" / "adapter"
    imported = Path(shutil.copytree(trained, tmp_path / "imported"))
    import_folder(imported, base, layers_of(base))
    for key, folder in (("a", trained), ("b", imported)):
        engine.load_adapter(key, folder)
    with torch.inference_mode():
        wanted = load_with_peft(base, tmp_path / "out" / "adapter")(input_ids=torch.tensor([IDS])).logits[0, -1]
    torch.testing.assert_close(first_scores(engine, ["a"])[0], wanted, atol=1e-4, rtol=1e-4)
