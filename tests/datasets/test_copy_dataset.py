"""Copying: a version that a person sees becomes a dataset of the team they work in, with the same rows."""

from typing import Any

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.datasets.inspected import uploaded
from tests.make import make_dataset
from webapp.datasets.models import Dataset, DatasetVersion

ROWS = b'{"instruction": "Who are you?", "output": "I am Lowrank."}\n'


@pytest.fixture
def version(cast: Cast) -> DatasetVersion:
    return uploaded(cast, ROWS)


def copy(cast: Cast, version: DatasetVersion, who: str = "charlie", **form: Any) -> Any:
    return cast.client(who).post(reverse("dataset_copy"), {"version": version.pk} | form)


def test_copy_has_the_same_rows_and_is_ready_at_once(cast: Cast, version: DatasetVersion) -> None:
    answer = copy(cast, version, "bob", name="mine")
    made = Dataset.objects.get(name="mine")
    twin = made.versions.get()
    assert answer["Location"] == reverse("dataset", args=[made.pk])
    assert (made.team, twin.number, twin.status, twin.created_by) == (cast.team, 1, "ready", cast.bob)
    assert (twin.content_hash, twin.row_count, twin.report) == (version.content_hash, 1, version.report)
    assert twin.rows_path.read_bytes() == version.rows_path.read_bytes()
    assert twin.original_path.read_bytes() == ROWS
    assert twin.source == {"version": str(version.pk), "name": str(version)}


def test_copy_outlives_what_it_was_made_from(cast: Cast, version: DatasetVersion) -> None:
    copy(cast, version, "bob", name="mine")
    cast.client("bob").post(reverse("dataset_delete", args=[version.dataset.pk]))
    twin = Dataset.objects.get(name="mine").versions.get()
    assert twin.rows_path.is_file()
    assert cast.client("bob").get(reverse("dataset", args=[twin.dataset.pk])).status_code == 200


def test_rows_go_only_to_a_team_where_one_may_add(cast: Cast, version: DatasetVersion) -> None:
    assert copy(cast, version, "vera").status_code == 403
    client = cast.client("vera")
    session = client.session
    session["team"] = str(cast.vera.personal_team.pk)
    session.save()
    assert client.post(reverse("dataset_copy"), {"version": version.pk}).status_code == 302
    assert Dataset.objects.get(team=cast.vera.personal_team).name == version.dataset.name


def test_strangers_copy_nothing(cast: Cast, version: DatasetVersion) -> None:
    answer = copy(cast, version)
    assert answer.status_code == 422
    assert str(version.pk) not in answer.content.decode()
    assert Dataset.objects.count() == 1


def test_what_is_not_ready_is_not_offered(cast: Cast) -> None:
    pending = make_dataset(cast.team, status="inspecting").versions.get()
    assert copy(cast, pending, "bob").status_code == 422
    assert "capitals" not in cast.client("bob").get(reverse("dataset_copy")).content.decode()


def test_link_of_a_dataset_chooses_it(cast: Cast, version: DatasetVersion) -> None:
    page = cast.client("bob").get(reverse("dataset_copy"), {"version": version.pk}).content.decode()
    assert f'<option value="{version.pk}" selected>' in page
