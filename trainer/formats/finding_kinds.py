"""The kinds of findings of a survey: meaning, confidence and fix of each."""

import re
from dataclasses import dataclass
from typing import Literal

Fix = Literal["", "remove", "first", "mask"]  # first: removes rows that repeat an earlier one, which stays
Sure = Literal["certain", "likely", "a hint"]


@dataclass(frozen=True)
class FindingKind:
    """title: for a list of rows. meaning: one sentence. label: for one row, as in a filter.

    why_not: why there is no fix for all of them at once. names: whether the detail of a row names another row.
    """

    name: str
    title: str
    label: str
    meaning: str
    sure: Sure
    fix: Fix = ""
    button: str = ""
    why_not: str = ""
    names: bool = False


KINDS = (
    FindingKind(
        "secret",
        "Likely keys and passwords",
        "holds a key or password",
        "A text looks like an API key, a private key, a token or a written-out password; a model may repeat it.",
        "likely",
        "mask",
        "Mask them",
    ),
    FindingKind(
        "personal",
        "Likely personal data",
        "holds personal data",
        "A text holds an e-mail address, a phone, card or social security number, or an IBAN; a model may repeat it.",
        "likely",
        "mask",
        "Mask them",
    ),
    FindingKind(
        "in_two_splits",
        "In two splits",
        "is in two splits",
        "The same row is also in the rows to learn from, so evaluating on it flatters the model.",
        "certain",
        "remove",
        "Remove them from the evaluation split",
        names=True,
    ),
    FindingKind(
        "nearly_in_two_splits",
        "Nearly the same in two splits",
        "is nearly in two splits",
        "A row to learn from has almost the same words, so evaluating on this one flatters the model.",
        "likely",
        "remove",
        "Remove them from the evaluation split",
        names=True,
    ),
    FindingKind(
        "repeated",
        "Repeated rows",
        "repeats an earlier row",
        "The row is the same as an earlier one, and counts once more in training.",
        "certain",
        "remove",
        "Keep the first of each",
        names=True,
    ),
    FindingKind(
        "near_duplicate",
        "Nearly repeated rows",
        "nearly repeats an earlier row",
        "The row has almost the same words as an earlier one.",
        "likely",
        "remove",
        "Keep the first of each",
        names=True,
    ),
    FindingKind(
        "answered_differently",
        "Same question, different answers",
        "is answered differently elsewhere",
        "Another row asks exactly the same and answers otherwise, so the model learns a mixture.",
        "certain",
        fix="first",
        button="Keep the first answer to each",
        names=True,
    ),
    FindingKind(
        "empty_answer",
        "Empty answers",
        "has an empty answer",
        "The answer says nothing: it is blank, or only a placeholder such as “N/A”.",
        "certain",
        "remove",
        "Remove them",
    ),
    FindingKind(
        "empty_message",
        "Empty messages",
        "has an empty message",
        "A message of the system or of a tool is empty.",
        "certain",
        why_not="A tool may well return nothing, so it can be intended. Open the rows and correct them one by one.",
    ),
    FindingKind(
        "echo",
        "Answers that repeat the question",
        "answers with the question",
        "The answer is the question once more, word for word.",
        "certain",
        "remove",
        "Remove them",
    ),
    FindingKind(
        "refusal",
        "Sentences of other assistants",
        "speaks as another assistant",
        "An answer speaks as some other assistant does (“As an AI language model …”); the model will say so too.",
        "likely",
        "remove",
        "Remove them",
    ),
    FindingKind(
        "common_answer",
        "One answer for many questions",
        "has a very common answer",
        "Many rows have this very answer, so the model may give it to everything.",
        "certain",
        fix="first",
        button="Keep the first of each answer",
        names=True,
    ),
    FindingKind(
        "cut_off",
        "Answers that break off",
        "has an answer that breaks off",
        "The answer ends in the middle: after a comma, an unfinished phrase, or inside a code block.",
        "likely",
        "remove",
        "Remove them",
    ),
    FindingKind(
        "looping",
        "Answers that loop",
        "has an answer that loops",
        "The answer ends by saying the same words again and again; a model may learn not to stop.",
        "likely",
        "remove",
        "Remove them",
    ),
    FindingKind(
        "garbled",
        "Garbled letters",
        "holds garbled letters",
        "The text was once read in a wrong encoding, as in “Ã©” for “é”; better export the file again from its source.",
        "likely",
        "remove",
        "Remove them",
    ),
    FindingKind(
        "short_answer",
        "Unusually short answers",
        "has an unusually short answer",
        "The answer is far shorter than nearly all others.",
        "a hint",
        fix="remove",
        button="Remove them",
    ),
    FindingKind(
        "long_row",
        "Unusually long rows",
        "is unusually long",
        "The row is far longer than nearly all others; training may truncate it.",
        "a hint",
        fix="remove",
        button="Remove them",
    ),
    FindingKind(
        "other_script",
        "Written in another script",
        "is written in another script",
        "The row is written in a different script than nearly all others.",
        "a hint",
        fix="remove",
        button="Remove them",
    ),
)
BY_NAME = {kind.name: kind for kind in KINDS}
_OTHER = re.compile(r"\brow ([\d,]+)")


def other_row(detail: str) -> int | None:
    """The row number in a detail, for kinds whose `names` is true."""
    found = _OTHER.search(detail)
    return int(found[1].replace(",", "")) if found else None
