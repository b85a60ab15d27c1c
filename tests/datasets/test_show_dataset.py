"""The pages: what each state shows, to whom, and how rows are paged."""

import json
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse

from tests.cast import Cast
from tests.make import make_checked, make_dataset, make_report, make_version
from trainer.events import RowsRead, encode
from webapp.datasets.models import Dataset, DatasetVersion, VersionStatus

BAD = {"line": 7, "field": "output", "problem": "field is empty", "fix": "Write a text.", "text": "<b>the line</b>"}


def page(client: Client, dataset: Dataset, query: str = "", **headers: str) -> tuple[int, str]:
    answer = client.get(reverse("dataset", args=[dataset.pk]) + query, headers=headers)
    return answer.status_code, answer.content.decode()


def rejected(cast: Cast, **report: Any) -> Dataset:
    values: dict[str, Any] = {"rows": 3, "bad_rows": 1, "errors": [BAD], "error_counts": {"field is empty": 1}}
    return make_dataset(cast.team, status=VersionStatus.REJECTED, report=make_report([]) | values | report)


def many_rows(count: int) -> list[dict[str, Any]]:
    return [
        {"messages": [{"role": "user", "content": f"question {n}"}, {"role": "assistant", "content": "<i>yes</i>"}]}
        for n in range(1, count + 1)
    ]


def test_list_has_an_empty_state(cast: Cast) -> None:
    text = cast.client("bob").get(reverse("datasets")).content.decode()
    assert "No datasets yet" in text
    assert reverse("dataset_sample") in text
    assert reverse("dataset_sample") not in cast.client("vera").get(reverse("datasets")).content.decode()


def test_list_shows_the_newest_version_of_the_teams_datasets(cast: Cast, django_assert_max_num_queries: Any) -> None:
    dataset = make_dataset(cast.team, name="ours", created_by=cast.bob)
    make_version(dataset, row_count=1234, created_by=cast.alice)
    for number in range(5):
        make_dataset(cast.team, name=f"more {number}")
    make_dataset(cast.charlie.personal_team, name="theirs")
    client = cast.client("vera")
    with django_assert_max_num_queries(20):
        text = client.get(reverse("datasets")).content.decode()
    assert "ours" in text
    assert "1,234" in text
    assert "theirs" not in text
    assert "hx-trigger" not in text.split("datasets-table")[1]


def test_list_refreshes_itself_while_something_is_inspected(cast: Cast) -> None:
    make_dataset(cast.team, status=VersionStatus.INSPECTING)
    client = cast.client("bob")
    assert 'hx-trigger="every 2s"' in client.get(reverse("datasets")).content.decode()
    fragment = client.get(reverse("datasets"), headers={"HX-Request": "true"}).content.decode()
    assert fragment.startswith("<div")


