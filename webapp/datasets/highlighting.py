"""Where in a text stands what was searched for: pieces to show, the found ones marked."""

import re
import unicodedata

from trainer.formats.searching import segmented, terms_of

MOST_LOOKED_AT = 200_000  # characters of one text
LEAD = 60  # characters before the first match, where that stands far inside

Piece = tuple[str, bool]  # text, and whether it was searched for


class _Folds(dict[int, str]):
    """Each letter without its accent and in lower case, one letter for one, so that places stay the same."""

    def __missing__(self, code: int) -> str:
        plain = unicodedata.normalize("NFD", chr(code))[0].lower()
        self[code] = plain if len(plain) == 1 else chr(code)
        return self[code]


_FOLDS = _Folds()


def pattern_of(typed: str) -> "re.Pattern[str] | None":
    """Finds the words and phrases of a search in folded text; None when there are none."""
    parts = [_part(text.translate(_FOLDS), longer=longer) for text, longer in terms_of(typed)]
    return re.compile("|".join(parts)) if parts else None


def _part(text: str, *, longer: bool) -> str:
    words = r"\W+".join(re.escape(word) for word in re.findall(r"\w+", text))
    if segmented(text) != text:
        return words  # of a script without spaces: any part of a word
    return rf"(?<!\w){words}" + ("" if longer else r"(?!\w)")


def has_match(text: str, pattern: "re.Pattern[str]") -> bool:
    return pattern.search(text[:MOST_LOOKED_AT].translate(_FOLDS)) is not None


def excerpt(text: str, pattern: "re.Pattern[str] | None", most: int) -> list[Piece]:
    """At most so many characters, from the beginning or from shortly before the first match."""
    if pattern is None:
        return [(text[:most], False)]
    folded = text[:MOST_LOOKED_AT].translate(_FOLDS)
    first = pattern.search(folded)
    start = first.start() - LEAD if first and first.start() > 2 * LEAD else 0
    pieces: list[Piece] = [("…", False)] if start else []
    stop = start + most
    place = start
    for match in pattern.finditer(folded, start, stop):
        pieces += [(text[place : match.start()], False), (text[match.start() : match.end()], True)]
        place = match.end()
    return [piece for piece in [*pieces, (text[place:stop], False)] if piece[0]]
