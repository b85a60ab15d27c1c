"""A dataset's name: changed by members, told in the audit trail; datasets of one name are told apart in lists."""

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_dataset
from webapp.accounts.models import AuditEntry
from webapp.datasets.forms import CopyForm
from webapp.jobs.forms import JobForm


def test_a_member_renames(cast: Cast) -> None:
    dataset = make_dataset(cast.team, name="pasted")
    bob, here = cast.client("bob"), reverse("dataset", args=[dataset.pk])
    address = reverse("dataset_rename", args=[dataset.pk])
    assert f'action="{address}"' in bob.get(here).content.decode()
    assert bob.post(address, {"name": " Support, March ", "back": f"{here}?tab=versions"})["Location"] == (
        f"{here}?tab=versions"
    )
    dataset.refresh_from_db()
    assert dataset.name == "Support, March"
    entry = AuditEntry.objects.get(action="dataset.rename")
    assert (entry.actor, entry.target, entry.ip) == (cast.bob, "pasted to Support, March", "127.0.0.1")


@pytest.mark.parametrize("name", ["", "x" * 121])
def test_a_name_that_is_none_changes_nothing(cast: Cast, name: str) -> None:
    dataset = make_dataset(cast.team, name="pasted")
    answer = cast.client("bob").post(reverse("dataset_rename", args=[dataset.pk]), {"name": name}, follow=True)
    assert "The name stays:" in answer.content.decode()
    dataset.refresh_from_db()
    assert dataset.name == "pasted"


def test_those_who_look_see_no_such_button(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    page = cast.client("vera").get(reverse("dataset", args=[dataset.pk])).content.decode()
    assert "rename-dialog" not in page


def test_datasets_of_one_name_are_told_apart_by_their_files(cast: Cast) -> None:
    for file in ("march.jsonl", "april.jsonl"):
        make_dataset(cast.team, name="support", original_name=file)
    for field in (
        CopyForm(user=cast.bob)["version"],
        JobForm(user=cast.bob, team=cast.team)["dataset_version"],
    ):
        assert "march.jsonl, " in str(field) and "april.jsonl, " in str(field)
