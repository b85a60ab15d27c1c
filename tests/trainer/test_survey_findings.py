"""What a survey points out, each kind with rows that have it and rows that only look so."""

import json
import random
import re
import resource
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.formats import finding_near, finding_private, finding_texts, scripts
from trainer.formats.canonical import Content, Row
from trainer.formats.finding_groups import Splits
from trainer.formats.finding_kinds import BY_NAME, KINDS
from trainer.formats.finding_near import NearDuplicates
from trainer.formats.finding_private import PATTERNS, PrivatePattern, mask_text
from trainer.formats.row_writer import RowWriter
from trainer.formats.searching import RowText
from trainer.formats.survey import survey_rows
from trainer.formats.survey_findings import ROW_DETECTORS

STORY = (
    "The lighthouse keeper counted forty seven ships that night before the fog rolled in from the western bay "
    "and hid every lantern on the harbour wall until the morning bells rang out across the quiet water"
)


def chat(*said: str, **extra: Any) -> Content:
    roles = ("user", "assistant")
    return Content(messages=[{"role": roles[n % 2], "content": text} for n, text in enumerate(said)], **extra)


def found(folder: Path, rows: list[Content], splits: list[str] | None = None) -> dict[str, dict[int, str]]:
    """Details by kind and number of the row."""
    with RowWriter(folder / "rows.parquet") as writer:
        for line, row in enumerate(rows, 1):
            writer.add(line, row, split=splits[line - 1] if splits else None)
    survey_rows(folder / "rows.parquet", folder, lambda event: None)
    by_kind: dict[str, dict[int, str]] = {}
    for number, kind, detail in sqlite3.connect(folder / "survey.sqlite").execute("SELECT * FROM findings"):
        assert number not in by_kind.setdefault(kind, {}), "a row has a kind of finding once"
        by_kind[kind][number] = detail
    counted = json.loads((folder / "survey.json").read_text())["findings"]
    assert counted == {kind: len(rows) for kind, rows in by_kind.items()}
    assert by_kind.keys() <= BY_NAME.keys()
    return by_kind


def variant(text: str, *changes: tuple[int, str]) -> str:
    words = text.split()
    for place, word in changes:
        words[place] = word
    return " ".join(words)


def test_every_kind_says_what_it_is() -> None:
    assert ROW_DETECTORS.keys() < BY_NAME.keys()
    assert len(BY_NAME) == len(KINDS)
    for kind in KINDS:
        assert kind.meaning.endswith(".")
        assert bool(kind.fix) == bool(kind.button)
        assert kind.title[0].isupper()


def test_a_repeated_row_names_the_first(tmp_path: Path) -> None:
    rows = [chat("a?", "One."), chat("b?", "Two."), chat("a?", "One."), chat("a?", "One.")]
    assert found(tmp_path, rows)["repeated"] == {3: "repeats row 1", 4: "repeats row 1"}


def test_one_question_with_two_answers(tmp_path: Path) -> None:
    rows = [chat("a?", "One."), chat("b?", "Two."), chat("a?", "Other."), chat("b?", "Two.")]
    by_kind = found(tmp_path, rows)
    assert by_kind["answered_differently"] == {1: "row 3 asks the same", 3: "row 1 asks the same"}
    assert list(by_kind["repeated"]) == [4]


def test_two_answers_are_meant_where_answers_are_compared(tmp_path: Path) -> None:
    def pair(chosen: str) -> Content:
        asked = [{"role": "user", "content": "a?"}]
        return Content(prompt=asked, chosen=[answer(chosen)], rejected=[answer("As an AI language model, no.")])

    assert found(tmp_path, [pair("One"), pair("Two")]) == {}


