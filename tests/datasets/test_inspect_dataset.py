"""Inspection by the real child: ready or rejected, within limits, once, and again when its worker was killed."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile
from django.db import OperationalError
from django.urls import reverse

from tests.cast import Cast
from trainer.formats import count_rows
from webapp.datasets import child, lifecycle, services, versions
from webapp.datasets.inspection import MOST_INSPECTIONS
from webapp.datasets.models import DatasetVersion
from webapp.datasets.reconciling import Inspections
from webapp.datasets.tasks import inspect, survey

GOOD = '{"instruction": "Who are you?", "output": "I am Lowrank."}\n'
BAD = '{"instruction": "Who are you?"}\n'


def upload(cast: Cast, text: str) -> DatasetVersion:
    file = ContentFile(text.encode(), name="rows.jsonl")
    return services.upload_dataset(user=cast.bob, team=cast.team, name="rows", file=file).versions.get()


def inspected(version: DatasetVersion) -> DatasetVersion:
    inspect(str(version.pk))
    version.refresh_from_db()
    return version


def names_in(version: DatasetVersion) -> set[str]:
    return {path.name for path in version.folder.iterdir()}


def test_good_file_becomes_ready(cast: Cast) -> None:
    version = inspected(upload(cast, GOOD * 3))
    assert (version.status, version.row_count) == ("ready", 3)
    assert (version.report["format"], version.report["bad_rows"]) == ("alpaca", 0)
    assert version.content_hash == version.report["content_hash"]
    assert names_in(version) == {"original", "rows.parquet", "report.json", "sample.json"}
    assert json.loads((version.folder / "report.json").read_text()) == version.report
    assert count_rows(version.rows_path) == 3


def test_bad_row_rejects_the_file_and_is_named(cast: Cast) -> None:
    version = inspected(upload(cast, GOOD + BAD + GOOD))
    assert (version.status, version.row_count, version.skippable_rows) == ("rejected", 0, 2)
    assert [(e["line"], e["field"]) for e in version.report["errors"]] == [(2, "output")]
    assert names_in(version) == {"original", "bad.jsonl", "sample.json"}


def test_going_on_without_bad_rows_makes_a_new_version(cast: Cast) -> None:
    version = inspected(upload(cast, GOOD + BAD + GOOD))
    answer = cast.client("bob").post(reverse("dataset_skip_bad_rows", args=[version.pk]))
    assert answer["Location"].endswith("?version=2")
    second = inspected(version.dataset.versions.get(number=2))
    assert (second.status, second.row_count, second.report["bad_rows"]) == ("ready", 2, 1)
    assert (second.original_sha256, second.skip_bad_rows) == (version.original_sha256, True)


@pytest.mark.parametrize("text", [GOOD, BAD, f"[{GOOD.strip()}"])
def test_nothing_to_go_on_with(cast: Cast, text: str) -> None:
    """All good, all bad, or a file that breaks off: leaving rows out does not help."""
    version = inspected(upload(cast, text))
    answer = cast.client("bob").post(reverse("dataset_skip_bad_rows", args=[version.pk]))
    assert answer.status_code == 409
    assert version.dataset.versions.count() == 1


@pytest.mark.parametrize(("who", "status"), [("vera", 403), ("charlie", 404), ("anonymous", 302)])
def test_only_members_may_go_on(cast: Cast, who: str, status: int) -> None:
    version = inspected(upload(cast, GOOD + BAD))
    assert cast.client(who).post(reverse("dataset_skip_bad_rows", args=[version.pk])).status_code == status
    assert version.dataset.versions.count() == 1


def test_file_that_needs_too_much_memory_is_rejected(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "MEMORY_BYTES", 60 * 1024**2)
    version = inspected(upload(cast, GOOD))
    assert version.status == "rejected"
    assert version.report["failure"]["text"]
    assert version.report["failure"]["fix"]


def test_file_that_takes_too_long_is_rejected(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "LEAST_SECONDS", 0)
    version = inspected(upload(cast, GOOD * 20_000))
    assert (version.status, version.report["failure"]["text"]) == ("rejected", "Reading the file took too long.")


def test_a_fault_of_our_own_ends_the_inspection_and_names_its_log(cast: Cast, caplog: pytest.LogCaptureFixture) -> None:
    version = upload(cast, GOOD)
    version.original_path.unlink()
    failure = inspected(version).report["failure"]
    found = re.search(r"on our side \(error (\w{8})\)", failure["text"])
    assert version.status == "rejected"
    assert found
    assert found[1] in caplog.text
    assert "FileNotFoundError" in caplog.text


def test_a_file_that_is_interrupted_too_often_is_rejected(cast: Cast) -> None:
    version = upload(cast, GOOD)
    DatasetVersion.objects.update(inspection=MOST_INSPECTIONS)
    assert inspected(version).report["failure"]["text"] == "The inspection was interrupted too often."


@pytest.fixture
def killer(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Has the next children killed as soon as they are there, as the kernel does it when memory ends."""
    counts, told = tmp_path / "vmstat", [0]
    counts.write_text("oom_kill 7\n")
    monkeypatch.setattr(child, "COUNTS", counts)
    limit = child._limit

    def kill(times: int, *, for_memory: bool = False) -> None:
        told[0] = times

        def instead(pid: int, seconds: int) -> None:
            if told[0] <= 0:
                limit(pid, seconds)
                return
            told[0] -= 1
            os.kill(pid, signal.SIGKILL)
            counts.write_text(f"oom_kill {8 if for_memory else 7}\n")

        monkeypatch.setattr(child, "_limit", instead)

    return kill


