"""Where versions come from and what was made with them: on the versions tab, and back from jobs and adapters."""

from threading import Thread
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from tests.cast import Cast, make_cast
from tests.make import ROWS, make_adapter, make_base, make_dataset, make_job, make_version
from webapp.datasets import versions
from webapp.datasets.models import DatasetVersion, Origin


def tab(cast: Cast, version: DatasetVersion, who: str = "vera") -> str:
    address = f"{reverse('dataset', args=[version.dataset_id])}?tab=versions"
    return cast.client(who).get(address).content.decode()


def test_a_version_tells_where_it_comes_from_and_what_changed(cast: Cast) -> None:
    first = make_dataset(cast.team, created_by=cast.alice).versions.get()
    changes = {"added": 2, "removed": 1, "edited": 3, "moved": 0}
    told: dict[str, Any] = {"parent": first, "origin": Origin.EDIT, "note": "<i>Better</i>", "changes": changes}
    second = make_version(first.dataset, created_by=cast.bob, **told)
    text = tab(cast, first)
    assert "+2 added" in text and "−1 removed" in text and "3 edited" in text
    assert "&lt;i&gt;Better&lt;/i&gt;" in text
    assert "from version 1" in text
    assert reverse("version_diff", args=[second.pk]) in text


def test_jobs_and_adapters_are_listed_at_the_version_they_used(cast: Cast, django_assert_max_num_queries: Any) -> None:
    first = make_dataset(cast.team).versions.get()
    second = make_version(first.dataset)
    base = make_base()
    job = make_job(cast.team, version=first, base=base, name="used the first")
    adapter = make_adapter(cast.team, base, name="made-of-the-second", dataset_version=second)
    tab(cast, first)
    with CaptureQueriesContext(connection) as few:
        tab(cast, first)
    for _ in range(5):
        make_version(first.dataset)
    with django_assert_max_num_queries(len(few)):
        text = tab(cast, first)
    newer, older = text.split(">Version 1</a>")
    assert reverse("job", args=[job.pk]) in older and reverse("job", args=[job.pk]) not in newer
    assert reverse("adapter", args=[adapter.pk]) in newer.split(">Version 2</a>")[1]


def test_what_is_in_use_offers_no_delete(cast: Cast) -> None:
    first = make_dataset(cast.team).versions.get()
    second = make_version(first.dataset)
    make_job(cast.team, version=first)
    text = tab(cast, first, "bob")
    assert reverse("version_delete", args=[second.pk]) in text
    assert reverse("version_delete", args=[first.pk]) not in text
    assert reverse("version_restore", args=[first.pk]) in text
    seen = tab(cast, first, "vera")
    assert "version_restore" not in seen and reverse("version_restore", args=[first.pk]) not in seen


def test_a_job_leads_back_to_the_very_version(cast: Cast) -> None:
    first = make_dataset(cast.team).versions.get()
    make_version(first.dataset)
    job = make_job(cast.team, version=first)
    text = cast.client("vera").get(reverse("job", args=[job.pk])).content.decode()
    assert f"{reverse('dataset', args=[first.dataset_id])}?version=1" in text


@pytest.mark.django_db(transaction=True)
def test_versions_saved_at_the_same_time_follow_each_other() -> None:
    cast = make_cast()
    first = make_dataset(cast.team).versions.get()
    failed: list[BaseException] = []

    def save() -> None:
        try:
            versions.revise(user=cast.bob, version=first, changes={"add": ROWS[:1]})
        except BaseException as error:  # noqa: BLE001 # told to the test
            failed.append(error)
        finally:
            connection.close()

    threads = [Thread(target=save) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert sorted(first.dataset.versions.values_list("number", flat=True)) == [1, 2, 3, 4, 5, 6, 7]
