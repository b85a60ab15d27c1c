"""Importing an adapter: what comes of a sound one, whichever way it is sent, and that nothing comes of another."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from django.conf import LazySettings
from django.conf import settings as django_settings
from django.db import OperationalError
from django.test import Client
from django.urls import reverse

from tests.adapters.elsewhere import (
    CONFIG,
    WEIGHTS,
    adapter_folder,
    base_folder,
    changed_config,
    files_of,
    sent,
    tarred,
    tiny_base,
    zipped,
)
from tests.cast import Cast
from tests.make import make_base
from tests.trainer.adapters import load_tiny, load_with_peft, make_adapter
from tests.trainer.test_engine_kinds import first_scores, make_kind
from trainer.engine import Engine, Request
from webapp.accounts.models import AuditEntry
from webapp.adapters import importing
from webapp.adapters.models import Adapter, BaseModel, BaseStatus
from webapp.adapters.services import delete_adapter
from webapp.common.storage import sha256_of

ADDRESS = reverse("adapter_import")
Files = list[Any]


@pytest.fixture(autouse=True)
def files_dir(settings: LazySettings, tmp_path: Path) -> Path:
    """One of its own, in which what is left over shows."""
    settings.FILES_DIR = tmp_path / "files"
    return tmp_path / "files"


@pytest.fixture
def base(cast: Cast) -> BaseModel:
    return tiny_base()


def upload(client: Client, *files: Any, **data: Any) -> Any:
    return client.post(ADDRESS, {"file": list(files), **data})


def work_left() -> list[Path]:
    return list((Path(django_settings.FILES_DIR) / "adapters").glob("*"))


def refused(answer: Any) -> str:
    """What the page says, once nothing was kept."""
    assert answer.status_code == 422
    assert not Adapter.objects.exists()
    assert work_left() == []
    return " ".join(text for texts in answer.context["form"].errors.values() for text in texts)


def test_the_first_import_of_all_reads_the_base_models_layers(cast: Cast) -> None:
    """With nothing prepared: the children run as they do for people."""
    base = tiny_base(layers=False)
    answer = upload(cast.client("bob"), sent("My_style v2.tar.gz", tarred(files_of(adapter_folder()))))
    made = Adapter.objects.get()
    assert answer.headers["Location"] == made.get_absolute_url()
    assert (made.team, made.base_model, made.created_by) == (cast.team, base, cast.bob)
    assert (made.name, made.imported_from) == ("My style v2", "My_style v2.tar.gz")
    assert (made.dataset_version, hasattr(made, "job")) == (None, False)
    assert made.weights_sha256 == sha256_of(adapter_folder() / WEIGHTS) == made.metrics["weights_sha256"]
    assert made.metrics["parameters"] == 2 * (4 * 64 + 64 * 4) + 2 * (4 * 64 + 32 * 4)
    assert made.spec["lora"] == {
        "r": 4,
        "lora_alpha": 8,
        "bias": "none",
        "target_modules": ["q_proj", "v_proj"],
    }
    assert made.size == sum(len(data) for data in files_of(made.folder).values())
    entry = AuditEntry.objects.get(action="adapter.import")
    assert (entry.actor, entry.team, entry.target) == (cast.bob, cast.team, "My style v2 from My_style v2.tar.gz")
    assert work_left() == [made.folder]


def as_files(files: dict[str, bytes]) -> Files:
    return [sent(name, data) for name, data in files.items()]


WAYS: dict[str, Callable[[dict[str, bytes]], Files]] = {
    "zip": lambda files: [sent("a.zip", zipped(files, compress=True))],
    "zip without a folder": lambda files: [sent("a.zip", zipped(files, top=""))],
    "tar": lambda files: [sent("a.tar", tarred(files, mode="w"))],
    "files": as_files,
    "the two files": lambda files: as_files({name: files[name] for name in (WEIGHTS, CONFIG)}),
    "checkpoints below": lambda files: [
        sent("a.tgz", tarred({"checkpoint-5/" + name: b"{}" for name in (CONFIG, WEIGHTS)} | files))
    ],
    "beside other files": lambda files: [sent("a.zip", zipped(files | {"optimizer.pt": b"x", "run.py": b"y"}))],
}


@pytest.mark.parametrize("way", WAYS)
def test_whichever_way_it_is_sent(way: str, cast: Cast, base: BaseModel) -> None:
    upload(cast.client("bob"), *WAYS[way](files_of(adapter_folder())))
    made = Adapter.objects.get()
    assert sha256_of(made.folder / WEIGHTS) == sha256_of(adapter_folder() / WEIGHTS)
    kept = {CONFIG, WEIGHTS, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "manifest.json"}
    assert set(files_of(made.folder)) - {"README.md"} == kept


def test_it_answers_as_plain_peft_does(cast: Cast, base: BaseModel) -> None:
    upload(cast.client("bob"), sent("a.zip", zipped(files_of(adapter_folder()))))
    made, prompt = Adapter.objects.get(), [1, 5, 9, 7]
    engine = Engine(base_folder(), dtype="float32")
    engine.load_adapter("a", made.folder)
    request = Request(prompt_ids=prompt, adapter="a", max_tokens=8, top_logprobs=0)
    ours = [one.token for chunk in engine.generate([request], lambda: False) for one in chunk.scored]
    assert len(ours) > 2
    ids = torch.tensor([prompt])
    for folder in (adapter_folder(), made.folder):  # as it came, and as it is downloaded
        model = load_with_peft(base_folder(), folder)
        with torch.inference_mode():
            plain = model.generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False
            )
        assert plain[0, len(prompt) :].tolist()[: len(ours)] == ours
    with torch.inference_mode():
        base_alone = load_tiny(base_folder()).generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False
        )
    assert base_alone[0, len(prompt) :].tolist()[: len(ours)] != ours


def test_all_that_chat_can_read_is_taken(cast: Cast, base: BaseModel, tmp_path: Path) -> None:
    options: dict[str, Any] = {
        "use_rslora": True,
        "use_dora": True,
        "rank_pattern": {"v_proj": 9},
        "alpha_pattern": {"v_proj": 6},
    }
    folder = make_adapter(
        base_folder(), tmp_path / "a", seed=3, target_modules=["q_proj", "v_proj"], layers_to_transform=[1], **options
    )
    upload(cast.client("bob"), sent("a.zip", zipped(files_of(folder))))
    lora = Adapter.objects.get().spec["lora"]
    assert {name: lora[name] for name in options} == options
    assert lora["layers_to_transform"] == [1]


OWN: dict[str, dict[str, Any]] = {
    "the head and norms": {"modules_to_save": ["lm_head", "norm"]},
    "the embeddings": {"modules_to_save": ["embed_tokens"]},
    "tokens": {"trainable_token_indices": [5, 9, 40]},
    "all biases": {"bias": "all"},
}


@pytest.mark.parametrize("kind", OWN)
def test_what_it_has_of_its_own_comes_with_it(kind: str, cast: Cast, base: BaseModel, tmp_path: Path) -> None:
    folder, ids = make_kind(base_folder(), tmp_path / "own", **OWN[kind]), list(range(5, 25))
    upload(cast.client("bob"), sent("a.zip", zipped(files_of(folder))))
    made = Adapter.objects.get()
    assert made.weights_sha256 == sha256_of(folder / WEIGHTS)
    engine = Engine(base_folder(), dtype="float32")
    engine.load_adapter("a", made.folder)
    with torch.inference_mode():
        wanted = load_with_peft(base_folder(), folder)(input_ids=torch.tensor([ids])).logits[0, -1]
    torch.testing.assert_close(first_scores(engine, ["a", None])[0], wanted, atol=2e-4, rtol=1e-4)
    page = cast.client("bob").get(made.get_absolute_url(), {"tab": "spec"}).content.decode()
    assert all(name in page for name in OWN[kind])


def test_a_pattern_of_modules_becomes_the_layers_that_it_meant(cast: Cast, base: BaseModel) -> None:
    config = changed_config(adapter_folder(), target_modules=r".*(q|v)_proj")
    upload(cast.client("bob"), sent("a.zip", zipped(files_of(adapter_folder()) | {CONFIG: config})))
    made = Adapter.objects.get()
    targets = json.loads((made.folder / CONFIG).read_text())["target_modules"]
    assert targets == [f"model.layers.{n}.self_attn.{p}_proj" for n in (0, 1) for p in "qv"]
    Engine(base_folder(), dtype="float32").load_adapter("a", made.folder)


def test_the_config_is_written_anew(cast: Cast, base: BaseModel) -> None:
    """What is off stays off, and what another machine would believe is checked or left out."""
    odd = {"base_model_name_or_path": "/home/mallory/Tiny-LLaMA/", "layers_pattern": "(a+)+$", "megatron_core": "os"}
    odd |= {"peft_version": "x y", "lora_dropout": 10**400}
    config = changed_config(adapter_folder(), **odd, inference_mode=False, auto_mapping=None)
    upload(cast.client("bob"), sent("a.zip", zipped(files_of(adapter_folder()) | {CONFIG: config})))
    written = json.loads((Adapter.objects.get().folder / CONFIG).read_text())
    assert written["base_model_name_or_path"] == base_folder().name
    assert (written["inference_mode"], written["auto_mapping"]) == (True, None)
    assert not {"layers_pattern", "megatron_core", "peft_version", "lora_dropout"} & written.keys()


# The base model


@pytest.mark.parametrize(
    "named", ["tiny-llama", "someone/Tiny-LLaMA", "/models/tiny_llama/", "C:\\models\\Tiny-Llama",
              "/cache/models--someone--tiny-llama/snapshots/0123abc"],
)  # fmt: skip
def test_the_base_model_is_found_by_what_the_adapter_calls_it(named: str, cast: Cast, base: BaseModel) -> None:
    make_base(name="another")
    config = changed_config(adapter_folder(), base_model_name_or_path=named)
    upload(cast.client("bob"), sent("a.zip", zipped(files_of(adapter_folder()) | {CONFIG: config})))
    assert Adapter.objects.get().base_model == base


@pytest.mark.parametrize("named", ["someone/else", "", None, 7])
def test_a_base_model_that_is_not_ours_is_asked_for(named: object, cast: Cast, base: BaseModel) -> None:
    config = changed_config(adapter_folder(), base_model_name_or_path=named)
    files = files_of(adapter_folder()) | {CONFIG: config}
    answer = upload(cast.client("bob"), sent("a.zip", zipped(files)))
    assert "Choose the base model here that is the same." in refused(answer)
    assert "base" in answer.context["form"].errors
    upload(cast.client("bob"), sent("a.zip", zipped(files)), base=base.pk, name="Chosen")
    assert Adapter.objects.get().name == "Chosen"


def test_two_base_models_of_that_name_are_told(cast: Cast, base: BaseModel) -> None:
    tiny_base("owner/tiny.llama")
    config = changed_config(adapter_folder(), base_model_name_or_path="x/TINY LLAMA")
    answer = upload(cast.client("bob"), sent("a.zip", zipped(files_of(adapter_folder()) | {CONFIG: config})))
    assert "could be Tiny-Llama or owner/tiny.llama" in refused(answer)


def test_only_ready_base_models_can_be_chosen(cast: Cast, base: BaseModel) -> None:
    other = make_base(name="fetching", status=BaseStatus.FETCHING)
    answer = upload(cast.client("bob"), sent("a.zip", zipped(files_of(adapter_folder()))), base=other.pk)
    assert "Select a valid choice" in refused(answer)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"PK\x03\x04 and no more", "the ZIP archive is damaged"),
        (zipped({CONFIG: changed_config(adapter_folder(), r=8), WEIGHTS: b"x" * 100}), "is not a safetensors file"),
        (zipped(files_of(adapter_folder()) | {CONFIG: changed_config(adapter_folder(), r=8)}), "has the shape [4, 64]"),
    ],
)
def test_of_what_is_refused_nothing_stays(data: bytes, text: str, cast: Cast, base: BaseModel) -> None:
    """tests/adapters/test_import_refused.py has all that is."""
    said = refused(upload(cast.client("bob"), sent("a.zip", data)))
    assert text in said
    assert str(django_settings.FILES_DIR) not in said


def test_more_than_may_be_uploaded(cast: Cast, base: BaseModel, settings: LazySettings) -> None:
    settings.MAX_UPLOAD_BYTES = 10_000
    assert "larger than" in refused(upload(cast.client("bob"), sent("a.zip", zipped(files_of(adapter_folder())))))


def test_a_library_that_is_lost_in_the_middle_keeps_nothing(
    cast: Cast, base: BaseModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes away when all has been checked and moved."""

    def gone(**_: Any) -> None:
        raise OperationalError("gone")

    monkeypatch.setattr(importing, "record", gone)
    with pytest.raises(OperationalError):
        upload(cast.client("bob"), sent("a.zip", zipped(files_of(adapter_folder()))))
    assert not Adapter.objects.exists()
    assert work_left() == []


