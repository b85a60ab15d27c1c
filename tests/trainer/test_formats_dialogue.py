"""Turns under other names: usual ones are read by themselves, others as a person says, errors in its own keys."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.files import check, rows_of
from trainer.formats.detect import recognise
from trainer.formats.mapping import mapped_family, problems
from trainer.formats.problems import BadRow

SAID = ["Hi", "Hello"]
MEANT = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
NAMED = [
    ("speaker", "text", "Human", "bot"),
    ("author", "content", "customer", "agent"),
    ("role", "text", "user", "AI"),
]


def talk(who: str, said: str, *names: str) -> list[dict[str, Any]]:
    return [{who: name, said: text} for name, text in zip(names, SAID, strict=True)]


@pytest.mark.parametrize(("who", "said", "asks", "answers"), NAMED)
def test_usual_names_are_known(tmp_path: Path, who: str, said: str, asks: str, answers: str) -> None:
    report = check(tmp_path, json.dumps({"dialog": talk(who, said, asks, answers)}))
    assert (report["format"], report["errors"], report["ignored_fields"]) == ("dialogue", [], {})
    assert report["saw"].endswith(f' "dialog" with {who} and {said}.')
    assert rows_of(tmp_path)[0].messages == MEANT


def test_errors_speak_of_the_keys_of_the_file(tmp_path: Path) -> None:
    good = talk("speaker", "text", "user", "bot")
    rows = [good, [good[0], {"speaker": "bot"}], [*good[:1], {"speaker": "Zoe", "text": "a"}], good[:1] * 2 + good[1:]]
    report = check(tmp_path, "\n".join(json.dumps({"dialog": row}) for row in rows), skip=True)
    found = [(error["line"], error["field"], error["problem"]) for error in report["errors"]]
    assert found == [(2, "dialog[1].text", "field is missing"), (3, "dialog[1].speaker", "unknown speaker")]
    assert report["repairs"][0].startswith("Consecutive messages of the same speaker")


def test_speakers_of_whom_nothing_is_known_are_asked_about() -> None:
    assert recognise([{"dialog": talk("speaker", "text", "Ann", "Zoe")}]).family is None


def test_a_person_says_who_speaks_and_where_it_stands() -> None:
    turns = {"role": "who", "text": "line", "user": ["Ann"], "assistant": ["Zoe"]}
    family = mapped_family({"kind": "chat", "fields": {"messages": "scene"}, "turns": turns})
    assert family.to_content({"scene": talk("who", "line", "Ann", "Zoe")}).messages == MEANT
    assert family.saw == '"scene" as messages of turns with "who" and "line"'
    with pytest.raises(BadRow) as refused:
        family.to_content({"scene": talk("who", "line", "Ann", "Max")})
    assert refused.value.found.field == "scene[1].who"


@pytest.mark.parametrize(
    ("kind", "turns", "place"),
    [
        ("chat", {"role": "who"}, "turns"),
        ("chat", {"role": "who", "text": "line", "user": "Ann"}, "turns.user"),
        ("chat", {"role": "who", "text": "line", "cat": []}, "turns.cat"),
        ("text", {"role": "who", "text": "line"}, "turns"),
        ("chat", [1], "turns"),
    ],
)
def test_wrong_turns_are_told_by_their_place(kind: str, turns: Any, place: str) -> None:
    column = {"messages": "a"} if kind == "chat" else {"text": "a"}
    assert [found.field for found in problems({"kind": kind, "fields": column, "turns": turns})] == [place]
