"""How fast weights learn and what noise they learn with: LoRA+ and NEFTune, exact over a stop."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft.optimizers import create_loraplus_optimizer
from safetensors.torch import load_file

from tests.trainer.training import Training, make_spec
from trainer.checkpoint import MANIFEST
from trainer.errors import Stopped
from trainer.model import eval_mode, load_adapted
from trainer.optimizer import MasterAdamW
from trainer.spec import OptimSpec


@pytest.mark.parametrize("lora", [{}, {"use_dora": True}, {"modules_to_save": ["norm", "input_layernorm"]}], ids=str)
def test_lora_plus_steps_as_pefts(base: Path, rows: Path, lora: dict[str, Any]) -> None:
    spec = make_spec(base, rows, lora=lora, optim={"loraplus_lr_ratio": 16.0})
    ours, theirs = (load_adapted(spec, base, lambda event: None) for _ in range(2))
    optimizer = MasterAdamW(ours.lora, spec.optim)
    peer = create_loraplus_optimizer(theirs.peft, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16.0)
    random = torch.Generator().manual_seed(0)
    for _ in range(3):
        for name in sorted(ours.lora):
            gradient = torch.randn(ours.lora[name].shape, generator=random)
            ours.lora[name].grad, theirs.lora[name].grad = gradient.clone(), gradient
        optimizer.accumulate()
        optimizer.step(learning_rate=1e-3, norm=0.0)
        peer.step()
    for name, weight in ours.lora.items():
        torch.testing.assert_close(weight, theirs.lora[name], rtol=1e-5, atol=1e-7)


def test_only_updates_are_pulled_towards_zero() -> None:
    names = ["x.lora_A.weight", "x.lora_B.weight", "x.lora_magnitude_vector", "x.bias", "lm_head.weight"]
    weights = {name: torch.nn.Parameter(torch.ones(2, 2) if "weight" in name else torch.ones(2)) for name in names}
    optimizer = MasterAdamW(weights, OptimSpec(weight_decay=0.5, loraplus_lr_ratio=2.0))
    optimizer.step(learning_rate=0.1, norm=0.0)
    found = {name: round(float(value.flatten()[0]), 6) for name, value in optimizer.masters.items()}
    assert found == dict(zip(names, [0.95, 0.9, 1.0, 1.0, 1.0], strict=True))


def test_noise_is_there_in_training_alone_and_has_the_papers_size(base: Path, rows: Path) -> None:
    model = load_adapted(make_spec(base, rows, optim={"neftune_noise_alpha": 5.0}), base, lambda event: None)
    embed, ids = model.peft.get_input_embeddings(), torch.arange(5, 45).view(2, 20)
    with eval_mode(model.peft):
        clean = embed(ids)
    torch.manual_seed(3)
    noise = embed(ids) - clean
    torch.manual_seed(3)
    assert torch.equal(embed(ids) - clean, noise)
    reach = 5 / (20 * 64) ** 0.5
    assert 0.98 * reach < noise.abs().max() <= reach * 1.001
    assert torch.equal(torch.nn.functional.embedding(ids, embed.weight), clean)


def test_a_stop_changes_nothing(base: Path, rows: Path, tmp_path: Path) -> None:
    """With groups that learn at paces of their own, and with noise: losses and weights to the last bit."""
    optim = {"max_steps": 6, "loraplus_lr_ratio": 8.0, "neftune_noise_alpha": 5.0, "weight_decay": 0.01}
    spec = make_spec(base, rows, lora={"use_dora": True, "lora_dropout": 0.1}, optim=optim, data={"holdout": 0.0})
    whole = Training(spec, tmp_path / "whole").run()
    first = Training(spec, tmp_path / "first", stop_at=3)
    with pytest.raises(Stopped):
        first.run()
    assert (tmp_path / "first/checkpoints/step-000003" / MANIFEST).is_file()
    second = Training(spec, tmp_path / "second").run(resume=tmp_path / "first" / "checkpoints")
    assert first.losses + second.losses == whole.losses
    ends = [load_file(one.out / "adapter" / "adapter_model.safetensors") for one in (second, whole)]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())