# The same again


def test_the_same_content_is_there_already(cast: Cast, base: BaseModel) -> None:
    bob, packed = cast.client("bob"), zipped(files_of(adapter_folder()))
    upload(bob, sent("a.zip", packed))
    made = Adapter.objects.get()
    again = upload(bob, *as_files(files_of(adapter_folder())))
    assert again.headers["Location"] == made.get_absolute_url()
    assert (
        "The library has this adapter already, as a: it was not taken twice."
        in bob.get(again.headers["Location"]).content.decode()
    )
    assert Adapter.objects.count() == 1
    other = changed_config(adapter_folder(), lora_alpha=16)
    upload(bob, sent("b.zip", zipped(files_of(adapter_folder()) | {CONFIG: other})))
    upload(cast.client("charlie"), sent("a.zip", packed))
    assert Adapter.objects.count() == 3  # with another strength it is another; each team has its own
    delete_adapter(adapter=made, actor=cast.alice)
    upload(bob, sent("a.zip", packed))
    assert Adapter.objects.count() == 3


# Pages


def test_the_library_leads_to_the_import_for_those_who_may(cast: Cast, base: BaseModel) -> None:
    link = f'href="{ADDRESS}"'
    assert link in cast.client("bob").get(reverse("adapters")).content.decode()  # while it is empty
    upload(cast.client("bob"), sent("a.zip", zipped(files_of(adapter_folder()))))
    assert link in cast.client("bob").get(reverse("adapters")).content.decode()
    assert link not in cast.client("vera").get(reverse("adapters")).content.decode()