def test_ready_version_leads_to_training(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    link = f"{reverse('job_new')}?dataset={dataset.versions.get().pk}"
    status, text = page(cast.client("bob"), dataset)
    assert status == 200
    assert link in text
    assert "3 rows, ready for training." in text
    assert "Be brief." in text
    _, text = page(cast.client("vera"), dataset)
    assert link not in text
    assert reverse("dataset_delete", args=[dataset.pk]) not in text


@pytest.mark.parametrize(("who", "status"), [("alice", 200), ("vera", 200), ("charlie", 404), ("anonymous", 302)])
def test_who_may_look(cast: Cast, who: str, status: int) -> None:
    assert page(cast.client(who), make_dataset(cast.team))[0] == status


def test_rejected_version_shows_lines_and_offers_to_go_on(cast: Cast) -> None:
    dataset = rejected(cast)
    _, text = page(cast.client("bob"), dataset)
    assert "1 of 4 rows cannot be used." in text
    assert "Go on with the 3 good rows" in text
    assert "&lt;b&gt;the line&lt;/b&gt;" in text
    assert "<b>the line</b>" not in text
    assert "Go on with the" not in page(cast.client("vera"), dataset)[1].replace("go on with", "")


def test_a_file_without_rows_is_called_so(cast: Cast) -> None:
    nothing = {"rows": 0, "bad_rows": 0, "errors": [{"line": 1, "problem": "the file has no rows", "fix": "Add one."}]}
    _, text = page(cast.client("bob"), rejected(cast, stopped_at=1, **nothing))
    assert "The file cannot be used: the file has no rows." in text


def test_file_that_breaks_off_cannot_go_on(cast: Cast) -> None:
    _, text = page(cast.client("bob"), rejected(cast, stopped_at=7))
    assert "cannot be read beyond line 7" in text
    assert "Go on with" not in text


def test_failed_inspection_says_what_to_do(cast: Cast) -> None:
    failure = {"rows": 0, "errors": [], "failure": {"text": "Reading took too long.", "fix": "Split it."}}
    _, text = page(cast.client("bob"), make_dataset(cast.team, status=VersionStatus.REJECTED, report=failure))
    assert "Reading took too long." in text
    assert "Split it." in text


def test_page_refreshes_itself_until_the_inspection_is_over(cast: Cast) -> None:
    dataset = make_dataset(cast.team, status=VersionStatus.INSPECTING, report={})
    client = cast.client("vera")
    assert 'hx-trigger="every 1s"' in page(client, dataset)[1]
    fragment = page(client, dataset, **{"HX-Request": "true"})[1]
    assert fragment.startswith("<section")
    dataset.versions.update(status=VersionStatus.READY)
    answer = client.get(reverse("dataset", args=[dataset.pk]), headers={"HX-Request": "true"})
    assert answer["HX-Refresh"] == "true"


def test_tool_calls_and_unlearned_answers_are_shown(cast: Cast) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    messages = [
        {"role": "user", "content": "Add"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3"},
        {"role": "assistant", "content": "3", "weight": 0},
    ]
    report = make_report([])
    dataset = make_dataset(cast.team, rows=[{"messages": messages}], report=report)
    _, text = page(cast.client("vera"), dataset)
    assert "add({&quot;a&quot;: 1})" in text
    assert "read, not learned" in text


def test_older_version_is_shown_and_named(cast: Cast) -> None:
    dataset = make_dataset(cast.team)
    make_version(dataset)
    assert "This is version 1." in page(cast.client("vera"), dataset, "?version=1")[1]
    assert "This is version" not in page(cast.client("vera"), dataset)[1]
    versions = page(cast.client("vera"), dataset, "?tab=versions")[1]
    assert "?version=1" in versions
    assert "?version=2" in versions


@pytest.mark.parametrize("number", ["0", "9", "x", "-1", "1" * 50, "²"])
def test_version_that_does_not_exist(cast: Cast, number: str) -> None:
    assert page(cast.client("bob"), make_dataset(cast.team), f"?version={number}")[0] == 404


def test_longest_message_is_cut_on_the_page(cast: Cast) -> None:
    rows = [{"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "x" * 100_000}]}]
    dataset = make_dataset(cast.team, rows=rows, report=make_report([]))
    _, text = page(cast.client("vera"), dataset)
    assert "The first 20,000 of 100,000 characters." in text
    assert len(text) < 80_000
    assert json.dumps("x" * 20_001) not in text


QUESTION = {"role": "user", "content": "Who are you?"}
KINDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "preference": (
        {"prompt": "Who are you?", "chosen": "I am Lowrank.", "rejected": "<b>Nobody.</b>"},
        ["Chosen answer", "I am Lowrank.", "Rejected answer", "&lt;b&gt;Nobody.&lt;/b&gt;", "Chosen and rejected"],
    ),
    "kto": (
        {"prompt": [QUESTION], "completion": "Nobody.", "label": False},
        ["Who are you?", "Bad answer", "Nobody.", "Good and bad completions"],
    ),
    "text": ({"text": "Once upon a time."}, ["Once upon a time.", "Plain text"]),
}


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_every_kind_are_shown(cast: Cast, tmp_path: Path, kind: str) -> None:
    row, shown = KINDS[kind]
    dataset = make_dataset(cast.team)
    version = make_checked(dataset, tmp_path, [row])
    _, overview = page(cast.client("vera"), dataset)
    rows = cast.client("vera").get(reverse("dataset_rows", args=[version.pk]), {"row": "1"}).content.decode()
    for text in shown[:-1]:
        assert text in rows and text in overview
    assert shown[-1] in overview
    assert shown[-1] in cast.client("vera").get(reverse("datasets")).content.decode()


def test_an_inspection_says_how_far_it_is(cast: Cast) -> None:
    version = make_dataset(cast.team, status=VersionStatus.INSPECTING).versions.get()
    DatasetVersion.objects.filter(pk=version.pk).update(inspection=2)
    out = version.aside("inspection-2")
    out.mkdir(parents=True)
    events = out / "events.jsonl"
    for said, shown in (
        (encode(1, RowsRead(rows=12_000)), "Every row is being checked: 12,000 rows so far."),
        (encode(2, RowsRead(rows=90_000, done=450, of=1000)), "90,000 rows so far, 45 % of the file."),
        ('{"n": 3, "kind": "rows_re', "Every row is being checked."),
    ):
        events.write_text(f"{said}\n")
        text = page(cast.client("vera"), version.dataset)[1]
        assert shown in text
        assert ('value="45" max="100"' in text) == ("45 %" in shown)
