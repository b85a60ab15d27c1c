"""Before a training starts: everything that keeps it from starting is told at once, from config and names alone."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from tests.hub import FolderFiles, running_hub
from tests.tiny import make_tiny_base
from tests.trainer.families import make_family
from tests.trainer.seq2seq_bases import make_seq2seq
from tests.trainer.test_train_command import write_spec
from tests.trainer.training import Training, make_spec
from trainer.adapter_layers import layers_of, parts_in
from trainer.base_parts import BaseParts
from trainer.device import Device
from trainer.errors import TrainerError
from trainer.events import Emit, Event, Failed, Fetched, Log, decode
from trainer.model import load_base
from trainer.ranks import Ranks
from trainer.readiness import issues_on_base, make_ready, problems_of
from trainer.spec import TrainSpec
from trainer.spec_commands import read_spec
from trainer.spec_values import Issue


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_family(tmp_path_factory.mktemp("gpt2"), "gpt2")


def on_base(base: Path, **parts: dict[str, Any]) -> list[Issue]:
    return issues_on_base(make_spec(base, base / "rows", **parts), base)


def test_everything_is_told_in_one_round_and_nothing_is_made(base: Path, tmp_path: Path) -> None:
    lora = {
        "r": 0,
        "target_modules": ["q_proj", "v_prj"],
        "rank_pattern": {"no_layer": 2},
        "modules_to_save": ["lm_heads"],
        "layers_to_transform": [0, 7],
        "trainable_token_indices": [5000],
        "bias": "all",
    }
    data = {"max_seq_length": 1024, "holdout_path": str(tmp_path)}
    spec = make_spec(base, tmp_path / "rows.jsonl", lora=lora, data=data)
    training = Training(spec, tmp_path / "out")
    with pytest.raises(TrainerError) as caught:
        training.run(resume=tmp_path / "gone")
    assert caught.value.code == "user_config" and not (tmp_path / "out").exists()
    for path in ("data.path", "data.holdout_path", "data.max_seq_length", "--resume", *(f"lora.{one}" for one in lora)):
        assert f"{path}: " in caught.value.text, path
    assert "Did you mean v_proj? It has down_proj, gate_proj," in caught.value.text
    assert f"There is no file {tmp_path / 'rows.jsonl'}." in caught.value.text


def test_what_cannot_be_read_hides_nothing(base: Path, tmp_path: Path) -> None:
    """Types, limits, values that cannot stand together, files and names: one round, and none of it twice."""
    text = {
        "model": {"base": str(base), "quantization": "none"},
        "lora": {"rank": 4, "r": 1000, "init_lora_weights": "loftq", "modules_to_save": ["norms"]},
        "data": {"path": str(tmp_path / "gone.jsonl"), "max_seq_length": "long"},
        "optim": {"micro_batch_tokens": 100},
    }
    (tmp_path / "spec.json").write_text(json.dumps(text))
    with pytest.raises(TrainerError) as caught:
        read_spec(tmp_path / "spec.json", out=tmp_path / "spec.json" / "out")
    told = caught.value.text
    paths = ("lora.rank", "lora.r", "lora.init_lora_weights", "lora.modules_to_save", "data.path", "--out")
    for path in (*paths, "data.max_seq_length"):
        assert told.count(f"{path}: ") == 1, path
    assert "optim.micro_batch_tokens" not in told  # it hangs on a length that nobody knows yet


@pytest.mark.parametrize(
    ("lora", "said", "fix"),
    [
        ({"target_modules": ["q_proj", "x"]}, "no layers called x.", "It has down_proj, gate_proj, k_proj"),
        (
            {"target_modules": ["lm_head"]},
            "called lm_head.",
            "lm_head is the output head, which gets no LoRA: to train it",
        ),
        ({"target_modules": ["mlp"]}, "no layers called mlp.", "mlp is a group: write it alone, without brackets."),
        ({"layers_to_transform": [0, 7]}, "names layer 7", "layers are 0 to 1"),
        (
            {"modules_to_save": ["lm_heads"]},
            "no module called lm_heads",
            "Did you mean lm_head? It has down_proj",
        ),
        ({"rank_pattern": {"c_attn": 2}}, "names c_attn", "q_proj"),
        ({"rank_pattern": {"qproj": 2}}, "names qproj", "Did you mean q_proj?"),
        ({"alpha_pattern": {"q_proj": 2, "self_attn.q_proj": 3}}, "both match", "once"),
        ({"alpha_pattern": {"up_proj": 2}, "target_modules": "attention"}, "no such layer gets", "These do: k_proj"),
        ({"trainable_token_indices": [5000]}, "names token 5000", "tokens are 0 to"),
        ({"trainable_token_indices": [5], "modules_to_save": ["embed_tokens"]}, "already trained in full", "one of"),
        ({"bias": "all"}, "the base model has no biases", "none"),
        ({"bias": "lora_only"}, "no layer that gets an update has one", "none"),
        ({"init_lora_weights": "pissa", "r": 64}, " is 32, and its rank is 64", "lower"),
        ({"init_lora_weights": "olora", "rank_pattern": {"k_proj": 48}}, "its rank is 48", "lower"),
    ],
    ids=str,
)
def test_what_a_base_does_not_have_is_named(base: Path, lora: dict[str, Any], said: str, fix: str) -> None:
    (issue,) = on_base(base, lora=lora)
    assert said in issue.problem and fix in issue.fix and issue.path.startswith("lora.")


@pytest.mark.parametrize(
    "lora",
    [
        {"target_modules": ["q_proj", "v_prj"], "alpha_pattern": {"v_proj": 2}, "bias": "lora_only"},
        {"layers_to_transform": [9], "rank_pattern": {"q_proj": 2}},
    ],
    ids=str,
)
def test_what_follows_from_a_wrong_name_is_not_told_beside_it(base: Path, lora: dict[str, Any]) -> None:
    assert len([one for one in on_base(base, lora=lora) if one.path != "lora.bias"]) == 1
    assert len(on_base(base, lora=lora)) == 1


def test_a_misspelt_group_is_told_once_and_nothing_that_follows_from_it(base: Path) -> None:
    lora = {"target_modules": ["all_linear"], "rank_pattern": {"q_proj": 2}, "layers_to_transform": [1]}
    assert not on_base(base, lora=lora)
    (issue,) = make_spec(base, base, lora=lora).issues()
    assert "Did you mean all-linear?" in issue.fix


def test_a_base_with_biases_lets_them_learn(gpt2: Path) -> None:
    for bias in ("all", "lora_only"):
        assert not on_base(gpt2, lora={"bias": bias, "target_modules": ["c_attn"]})
    (issue,) = on_base(gpt2, lora={"target_modules": ["c_atn"]})
    assert "Did you mean c_attn?" in issue.fix


def test_a_group_that_a_base_lacks_is_named(base: Path, tmp_path: Path) -> None:
    """Of gpt_oss the experts lie in one piece, and no layer of an MLP can get an update."""
    (issue,) = on_base(make_family(tmp_path, "gpt_oss"), lora={"target_modules": "mlp"})
    assert "no layers called mlp" in issue.problem and "k_proj" in issue.fix


@pytest.mark.parametrize("family", ["llama", "gpt2", "opt", "gemma3_text", "mixtral", "gpt_oss", "t5", "bart"])
def test_what_is_known_before_loading_is_what_is_loaded(tmp_path: Path, family: str) -> None:
    two_sided = family in ("t5", "bart")
    folder = make_seq2seq(tmp_path, family) if two_sided else make_family(tmp_path, family)
    kind: Any = AutoModelForSeq2SeqLM if two_sided else AutoModelForCausalLM
    loaded, foreseen = parts_in(kind.from_pretrained(folder)), layers_of(folder)
    assert foreseen == loaded and foreseen.targets and foreseen.head
    (tmp_path / "parts.json").write_text(json.dumps(foreseen.to_dict()))
    assert BaseParts.read(tmp_path / "parts.json") == foreseen


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_packed_layers_are_the_same_layers(base: Path, quantization: str) -> None:
    spec = make_spec(base, base, model={"quantization": quantization})
    assert parts_in(load_base(base, spec.model, Device(torch.device("cpu"), torch.float32))) == layers_of(base)


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("/nowhere/at/all", "There is no folder /nowhere/at/all."),
        ("./smollm2", "There is no folder ./smollm2 here, and it is not a hub id."),
        ("~/smollm2", "There is no folder ~/smollm2 here, and it is not a hub id."),
        ("here/model.safetensors", "here/model.safetensors is a file."),
    ],
)
def test_a_base_that_is_not_there_is_named_as_it_was_given(
    rows: Path, named: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "model.safetensors").touch()
    monkeypatch.chdir(tmp_path)
    spec = TrainSpec.from_dict({"model": {"base": named}, "data": {"path": str(rows)}})
    (issue,) = problems_of(spec)
    assert (issue.path, issue.problem) == ("model.base", said) and issue.fix
    assert issue.fix.endswith("Write ~ out.") == named.startswith("~")


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"model_type": "no_such_family"}, "has model type `no_such_family` but Transformers does not recognize"),
        ({"num_attention_heads": 3}, "The hidden size (64) is not a multiple of"),
        ({"hidden_act": "odd"}, "'odd'"),
    ],
    ids=str,
)
def test_a_config_that_makes_no_model_is_told_beside_the_rest(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    folder = make_tiny_base(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changed))
    told = problems_of(make_spec(folder, tmp_path / "gone.jsonl"))
    assert [one.path for one in told] == ["data.path", "model.base"]
    assert told[1].problem.startswith("Its config.json describes no usable model: ") and said in told[1].problem
    assert "\n" not in told[1].problem


@pytest.mark.parametrize("attention", ["flash_attention_2", "kernels-community/flash-attn", "somebody/kernel"])
def test_a_config_does_not_choose_the_attention(tmp_path: Path, attention: str) -> None:
    """Of a kernel its code would be fetched."""
    folder = make_tiny_base(tmp_path / "base")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"attn_implementation": attention}))
    assert not on_base(folder)
    assert load_base(folder, make_spec(folder, folder).model, Device(torch.device("cpu"), torch.float32))


def test_of_several_processes_the_first_fetches(base: Path, rows: Path, tmp_path: Path) -> None:
    """What a second one fetches would take the place of a folder that is read."""
    spec, met = make_spec(Path("owner/tiny"), rows), list[str]()

    def fetch(hub_id: str, revision: str, out: Path, emit: Emit) -> None:
        met.append("fetched")
        shutil.copytree(base, out)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("trainer.readiness.fetch_hub", fetch)
        patch.setattr(Ranks, "broadcast_object", lambda self, value: met.append("agreed"))
        for rank in range(2):
            make_ready(spec, out=tmp_path / "out", resume=None, emit=lambda event: None, ranks=Ranks(rank, 2))
    assert met == ["fetched", "agreed", "agreed"]


def test_an_output_folder_that_cannot_be_made_is_named(base: Path, rows: Path) -> None:
    (issue,) = problems_of(make_spec(base, rows), out=rows / "deep" / "out")
    assert issue.path == "--out" and issue.problem.endswith(f"{rows} is a file.")
    assert not problems_of(make_spec(base, rows), out=rows.parent / "deep" / "out")


def test_a_base_of_the_hub_is_fetched_once_nothing_else_is_wrong(base: Path, rows: Path, tmp_path: Path) -> None:
    """What it does not have shows as soon as it is here, before a row is read."""
    lora = {"target_modules": ["v_prj"]}
    settings = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
    with running_hub("models", "owner/tiny", FolderFiles(base)) as hub:

        def train(data: Path) -> list[Event]:
            spec = write_spec(tmp_path, make_spec(Path("owner/tiny"), data, lora=lora))
            command = [sys.executable, "-m", "trainer", "train", str(spec), "--out", str(tmp_path / "out")]
            environment = {**os.environ, **settings, "HF_ENDPOINT": hub.url}
            ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
            assert ended.returncode == 2, ended.stderr
            return [decode(line)[1] for line in ended.stdout.splitlines()]

        last = train(tmp_path / "gone.jsonl")[-1]
        assert isinstance(last, Failed) and "There is no file" in last.text and not hub.asked
        *before, last = train(rows)
        assert isinstance(last, Failed) and "Did you mean v_proj?" in last.fix and hub.asked
        assert any(isinstance(one, Fetched) for one in before) and not (tmp_path / "out" / "dataset").exists()
        assert [one.text for one in before if isinstance(one, Log)] == [
            "There is no folder owner/tiny here: fetching it from the hub"
        ]