def test_a_killed_child_is_no_fault_of_the_file(cast: Cast, killer: Callable[..., None]) -> None:
    version = upload(cast, GOOD)
    killer(2)
    assert inspected(version).status == "uploaded", "it waits for the next try"
    assert inspected(version).status == "uploaded"
    assert (inspected(version).status, version.inspection) == ("ready", 3)


def test_a_child_that_is_killed_each_time_leaves_the_file_to_be_inspected_again(
    cast: Cast, killer: Callable[..., None]
) -> None:
    version = upload(cast, GOOD)
    killer(MOST_INSPECTIONS)
    for _ in range(MOST_INSPECTIONS):
        inspected(version)
    assert version.report["failure"]["text"] == "The inspection was killed from outside (SIGKILL)."
    assert version.was_cut_short
    page = cast.client("bob").get(reverse("dataset", args=[version.dataset_id])).content.decode()
    assert "The file is kept: inspect it again." in page
    again = reverse("version_inspect_again", args=[version.pk])
    assert again in page and "Upload a corrected file" not in page
    places = {cast.client("bob").post(again)["Location"] for _ in range(2)}
    assert [place.rpartition("?")[2] for place in places] == ["version=2"], "two clicks, one version"
    second = inspected(version.dataset.versions.get(number=2))
    assert (second.status, second.original_sha256) == ("ready", version.original_sha256)
    assert cast.client("bob").post(reverse("version_inspect_again", args=[second.pk])).status_code == 409


def test_the_kernels_want_of_memory_is_said(cast: Cast, killer: Callable[..., None]) -> None:
    version = upload(cast, GOOD)
    killer(1, for_memory=True)
    DatasetVersion.objects.update(inspection=MOST_INSPECTIONS - 1)
    text = "The inspection was killed because the machine ran out of memory."
    assert inspected(version).report["failure"]["text"] == text


def test_a_killed_revision_is_made_again(cast: Cast, killer: Callable[..., None]) -> None:
    first = inspected(upload(cast, GOOD))
    killer(1)
    row = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    made = versions.revise(user=cast.bob, version=first, changes={"add": [row]}, note="one more")
    DatasetVersion.objects.filter(pk=made.pk).update(inspection=MOST_INSPECTIONS - 1)
    assert inspected(made).was_cut_short
    cast.client("bob").post(reverse("version_inspect_again", args=[made.pk]))
    again = inspected(made.dataset.versions.get(number=3))
    assert (again.status, again.row_count, again.parent, again.note) == ("ready", 2, first, "one more")


def test_a_killed_survey_is_made_again(cast: Cast, killer: Callable[..., None]) -> None:
    version = inspected(upload(cast, GOOD))
    killer(1)
    for expected in ("waiting", "done"):
        survey(str(version.pk))
        version.refresh_from_db()
        assert version.survey_status == expected


def test_a_database_that_is_away_ends_no_inspection(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> None:
        raise OperationalError("the database is away")

    version = upload(cast, GOOD)
    monkeypatch.setattr(lifecycle, "accept", away)
    with pytest.raises(OperationalError):
        inspect(str(version.pk))
    version.refresh_from_db()
    assert version.status == "inspecting", "once it stands still it is begun again"


def test_second_ring_does_nothing(cast: Cast) -> None:
    version = upload(cast, GOOD)
    assert lifecycle.begin(version.pk) == 1
    assert lifecycle.begin(version.pk) is None
    inspect(str(version.pk))
    version.refresh_from_db()
    assert version.status == "inspecting"


def test_stale_inspection_changes_nothing(cast: Cast) -> None:
    version = upload(cast, GOOD)
    first = lifecycle.begin(version.pk)
    assert first is not None
    assert lifecycle.interrupt(version.pk, first, seen_beat=0)
    assert lifecycle.begin(version.pk) == 2
    report: dict[str, Any] = {"content_hash": "x", "rows": 1}
    assert not lifecycle.beat(version.pk, first)
    assert not lifecycle.accept(version.pk, first, report)
    assert not lifecycle.reject(version.pk, first, report)
    assert lifecycle.accept(version.pk, 2, report)
    assert not lifecycle.reject(version.pk, 2, report)  # an end is an end


def test_child_stops_when_the_inspection_is_no_longer_ours(cast: Cast) -> None:
    version = upload(cast, GOOD * 50_000)
    out = version.folder / "out"
    out.mkdir()
    assert child.run_check(version.original_path, out, skip_bad_rows=False, still_ours=lambda: False) is None


def test_silent_inspection_is_given_back(cast: Cast) -> None:
    version = upload(cast, GOOD)
    assert lifecycle.begin(version.pk) == 1
    inspections = Inspections()
    for now in (0, 15, 30):
        inspections.reconcile(now)
    version.refresh_from_db()
    assert version.status == "uploaded"
    assert inspected(version).status == "ready"
    assert version.inspection == 2


def test_inspection_that_beats_is_left_alone(cast: Cast) -> None:
    version = upload(cast, GOOD)
    number = lifecycle.begin(version.pk)
    assert number is not None
    inspections = Inspections()
    for now in range(0, 100, 10):
        inspections.reconcile(now)
        assert lifecycle.beat(version.pk, number)
    assert not lifecycle.interrupt(version.pk, number, seen_beat=0)


def test_inspection_outlives_a_database_that_was_away(cast: Cast) -> None:
    version = upload(cast, GOOD)
    number = lifecycle.begin(version.pk)
    assert number is not None
    inspections = Inspections()
    for now in (0, 5, 45):
        inspections.reconcile(now)
    assert lifecycle.beat(version.pk, number)