def test_its_page_tells_where_it_came_from(cast: Cast, base: BaseModel) -> None:
    upload(cast.client("bob"), sent("style.zip", zipped(files_of(adapter_folder()))))
    made = Adapter.objects.get()
    page = cast.client("vera").get(made.get_absolute_url()).content.decode()
    for text in ("imported by", "style.zip", "lora_alpha 8", "q_proj, v_proj", made.weights_sha256, "without a record"):
        assert text in page
    for tab in ("use", "spec", "files", "share"):
        answer = cast.client("bob").get(made.get_absolute_url(), {"tab": tab})
        assert answer.status_code == 200
    spec = cast.client("bob").get(made.get_absolute_url(), {"tab": "spec"}).content.decode()
    assert "target_modules" in spec
    assert "As YAML" not in spec
    assert cast.client("bob").get(reverse("adapter_download", args=[made.pk])).status_code == 200


def test_a_script_gets_the_address_or_the_errors(cast: Cast, base: BaseModel) -> None:
    headers = {"Accept": "application/json"}
    bob = cast.client("bob")
    bad = bob.post(ADDRESS, {"file": sent("a.zip", b"no")}, headers=headers)
    assert bad.status_code == 422
    assert "neither a ZIP nor a TAR archive" in bad.json()["errors"][0]
    good = bob.post(ADDRESS, {"file": sent("a.zip", zipped(files_of(adapter_folder())))}, headers=headers)
    assert (good.status_code, good.json()) == (201, {"location": Adapter.objects.get().get_absolute_url()})


def test_nothing_chosen_is_told(cast: Cast) -> None:
    assert "Choose the adapter" in refused(cast.client("bob").post(ADDRESS, {}))