def answer(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def test_almost_the_same_words(tmp_path: Path) -> None:
    near = variant(STORY, (5, "nine"))
    rows = [chat("Tell.", STORY), chat("Tell.", "Quite another tale. " * 5), chat("Tell.", near), chat("Tell!", STORY)]
    near_ones = found(tmp_path, rows)["near_duplicate"]
    assert near_ones.keys() == {3, 4}
    assert near_ones[3].startswith("about ") and near_ones[3].endswith("% like row 1")
    assert near_ones[4] == "has the words of row 1"


def test_half_of_the_words_are_another_row(tmp_path: Path) -> None:
    half = STORY[: len(STORY) // 2]
    rows = [
        chat("Tell.", f"{half} and then {place} {' '.join([str(n * place) for n in range(20)])}") for place in (7, 9)
    ]
    assert "near_duplicate" not in found(tmp_path, rows)


def test_short_rows_are_never_nearly_the_same(tmp_path: Path) -> None:
    assert "near_duplicate" not in found(tmp_path, [chat("What is 2 + 3?", "5"), chat("What is 2 + 4?", "6")])


def test_a_chain_of_small_changes_keeps_what_is_unlike_the_first(tmp_path: Path) -> None:
    """Of A, B like A, C like B and unlike A, only B goes: nothing like C is left."""
    words = STORY.split() * 3
    rows = []
    for step in range(12):
        words = [*words]
        words[step * 8] = f"changed{step}"
        rows.append(chat("Tell.", " ".join(words)))
    near = found(tmp_path, rows).get("near_duplicate", {})
    kept = [number for number in range(1, 13) if number not in near]
    assert 1 in kept
    assert 12 in kept or any(f"row {number}" in near[12] for number in kept)
    assert all(any(detail.endswith(f" row {number}") for number in kept) for detail in near.values())
    assert len(kept) > 1


@pytest.mark.parametrize("seed", range(3))
def test_near_rows_are_found_among_many(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    words = [f"word{number}" for number in range(3000)]
    rows = [chat("Tell.", " ".join(dice.choices(words, k=80))) for _ in range(300)]
    changed = dice.sample(range(300), 40)
    for place in changed:
        text = rows[place].messages[1]["content"]
        rows.append(chat("Tell.", variant(text, (dice.randrange(80), "other"))))
    near = found(tmp_path, rows)["near_duplicate"]
    assert near.keys() <= set(range(301, 341)), "rows of other words are never meant"
    assert len(near) >= 38


def test_texts_without_spaces_are_compared_as_well(tmp_path: Path) -> None:
    text = "机器学习模型可以回答很多问题但是它们并不总是正确的所以请检查每一个答案"
    assert found(tmp_path, [chat("说", text), chat("说", text.replace("很多", "许多"))])["near_duplicate"].keys() == {2}


def test_short_rows_behind_a_row_leave_its_signature() -> None:
    words = np.random.default_rng(3).integers(1, 2**63, 64, dtype=np.uint64)
    for length in range(3, 60):
        alone = finding_near._signatures(words[:length], np.array([0]))
        followed = finding_near._signatures(words[: length + 3], np.array([0, length, length + 1, length + 3]))
        assert (alone[0] == followed[0]).all()


def test_rows_in_two_splits(tmp_path: Path) -> None:
    near = variant(STORY, (5, "nine"))
    rows = [chat("Tell.", STORY), chat("a?", "One."), chat("Tell.", STORY), chat("Tell.", near), chat("b?", "Two.")]
    by_kind = found(tmp_path, rows, ["test", "train", "train", "test", "test"])
    assert by_kind["in_two_splits"] == {1: "row 3 of train has the same content"}
    assert by_kind["nearly_in_two_splits"].keys() == {4}
    assert by_kind["nearly_in_two_splits"][4].endswith("row 3 of train")
    assert "repeated" not in by_kind


def test_answers_that_say_nothing(tmp_path: Path) -> None:
    rows = [chat("a?", "N/A"), chat("b?", " \n"), chat("c?", "No"), chat("d?", "- one\n- two"), chat("e?", "...")]
    assert found(tmp_path, rows)["empty_answer"].keys() == {1, 2, 5}


def test_a_call_of_a_tool_is_an_answer(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": {}}}
    said = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": None, "tool_calls": [call]}]
    assert found(tmp_path, [Content(messages=said)]) == {}


def test_the_question_as_its_answer(tmp_path: Path) -> None:
    rows = [chat("Where is it?", "Where is it? "), chat("Where is it?", "Here."), chat("ok", "ok")]
    assert found(tmp_path, rows)["echo"].keys() == {1}


@pytest.mark.parametrize(
    ("text", "speaks"),
    [
        ("As an AI language model, I cannot do that.", True),
        ("I'm ChatGPT, and I am here to help.", True),
        ("I was created by OpenAI.", True),
        ("I'm sorry, but I can't assist with that.", True),
        ("As of my knowledge cutoff in 2021, no.", True),
        ("GPT-3 was created by OpenAI in 2020.", False),
        ("I am an AI assistant developed by the red team.", False),
        ("As an AI assistant of the red team, I can help.", False),
        ("I'm sorry, but I can't find the file you mean.", False),
        ("A language model predicts words.", False),
    ],
)
def test_sentences_of_other_assistants(tmp_path: Path, text: str, speaks: bool) -> None:
    assert ("refusal" in found(tmp_path, [chat("Who?", text)])) == speaks


@pytest.mark.parametrize(
    ("text", "breaks_off"),
    [
        ("Here is the code:\n```python\nprint(1)\n```\nDone.", False),
        ("Here is the code:\n```python\nprint(1", True),
        ("```python\nprint(1)\n```", False),
        ("```python\nprint(1)", True),
        (f"{STORY} and then they all went to the", True),
        (f"{STORY} with apples, pears,", True),
        (f"{STORY}.", False),
        ("a, b, and", False),
        (f"{STORY}, which is what I came for", False),
    ],
)
def test_answers_that_break_off(tmp_path: Path, text: str, breaks_off: bool) -> None:
    assert ("cut_off" in found(tmp_path, [chat("Tell.", text)])) == breaks_off


def test_one_answer_to_everything(tmp_path: Path) -> None:
    rows = [chat(f"Question {n}?", "Please contact our support team.") for n in range(12)]
    rows += [chat(f"Is {n} even?", "yes") for n in range(40)]
    common = found(tmp_path, rows)["common_answer"]
    assert common.keys() == set(range(1, 13))
    assert common[1] == "12 rows have this answer, row 1 is the first"


def test_rows_unlike_the_others_in_length_and_letters(tmp_path: Path) -> None:
    rows = [chat(f"Question number {n}?", f"{STORY} {n}.") for n in range(99)]
    rows += [chat("Question?", "Да, это ответ на русском языке.")]
    rows[10] = chat("Question number?", "Yes!")
    rows[20] = chat("Question number?", "long " * 3000)
    by_kind = found(tmp_path, rows)
    assert by_kind["short_answer"].keys() == {11}
    assert by_kind["long_row"].keys() == {21}
    assert by_kind["other_script"] == {100: "written in Cyrillic, most rows in Latin"}


def test_where_half_is_otherwise_nothing_is_unusual(tmp_path: Path) -> None:
    rows = [chat(f"Question {n}?", "4" if n % 2 else STORY + str(n)) for n in range(60)]
    rows += [chat(f"Вопрос {n}?", f"Да, это {n}-й ответ на русском языке.") for n in range(60)]
    assert not {"short_answer", "other_script", "long_row"} & found(tmp_path, rows).keys()


KEY = (
    "-----BEGIN RSA PRIVATE KEY-----\n"
    + "MIIEpAIBAAKCAQEA1c7+9z5Pad7OejecsQ0bu\n" * 3
    + "-----END RSA PRIVATE KEY-----"
)
TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (f"Use this:\n{KEY}\nDone.", "Use this:\n[private key]\nDone."),
        ("key AKIAZ7Q4W2E9R8T6Y1U3 here", "key [access key] here"),
        ("ghp_a8Fk2Lq9Zx7Cv5Bn3Mw1Er4Ty6Ui8Op0Qs2D", "[access key]"),
        ("sk-proj-a8Fk2Lq9Zx7Cv5Bn3Mw1Er4Ty6Ui8Op0Qs2D", "[access key]"),
        (f"Bearer {TOKEN}", "Bearer [token]"),
        ("postgres://app:hunter2x@db.lan/app", "postgres://app:[password]@db.lan/app"),
        ("AKIAIOSFODNN7EXAMPLE and sk-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", None),
        ("postgres://user:password@host/db and redis://u:${PASSWORD}@h", None),
        ("a task-based approach-to-everything-that-is-long-enough-to-match-it", None),
        ("sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855", None),
    ],
)
def test_keys_and_passwords(tmp_path: Path, text: str, masked: str | None) -> None:
    by_kind = found(tmp_path, [chat("Help?", text)])
    assert ("secret" in by_kind) == (masked is not None)
    assert mask_text(text, "secret") == (masked or text)
    assert text[-12:] not in str(by_kind.get("secret")), "what was found is not told again"


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Write to mia.berg@firma-nord.de.", "Write to [e-mail address]."),
        ("Call +49 30 901820 or +1 (415) 555-0132.", "Call [phone number] or [phone number]."),
        ("Pay DE89 3704 0044 0532 0130 00 today", "Pay [IBAN] today"),
        ("Card 4539 1488 0343 6467.", "Card [card number]."),
        ("Write to jane@example.com or icon@2x.png", None),
        ("Pay DE88 3704 0044 0532 0130 00 today", None),
        ("Number 4539 1488 0343 6468 and 1234 5678 9012 3456", None),
        ("1 + 2 = 3, x+15 20 30, 2026-11-21 10:35, version 1.2.3", None),
        ("@decorator and user@host", None),
        ("pi is 3.14159265358979323846264338327950288", None),
    ],
)
def test_personal_data(tmp_path: Path, text: str, masked: str | None) -> None:
    by_kind = found(tmp_path, [chat("Help?", text)])
    assert ("personal" in by_kind) == (masked is not None)
    assert mask_text(text, "personal") == (masked or text)


