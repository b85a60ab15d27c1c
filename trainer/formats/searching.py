"""The searchable text of a row, and FTS5 queries that are valid whatever a person types."""

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from trainer.formats.canonical import Message, Row, canonical_json
from trainer.formats.scripts import script_in

# Scripts without spaces between words: each letter counts as a word, so that any substring is found.
# Thai to Myanmar, Khmer, kana to CJK, Hangul, compatibility forms, and the supplementary ideographs.
_UNSPACED = re.compile(
    "([\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\U00020000-\U0003ffff]+)"
)
_TERMS = re.compile(r'"([^"]*)"?|(\S+)')

TOKENIZER = "unicode61 remove_diacritics 2 categories 'L* N* Co M*'"  # marks belong to words: हिन्दी is one word
MAX_TERMS = 12
MIN_PREFIX = 4  # letters; shorter prefixes match too many words


@dataclass(frozen=True)
class RowText:
    """A row and its texts, extracted once for all findings. words: all texts, segmented."""

    row: Row
    texts: list[tuple[str, str]]
    words: str

    @classmethod
    def of(cls, row: Row) -> "RowText":
        texts = list(texts_of(row))
        return cls(row, texts, segmented("\n".join([text for _, text in texts])))

    @cached_property
    def script(self) -> int:
        """The script number of the row."""
        return script_in([text for _, text in self.texts])


def texts_of(row: Row) -> Iterator[tuple[str, str]]:
    """All texts of a row, each with its role."""
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
    """The text with spaces between everything that counts as a word."""
    if text.isascii():
        return text
    try:
        text.encode("latin-1")  # takes a hundredth of the regex's time
    except UnicodeEncodeError:
        return _UNSPACED.sub(lambda run: f" {' '.join(run[1])} ", text)
    return text


def terms_of(typed: str) -> list[tuple[str, bool]]:
    """The words and quoted phrases of a search, each with whether it also matches longer words.

    Words of MIN_PREFIX letters do, and words that end in a star.
    """
    found = [_term(phrase, word) for phrase, word in _TERMS.findall(typed)]
    return [(text, longer) for text, longer in found if any(one.isalnum() for one in text)][:MAX_TERMS]


def _term(phrase: str, word: str) -> tuple[str, bool]:
    bare = word.rstrip("*")
    letters = _last_word(bare)  # the prefix search would apply to the last word
    return phrase or bare, letters >= MIN_PREFIX or (bare != word and letters > 1)


def _last_word(text: str) -> int:
    """The length of the last word of a text, in letters, digits and marks."""
    count = 0
    for one in reversed(text):
        if unicodedata.category(one)[0] in "LNM":
            count += 1
        elif count:
            break
    return count


def as_query(typed: str) -> str:
    """The FTS5 query, with every term quoted; empty if there is nothing to search for."""
    parts = []
    for text, longer in terms_of(typed.replace("\0", " ")):
        quoted = segmented(text).strip().replace('"', '""')
        parts.append(f'"{quoted}"' + ("*" if longer else ""))
    return " AND ".join(parts)
