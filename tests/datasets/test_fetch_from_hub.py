"""From a hub id: the data files of one commit, and no script; a hub of our own on this machine stands in for it."""

import io
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.datasets.inspected import inspect
from tests.hub import COMMIT, Hub, running_hub
from webapp.datasets import services
from webapp.datasets.models import Dataset, DatasetVersion
from webapp.datasets.preview import state_sentence

ROWS = b'{"instruction": "Who are you?", "output": "I am Lowrank."}\n'


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[Hub]:
    with running_hub("datasets", "owner/rows", {}) as hub:
        settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hub"), "NO_PROXY": "127.0.0.1"}
        for name, value in (settings | {"HF_HUB_DISABLE_XET": "1"}).items():
            monkeypatch.setenv(name, value)
        yield hub


def fetched(cast: Cast, **asked: str) -> DatasetVersion:
    made = services.add_from_hub(user=cast.bob, team=cast.team, **{"hub_id": "owner/rows"} | asked)
    return inspect(made.versions.get())


def test_one_file_becomes_the_original(cast: Cast, hub: Hub) -> None:
    hub.files = {
        "README.md": b"x",
        "data/train.jsonl": ROWS,
        "load.py": b"raise SystemExit",
        "dataset_infos.json": b"{}",
    }
    version = fetched(cast)
    assert (version.status, version.row_count, version.original_name) == ("ready", 1, "train.jsonl")
    assert version.original_path.read_bytes() == ROWS
    assert (version.size, len(version.original_sha256)) == (len(ROWS), 64)
    assert version.source == {"hub": "owner/rows", "revision": COMMIT, "only": ""}
    assert not [path for path in hub.asked if path.endswith((".py", ".md", "infos.json"))]
    assert {path.name for path in version.folder.iterdir()} >= {"original", "rows.parquet", "report.json"}


def test_several_files_are_a_zip_of_them(cast: Cast, hub: Hub) -> None:
    hub.files = {"data/train-0.jsonl": ROWS, "data/train-1.jsonl": ROWS * 2, "data/test.jsonl": ROWS}
    version = fetched(cast, only="train")
    with zipfile.ZipFile(io.BytesIO(version.original_path.read_bytes())) as archive:
        assert archive.namelist() == ["data/train-0.jsonl", "data/train-1.jsonl"]
    assert version.original_name == "2 files.zip"
    assert (version.status, version.row_count) == ("ready", 3)


def said(version: DatasetVersion) -> str:
    assert version.status == "rejected"
    failure = version.report["failure"]
    return f"{failure['text']} {failure['fix']}"


def test_scripts_are_named_and_never_fetched(cast: Cast, hub: Hub) -> None:
    hub.files = {"rows.py": b"raise SystemExit"}
    assert "Scripts are never run. Try the revision refs/convert/parquet" in said(fetched(cast))
    assert not [path for path in hub.asked if path.endswith(".py")]


def test_nothing_that_fits_is_named(cast: Cast, hub: Hub) -> None:
    hub.files = {"a/train.csv": b"x"}
    assert "such as a/train.csv" in said(fetched(cast, only="test"))
    hub.files = {"weights.bin": b"x", "../../evil.jsonl": ROWS, ".hidden/x.jsonl": ROWS}
    assert "contains no Parquet, JSON, JSONL or CSV files" in said(fetched(cast))


def test_more_than_the_limit_is_not_fetched(cast: Cast, hub: Hub, settings: Any) -> None:
    settings.MAX_UPLOAD_BYTES = 1000
    hub.files = {"train.jsonl": b"x" * 2000}
    assert "at most 0 MB are allowed" in said(fetched(cast))
    assert not [path for path in hub.asked if "resolve" in path]


def test_a_hub_without_it_or_that_is_away(cast: Cast, hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "The hub has no dataset owner/other" in said(fetched(cast, hub_id="owner/other"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert "the hub does not answer" in said(fetched(cast))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "this server is offline (HF_HUB_OFFLINE is set)" in said(fetched(cast))


def test_what_did_not_come_is_fetched_again_into_the_same_dataset(
    cast: Cast, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    version = fetched(cast, only="train & more")
    client, again = cast.client("bob"), reverse("version_fetch_again", args=[version.pk])
    page = client.get(reverse("dataset", args=[version.dataset_id])).content.decode()
    assert f'action="{again}"' in page
    other = reverse("dataset_hub") + "?hub_id=owner%2Frows&amp;only=train%20%26%20more&amp;revision="
    assert other in page
    form = client.get(other.replace("&amp;", "&")).content.decode()
    assert 'value="owner/rows"' in form and 'value="train &amp; more"' in form
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    hub.files = {"train & more.jsonl": ROWS}
    for _ in range(2):  # a second click finds what the first began
        assert client.post(again)["Location"].endswith("?version=2")
    made = inspect(version.dataset.versions.get(number=2))
    assert (made.status, made.source, Dataset.objects.count()) == ("ready", version.source | {"revision": COMMIT}, 1)
    assert cast.client("vera").post(again).status_code == 403
    assert client.post(reverse("version_fetch_again", args=[made.pk])).status_code == 409, "it has its file"


def test_page_asks_for_it_and_shows_how_far_it_is(cast: Cast) -> None:
    client = cast.client("bob")
    answer = client.post(reverse("dataset_hub"), {"hub_id": "owner/rows", "revision": "v1"})
    version = Dataset.objects.get(name="owner/rows").versions.get()
    assert answer["Location"] == reverse("dataset", args=[version.dataset.pk])
    assert version.source == {"hub": "owner/rows", "revision": "v1", "only": ""}
    DatasetVersion.objects.update(status="inspecting", inspection=1)
    version.refresh_from_db()
    assert state_sentence(version) == "The data files of owner/rows are being fetched from the hub."


@pytest.mark.parametrize("wrong", ["", "a/b/c", "../x", "--help", "a b/c"])
def test_what_is_no_hub_id_is_said(cast: Cast, wrong: str) -> None:
    assert cast.client("bob").post(reverse("dataset_hub"), {"hub_id": wrong}).status_code == 422
    assert not Dataset.objects.exists()