def test_masking_leaves_nothing_to_find() -> None:
    text = f"{KEY} {TOKEN} postgres://app:hunter2x@db.lan/app mia@firma.de +49 30 901820, 4539 1488 0343 6467"
    for kind in ("secret", "personal"):
        text = mask_text(text, kind)
    assert "hunter2x" not in text and "mia" not in text and "4539" not in text
    assert {mask_text(text, pattern.kind) for pattern in PATTERNS} == {text}


@pytest.mark.parametrize("text", ["a" * 200_000, "1 " * 100_000, "-----BEGIN PRIVATE KEY-----" * 4000, "a@" * 100_000])
def test_no_text_takes_long(text: str) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    for kind in ("secret", "personal"):
        mask_text(text, kind)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - before < 2


def test_the_same_rows_give_the_same_findings(tmp_path: Path) -> None:
    dice = random.Random(5)
    rows = [chat("Tell.", variant(STORY, (dice.randrange(30), f"w{n}"))) for n in range(60)]
    first, second = tmp_path / "first", tmp_path / "second"
    for folder in (first, second):
        folder.mkdir()
    assert found(first, rows) == found(second, rows) != {}


ROW = Row(id="x", line=1)


@settings(max_examples=300, deadline=None)
@given(st.text() | st.text(alphabet="aZ é\u00b5ß_-9\u00a0\u0301“世İß\n.'"))
def test_words_are_those_of_the_pattern(text: str) -> None:
    near = NearDuplicates(Splits())
    near.add(RowText(ROW, [], "before"))
    near.add(RowText(ROW, [], text))
    near.add(RowText(ROW, [], "世 after"))
    expected = [number_of(word) for word in re.findall(r"\w+", text.lower())]
    latin, others = near._latin.take(), near._others.take()
    words = [*latin[0].tolist(), *others[0].tolist()]
    assert words == [number_of("before"), *expected, number_of("世"), number_of("after")]
    assert sorted([*latin[1].tolist(), *(len(latin[0]) + others[1]).tolist()]) == [0, 1, 1 + len(expected)]


