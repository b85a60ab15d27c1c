"""A draft: what a person means to change, kept until saved, undone one by one, never over another's work unseen."""

from collections.abc import Callable
from typing import Any

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.make import ROWS, make_dataset
from trainer.formats import iter_rows
from trainer.formats.canonical import Content
from webapp.accounts.models import User
from webapp.common.errors import UserError
from webapp.datasets import drafts, versions
from webapp.datasets.drafts import Summary
from webapp.datasets.models import DatasetVersion, DraftChange
from webapp.datasets.tasks import inspect


def says(answer: str) -> Content:
    return Content(messages=[{"role": "user", "content": "?"}, {"role": "assistant", "content": answer}])


@pytest.fixture
def version(cast: Cast) -> DatasetVersion:
    return make_dataset(cast.team, created_by=cast.alice).versions.get()


def edit(user: User, version: DatasetVersion, number: int, answer: str) -> None:
    row = list(iter_rows(version.rows_path))[number - 1]
    seen = drafts.row_mark(drafts.change_of_row(user, version, row.id), row)
    drafts.edit_row(user=user, version=version, row=row, number=number, content=says(answer), seen=seen)


def ids(version: DatasetVersion) -> list[str]:
    return [row.id for row in iter_rows(version.rows_path)]


def ready(version: DatasetVersion) -> DatasetVersion:
    inspect(str(version.pk))
    version.refresh_from_db()
    return version


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        act()
    return caught.value.code


def test_a_draft_collects_and_is_saved_as_the_next_version(cast: Cast, version: DatasetVersion) -> None:
    edit(cast.bob, version, 1, "Edited.")
    drafts.remove_rows(user=cast.bob, version=version, row_ids=ids(version)[1:2])
    drafts.add_row(user=cast.bob, version=version, content=says("Added."))
    assert str(drafts.summary(cast.bob, version)) == "1 edited, 1 removed, 1 added"
    made = ready(drafts.save(user=cast.bob, version=version, note="Better"))
    assert (made.number, made.note, made.parent) == (2, "Better", version)
    assert [row.messages[-1]["content"] for row in iter_rows(made.rows_path)] == ["Edited.", "Blue.", "Added."]
    assert ids(made)[:2] == [ids(version)[0], ids(version)[2]]
    assert not drafts.summary(cast.bob, version)


def test_the_page_shows_each_change_and_undoes_it(cast: Cast, version: DatasetVersion) -> None:
    edit(cast.bob, version, 1, "Edited.")
    change = DraftChange.objects.get()
    client = cast.client("bob")
    page = client.get(reverse("draft", args=[version.pk])).content.decode()
    assert "1 edited against version 1" in page
    assert "<del>I am Lowrank</del><ins>Edited</ins>" in page, "what was, and what is"
    assert "Save as version 2" in page
    assert reverse("row_edit", args=[version.pk, 1]) in page
    client.post(reverse("draft_undo", args=[change.pk]))
    assert not drafts.summary(cast.bob, version)
    assert "Nothing is changed yet" in client.get(reverse("draft", args=[version.pk])).content.decode()


def test_a_draft_survives_a_reload_and_is_told_on_every_tab(cast: Cast, version: DatasetVersion) -> None:
    drafts.add_row(user=cast.bob, version=version, content=says("Added."))
    for tab in ("overview", "versions"):
        address = f"{reverse('dataset', args=[version.dataset_id])}?tab={tab}"
        assert "Your draft:" in cast.client("bob").get(address).content.decode()
        assert "Your draft:" not in cast.client("alice").get(address).content.decode(), "it is his alone"


def test_rows_are_removed_by_their_numbers(cast: Cast, version: DatasetVersion) -> None:
    client, address = cast.client("bob"), reverse("draft_remove", args=[version.pk])
    assert client.post(address, {"number": ["1", "3", "99"]}).status_code == 302
    assert drafts.summary(cast.bob, version) == Summary(removed=2)
    page = client.get(reverse("draft", args=[version.pk])).content.decode()
    assert "2 rows: 1 “Who are you?”; 3 “Name a colour.”" in page
    client.post(address, {"number": ["1", "2"]})
    page = client.get(reverse("draft", args=[version.pk])).content.decode()
    assert "What is 2 + 2?</a>" in page and "row 2</span>" in page and "<summary>The row</summary>" in page
    assert drafts.summary(cast.bob, version) == Summary(removed=3), "a row goes once"
    for bad in ("x", "-1", "", "9" * 30):
        assert b"Choose some rows first." in client.post(address, {"number": bad}, follow=True).content
    assert drafts.summary(cast.bob, version) == Summary(removed=3)


def test_the_table_shows_what_the_draft_does_to_its_rows(cast: Cast, version: DatasetVersion) -> None:
    edit(cast.bob, version, 1, "Edited.")
    drafts.remove_rows(user=cast.bob, version=version, row_ids=ids(version)[1:])
    draft = drafts.states(cast.bob, version, ids(version))
    assert draft == dict(zip(ids(version), ("edit", "remove", "remove"), strict=True))
    assert drafts.states(cast.alice, version, ids(version)) == {}
    page = cast.client("bob").get(reverse("dataset_rows", args=[version.pk]), {"row": 2}).content.decode()
    assert (page.count(">Edited</span>"), page.count(">Removed</span>")) == (1, 3)
    assert reverse("row_edit", args=[version.pk, 2]) not in page, "what is removed is not edited"


