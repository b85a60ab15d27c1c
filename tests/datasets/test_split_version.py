"""Dividing a version: by share and seed, evenly, by a second file; the next version's rows carry their part."""

import json
from collections import Counter
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.http import HttpResponse
from django.urls import reverse

from tests.adapters.test_download_adapter import body_of
from tests.cast import Cast
from tests.make import make_dataset
from trainer.formats import iter_rows
from webapp.common.errors import UserError
from webapp.datasets import versions
from webapp.datasets.models import DatasetVersion, Origin
from webapp.datasets.tasks import inspect

ROWS = [
    {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": "Yes. " * n}]}
    for n in range(1, 21)
]
FORM = {"method": "random", "name": "test", "percent": "20", "seed": "7"}


@pytest.fixture
def version(cast: Cast) -> DatasetVersion:
    return make_dataset(cast.team, rows=ROWS, created_by=cast.alice).versions.get()


def post(cast: Cast, version: DatasetVersion, **form: Any) -> HttpResponse:
    return cast.client("bob").post(reverse("split_new", args=[version.pk]), FORM | form)


def newest(version: DatasetVersion) -> DatasetVersion:
    made = version.dataset.versions.first()
    assert made is not None
    inspect(str(made.pk))
    made.refresh_from_db()
    return made


def test_a_share_becomes_a_split(cast: Cast, version: DatasetVersion) -> None:
    assert post(cast, version)["Location"].endswith("?version=2")
    made = newest(version)
    assert (made.origin, made.splits, made.note) == (Origin.SPLIT, {"train": 16, "test": 4}, "By chance: 20 %")
    assert Counter(row.split for row in iter_rows(made.rows_path)) == {"train": 16, "test": 4}
    assert [row.id for row in iter_rows(made.rows_path)] == [row.id for row in iter_rows(version.rows_path)]
    page = cast.client("vera").get(reverse("dataset", args=[made.dataset_id])).content.decode()
    assert "</span> rows, 80.0 %" in page
    assert "No row is in two parts." in page


def test_a_split_stays_when_rows_are_edited(cast: Cast, version: DatasetVersion) -> None:
    post(cast, version)
    made = newest(version)
    parts = {row.id: row.split for row in iter_rows(made.rows_path)}
    versions.revise(user=cast.bob, version=made, changes={"add": [ROWS[0]], "edit": {next(iter(parts)): ROWS[5]}})
    third = newest(version)
    assert {row.id: row.split for row in iter_rows(third.rows_path)} | parts == {
        row.id: row.split for row in iter_rows(third.rows_path)
    }
    assert third.splits == {"train": 17, "test": 4}


def test_a_second_file_is_the_split(cast: Cast, version: DatasetVersion) -> None:
    text = b'{"prompt": "question 1", "completion": "Yes. "}\n{"prompt": "another", "completion": "No."}\n'
    file = SimpleUploadedFile("held-out.jsonl", text)
    assert post(cast, version, method="file", file=file).status_code == 302
    made = newest(version)
    assert made.status == "ready", made.report
    assert made.splits == {"train": 20, "test": 2}
    assert made.report["overlap"] == 1
    page = cast.client("vera").get(reverse("dataset", args=[made.dataset_id])).content.decode()
    assert "1 row to learn from says the same as a row of another part." in page


def test_what_the_second_file_has_is_left_out_when_asked(cast: Cast, version: DatasetVersion) -> None:
    file = SimpleUploadedFile("held-out.jsonl", b'{"prompt": "question 1", "completion": "Yes. "}\n')
    post(cast, version, method="file", file=file, drop_overlap="on")
    made = newest(version)
    assert (made.splits, made.report["overlap"]) == ({"train": 19, "test": 1}, 0)
    assert made.changes == {"added": 0, "removed": 0, "edited": 0, "moved": 20, "beside": 0}, "as the diff has it"
    assert (
        "20 to another split"
        in cast.client("vera").get(f"{reverse('dataset', args=[made.dataset_id])}?tab=versions").content.decode()
    )


def test_a_bad_second_file_leaves_the_version_before_in_its_place(cast: Cast, version: DatasetVersion) -> None:
    file = SimpleUploadedFile("held-out.jsonl", b'{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    post(cast, version, method="file", file=file)
    made = newest(version)
    assert (made.status, made.report["errors"][0]["line"], made.number) == ("rejected", 2, 2)
    assert version.dataset.newest == version
    bob, here = cast.client("bob"), reverse("dataset", args=[made.dataset_id])
    assert "ready for training" in bob.get(here).content.decode()
    assert "rejected" not in bob.get(reverse("datasets")).content.decode().lower()
    page = bob.get(f"{here}?version=2").content.decode()
    assert "The second file, held-out.jsonl, cannot be the split. 1 of 2 rows cannot be used." in page
    assert "changes nothing" in page and "Upload a corrected file" not in page
    assert "Came to nothing, and changes nothing." in bob.get(f"{here}?tab=versions").content.decode()
    assert f"{reverse('split_new', args=[version.pk])}?method=file" in page
    bad = body_of(bob.get(reverse("version_bad_lines", args=[made.pk])))
    assert json.loads(bad)["line"] == 2
    assert reverse("version_bad_lines", args=[made.pk]) in page
    assert 'value="file" selected' in bob.get(f"{reverse('split_new', args=[version.pk])}?method=file").content.decode()


def test_the_good_rows_of_a_second_file_are_gone_on_with(cast: Cast, version: DatasetVersion) -> None:
    file = SimpleUploadedFile("held-out.jsonl", b'{"prompt": "a", "completion": "b"}\n{"prompt": "a"}\n')
    post(cast, version, method="file", file=file)
    made = newest(version)
    assert cast.client("bob").post(reverse("dataset_skip_bad_rows", args=[made.pk])).status_code == 302
    third = newest(version)
    assert (third.number, third.splits, third.parent) == (3, {"train": 20, "test": 1}, version)
    page = cast.client("vera").get(reverse("dataset", args=[made.dataset_id])).content.decode()
    assert "(the rows of held-out.jsonl)" in page


def test_the_only_version_that_can_be_used_is_not_deleted(cast: Cast, version: DatasetVersion) -> None:
    post(cast, version, method="file", file=SimpleUploadedFile("held-out.jsonl", b'{"prompt": "a"}\n'))
    newest(version)
    with pytest.raises(UserError, match="it is the only one"):
        versions.delete_version(user=cast.bob, version=version)


def test_splits_are_taken_back(cast: Cast, version: DatasetVersion) -> None:
    assert post(cast, version, method="none").status_code == 422, "there are none"
    post(cast, version)
    made = newest(version)
    assert post(cast, made, method="none").status_code == 302
    assert newest(version).splits == {}


def of_part(version: DatasetVersion, name: str) -> set[str]:
    return {row.id for row in iter_rows(version.rows_path) if row.split == name}


def test_a_split_stays_when_another_is_made(cast: Cast, version: DatasetVersion) -> None:
    post(cast, version)
    second = newest(version)
    answer = post(cast, second, seed="8")
    assert answer.status_code == 422
    assert "There is a split “test” already, and it stays." in answer.content.decode()
    assert post(cast, second, name="validation", percent="10", seed="8", method="length").status_code == 302
    third = newest(version)
    assert (third.splits, of_part(third, "test")) == (
        {"train": 14, "test": 4, "validation": 2},
        of_part(second, "test"),
    )
    page = cast.client("vera").get(reverse("dataset", args=[third.dataset_id])).content.decode()
    assert "(by chance: 20 % of all rows, seed 7)" in page
    assert "(evenly over lengths: 10 % of all rows, seed 8)" in page


def test_a_split_is_replaced_or_taken_back_when_that_is_said(cast: Cast, version: DatasetVersion) -> None:
    post(cast, version)
    second = newest(version)
    post(cast, second, name="validation")
    third = newest(version)
    assert post(cast, third, seed="8", replace="on").status_code == 302
    fourth = newest(version)
    assert of_part(fourth, "validation") == of_part(third, "validation")
    assert of_part(fourth, "test") != of_part(third, "test")
    assert post(cast, fourth, method="back", name="other").status_code == 422
    post(cast, fourth, method="back", name="test")
    assert newest(version).splits == {"train": 16, "validation": 4}
    post(cast, newest(version), method="back", name="validation")
    assert newest(version).splits == {}


def test_rows_of_an_upload_keep_their_split(cast: Cast, version: DatasetVersion) -> None:
    """The same file with a row more, a row less that was kept aside, and a copy of another one that is."""
    post(cast, version)
    second = newest(version)
    gone, twice = [row for row in iter_rows(second.rows_path) if row.split == "test"][:2]
    upload_page = cast.client("bob").get(reverse("dataset_version_new", args=[version.dataset_id])).content.decode()
    assert "Version 2 keeps rows aside: test (4 rows)." in upload_page
    rows = [row for row in ROWS if row != gone.shape()] + [{"prompt": "new", "completion": "one"}, twice.shape()]
    told = [row if "messages" in row else {"messages": chat(**row)} for row in rows]
    file = SimpleUploadedFile("rows.jsonl", "".join(json.dumps(row) + "\n" for row in told).encode())
    cast.client("bob").post(reverse("dataset_version_new", args=[version.dataset_id]), {"file": file})
    third = newest(version)
    assert (third.status, third.splits) == ("ready", {"train": 16, "test": 4}), third.report
    assert of_part(third, "test") == of_part(second, "test") - {gone.id} | {f"{twice.id}-2"}
    assert third.report["splits_kept"] == {
        "before": {"train": 16, "test": 4},
        "kept": {"train": 16, "test": 3},
        "new": 1,
    }
    page = cast.client("vera").get(reverse("dataset", args=[third.dataset_id])).content.decode()
    assert "3 of the 4 rows that “test” had are in this version" in page
    assert "1 row of the file is new, and in no split" in page
    assert "<dt>in no split</dt>" in page


def chat(prompt: str, completion: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}]


def test_a_file_with_none_of_the_rows_is_said_to_lose_the_split(cast: Cast, version: DatasetVersion) -> None:
    post(cast, version)
    newest(version)
    file = SimpleUploadedFile("rows.jsonl", b'{"prompt": "quite", "completion": "new"}\n')
    cast.client("bob").post(reverse("dataset_version_new", args=[version.dataset_id]), {"file": file})
    assert newest(version).splits == {}
    page = cast.client("vera").get(reverse("dataset", args=[version.dataset_id])).content.decode()
    assert "None of its rows are in this file" in page


@pytest.mark.parametrize(
    "form",
    [
        {"method": "magic"},
        {"name": "train"},
        {"name": "../x"},
        {"name": ""},
        {"percent": "0"},
        {"percent": "100"},
        {"percent": "nan"},
        {"seed": "-1"},
        {"method": "file"},
        {"method": "label"},
    ],
)
def test_what_means_nothing_is_shown_again(cast: Cast, version: DatasetVersion, form: dict[str, str]) -> None:
    assert post(cast, version, **form).status_code == 422
    assert DatasetVersion.objects.count() == 1
