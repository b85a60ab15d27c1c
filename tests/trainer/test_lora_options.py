"""Every option of LoRA: exactly what was asked for learns, from the base's own scores on, and plain PEFT reads it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM

from tests.trainer.families import make_family
from tests.trainer.training import Training, make_rows, make_spec
from trainer.data import Item
from trainer.errors import Stopped, TrainerError
from trainer.events import Event, Finished, Log
from trainer.lora_start import init_lora, lora_layers
from trainer.loss import Head, loss_and_correct
from trainer.micro_batch import micro_batches
from trainer.model import AdaptedModel, load_adapted
from trainer.spec import SpecError, TrainSpec

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
    "eva": {"init_lora_weights": "eva"},
    "olora": {"init_lora_weights": "olora"},
    "whole norms": {"modules_to_save": ["norm", "post_attention_layernorm"]},
    "a whole layer in place of its update": {"modules_to_save": ["down_proj"]},
    "a whole embedding": {"modules_to_save": ["embed_tokens"]},
    "a whole head": {"modules_to_save": ["lm_head"], "use_dora": True},
    "tokens, of the head too": {"trainable_token_indices": [7, 20]},
    "pissa with tokens": {"init_lora_weights": "pissa", "trainable_token_indices": [7, 20]},
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
    assert len({after[name].data_ptr() for name in changed}) == len(model.lora)  # a tied head has the embedding's rows


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
        patch.setattr("trainer.preparation.load_adapted", keeping)
        Training(spec, out).run()
    for module in kept[0].peft.modules():
        module.training = False
    return kept[0]


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_loftq_starts_nearer_to_the_whole_base(base: Path, rows: Path, tmp_path: Path, quantization: str) -> None:
    """It makes up for what quantisation lost; the published adapter is for the base as it is in its folder."""
    model = {"quantization": quantization, "dtype": "float32"}
    plain, loftq = (
        make_spec(base, rows, model=model, lora={"r": 16, "init_lora_weights": init}, optim={"max_steps": 2})
        for init in ("default", "loftq")
    )
    whole = scores(plain_base(base))
    off = [float((scores(load(spec, base)) - whole).abs().mean()) for spec in (plain, loftq)]
    assert off[1] < 0.7 * off[0]
    trained = run_and_keep(loftq, tmp_path)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["init_lora_weights"]) == (32, 16.0, True)
    assert (scores(with_peft(base, tmp_path / "adapter")) - scores(trained)).abs().mean() < 2 * off[0]


def test_dora_changes_nothing_where_loftq_starts(base: Path, rows: Path) -> None:
    """Its magnitudes are those of the quantised weight and what makes up for its loss, not of that weight alone."""
    model, lora = {"quantization": "nf4", "dtype": "float32"}, {"r": 8, "init_lora_weights": "loftq"}
    plain, dora = (make_spec(base, rows, model=model, lora={**lora, "use_dora": one}) for one in (False, True))
    torch.testing.assert_close(scores(load(dora, base)), scores(load(plain, base)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("init", ["pissa", "olora"])
def test_a_start_from_the_weights_of_a_packed_base_is_named(base: Path, rows: Path, init: str) -> None:
    spec = make_spec(base, rows, model={"quantization": "nf4"}, lora={"init_lora_weights": init})
    with pytest.raises(TrainerError, match="no memory to unpack") as caught:
        load_adapted(spec, base, lambda event: None, dequantized=False)
    assert "quantization" in caught.value.fix
    torch.testing.assert_close(
        scores(load(spec, base)),
        scores(load(make_spec(base, rows, model={"quantization": "nf4"}), base)),
        rtol=1e-4,
        atol=1e-4,
    )


def test_pissa_takes_out_the_largest_directions(base: Path, rows: Path) -> None:
    """W = W_res + s B0 A0, and the singular values of W_res are those of W without its r largest."""
    spec = make_spec(base, rows, lora={"init_lora_weights": "pissa", "r": 4})
    layer = next(iter(lora_layers(load(spec, base).peft)))
    whole = plain_base(base).get_submodule(layer.path).weight
    torch.testing.assert_close(layer.weight() + layer.scaling * layer.b @ layer.a, whole, rtol=1e-4, atol=1e-5)
    rest = torch.linalg.svdvals(layer.weight())
    torch.testing.assert_close(rest[:-4], torch.linalg.svdvals(whole)[4:], rtol=1e-3, atol=1e-4)


def test_a_slow_start_gives_signs_of_life(base: Path, rows: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.events.HEARTBEAT_SECONDS", 0.0)
    spec, said = make_spec(base, rows, lora={"init_lora_weights": "pissa"}), list[Event]()
    count = len(list(lora_layers(load_adapted(spec, base, said.append).peft)))
    texts = [one.text for one in said if isinstance(one, Log) and "Initialising" in one.text]
    assert texts[-1] == f"Initialising LoRA (pissa): layer {count} of {count}" and len(texts) == count


@pytest.mark.parametrize("init", ["pissa", "olora", "orthogonal", "gaussian"])
@torch.no_grad()
def test_starts_are_pefts_own(base: Path, rows: Path, init: str) -> None:
    spec = make_spec(base, rows, lora={"init_lora_weights": init, "target_modules": ["q_proj"]})
    torch.manual_seed(spec.optim.seed)
    config = LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["q_proj"],
        init_lora_weights=init,  # type: ignore[arg-type]
    )
    theirs = {layer.path: layer for layer in lora_layers(get_peft_model(plain_base(base), config))}
    for layer in lora_layers(load(spec, base).peft):
        mine, peer = layer, theirs[layer.path]
        if init in ("gaussian", "orthogonal"):
            assert mine.a.std() == pytest.approx(float(peer.a.std()), rel=0.3)
            assert float(mine.b.std()) == pytest.approx(float(peer.b.std()), rel=0.3), "neither or both are zero"
            assert float((mine.b @ mine.a).abs().max()) == pytest.approx(float((peer.b @ peer.a).abs().max()), abs=1e-5)
        else:
            torch.testing.assert_close(mine.b @ mine.a, peer.b @ peer.a, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(mine.weight(), peer.weight(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("init", ["orthogonal", "gaussian"])
@torch.no_grad()
def test_random_starts_are_pefts_own_numbers(base: Path, rows: Path, init: str) -> None:
    """From the same state of the random numbers A and B are those that PEFT's formula gives, of every rank."""
    spec = make_spec(base, rows, lora={"init_lora_weights": init, "rank_pattern": {"up_proj": 6}})
    peft = load(spec, base).peft
    torch.manual_seed(7)
    init_lora(peft, spec.lora, {}, print)
    mine = [(layer.a.clone(), layer.b.clone()) for layer in lora_layers(peft)]
    torch.manual_seed(7)
    for layer, (a, b) in zip(lora_layers(peft), mine, strict=True):
        if init == "orthogonal":
            layer.module.orthogonal_init("default")
            assert b.abs().max() > 0.01
        else:
            layer.module.reset_lora_parameters("default", init)
        torch.testing.assert_close((a, b), (layer.a.data, layer.b.data), rtol=0, atol=0)


