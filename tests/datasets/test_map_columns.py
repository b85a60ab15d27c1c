"""Mapping columns: a file of unknown columns opens a page with a preview, and is read as a person says."""

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from django.urls import reverse

from tests.cast import Cast
from tests.datasets.inspected import inspect, uploaded
from tests.make import make_base
from tests.tiny import make_tiny_base
from trainer.formats import iter_rows
from webapp.datasets.models import DatasetVersion

ROWS = [
    {"frage": "Who are you?", "antwort": "I am Lowrank.", "note": "x<b>"},
    {"frage": "What is 2 + 2?", "antwort": "4", "note": "y"},
]
FIELDS = {"kind": "prompt_completion", "of": "prompt_completion", "prompt": "frage", "answer": "antwort"}
PIECES = {"Accept": "text/html", "HX-Request": "true"}


def jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def unknown(cast: Cast) -> DatasetVersion:
    return uploaded(cast, jsonl(ROWS), "fragen.jsonl")


def address(version: DatasetVersion, **asked: str) -> str:
    return f"{reverse('dataset_mapping', args=[version.pk])}?{urlencode(asked)}"


def test_unknown_columns_lead_to_the_page(cast: Cast, unknown: DatasetVersion) -> None:
    assert (unknown.status, unknown.report["needs_mapping"]) == ("rejected", True)
    page = cast.client("bob").get(reverse("dataset", args=[unknown.dataset.pk])).content.decode()
    assert "The format was not recognised." in page
    assert reverse("dataset_mapping", args=[unknown.pk]) in page
    viewers = cast.client("vera").get(reverse("dataset", args=[unknown.dataset.pk])).content.decode()
    assert reverse("dataset_mapping", args=[unknown.pk]) not in viewers


def test_page_shows_columns_with_samples(cast: Cast, unknown: DatasetVersion) -> None:
    page = cast.client("bob").get(address(unknown)).content.decode()
    for shown in ("frage", "antwort", "Who are you?", "I am Lowrank.", "x&lt;b&gt;"):
        assert shown in page
    assert "Choose the columns; the first rows" in page


def test_names_suggest_a_mapping(cast: Cast) -> None:
    version = uploaded(cast, jsonl([{"the question": "a", "my answer": "b", "id": 1}]))
    page = cast.client("bob").get(address(version)).content.decode()
    assert '<option value="the question" selected>' in page
    assert '<option value="my answer" selected>' in page


def test_preview_shows_the_first_rows_as_chat(cast: Cast, unknown: DatasetVersion) -> None:
    answer = cast.client("bob").get(address(unknown, **FIELDS), headers=PIECES)
    page = answer.content.decode()
    assert "<html" not in page
    assert "bubble-user" in page
    assert "bubble-assistant" in page
    assert page.index("Who are you?") < page.index("bubble-assistant")
    assert not DatasetVersion.objects.exclude(pk=unknown.pk).exists()


def test_preview_names_what_cannot_be_read_so(cast: Cast, unknown: DatasetVersion) -> None:
    asked = FIELDS | {"kind": "chat", "of": "chat", "messages": "frage"}
    page = cast.client("bob").get(address(unknown, **asked), headers=PIECES).content.decode()
    assert "Row 1, frage" in page
    assert "bubble" not in page


def test_another_kind_gets_its_own_fields(cast: Cast, unknown: DatasetVersion) -> None:
    page = cast.client("bob").get(address(unknown, **FIELDS | {"kind": "preference"}), headers=PIECES).content.decode()
    assert 'name="chosen"' in page
    assert 'name="answer"' not in page


def test_base_model_marks_what_is_learnt(cast: Cast, unknown: DatasetVersion, tmp_path: Path) -> None:
    make_base(path=make_tiny_base(tmp_path / "base"))
    place = f"{reverse('mapping_tokens', args=[unknown.pk])}?{urlencode(FIELDS)}"
    page = cast.client("bob").get(place, headers=PIECES).content.decode()
    learnt = [piece.partition("</mark>")[0] for piece in page.split('<mark class="trained">')[2:]]
    assert len(learnt) == 2
    assert learnt[0].startswith("I am Lowrank.")
    assert learnt[1].startswith("4")
    assert "tokens are learnt" in page


def test_without_a_base_model_it_says_so(cast: Cast, unknown: DatasetVersion) -> None:
    place = f"{reverse('mapping_tokens', args=[unknown.pk])}?{urlencode(FIELDS)}"
    assert "No base model is ready yet" in cast.client("bob").get(place).content.decode()


def test_reading_it_so_makes_the_next_version(cast: Cast, unknown: DatasetVersion) -> None:
    answer = cast.client("bob").post(reverse("dataset_mapping", args=[unknown.pk]), FIELDS)
    made = unknown.dataset.versions.get(number=2)
    assert answer["Location"].endswith("?version=2")
    assert made.original_sha256 == unknown.original_sha256
    inspect(made)
    assert (made.status, made.row_count) == ("ready", 2)
    said = [message["content"] for row in iter_rows(made.rows_path) for message in row.messages]
    assert said == ["Who are you?", "I am Lowrank.", "What is 2 + 2?", "4"]
    unknown.refresh_from_db()
    assert unknown.status == "rejected"


def talk(*pairs: tuple[str, str]) -> dict[str, Any]:
    return {"scene": [{"who": who, "line": line} for who, line in pairs]}


