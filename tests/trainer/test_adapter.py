"""The adapter's folder: complete, free of this machine's paths, and true to what was trained."""

import json
import re
import shutil
import tarfile
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from transformers import AutoTokenizer

from tests.tiny import CHATML, make_tiny_base
from tests.trainer.training import Training, make_rows, make_spec
from trainer.adapter_format import MANIFEST, WEIGHTS
from trainer.adapter_import import import_folder, unpack_sent
from trainer.adapter_layers import layers_of
from trainer.base_source import note_source
from trainer.errors import TrainerError
from trainer.events import Finished
from trainer.manifest import sha256_of, verify
from trainer.rendering import Renderer
from trainer.spec import TrainSpec


@pytest.fixture(scope="module")
def training(tmp_path_factory: pytest.TempPathFactory) -> Training:
    folder = tmp_path_factory.mktemp("adapter")
    spec = make_spec(make_tiny_base(folder / "tiny-base"), make_rows(folder), optim={"max_steps": 4})
    return Training(spec, folder / "out").run()


@pytest.fixture(scope="module")
def adapter(training: Training) -> Path:
    return training.out / "adapter"


def test_everything_is_there_and_as_listed(training: Training, adapter: Path) -> None:
    assert sorted(one.name for one in adapter.iterdir()) == [
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "chat_template.jinja",
        "manifest.json",
        "metrics.jsonl",
        "spec.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    manifest = verify(adapter, name=MANIFEST)
    assert manifest["base"] == "tiny-base" and manifest["steps"] == 4 and manifest["libraries"]["peft"]
    facts = training.of(Finished)[0].facts
    assert facts["weights_sha256"] == sha256_of(adapter / WEIGHTS) == manifest["files"][WEIGHTS]["sha256"]
    assert facts["parameters"] == sum(weight.numel() for weight in load_file(adapter / WEIGHTS).values())
    assert not list(training.out.glob(".tmp-*"))


def test_it_comes_back_as_it_left(training: Training, adapter: Path, tmp_path: Path) -> None:
    """Downloaded, and imported on another server with the same base model."""
    sent = tmp_path / "sent"
    sent.mkdir()
    with tarfile.open(sent / "0", "w:gz") as archive:
        archive.add(adapter, "style")
    (sent / "names.json").write_text('["style.tar.gz"]')
    unpack_sent(sent, tmp_path, limit=1 << 30)
    base = training.out.parent / "tiny-base"
    facts = import_folder(tmp_path / "adapter", base, layers_of(base))
    assert {one.name: one.read_bytes() for one in (tmp_path / "adapter").iterdir()} == {
        one.name: one.read_bytes() for one in adapter.iterdir()
    }
    assert json.loads(json.dumps(facts["spec"])) == json.loads((adapter / "spec.json").read_text())
    told = training.of(Finished)[0].facts
    assert facts["metrics"] == {name: told[name] for name in facts["metrics"]}
    assert {"loss", "trained_tokens", "parameters", "weights_sha256"} <= facts["metrics"].keys()


def test_templates_that_a_base_keeps_in_a_folder_travel_with_it(tmp_path: Path) -> None:
    """transformers writes tools with the adapter's folder as with the base model's; and it comes back as it left."""
    base = make_tiny_base(tmp_path / "base")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates" / "tool_use.jinja").write_text("Größe: {{ tools|length }} tools. " + CHATML)
    training = Training(make_spec(base, make_rows(tmp_path), optim={"max_steps": 1}), tmp_path / "out").run()
    adapter, asked = training.out / "adapter", [{"role": "user", "content": "A"}]
    for tools in (None, [{"type": "function", "function": {"name": "add"}}]):
        theirs, ours = (
            AutoTokenizer.from_pretrained(folder).apply_chat_template(asked, tools=tools, tokenize=False)
            for folder in (base, adapter)
        )
        assert theirs == ours == Renderer.load(adapter).text(asked, tools)
        assert theirs.startswith("Größe: 1") == bool(tools)
    assert verify(adapter, name=MANIFEST)["steps"] == 1
    imported = Path(shutil.copytree(adapter, tmp_path / "imported"))
    import_folder(imported, base, layers_of(base))
    assert {one.name: one.read_bytes() for one in imported.iterdir()} == {
        one.name: one.read_bytes() for one in adapter.iterdir()
    }


def test_of_one_that_was_changed_no_training_is_told(training: Training, adapter: Path, tmp_path: Path) -> None:
    folder, base = Path(shutil.copytree(adapter, tmp_path / "changed")), training.out.parent / "tiny-base"
    (folder / "spec.json").write_text((folder / "spec.json").read_text().replace('"epochs"', '"Epochs"'))
    facts = import_folder(folder, base, layers_of(base))
    assert set(facts["metrics"]) == {"weights_sha256", "parameters"}
    assert "optim" not in facts["spec"]
    assert not (folder / "spec.json").exists()
    assert verify(folder, name=MANIFEST)["imported"] is True


def test_no_path_of_this_machine_travels(training: Training, adapter: Path) -> None:
    for path in adapter.iterdir():
        if path.suffix != ".safetensors":
            assert str(training.out.parent) not in path.read_text(), path.name


def test_the_config_is_plain_peft(adapter: Path) -> None:
    config = json.loads((adapter / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "tiny-base" and config["inference_mode"] is True
    assert config["peft_type"] == "LORA" and config["task_type"] == "CAUSAL_LM" and config["r"] == 4
    assert config["target_modules"] == sorted(config["target_modules"]) and "q_proj" in config["target_modules"]
    names = set(load_file(adapter / WEIGHTS))
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in names and len(names) == 28


def test_a_fetched_base_is_called_by_its_public_name(tmp_path: Path) -> None:
    base = make_tiny_base(tmp_path / "0b7c")
    note_source(base, name="owner/model", revision="abc123")
    Training(make_spec(base, make_rows(tmp_path), optim={"max_steps": 1}), tmp_path / "out").run()
    config = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/model", "abc123")


def test_spec_and_metrics_can_be_read_back(training: Training, adapter: Path) -> None:
    spec = TrainSpec.from_dict(json.loads((adapter / "spec.json").read_text()))
    assert spec.optim == training.spec.optim and spec.data.path == "rows.jsonl" and spec.model.base == "tiny-base"
    lines = [json.loads(line) for line in (adapter / "metrics.jsonl").read_text().splitlines()]
    assert [one["loss"] for one in lines if one["kind"] == "progress"] == training.losses
    assert [one["step"] for one in lines if one["kind"] == "evaluated"] == [0, 4]


def test_the_card_has_front_matter(adapter: Path) -> None:
    card = (adapter / "README.md").read_text()
    assert re.search(r"Trained with Lowrank on \d+ rows for \d+ steps; \d+ more were held out for evaluation\.", card)
    front = yaml.safe_load(card.split("---")[1])
    assert front["base_model"] == "tiny-base" and front["library_name"] == "peft"
    assert "held-out rows, after" in card and "4 steps" in card


def test_it_renders_as_its_base_does(training: Training, adapter: Path) -> None:
    messages = [{"role": "user", "content": "Hello"}]
    base = Renderer.load(Path(training.spec.model.base))
    assert Renderer.load(adapter).prompt_ids(messages) == base.prompt_ids(messages)


def test_weights_that_are_no_numbers_are_never_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN weights can come with finite losses, so only looking at them finds it."""
    spec = make_spec(
        make_tiny_base(tmp_path / "base"), make_rows(tmp_path), data={"holdout": 0.0}, optim={"max_steps": 1}
    )
    monkeypatch.setattr("trainer.sft.learning_rate_at", lambda step, of, spec: float("nan"))
    with pytest.raises(TrainerError, match="a weight is no longer a finite number") as caught:
        Training(spec, tmp_path / "out").run(emit=None)
    assert caught.value.code == "diverged" and not (tmp_path / "out" / "adapter").exists()
