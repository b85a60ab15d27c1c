"""Every option of LoRA: exactly what was asked for learns, from the base's own scores on, and plain PEFT reads it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.tiny import make_tiny_base
from tests.trainer.families import make_family
from tests.trainer.training import Training, make_rows, make_spec
from trainer.model import AdaptedModel, load_adapted
from trainer.spec import TrainSpec

OPTIONS: dict[str, dict[str, Any]] = {
    "ranks and strengths": {
        "rank_pattern": {"q_proj": 2, "layers.1.mlp.up_proj": 6},
        "alpha_pattern": {"q_proj": 12.0, "down_proj": 1.0},
    },
    "one layer": {"layers_to_transform": [1]},
    "dora": {"use_dora": True},
    "dora with dropout": {"use_dora": True, "lora_dropout": 0.1},
    "gaussian": {"init_lora_weights": "gaussian"},
    "orthogonal": {"init_lora_weights": "orthogonal"},
    "pissa": {"init_lora_weights": "pissa"},
    "pissa in rslora with patterns": {
        "init_lora_weights": "pissa",
        "use_rslora": True,
        "rank_pattern": {"q_proj": 2},
        "alpha_pattern": {"v_proj": 3.0},
    },
    "olora": {"init_lora_weights": "olora"},
    "pissa with dora": {"init_lora_weights": "pissa", "use_dora": True},
}
BIASES: dict[str, dict[str, Any]] = {
    "all biases": {"bias": "all", "target_modules": "attention"},
    "biases beside lora": {"bias": "lora_only", "target_modules": "attention"},
    "dora and biases": {"bias": "lora_only", "use_dora": True},
    "pissa, in and out exchanged": {"init_lora_weights": "pissa"},
    "olora, in and out exchanged": {"init_lora_weights": "olora"},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_base(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with biases everywhere, whose weights are stored as (in, out)."""
    return make_family(tmp_path_factory.mktemp("gpt2"), "gpt2")


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_rows(tmp_path_factory.mktemp("rows"), count=8)


@pytest.fixture(params=[*OPTIONS, *BIASES])
def case(request: pytest.FixtureRequest, base: Path, gpt2: Path, rows: Path) -> tuple[Path, TrainSpec]:
    """A base and a spec with the option."""
    biased = request.param in BIASES
    folder, lora = (gpt2, BIASES[request.param]) if biased else (base, OPTIONS[request.param])
    optim = {"max_steps": 3, "learning_rate": 2e-2}
    return folder, make_spec(folder, rows, lora={"r": 4, **lora}, optim=optim, data={"holdout": 0.0})


def load(spec: TrainSpec, base: Path) -> AdaptedModel:
    return load_adapted(spec, base, lambda event: None)


def plain_base(base: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)


def with_peft(base: Path, adapter: Path) -> Any:
    return PeftModel.from_pretrained(plain_base(base), str(adapter)).eval()


@torch.no_grad()
def scores(model: Any) -> torch.Tensor:
    ids = torch.arange(5, 45)[None]
    if isinstance(model, AdaptedModel):
        return model.head.logits(model.hidden(ids))
    found: torch.Tensor = model.eval()(ids).logits
    return found


def test_an_untrained_adapter_is_the_base(case: tuple[Path, TrainSpec]) -> None:
    base, spec = case
    model = load(spec, base)
    for module in model.peft.modules():
        module.training = False
    torch.testing.assert_close(scores(model), scores(plain_base(base)), rtol=1e-4, atol=2e-4)


def test_only_what_was_asked_for_changes(case: tuple[Path, TrainSpec], tmp_path: Path) -> None:
    """Weights of the base and of the update that are not in `lora` stay as they are, to the bit."""
    base, spec = case
    before = {name: value.clone() for name, value in load(spec, base).peft.state_dict().items()}
    model = run_and_keep(spec, tmp_path)
    learn = {id(weight) for weight in model.lora.values()}
    frozen = {name for name, value in model.peft.named_parameters(remove_duplicate=False) if id(value) not in learn}
    after = model.peft.state_dict()
    changed = {name for name, value in after.items() if not torch.equal(value, before[name])}
    assert not changed & frozen
    assert len(changed) == len(model.lora)


def test_plain_peft_on_the_untouched_base_gives_the_same_scores(case: tuple[Path, TrainSpec], tmp_path: Path) -> None:
    base, spec = case
    model = run_and_keep(spec, tmp_path)
    plain = with_peft(base, tmp_path / "adapter")
    theirs = scores(plain)
    assert (scores(plain_base(base)) - theirs).abs().max() > 0.05
    torch.testing.assert_close(scores(model), theirs, rtol=1e-3, atol=1e-3)


def run_and_keep(spec: TrainSpec, out: Path) -> AdaptedModel:
    """The model at the end of a training, measuring."""
    kept: list[AdaptedModel] = []

    def keeping(*args: Any, **kwargs: Any) -> AdaptedModel:
        kept.append(load_adapted(*args, **kwargs))
        return kept[0]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.run.load_adapted", keeping)
        Training(spec, out).run()
    for module in kept[0].peft.modules():
        module.training = False
    return kept[0]