def test_turns_with_names_of_their_own_are_read_as_a_person_says(cast: Cast) -> None:
    rows = [talk(("Ann", "Hi"), ("Zoe", "Hello")), talk(("Zoe", "Ask me"), ("Ann", "Why?"), ("Zoe", "So"))]
    version = uploaded(cast, jsonl(rows))
    assert version.report["needs_mapping"]
    asked = {"kind": "chat", "of": "chat", "messages": "scene"}
    client, place = cast.client("bob"), reverse("dataset_mapping", args=[version.pk])
    page = client.get(address(version, **asked), headers=PIECES).content.decode()
    assert "<option selected>who</option>" in page and "<option selected>line</option>" in page
    assert 'name="turn_user" value="Ann"' in page and 'name="turn_assistant" value="Zoe"' in page
    assert "bubble-assistant" in page and "In the first rows: Ann, Zoe." in page
    said = {"turn_role": "who", "turn_text": "line", "turn_user": "Zoe, Max", "turn_assistant": "Ann"}
    page = client.get(address(version, **asked, **said), headers=PIECES).content.decode()
    assert 'name="turn_user" value="Zoe, Max"' in page and "the last message is not" in page
    said |= {"turn_user": "Ann", "turn_assistant": "Zoe"}
    client.post(place, asked | said)
    made = version.dataset.versions.get(number=2)
    assert made.mapping["turns"] == {"role": "who", "text": "line", "user": ["Ann"], "assistant": ["Zoe"]}
    inspect(made)
    assert made.report["error_counts"] == {"the first message is not the user's": 1}
    assert "Zoe" in client.get(address(made)).content.decode()


def test_a_single_list_of_objects_is_taken_for_the_conversation(cast: Cast) -> None:
    row = talk(("Ann", "Hi"), ("Zoe", "Hello"))
    page = cast.client("bob").get(address(uploaded(cast, jsonl([row | {"id": 7}, row])))).content.decode()
    assert '<option value="scene" selected>' in page and "bubble-assistant" in page
    page = cast.client("bob").get(address(uploaded(cast, jsonl([row | {"more": row["scene"]}] * 2)))).content.decode()
    assert '<option value="scene" selected>' not in page


def test_turns_that_are_known_ask_for_nothing_more(cast: Cast) -> None:
    version = uploaded(cast, jsonl([{"dialog": [{"speaker": "user", "text": "a"}, {"speaker": "bot", "text": "b"}]}]))
    assert (version.status, version.report["format"]) == ("ready", "dialogue")
    page = cast.client("bob").get(address(version, kind="chat", of="chat", messages="dialog")).content.decode()
    assert "turn_role" not in page and "bubble-assistant" in page


def test_a_ready_version_can_be_read_differently(cast: Cast) -> None:
    version = uploaded(cast, jsonl([{"instruction": "a", "output": "b", "thoughts": "c"}]))
    client = cast.client("bob")
    assert "Read it differently" in client.get(reverse("dataset", args=[version.dataset.pk])).content.decode()
    fields = FIELDS | {"prompt": "instruction", "answer": "thoughts"}
    client.post(reverse("dataset_mapping", args=[version.pk]), fields)
    made = inspect(version.dataset.versions.get(number=2))
    assert [row.messages[-1]["content"] for row in iter_rows(made.rows_path)] == ["c"]


def test_without_its_bad_rows_it_is_read_the_same_way(cast: Cast) -> None:
    version = uploaded(cast, jsonl([*ROWS, {"frage": "", "antwort": 5}, {"frage": "x"}]))
    client = cast.client("bob")
    client.post(reverse("dataset_mapping", args=[version.pk]), FIELDS)
    second = inspect(version.dataset.versions.get(number=2))
    assert second.status == "rejected"
    client.post(reverse("dataset_skip_bad_rows", args=[second.pk]))
    third = inspect(version.dataset.versions.get(number=3))
    assert (third.status, third.row_count) == ("ready", second.skippable_rows)
    assert third.mapping == second.mapping


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"prompt": ""}, "Question"),
        ({"prompt": "no such"}, "Question"),
        ({"answer": "frage\0"}, "Answer"),
        ({"kind": "chat", "of": "chat"}, "Conversation"),
    ],
)
def test_a_mapping_that_does_not_fit_makes_nothing(
    cast: Cast, unknown: DatasetVersion, wrong: dict[str, str], field: str
) -> None:
    answer = cast.client("bob").post(reverse("dataset_mapping", args=[unknown.pk]), FIELDS | wrong)
    assert answer.status_code == 422
    assert f"The columns do not fit: {field}: " in answer.content.decode()
    assert unknown.dataset.versions.count() == 1


@pytest.mark.parametrize("content", [b"", b"[1, 2]", b"\x00\x01\x02"])
def test_a_file_without_columns_has_no_mapping(cast: Cast, content: bytes) -> None:
    version = uploaded(cast, content or b"\n")
    assert "No columns to choose from" in cast.client("bob").get(address(version)).content.decode()
    answer = cast.client("bob").post(reverse("dataset_mapping", args=[version.pk]), FIELDS)
    assert answer.status_code == 409


def test_what_no_row_can_be_read_as_is_not_made(cast: Cast, unknown: DatasetVersion) -> None:
    asked = FIELDS | {"kind": "chat", "of": "chat", "messages": "frage"}
    client = cast.client("bob")
    page = client.get(address(unknown, **asked), headers=PIECES).content.decode()
    assert 'type="submit" disabled aria-describedby="mapping-hopeless"' in page
    assert "None of the first rows can be read so." in page
    assert "mapping-hopeless" not in client.get(address(unknown, **FIELDS), headers=PIECES).content.decode()
    answer = client.post(reverse("dataset_mapping", args=[unknown.pk]), asked)
    assert (answer.status_code, unknown.dataset.versions.count()) == (422, 1)
    assert "None of the first rows can be read so." in answer.content.decode()