def test_peft_has_nothing_to_warn_of(base: Path, gpt2: Path, rows: Path, recwarn: pytest.WarningsRecorder) -> None:
    for folder, across in ((gpt2, True), (base, False)):
        peft = load(make_spec(folder, rows), folder).peft
        assert peft.peft_config["default"].fan_in_fan_out is across
    assert not [str(one.message) for one in recwarn if "fan_in_fan_out" in str(one.message)]


def test_merged_weights_are_the_base_and_the_scaled_product(base: Path, rows: Path, tmp_path: Path) -> None:
    lora = {"init_lora_weights": "pissa", "use_rslora": True, "rank_pattern": {"q_proj": 2}}
    Training(make_spec(base, rows, lora=lora, optim={"max_steps": 2}), tmp_path).run()
    weights = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    merged, plain = with_peft(base, tmp_path / "adapter").merge_and_unload(), plain_base(base)
    for path in ("model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"):
        a, b = (weights[f"base_model.model.{path}.lora_{one}.weight"] for one in "AB")
        scaling = 8 / (a.shape[0] / 2) ** 0.5
        wanted = plain.get_submodule(path).weight + scaling * b @ a
        torch.testing.assert_close(merged.get_submodule(path).weight, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "lora",
    [
        {"init_lora_weights": "pissa", "trainable_token_indices": [7]},
        {"use_dora": True, "modules_to_save": ["lm_head"], "lora_dropout": 0.1},
    ],
    ids=["pissa", "a whole head"],
)
def test_a_resumed_run_is_the_same_run(base: Path, rows: Path, tmp_path: Path, lora: dict[str, Any]) -> None:
    spec = make_spec(base, rows, lora=lora, optim={"max_steps": 4})
    whole = Training(spec, tmp_path / "whole").run()
    first = Training(spec, tmp_path / "first", stop_at=2)
    with pytest.raises(Stopped):
        first.run()
    second = Training(spec, tmp_path / "second").run(resume=tmp_path / "first" / "checkpoints")
    assert first.losses + second.losses == whole.losses
    assert second.of(Finished)[0].facts["weights_sha256"] == whole.of(Finished)[0].facts["weights_sha256"]


