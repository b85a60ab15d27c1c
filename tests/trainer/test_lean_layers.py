"""Lean layers compute what the layers they stand for compute: values, and gradients of all that learns."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.trainer.families import make_family
from tests.trainer.training import Training, make_spec
from trainer.device import Device
from trainer.lean_layers import make_lean
from trainer.model import AdaptedModel, adapt, load_base

IDS = torch.randint(3, 384, (3, 20), generator=torch.Generator().manual_seed(1))


def load(folder: Path, monkeypatch: pytest.MonkeyPatch, *, lean: bool, **parts: dict[str, Any]) -> AdaptedModel:
    monkeypatch.setattr("trainer.model.make_lean", make_lean if lean else lambda model: None)
    spec = make_spec(folder, Path("rows"), **parts)
    device = Device(torch.device("cpu"), torch.float32)
    model = adapt(load_base(folder, spec.model, device), spec, device, print)
    generator = torch.Generator().manual_seed(2)
    for name, weight in sorted(model.lora.items()):  # B starts at zero, and no gradient would reach A
        if "lora_B" in name:
            weight.data.normal_(0, 0.1, generator=generator)
    return model


def values_and_gradients(model: AdaptedModel) -> tuple[Tensor, dict[str, Tensor]]:
    torch.manual_seed(0)  # some families drop values of their own
    states = model.hidden(IDS)
    states.square().mean().backward()
    return states.detach(), {name: weight.grad for name, weight in model.lora.items() if weight.grad is not None}


def lean_layers(model: AdaptedModel) -> set[str]:
    return {type(one).__name__ for one in model.peft.modules() if "forward" in one.__dict__}


@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("llama", {"Linear", "LlamaRMSNorm", "LlamaMLP"}),
        ("qwen2", {"Linear", "Qwen2RMSNorm", "Qwen2MLP"}),
        ("phi3", {"Linear", "Phi3RMSNorm"}),
        ("gemma", {"Linear"}),  # its norm adds one to the weight, its MLP has another activation
        ("gpt2", set()),
    ],
)
def test_same_values_and_gradients(
    family: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_family(tmp_path, family)
    lean, own = (load(folder, monkeypatch, lean=kind) for kind in (True, False))
    assert lean_layers(lean) == expected and not lean_layers(own)
    (states, slopes), (own_states, own_slopes) = values_and_gradients(lean), values_and_gradients(own)
    torch.testing.assert_close(states, own_states, rtol=1e-4, atol=1e-5)
    assert slopes.keys() == own_slopes.keys() == lean.lora.keys()
    for name, slope in slopes.items():
        torch.testing.assert_close(slope, own_slopes[name], rtol=1e-3, atol=1e-6)


def test_a_gate_of_another_kind_stays_however_small_its_values_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near zero GELU and SiLU are alike; a norm before them makes the difference."""
    folder = make_family(tmp_path, "llama")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "hidden_act": "gelu"}))
    weights = load_file(folder / "model.safetensors")
    for name in weights:
        if name.endswith("gate_proj.weight"):
            weights[name] *= 0.02
        if name.endswith("post_attention_layernorm.weight"):
            weights[name] *= 50
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    lean, own = (load(folder, monkeypatch, lean=kind) for kind in (True, False))
    assert lean_layers(lean) == {"Linear", "LlamaRMSNorm"}
    torch.testing.assert_close(values_and_gradients(lean)[0], values_and_gradients(own)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("lora", [{"lora_dropout": 0.1}, {"use_dora": True}])
def test_what_they_do_not_know_stays(lora: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(make_family(tmp_path, "llama"), monkeypatch, lean=True, lora=lora)
    assert lean_layers(model) == {"LlamaRMSNorm", "LlamaMLP"}


def test_without_the_adapter_they_are_the_base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_family(tmp_path, "llama")
    model = load(folder, monkeypatch, lean=True)
    plain = load_base(folder, make_spec(folder, Path("rows")).model, model.device)
    with torch.no_grad(), model.peft.disable_adapter():
        found = model.hidden(IDS)
        expected = plain.get_decoder()(input_ids=IDS, use_cache=False).last_hidden_state
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_they_keep_less_for_the_way_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(model: AdaptedModel) -> int:
        pieces: dict[int, int] = {}

        def note(piece: Tensor) -> Tensor:
            storage = piece.untyped_storage()
            pieces[storage.data_ptr()] = storage.nbytes()
            return piece

        with torch.autograd.graph.saved_tensors_hooks(note, lambda piece: piece):
            model.hidden(IDS)
        return sum(pieces.values()) - sum(one.untyped_storage().nbytes() for one in model.peft.parameters())

    folder = make_family(tmp_path, "llama")
    # More in bfloat16, where the norm keeps no float32 copy of its input.
    assert kept(load(folder, monkeypatch, lean=True)) < 0.85 * kept(load(folder, monkeypatch, lean=False))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_packed_layers_without_an_update_are_probed(base: Path, rows: Path, tmp_path: Path, quantization: str) -> None:
    """As on a card without room for unpacked weights: the MLP then has no floating-point weight of its own."""
    spec = make_spec(
        base,
        rows,
        model={"quantization": quantization, "dtype": "auto"},
        lora={"target_modules": "attention"},
        optim={"max_steps": 1},
        data={"holdout": 0.0},
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("trainer.model._fits_dequantized", lambda causal, device: False)
        assert len(Training(spec, tmp_path).run().losses) == 1


def test_an_mlp_that_clamps_keeps_its_own_forward() -> None:
    """What it clamps only shows on large values."""

    class ClampedMLP(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate_proj, self.up_proj = (torch.nn.Linear(16, 32, bias=False) for _ in range(2))
            self.down_proj, self.act_fn = torch.nn.Linear(32, 16, bias=False), torch.nn.SiLU()

        def forward(self, x: Tensor) -> Tensor:
            gate, up = self.gate_proj(x).clamp(max=10.0), self.up_proj(x).clamp(-10.0, 10.0)
            out: Tensor = self.down_proj(self.act_fn(gate) * up)
            return out

    model = torch.nn.ModuleList([ClampedMLP()])
    make_lean(model)
    assert "forward" not in model[0].__dict__
