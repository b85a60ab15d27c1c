"""What is not exactly an adapter of this base is refused, with the reason, before it touches the model."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.trainer.adapters import load_tiny, make_adapter
from trainer.adapter_files import load_adapter
from trainer.errors import TrainerError
from trainer.stacked_lora import Linear, LoraWeights, add_adapter_hooks

Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def sound(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_adapter(base, tmp_path_factory.mktemp("sound"), seed=1, target_modules=["q_proj", "v_proj"])


@pytest.fixture(scope="module")
def layers(base: Path) -> dict[str, Linear]:
    model = load_tiny(base)
    return add_adapter_hooks(model, model.get_output_embeddings())[1]


@pytest.fixture
def adapter(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "adapter"))


def load(folder: Path, layers: dict[str, Linear]) -> LoraWeights:
    return load_adapter(folder, layers, device=torch.device("cpu"), dtype=torch.float32)


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = folder / "adapter_model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def change_config(folder: Path, **values: Any) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_a_sound_adapter_is_read_with_its_scaling(adapter: Path, layers: dict[str, Linear]) -> None:
    weights = load(adapter, layers)
    assert sorted(weights) == sorted(f"model.layers.{n}.self_attn.{p}_proj" for n in (0, 1) for p in "qv")
    pair = weights["model.layers.0.self_attn.v_proj"]
    assert (pair.a.shape, pair.b.shape, pair.scaling) == ((4, 64), (32, 4), 2.0)


def test_rslora_and_patterns_set_rank_and_scaling(base: Path, tmp_path: Path, layers: dict[str, Linear]) -> None:
    folder = make_adapter(
        base, tmp_path / "p", seed=1, target_modules=["q_proj", "v_proj"], use_rslora=True,
        rank_pattern={"v_proj": 9}, alpha_pattern={"v_proj": 6},
    )  # fmt: skip
    weights = load(folder, layers)
    assert weights["model.layers.0.self_attn.q_proj"].scaling == 4.0
    assert weights["model.layers.0.self_attn.v_proj"].scaling == 2.0
    assert weights["model.layers.1.self_attn.v_proj"].a.shape == (9, 64)


@pytest.mark.parametrize("numbers", [[1], 1])
def test_only_some_layers_may_have_an_update(
    numbers: Any, base: Path, tmp_path: Path, layers: dict[str, Linear]
) -> None:
    """Exactly the keys of those layers, as PEFT wrote them."""
    targets = ["q_proj", "down_proj"]
    folder = make_adapter(base, tmp_path, seed=1, target_modules=targets, layers_to_transform=numbers)
    assert sorted(load(folder, layers)) == ["model.layers.1.mlp.down_proj", "model.layers.1.self_attn.q_proj"]
    change_config(folder, layers_to_transform=[0])
    with pytest.raises(TrainerError, match="which does not belong to this adapter"):
        load(folder, layers)
    for wrong in (["1"], [-1], [True], "all"):
        change_config(folder, layers_to_transform=wrong)
        with pytest.raises(TrainerError, match="is not a list of layer numbers"):
            load(folder, layers)


def test_target_modules_may_be_whole_paths(base: Path, tmp_path: Path, layers: dict[str, Linear]) -> None:
    paths = ["model.layers.0.self_attn.q_proj", "model.layers.1.mlp.up_proj"]
    folder = make_adapter(base, tmp_path / "paths", seed=1, target_modules=paths)
    named = json.loads((folder / "adapter_config.json").read_text())["target_modules"]
    assert sorted(named) == paths
    assert sorted(load(folder, layers)) == paths


def poison(value: float) -> Callable[[dict[str, torch.Tensor]], object]:
    return lambda tensors: tensors[f"{Q_PROJ}.lora_A.weight"].view(-1)[3].fill_(value)


WRONG_WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], object]] = {
    "the base's head": lambda t: t.update({"base_model.model.lm_head.weight": torch.zeros(4, 4)}),
    "a norm": lambda t: t.update({"base_model.model.model.norm.weight": torch.zeros(64)}),
    "another layer": lambda t: t.update({f"{Q_PROJ.replace('.0.', '.9.')}.lora_A.weight": torch.zeros(4, 64)}),
    "a missing half": lambda t: t.pop(f"{Q_PROJ}.lora_B.weight"),
    "another rank": lambda t: t.update({f"{Q_PROJ}.lora_A.weight": torch.zeros(8, 64)}),
    "another width": lambda t: t.update({f"{Q_PROJ}.lora_A.weight": torch.zeros(4, 32)}),
    "whole numbers": lambda t: t.update({f"{Q_PROJ}.lora_A.weight": torch.zeros(4, 64, dtype=torch.int32)}),
    "nothing": lambda t: t.clear(),
    "NaN": poison(float("nan")),
    "infinity": poison(float("-inf")),
    "a huge value": poison(1e30),
}


@pytest.mark.parametrize("what", WRONG_WEIGHTS)
def test_wrong_weights_are_refused(what: str, adapter: Path, layers: dict[str, Linear]) -> None:
    change_weights(adapter, WRONG_WEIGHTS[what])
    with pytest.raises(TrainerError) as caught:
        load(adapter, layers)
    assert caught.value.code == "user_config"
    assert caught.value.fix


@pytest.mark.parametrize(
    "values",
    [
        {"target_modules": "(([a-z0-9_.])+)+!"},
        {"target_modules": ["(a+)+"]},
        {"target_modules": ["no_such_proj"]},
        {"target_modules": []},
        {"rank_pattern": {"(a+)+$": 4}},
        {"alpha_pattern": {"q_proj": "high"}},
        {"alpha_pattern": ["q_proj"]},
        {"r": 10**9},
        {"r": 8},
        {"r": True},
        {"lora_alpha": float("inf")},
        {"lora_alpha": 10**400},
        {"use_dora": True},
        {"layer_replication": [[0, 2000]]},
        {"corda_config": {"cache_file": "/etc/passwd"}},
        {"auto_mapping": {"parent_library": "os"}},
        {"megatron_config": {"x": 1}},
        {"modules_to_save": ["lm_head"]},
        {"trainable_token_indices": [1]},
        {"bias": "all"},
        {"bias": "some"},
        {"peft_type": "IA3"},
        {"brand_new_field": 1},
    ],
    ids=str,
)
def test_wrong_configs_are_refused(values: dict[str, Any], adapter: Path, layers: dict[str, Linear]) -> None:
    change_config(adapter, **values)
    with pytest.raises(TrainerError):
        load(adapter, layers)


def test_a_pickle_in_disguise_is_refused_and_never_run(
    adapter: Path, layers: dict[str, Linear], tmp_path: Path
) -> None:
    class Evil:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    (adapter / "adapter_model.safetensors").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(TrainerError, match="not a safetensors file"):
        load(adapter, layers)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.safetensors"])
def test_missing_and_cut_files_are_refused(name: str, adapter: Path, layers: dict[str, Linear]) -> None:
    whole = (adapter / name).read_bytes()
    for rest in (whole[: len(whole) // 2], b"", None):
        (adapter / name).unlink()
        if rest is not None:
            (adapter / name).write_bytes(rest)
        with pytest.raises(TrainerError):
            load(adapter, layers)
        (adapter / name).write_bytes(b"")
