"""Keys, passwords, numbers, loops and garbled letters: what is found in a row, and what only looks like it."""

import pytest

from trainer.formats.canonical import Row
from trainer.formats.finding_private import find_private
from trainer.formats.finding_texts import empty_answer, garbled, looping
from trainer.formats.searching import RowText


def row(answer: str) -> Row:
    said = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": answer}]
    return Row(id="a", line=1, messages=said)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("password: hunter2secret!", "secret"),
        ('PASSWORD="tr0ub4dor-and-3"', "secret"),
        ("Authorization: Bearer 8f3kD02mAq71LpXz55wQ", "secret"),
        ("aws_secret_access_key = wJalrXUtnFEMI7K7MDENGbPxRfiCYzzzKEY12345", "secret"),
        ("Call (555) 123-4567 now", "personal"),
        ("My SSN is 123-45-6789.", "personal"),
        ("Your password is at least 8 characters long.", ""),
        ("password: str = Field(min_length=8)", ""),
        ("password=hashlib.sha256(raw)", ""),
        ("Authorization: Bearer YOUR_ACCESS_TOKEN_HERE_12", ""),
        ("aws_secret_access_key = wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY12", ""),
        ("Call (212) 555-0123 now", ""),
        ("Part 123-45-6789 of the list", ""),
    ],
)
def test_private_things_of_few_false_alarms(text: str, kind: str) -> None:
    assert set(find_private(RowText.of(row(text)))) == ({kind} if kind else set())


@pytest.mark.parametrize(
    ("answer", "loops"),
    [
        ("It is so. " + "I am sorry, I do not know that at all. " * 8, True),
        ("A table:\n" + "| --- | --- | --- |\n" * 20, False),
        ("One sentence, and another one that is longer. " * 2, False),
    ],
)
def test_answers_that_loop(answer: str, loops: bool) -> None:  # noqa: FBT001 # what is expected
    assert bool(looping(row(answer))) == loops


@pytest.mark.parametrize(
    ("answer", "empty"),
    [("<think>Hm.</think>", True), ("<think>Hm", True), ("<think>Hm.</think>Yes.", False), ("Yes <think>", False)],
)
def test_a_thought_alone_is_no_answer(answer: str, empty: bool) -> None:  # noqa: FBT001 # what is expected
    assert bool(empty_answer(row(answer))) == empty


@pytest.mark.parametrize(
    ("text", "seen"),
    [("CafÃ© and more", True), ("Itâ€™s", True), ("São Paulo, MÃE, café", False), ("â la carte", False)],
)
def test_garbled_letters(text: str, seen: bool) -> None:  # noqa: FBT001 # what is expected
    assert bool(garbled(row(text))) == seen
