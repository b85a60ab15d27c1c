"""A start from the data: A spans what the inputs of its layer vary in, and the model still computes as its base."""

from pathlib import Path

import pytest
import torch

from tests.trainer.training import Training, make_spec
from trainer.data import Plan, load_dataset
from trainer.errors import Stopped
from trainer.eva import start_from_data
from trainer.events import Finished
from trainer.lora_start import lora_layers
from trainer.micro_batch import micro_batches
from trainer.model import eval_mode, load_adapted
from trainer.rendering import Renderer
from trainer.spec import TrainSpec


@pytest.fixture(scope="module")
def spec(base: Path, rows: Path) -> TrainSpec:
    lora = {"init_lora_weights": "eva", "rank_pattern": {"q_proj": 6}}
    return make_spec(base, rows, lora=lora, optim={"max_steps": 4})


def test_a_spans_the_main_directions_of_its_inputs(base: Path, spec: TrainSpec) -> None:
    plan = Plan(load_dataset(spec, Renderer.load(base), lambda event: None).train, spec)
    model = load_adapted(spec, base, lambda event: None)
    ids = torch.arange(5, 45)[None]
    with eval_mode(model.peft):
        before = model.hidden(ids)
    start_from_data(model, plan, before_pass=lambda number, of: None)
    with eval_mode(model.peft):
        assert torch.equal(model.hidden(ids), before)

    layer = next(one for one in lora_layers(model.peft) if one.path.endswith("layers.1.self_attn.q_proj"))
    inputs: list[torch.Tensor] = []
    hook = layer.module.register_forward_pre_hook(lambda _, given: inputs.append(given[0].flatten(0, 1)))
    with eval_mode(model.peft):
        for step in range(4):
            for batch in micro_batches(plan.window(step), 1024):
                model.hidden(batch.ids)
                inputs[-1] = inputs[-1][batch.positions]
    hook.remove()
    everything = torch.cat(inputs)
    best = torch.linalg.svd(everything, full_matrices=False)[2][:6]
    assert layer.a.shape[0] == 6
    torch.testing.assert_close(layer.a @ layer.a.T, torch.eye(6), atol=1e-4, rtol=0)
    kept, most = ((everything @ one.T).square().sum() for one in (layer.a.detach(), best))
    assert kept > 0.999 * most


def test_a_resumed_run_is_the_same_run(spec: TrainSpec, tmp_path: Path) -> None:
    whole = Training(spec, tmp_path / "whole").run()
    first = Training(spec, tmp_path / "first", stop_at=2)
    with pytest.raises(Stopped):
        first.run()
    second = Training(spec, tmp_path / "second").run(resume=tmp_path / "first" / "checkpoints")
    assert first.losses + second.losses == whole.losses
    assert second.of(Finished)[0].facts["weights_sha256"] == whole.of(Finished)[0].facts["weights_sha256"]
