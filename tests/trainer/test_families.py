"""Every family trains on what its own model computes, or is refused by name."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from tests.trainer.families import FAMILIES, make_family
from tests.trainer.training import Training, make_rows, make_spec
from trainer.errors import TrainerError
from trainer.model import AdaptedModel, eval_mode, load_adapted


def load(folder: Path, **parts: dict[str, Any]) -> AdaptedModel:
    return load_adapted(make_spec(folder, Path("rows"), **parts), folder, lambda event: None)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_scores_are_the_models_own(name: str, tmp_path: Path) -> None:
    """Without a mask and padded on the right, against eager attention with a mask, row by row."""
    folder = make_family(tmp_path, name)
    model = load(folder)
    own = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(3, 384, (3, 40), generator=torch.Generator().manual_seed(3))
    lengths = (40, 25, 9)
    with eval_mode(model.peft), torch.no_grad():
        ours = model.head.logits(model.hidden(ids))
        for row, length in enumerate(lengths):
            alone = own(ids[row : row + 1, :length], use_cache=False).logits[0].float()
            torch.testing.assert_close(ours[row, :length], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["glm4_moe", "qwen2_moe", "mixtral", "gpt_oss"])
def test_what_learns_beside_experts_are_plain_layers(name: str, tmp_path: Path) -> None:
    """PEFT would turn some short names into parts of the stacked experts, which nothing else here could read."""
    model = load(make_family(tmp_path, name))
    config = model.peft.peft_config["default"]
    assert not config.target_parameters
    assert {path.rsplit(".", 2)[1] for path in model.lora} == {"lora_A", "lora_B"}
    assert not any("router" in path or ".gate." in path for path in model.lora)


@pytest.mark.parametrize("name", ["gpt2", "bloom", "falcon", "gpt_oss", "gemma2", "glm4_moe", "mamba"])
def test_a_job_on_it_ends_with_an_adapter(name: str, tmp_path: Path) -> None:
    optim = {"max_steps": 2, "batch_size": 4}
    spec = make_spec(make_family(tmp_path / "base", name), make_rows(tmp_path), optim=optim)
    assert len(Training(spec, tmp_path / "out").run().losses) == 2
    assert (tmp_path / "out" / "adapter" / "adapter_model.safetensors").is_file()


def test_a_base_whose_scores_are_no_numbers_is_refused(tmp_path: Path) -> None:
    folder = make_family(tmp_path, "llama")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.no_grad():
        model.get_decoder().layers[0].mlp.down_proj.weight.fill_(1e30)
    model.save_pretrained(folder)
    with pytest.raises(TrainerError, match="not finite in float16") as caught:
        load(folder, model={"dtype": "float16"})
    assert caught.value.code == "user_config" and caught.value.fix == "Set model.dtype to bfloat16 or float32."
    with torch.no_grad():
        model.get_decoder().layers[0].mlp.down_proj.weight.fill_(torch.nan)
    model.save_pretrained(folder)
    with pytest.raises(TrainerError, match="not finite in float32") as caught:
        load(folder)
    assert caught.value.fix.startswith("Its files are damaged, or contain NaN")


def test_what_peft_refuses_in_mamba_is_told_before_loading(tmp_path: Path) -> None:
    folder = make_family(tmp_path / "base", "mamba")
    assert {path.rsplit(".", 3)[1] for path in load(folder).lora} == {"in_proj", "x_proj", "dt_proj"}
    spec = make_spec(folder, make_rows(tmp_path), lora={"target_modules": ["out_proj"]})
    with pytest.raises(TrainerError, match="lora.target_modules: .*out_proj") as caught:
        Training(spec, tmp_path / "out").run()
    assert caught.value.code == "user_config"
