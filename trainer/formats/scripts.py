"""Detects the script of a text from Unicode blocks."""

import numpy as np
from numpy.typing import NDArray

SAMPLE = 1500  # characters of a row that are looked at
MIN_LETTERS = 6

# Unicode blocks of one script, or of scripts written together, as ranges for a regex class.
SCRIPTS = {
    "Latin": "A-Za-z\u00c0-\u024f\u1e00-\u1eff",
    "Greek": "\u0370-\u03ff\u1f00-\u1fff",
    "Cyrillic": "\u0400-\u052f",
    "Armenian": "\u0530-\u058f",
    "Hebrew": "\u0590-\u05ff",
    "Arabic": "\u0600-\u06ff\u0750-\u077f\u08a0-\u08ff",
    "Indic": "\u0900-\u0dff",
    "Thai and Lao": "\u0e00-\u0eff",
    "Georgian": "\u10a0-\u10ff",
    "Ethiopic": "\u1200-\u139f",
    "Japanese": "\u3040-\u30ff\u31f0-\u31ff",
    "Chinese": "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff",
    "Korean": "\u1100-\u11ff\uac00-\ud7af",
}
NAMES = ["", *SCRIPTS]
_LATIN = NAMES.index("Latin")
_CHINESE, _JAPANESE = NAMES.index("Chinese"), NAMES.index("Japanese")


def _scripts() -> NDArray[np.uint8]:
    """The script number of each UTF-16 unit."""
    found = np.zeros(2**16, np.uint8)
    for number, blocks in enumerate(SCRIPTS.values(), 1):
        for first, last in zip(blocks[::3], blocks[2::3], strict=True):
            found[ord(first) : ord(last) + 1] = number
    return found


_SCRIPTS = _scripts()
_NO_LETTERS = bytes(one for one in range(128) if not chr(one).isalpha())
_NOT_LATIN = bytes(one for one in range(256) if _SCRIPTS[one] != _LATIN)


def script_of(text: str) -> int:
    """The number of the most frequent script; 0 if there are too few letters."""
    if text.isascii():
        return _LATIN if len(text[:200].encode().translate(None, _NO_LETTERS)) >= MIN_LETTERS else 0
    try:
        return _LATIN if len(text.encode("latin-1").translate(None, _NOT_LATIN)) >= MIN_LETTERS else 0
    except UnicodeEncodeError:
        pass  # other characters too
    characters = np.frombuffer(text.encode("utf-16-le"), np.uint16)
    counts = np.bincount(_SCRIPTS[characters], minlength=len(NAMES))
    counts[0] = 0
    if counts[_JAPANESE]:  # Japanese uses Chinese characters too
        counts[_JAPANESE] += counts[_CHINESE]
    number = int(counts.argmax())
    return number if counts[number] >= MIN_LETTERS else 0


def script_in(texts: list[str]) -> int:
    """The script of several texts together, from the beginning of each."""
    share = SAMPLE // max(1, len(texts)) + 1
    return script_of("".join([text[:share] for text in texts[:SAMPLE]]))