def test_many_removed_at_once_come_back_at_once(cast: Cast, version: DatasetVersion) -> None:
    edit(cast.bob, version, 1, "Edited.")
    assert drafts.remove_rows(user=cast.bob, version=version, row_ids=ids(version), label="all") == 3
    assert drafts.summary(cast.bob, version) == Summary(removed=3)
    drafts.undo(DraftChange.objects.get())
    assert not drafts.summary(cast.bob, version)


def test_a_removed_row_is_not_edited(cast: Cast, version: DatasetVersion) -> None:
    drafts.remove_rows(user=cast.bob, version=version, row_ids=ids(version)[:2])
    assert refused(lambda: edit(cast.bob, version, 1, "Edited.")) == "row_removed"


def test_an_edit_back_is_no_change(cast: Cast, version: DatasetVersion) -> None:
    edit(cast.bob, version, 1, "Edited.")
    row = next(iter_rows(version.rows_path))
    seen = drafts.row_mark(drafts.change_of_row(cast.bob, version, row.id), row)
    drafts.edit_row(user=cast.bob, version=version, row=row, number=1, content=row, seen=seen)
    assert not drafts.summary(cast.bob, version)


def test_two_tabs_do_not_overwrite_each_other(cast: Cast, version: DatasetVersion) -> None:
    row = next(iter_rows(version.rows_path))
    seen = drafts.row_mark(None, row)
    edit(cast.bob, version, 1, "In one tab.")
    told: dict[str, Any] = {
        "user": cast.bob,
        "version": version,
        "row": row,
        "number": 1,
        "content": says("In another."),
        "seen": seen,
    }
    assert refused(lambda: drafts.edit_row(**told)) == "row_changed_meanwhile"


def test_two_people_save_one_after_the_other(cast: Cast, version: DatasetVersion) -> None:
    edit(cast.alice, version, 1, "By alice.")
    edit(cast.bob, version, 2, "By bob.")
    ready(drafts.save(user=cast.alice, version=version, note="", newest=1))
    save: dict[str, Any] = {"user": cast.bob, "version": version, "note": ""}
    assert refused(lambda: drafts.save(**save, newest=1)) == "newer_version"
    assert drafts.summary(cast.bob, version), "nothing is lost"
    assert "made meanwhile by" in cast.client("bob").get(reverse("draft", args=[version.pk])).content.decode()
    made = ready(drafts.save(**save, newest=2, onto=2))
    assert (made.number, made.parent.number if made.parent else 0) == (3, 2)
    answers = [row.messages[-1]["content"] for row in iter_rows(made.rows_path)]
    assert answers == ["By alice.", "By bob.", "Blue."]


def test_a_row_that_both_changed_is_named(cast: Cast, version: DatasetVersion) -> None:
    edit(cast.alice, version, 1, "By alice.")
    edit(cast.bob, version, 1, "By bob.")
    ready(drafts.save(user=cast.alice, version=version, note=""))
    save: dict[str, Any] = {"user": cast.bob, "version": version, "note": "", "newest": 2}
    with pytest.raises(UserError) as caught:
        drafts.save(**save, onto=2)
    assert caught.value.code == "draft_conflict"
    assert "“?”" in caught.value.text
    client, address = cast.client("bob"), reverse("draft_save", args=[version.pk])
    answer = client.post(address, {"note": "Kinder answers", "newest": 2, "onto": 2})
    assert answer.status_code == 409
    assert b"Kinder answers" in answer.content and b"changed rows that your draft changes too" in answer.content
    branch = ready(drafts.save(**save, onto=1))
    assert (branch.number, branch.parent) == (3, version)
    assert next(iter_rows(branch.rows_path)).messages[-1]["content"] == "By bob."


def test_a_draft_moves_over_an_upload_that_lacks_a_removed_row(cast: Cast, version: DatasetVersion) -> None:
    drafts.remove_rows(user=cast.bob, version=version, row_ids=ids(version)[:2])
    ready(versions.revise(user=cast.alice, version=version, changes={"remove": ids(version)[:1]}))
    made = ready(drafts.save(user=cast.bob, version=version, note="", newest=2, onto=2))
    assert ids(made) == ids(version)[2:]


def test_an_empty_draft_makes_no_version(cast: Cast, version: DatasetVersion) -> None:
    assert refused(lambda: drafts.save(user=cast.bob, version=version, note="")) == "nothing_to_change"
    assert cast.client("bob").post(reverse("draft_save", args=[version.pk])).status_code == 409
    assert DatasetVersion.objects.count() == 1


def test_a_draft_is_discarded(cast: Cast, version: DatasetVersion) -> None:
    edit(cast.bob, version, 1, "Edited.")
    edit(cast.alice, version, 1, "Hers.")
    cast.client("bob").post(reverse("draft_discard", args=[version.pk]))
    assert not drafts.summary(cast.bob, version)
    assert drafts.summary(cast.alice, version)


def test_a_draft_of_one_who_left_the_team_is_out_of_reach(cast: Cast, version: DatasetVersion) -> None:
    change = drafts.add_row(user=cast.bob, version=version, content=says("Added."))
    cast.team.memberships.filter(user=cast.bob).delete()
    client = cast.client("bob")
    for name in ("draft_row", "draft_undo"):
        assert client.post(reverse(name, args=[change.pk])).status_code == 404
    assert DraftChange.objects.exists()


def test_saving_leads_to_the_new_version(cast: Cast, version: DatasetVersion) -> None:
    drafts.add_row(user=cast.bob, version=version, content=Content(messages=ROWS[0]["messages"]))
    form = {"note": "One more", "newest": "1"}
    answer = cast.client("bob").post(reverse("draft_save", args=[version.pk]), form)
    assert answer["Location"] == f"{reverse('dataset', args=[version.dataset_id])}?version=2"
