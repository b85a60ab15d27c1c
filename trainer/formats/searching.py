"""What a row says as text that can be searched, and how what a person types becomes a query that cannot fail."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from trainer.formats.canonical import Message, Row, canonical_json
from trainer.formats.scripts import script_in

# Scripts that put no spaces between words: each of their letters is a word of its own, so that any part of a sentence
# is found. Thai to Myanmar, Khmer, kana to CJK, Hangul, compatibility forms, and the supplementary ideographs.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+)"
)
_TERMS = re.compile(r'"([^"]*)"?|(\S+)')

TOKENIZER = "unicode61 remove_diacritics 2 categories 'L* N* Co M*'"  # marks are parts of words: हिन्दी is one word
MOST_TERMS = 12
LEAST_PREFIX = 4  # letters; what a shorter beginning stands for is too many words to look through unasked


@dataclass(frozen=True)
class Said:
    """A row and what all looks at in it, taken out once. words: all texts, segmented."""

    row: Row
    texts: list[tuple[str, str]]
    words: str

    @classmethod
    def of(cls, row: Row) -> "Said":
        texts = list(texts_of(row))
        return cls(row, texts, segmented("\n".join([text for _, text in texts])))

    @cached_property
    def script(self) -> int:
        """The number of the letters that it is written in."""
        return script_in([text for _, text in self.texts])


def texts_of(row: Row) -> Iterator[tuple[str, str]]:
    """All that a row says, with who says it."""
    if row.text is not None:
        yield "text", row.text
    for messages in (row.messages, row.prompt, row.chosen, row.rejected, row.completion):
        for message in messages:
            yield from _said(message)


def _said(message: Message) -> Iterator[tuple[str, str]]:
    if "reasoning_content" in message:
        yield message["role"], message["reasoning_content"]
    if message["content"]:
        yield message["role"], message["content"]
    for call in message.get("tool_calls", ()):
        yield message["role"], f"{call['function']['name']} {canonical_json(call['function']['arguments'])}"


def segmented(text: str) -> str:
    """The text with spaces between what counts as words."""
    if text.isascii():
        return text
    try:
        text.encode("latin-1")  # the letters of western Europe alone: told in a hundredth of the time
    except UnicodeEncodeError:
        return _UNSPACED.sub(lambda run: f" {' '.join(run[1])} ", text)
    return text


def terms_of(typed: str) -> list[tuple[str, bool]]:
    """What a person looks for: phrases in quotes and words, each with whether longer words count as well.

    They do for words of LEAST_PREFIX letters, and for those that end in a star.
    """
    found = [_term(phrase, word) for phrase, word in _TERMS.findall(typed)]
    return [(text, longer) for text, longer in found if any(one.isalnum() for one in text)][:MOST_TERMS]


def _term(phrase: str, word: str) -> tuple[str, bool]:
    bare = word.rstrip("*")
    letters = _last_word(bare)  # it is the one whose beginning would be looked for
    return phrase or bare, letters >= LEAST_PREFIX or (bare != word and letters > 1)


def _last_word(text: str) -> int:
    """How many letters, digits and marks the last word of a text has."""
    count = 0
    for one in reversed(text):
        if unicodedata.category(one)[0] in "LNM":
            count += 1
        elif count:
            break
    return count


def as_query(typed: str) -> str:
    """The query in the language of FTS5, every word quoted; empty when nothing can be looked for."""
    parts = []
    for text, longer in terms_of(typed.replace("\0", " ")):
        quoted = segmented(text).strip().replace('"', '""')
        parts.append(f'"{quoted}"' + ("*" if longer else ""))
    return " AND ".join(parts)
