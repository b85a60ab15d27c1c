"""Exporting rows: in any layout, all or those found, and read back equal."""

import csv
import json
from pathlib import Path

import pytest
from django.urls import reverse

from tests.adapters.test_download_adapter import body_of
from tests.cast import Cast
from tests.datasets.surveyed import asked, make_surveyed
from tests.make import make_dataset, make_version
from trainer.formats.check import check_file
from trainer.formats.writing import layouts_for
from webapp.datasets.models import DatasetVersion, VersionStatus

ROWS = [asked(f"=Question {number}?", f'Answer "{number}"; »日本«\nmore') for number in range(1, 451)]


@pytest.fixture
def version(cast: Cast, tmp_path: Path) -> DatasetVersion:
    return make_surveyed(make_dataset(cast.team), tmp_path, ROWS)


@pytest.mark.parametrize("layout", [layout.name for layout in layouts_for("chat")])
def test_every_layout_reads_back_equal(cast: Cast, version: DatasetVersion, tmp_path: Path, layout: str) -> None:
    answer = cast.client("vera").get(reverse("version_export", args=[version.pk]), {"layout": layout})
    name = answer["Content-Disposition"].split('filename="')[1].rstrip('"')
    assert name.startswith(f"rows-v2-{layout}.")
    assert answer["Content-Type"] in ("application/jsonl", "text/csv; charset=utf-8")
    assert answer["X-Content-Type-Options"] == "nosniff"
    file = tmp_path / name
    file.write_bytes(body_of(answer))
    check_file(file, tmp_path / "again", skip_bad_rows=False, emit=lambda event: None)
    again = json.loads((tmp_path / "again" / "report.json").read_text())
    assert (again["rows"], again["content_hash"]) == (450, version.report["content_hash"])


def test_what_was_found_is_exported_alone(cast: Cast, version: DatasetVersion) -> None:
    address = reverse("version_export", args=[version.pk])
    answer = cast.client("vera").get(address, {"q": "answer 7", "layout": "messages"})
    assert "rows-v2-messages-found.jsonl" in answer["Content-Disposition"]
    rows = [json.loads(line) for line in body_of(answer).splitlines()]
    assert [row["messages"][0]["content"] for row in rows] == ["=Question 7?"]
    several = cast.client("vera").get(address, {"longest": 10_000, "layout": "messages", "start": 90, "size": 25})
    assert len(body_of(several).splitlines()) == 450, "pages are for looking, files hold everything"


def test_cells_are_no_formulas(cast: Cast, version: DatasetVersion) -> None:
    tables = [one.name for one in layouts_for("chat") if one.columns]
    assert tables
    for layout in tables:
        answer = cast.client("vera").get(reverse("version_export", args=[version.pk]), {"layout": layout})
        assert answer["Content-Type"].startswith("text/csv")
        cells = [cell for line in csv.reader(body_of(answer).decode().splitlines()) for cell in line]
        assert any("=Question 1?" in cell for cell in cells)
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@"))]


def test_nothing_is_exported_by_a_filter_that_does_not_work_yet(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    address = reverse("version_export", args=[version.pk])
    assert cast.client("vera").get(address, {"q": "who"}).status_code == 409
    assert len(body_of(cast.client("vera").get(address)).splitlines()) == 3


def test_unknown_layouts_and_versions_without_rows(cast: Cast, version: DatasetVersion) -> None:
    address = reverse("version_export", args=[version.pk])
    assert cast.client("vera").get(address, {"layout": "nonsense"}).status_code == 404
    assert cast.client("charlie").get(address).status_code == 404
    rejected = make_version(version.dataset, status=VersionStatus.REJECTED)
    assert cast.client("vera").get(reverse("version_export", args=[rejected.pk])).status_code == 404


def test_how_many_rows_a_layout_leaves_out(cast: Cast, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [*ROWS[:20], *(asked(f"{n}?", "One.", "And?", "Two.") for n in range(5))]
    version = make_surveyed(make_dataset(cast.team), tmp_path, rows)
    client, place = cast.client("vera"), reverse("version_export_losses", args=[version.pk])
    text = " ".join(client.get(place).content.decode().split())
    assert (
        'Prompt and completion as texts leaves out <strong class="num">5</strong> of <span class="num">25</span> rows'
        in text
    )
    found = " ".join(client.get(place, {"turns": 2}).content.decode().split())
    assert '<strong class="num">5</strong> of <span class="num">5</span> rows' in found
    assert "leaves out" not in client.get(place, {"turns_to": 1}).content.decode()
    monkeypatch.setattr("webapp.datasets.export.MOST_LOOKED_AT", 22)
    text = " ".join(client.get(place).content.decode().split())
    assert '<strong class="num">2</strong> of the first <span class="num">22</span> rows' in text