def test_a_quantised_layer_cannot_learn_whole(base: Path, rows: Path) -> None:
    spec = make_spec(base, rows, model={"quantization": "nf4"}, lora={"modules_to_save": ["down_proj"]})
    with pytest.raises(TrainerError, match="quantised and cannot be trained in full"):
        load_adapted(spec, base, lambda event: None, dequantized=False)


def test_dora_reads_packed_nf4_and_names_packed_int8(base: Path, rows: Path) -> None:
    nf4, int8 = (make_spec(base, rows, model={"quantization": one}, lora={"use_dora": True}) for one in ("nf4", "int8"))
    assert "lora_magnitude_vector" in str(load_adapted(nf4, base, lambda event: None, dequantized=False).lora.keys())
    with pytest.raises(TrainerError, match="use_dora reads") as caught:
        load_adapted(int8, base, lambda event: None, dequantized=False)
    assert "nf4" in caught.value.fix


@pytest.mark.parametrize(
    ("parts", "path"),
    [
        ({"lora": {"init_lora_weights": "loftq"}, "model": {"quantization": "none"}}, "lora.init_lora_weights"),
        ({"lora": {"init_lora_weights": "orthogonal", "r": 3}}, "lora.init_lora_weights"),
        ({"lora": {"init_lora_weights": "orthogonal", "rank_pattern": {"q_proj": 5}}}, "lora.init_lora_weights"),
        ({"lora": {"modules_to_save": ["q_proj"], "target_modules": ["q_proj"]}}, "lora.modules_to_save"),
        ({"lora": {"modules_to_save": ["(a+)+"]}}, "lora.modules_to_save"),
        ({"lora": {"rank_pattern": {"q_proj": 0}}}, "lora.rank_pattern"),
        ({"lora": {"alpha_pattern": {".*": 4}}}, "lora.alpha_pattern"),
        ({"lora": {"layers_to_transform": [1, 1]}}, "lora.layers_to_transform"),
        ({"lora": {"trainable_token_indices": [-1]}}, "lora.trainable_token_indices"),
    ],
    ids=str,
)
def test_values_that_cannot_stand_together_are_issues(base: Path, parts: dict[str, Any], path: str) -> None:
    spec = TrainSpec.from_dict({"model": {"base": "b", **parts.pop("model", {})}, "data": {"path": "d"}, **parts})
    assert [one.path for one in spec.issues()] == [path]


def test_patterns_are_read_from_yaml_and_written_back() -> None:
    text = "lora: {rank_pattern: {q_proj: 4}, alpha_pattern: {v_proj: '8'}, layers_to_transform: [0, 1]}"
    spec = TrainSpec.from_yaml(text)
    assert spec.lora.rank_pattern == {"q_proj": 4} and spec.lora.alpha_pattern == {"v_proj": 8.0}
    assert TrainSpec.from_yaml(spec.to_yaml()) == spec and hash(spec) == hash(TrainSpec.from_yaml(text))
    with pytest.raises(SpecError) as caught:
        lora = {"rank_pattern": ["q_proj"], "layers_to_transform": "0", "alpha_pattern": {"q": "x"}}
        TrainSpec.from_dict({"model": {"base": "b"}, "data": {"path": "d"}, "lora": lora})
    assert [one.path for one in caught.value.issues] == [
        "lora.alpha_pattern",
        "lora.layers_to_transform",
        "lora.rank_pattern",
    ]


class Calls(TorchDispatchMode):
    """What torch was asked to compute, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.names: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names[func.overloadpacket._qualified_op_name] += 1
        return func(*args, **(kwargs or {}))


def test_a_head_that_learns_has_the_gradient_of_cross_entropy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainer.loss.MAX_LOGITS", 50 * 4)
    torch.manual_seed(0)
    weight, bias = torch.randn(50, 16, requires_grad=True), torch.randn(50, requires_grad=True)
    hidden = torch.randn(2, 9, 16, requires_grad=True)
    item = Item(torch.arange(10).tolist(), bytes([0] + [1] * 9))  # type: ignore[arg-type] # any sequence will do
    batch = micro_batches([item, item], 100)[0]
    logits = 3 * torch.tanh((hidden.flatten(0, 1)[batch.positions] @ weight.T + bias) * 0.5 / 3)
    expected = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum")
    learns = (hidden, weight, bias)
    wanted = torch.autograd.grad(expected, learns)
    with Calls() as calls:
        loss, hits = loss_and_correct(hidden, batch, Head(weight, bias, 0.5, 3.0))
        found = torch.autograd.grad(loss, learns)
    torch.testing.assert_close(loss, expected)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other)
    assert int(hits) == int((logits.argmax(-1) == batch.labels).sum())
    # On the way back the scores are made again; no hit is counted again.
    assert (calls.names["aten::eq"], calls.names["aten::addmm"]) == (5, 10)
