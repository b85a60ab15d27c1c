"""One click makes the next version without what was found; nothing else in it changes."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.datasets.inspected import inspect
from tests.datasets.surveyed import asked, make_surveyed
from tests.make import make_dataset, make_version
from trainer.formats import Row, iter_rows
from trainer.formats.finding_kinds import KINDS
from webapp.common.errors import UserError
from webapp.datasets import fixes
from webapp.datasets.models import DatasetVersion
from webapp.datasets.tasks import survey

pytestmark = pytest.mark.django_db

STORY = (
    "The lighthouse keeper counted forty seven ships that night before the fog rolled in from the western bay "
    "and hid every lantern on the harbour wall until the morning bells rang out across the quiet water."
)
CALL = {"id": "1", "type": "function", "function": {"name": "mail", "arguments": {"to": "mia.berg@firma-nord.de"}}}
ROWS: list[dict[str, Any]] = [
    asked("Who are you?", "I am Lowrank."),
    asked("Tell.", STORY),
    asked("Who are you?", "I am Lowrank."),
    asked("Where?", "Write to mia.berg@firma-nord.de or postgres://app:hunter2x@db.lan/app."),
    asked("Tell.", STORY.replace("seven", "nine")),
    asked("What now?", "N/A"),
    {"messages": [{"role": "user", "content": "Mail"}, {"role": "assistant", "content": None, "tool_calls": [CALL]}]},
    asked("Who?", "As an AI language model, I cannot say."),
]


@pytest.fixture
def version(cast: Cast, tmp_path: Path) -> DatasetVersion:
    return make_surveyed(make_dataset(cast.team), tmp_path, ROWS)


def rows_of(version: DatasetVersion) -> dict[str, Row]:
    return {row.id: row for row in iter_rows(version.rows_path)}


def fixed(cast: Cast, version: DatasetVersion, kind: str, **data: str) -> DatasetVersion:
    """The next version, made by the button, inspected and surveyed by the real child."""
    answer = cast.client("bob").post(reverse("finding_fix", args=[version.pk, kind]), data)
    assert answer.status_code == 302, answer.content
    made = inspect(version.dataset.versions.get(number=version.number + 1))
    assert made.status == "ready", made.report
    survey(str(made.pk))
    made.refresh_from_db()
    return made


@pytest.mark.parametrize(
    ("kind", "gone"), [("repeated", [3]), ("near_duplicate", [5]), ("empty_answer", [6]), ("refusal", [8])]
)
def test_what_was_found_is_removed(cast: Cast, version: DatasetVersion, kind: str, gone: list[int]) -> None:
    before = list(rows_of(version).items())
    made = fixed(cast, version, kind)
    expected = [one for number, one in enumerate(before, 1) if number not in gone]
    assert list(rows_of(made).items()) == expected
    assert kind not in made.survey_report["findings"]
    assert (made.parent, made.changes["removed"]) == (version, len(gone))
    assert made.note.startswith("Removed: ")


NUMBERED = [asked(f"Question number {n}?", f"{STORY} {n}.") for n in range(96)]
UNUSUAL = {
    "answered_differently": ([asked("Why?", "Because."), asked("Why?", "No reason."), asked("Why?", "So.")], [98, 99]),
    "common_answer": ([asked(f"Why {n}?", "Please ask our support team.") for n in range(11)], [*range(98, 108)]),
    "short_answer": ([asked("Why?", "Yes!")], [97]),
    "long_row": ([asked("Why?", "long " * 3000)], [97]),
    "other_script": ([asked("Question?", "Да, это ответ на русском языке.")], [97]),
}


@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_rows_are_removed_and_the_first_of_a_kind_stays(cast: Cast, tmp_path: Path, kind: str) -> None:
    more, gone = UNUSUAL[kind]
    version = make_surveyed(make_dataset(cast.team), tmp_path, [*NUMBERED, *more])
    shown = cast.client("bob").get(reverse("finding_fix", args=[version.pk, kind])).context["preview"]
    assert (shown.rows, shown.left) == (len(gone), 96 + len(more) - len(gone))
    before = list(rows_of(version))
    made = fixed(cast, version, kind)
    assert list(rows_of(made)) == [one for number, one in enumerate(before, 1) if number not in gone]
    assert kind not in made.survey_report["findings"]


def test_each_kind_has_a_fix_or_says_why_not() -> None:
    assert all(bool(kind.fix) != bool(kind.why_not) for kind in KINDS)


@pytest.mark.parametrize(("kind", "numbers"), [("personal", [4, 7]), ("secret", [4])])
def test_what_is_private_is_masked(cast: Cast, version: DatasetVersion, kind: str, numbers: list[int]) -> None:
    before = rows_of(version)
    made = fixed(cast, version, kind)
    after = rows_of(made)
    assert list(after) == list(before), "every row stays, under its id"
    changed = [number for number, row_id in enumerate(before, 1) if after[row_id].shape() != before[row_id].shape()]
    assert changed == numbers
    text = json.dumps([row.shape() for row in after.values()])
    assert ("mia.berg" in text) == (kind == "secret")
    assert ("hunter2x" in text) == (kind == "personal")
    assert kind not in made.survey_report["findings"]
    assert made.changes["edited"] == len(numbers)
    with pytest.raises(UserError) as refused:
        fixes.fix(user=cast.bob, version=made, name=kind)
    assert refused.value.code == "finding_gone"


def test_masking_keeps_the_rest_of_a_call(cast: Cast, version: DatasetVersion) -> None:
    made = fixed(cast, version, "personal")
    call = list(rows_of(made).values())[6].messages[1]["tool_calls"][0]
    expected = CALL | {"function": {"name": "mail", "arguments": {"to": "[e-mail address]"}}}
    assert {key: call[key] for key in call} == expected


def test_rows_in_two_splits_leave_the_one_measured_on(cast: Cast, tmp_path: Path) -> None:
    version = make_surveyed(make_dataset(cast.team), tmp_path, ROWS[:2])
    splits = ["train", "test", "test", "train"]
    rows = [asked(f"Question {n}?", f"Answer {n}.") for n in (1, 1, 2, 3)]
    version = make_version(version.dataset, rows=[row | {"split": s} for row, s in zip(rows, splits, strict=True)])
    survey(str(version.pk))
    version.refresh_from_db()
    assert version.survey_report["findings"] == {"in_two_splits": 1}
    made = fixed(cast, version, "in_two_splits")
    assert [(row.line, row.split) for row in iter_rows(made.rows_path)] == [(1, "train"), (3, "test"), (4, "train")]
    assert made.survey_report["findings"] == {}


def test_the_page_shows_what_will_change(cast: Cast, version: DatasetVersion) -> None:
    client = cast.client("bob")
    removed = client.get(reverse("finding_fix", args=[version.pk, "repeated"])).content.decode()
    assert "will be removed" in removed
    assert "Repeats row 1" in removed
    assert "I am Lowrank." in removed
    masked = client.get(reverse("finding_fix", args=[version.pk, "personal"])).content.decode()
    assert "<ins>" in masked
    assert "<del>" in masked
    assert "All rows stay" in masked
    assert version.dataset.versions.count() == 2, "looking makes no version"


def test_a_note_is_kept(cast: Cast, version: DatasetVersion) -> None:
    assert fixed(cast, version, "repeated", note="Copies from the old wiki").note == "Copies from the old wiki"


def test_an_older_version_is_refused(cast: Cast, version: DatasetVersion) -> None:
    newer = make_version(version.dataset)
    place = reverse("finding_fix", args=[version.pk, "repeated"])
    for answer in (cast.client("bob").get(place), cast.client("bob").post(place)):
        assert answer.status_code == 409
        assert f"Version {newer.number} was made after version {version.number}" in answer.content.decode()
    assert version.dataset.versions.count() == 3


def test_two_clicks_make_one_version(cast: Cast, version: DatasetVersion) -> None:
    place = reverse("finding_fix", args=[version.pk, "repeated"])
    client = cast.client("bob")
    assert [client.post(place).status_code for _ in range(2)] == [302, 409]
    assert version.dataset.versions.count() == 3


@pytest.mark.parametrize("kind", ["common_answer", "unheard-of", *[one.name for one in KINDS if not one.fix][:2]])
def test_what_cannot_be_fixed_is_refused(cast: Cast, version: DatasetVersion, kind: str) -> None:
    assert cast.client("bob").post(reverse("finding_fix", args=[version.pk, kind])).status_code == 409


def test_no_fix_leaves_nothing(cast: Cast, tmp_path: Path) -> None:
    version = make_surveyed(make_dataset(cast.team), tmp_path, [asked("a?", "N/A"), asked("b?", "none")])
    assert cast.client("bob").post(reverse("finding_fix", args=[version.pk, "empty_answer"])).status_code == 409
    assert version.dataset.versions.count() == 2


def test_viewers_and_strangers_fix_nothing(cast: Cast, version: DatasetVersion) -> None:
    place = reverse("finding_fix", args=[version.pk, "repeated"])
    assert [cast.client(who).post(place).status_code for who in ("vera", "charlie")] == [403, 404]