def number_of(word: str) -> int:
    """The polynomial of a word's letters, in halves of those beyond 16 bits."""
    units = np.frombuffer(word.encode("utf-16-le"), np.uint16)
    return sum(int(finding_near._CODES[one]) * finding_near._BASE**at for at, one in enumerate(units)) % 2**64


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PATTERNS), st.data())
def test_every_match_of_a_pattern_contains_a_hint(pattern: PrivatePattern, data: st.DataObject) -> None:
    text = data.draw(st.from_regex(pattern.regex, fullmatch=True))
    assert finding_private._has_digits(text) == bool(finding_private._DIGITS.search(text))
    assert pattern.hints is finding_private.DIGITS or pattern.may_be_in(text, has_digits=False)


@settings(max_examples=200, deadline=None)
@given(st.from_regex(finding_texts._OTHER_ASSISTANT.pattern.replace(r"\b", ""), fullmatch=True))
def test_no_sentence_of_another_assistant_is_passed_over_for_want_of_a_hint(text: str) -> None:
    assert finding_texts._may_be_other_assistant(text)


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("hello you", "Latin"),
        ("déjà vu, naïve", "Latin"),
        ("Привет, мир", "Cyrillic"),
        ("漢字かな交じり文です", "Japanese"),
    ],
)
def test_scripts_are_told_by_their_letters(text: str, script: str) -> None:
    assert scripts.NAMES[scripts.script_of(text)] == script
    assert scripts.script_of("1, 2, 3 – “ab”") == 0


def test_keys_in_reasoning_are_found(tmp_path: Path) -> None:
    row = chat("A", "B.")
    row.messages[-1]["reasoning_content"] = "sk-live0Zq8wYh3Tn5Rk7Bv2Cx9Dm4Lp6Gs1"
    assert found(tmp_path, [row])["secret"] == {1: "access key (assistant)"}
