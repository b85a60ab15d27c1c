"""The next version of a dataset by changes to its rows: made by the real child, numbered, told apart, whole or not."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.cast import Cast
from tests.make import ROWS, make_checked, make_dataset, make_version
from trainer.formats import iter_rows
from webapp.common.errors import UserError
from webapp.datasets import lifecycle, versions
from webapp.datasets.models import DatasetVersion, Origin, VersionStatus
from webapp.datasets.tasks import inspect

NEW = {"messages": [{"role": "user", "content": "And now?"}, {"role": "assistant", "content": "Done."}]}


def inspected(version: DatasetVersion) -> DatasetVersion:
    inspect(str(version.pk))
    version.refresh_from_db()
    return version


def first(cast: Cast) -> DatasetVersion:
    return make_dataset(cast.team, created_by=cast.alice).versions.get()


def ids(version: DatasetVersion) -> list[str]:
    return [row.id for row in iter_rows(version.rows_path)]


def revised(cast: Cast, version: DatasetVersion, **changes: Any) -> DatasetVersion:
    return inspected(versions.revise(user=cast.bob, version=version, changes=changes, note=" by hand "))


def test_changed_rows_make_the_next_version(cast: Cast) -> None:
    version = first(cast)
    one, two, three = ids(version)
    made = revised(cast, version, remove=[one], edit={two: NEW}, add=[ROWS[0], NEW])
    assert (made.status, made.number, made.row_count) == ("ready", 2, 4)
    assert (made.parent, made.origin, made.note, made.created_by) == (version, Origin.EDIT, "by hand", cast.bob)
    assert made.changes == {"added": 1, "removed": 0, "edited": 1, "moved": 0, "beside": 0}, "one went and came again"
    assert ids(made)[:2] == [two, three]
    assert ids(version) == [one, two, three], "versions never change"
    assert {path.name for path in made.folder.iterdir()} == {"original", "changes.json", "rows.parquet", "report.json"}
    assert made.original_path.samefile(version.original_path)


def test_changes_that_cannot_be_used_reject_the_new_version_alone(cast: Cast) -> None:
    version = first(cast)
    made = revised(cast, version, edit={ids(version)[0]: {"messages": []}})
    assert (made.status, made.skippable_rows) == ("rejected", 0)
    assert made.report["errors"][0]["problem"]
    version.refresh_from_db()
    assert version.is_ready


def test_nothing_changes_nothing(cast: Cast) -> None:
    with pytest.raises(UserError) as caught:
        versions.revise(user=cast.bob, version=first(cast), changes={"remove": [], "edit": {}})
    assert caught.value.code == "nothing_to_change"
    assert DatasetVersion.objects.count() == 1


def test_only_what_is_ready_can_be_changed(cast: Cast) -> None:
    version = make_dataset(cast.team, status=VersionStatus.REJECTED).versions.get()
    with pytest.raises(UserError):
        versions.revise(user=cast.bob, version=version, changes={"add": [NEW]})


def test_an_interrupted_revision_is_made_again(cast: Cast) -> None:
    made = versions.revise(user=cast.bob, version=first(cast), changes={"add": [NEW]})
    assert lifecycle.begin(made.pk) == 1
    assert lifecycle.interrupt(made.pk, 1, seen_beat=0)
    assert inspected(made).row_count == 4
    assert made.inspection == 2


def test_revisions_of_one_version_follow_each_other(cast: Cast) -> None:
    version = first(cast)
    one = versions.revise(user=cast.bob, version=version, changes={"add": [NEW]})
    two = versions.revise(user=cast.alice, version=version, changes={"remove": ids(version)[:1]})
    assert [(inspected(made).number, made.row_count) for made in (two, one)] == [(3, 2), (2, 4)]


def test_an_upload_tells_what_changed_since_the_version_before(cast: Cast, tmp_path: Path) -> None:
    version = make_checked(make_dataset(cast.team), tmp_path, [*ROWS[:2], NEW])
    broken = make_version(version.dataset, status=VersionStatus.REJECTED)
    upload = make_version(version.dataset, status=VersionStatus.UPLOADED, row_count=0, report={})
    text = "".join(json.dumps(row) + "\n" for row in [NEW, *ROWS])
    upload.original_path.write_text(text)
    made = inspected(upload)
    assert (made.parent, broken.number) == (version, 3)
    assert made.changes == {"added": 1, "removed": 0, "edited": 0, "moved": 0, "beside": 0}


def test_the_first_upload_has_nothing_before_it(cast: Cast) -> None:
    version = make_dataset(cast.team, status=VersionStatus.UPLOADED).versions.get()
    assert (inspected(version).parent, version.changes) == (None, {})
