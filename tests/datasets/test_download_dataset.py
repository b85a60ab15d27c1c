"""Downloading: the rows of a version as JSONL, which read again are the same rows."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from tests.adapters.test_download_adapter import body_of
from tests.cast import Cast
from tests.make import make_checked, make_dataset, make_version
from trainer.formats.check import check_file
from webapp.datasets.models import VersionStatus

ASKED, ANSWER = {"role": "user", "content": "Wer? »日本«"}, {"role": "assistant", "content": "I.", "weight": 0}
LAST = {"role": "assistant", "content": "I am."}
TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
ROWS: dict[str, dict[str, Any]] = {
    "alpaca": {"instruction": "Who are you?", "input": "", "output": "I am Lowrank.", "system": "Be brief."},
    "messages": {"messages": [ASKED, ANSWER, ASKED, LAST], "tools": [TOOL]},
    "text": {"text": "Once upon a time.\nThere was"},
    "preference": {"prompt": "Who?", "chosen": "I.", "rejected": "Nobody."},
    "kto": {"prompt": "Who?", "completion": "Nobody.", "label": False},
}


@pytest.mark.parametrize("kind", ROWS)
def test_a_download_reads_back_as_the_same_rows(cast: Cast, tmp_path: Path, kind: str) -> None:
    version = make_checked(make_dataset(cast.team), tmp_path, [ROWS[kind]] * 230)
    type(version).objects.filter(pk=version.pk).update(original_name="my «rows».json")
    answer = cast.client("vera").get(reverse("dataset_download", args=[version.pk]))
    assert answer["Content-Disposition"].startswith("attachment;")
    assert answer["X-Content-Type-Options"] == "nosniff"
    (tmp_path / "again.jsonl").write_bytes(body_of(answer))
    check_file(tmp_path / "again.jsonl", tmp_path / "again", skip_bad_rows=False, emit=lambda event: None)
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert (again["rows"], again["content_hash"]) == (230, version.report["content_hash"])


def test_only_ready_versions_can_be_downloaded(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    rejected = make_version(dataset, status=VersionStatus.REJECTED)
    assert cast.client("vera").get(reverse("dataset_download", args=[rejected.pk])).status_code == 404
    ready = dataset.versions.get(status=VersionStatus.READY)
    assert cast.client("charlie").get(reverse("dataset_download", args=[ready.pk])).status_code == 404
    ready.rows_path.unlink()
    assert cast.client("vera").get(reverse("dataset_download", args=[ready.pk])).status_code == 404
