"""Detects secrets and personal data in texts, and masks them with placeholders.

Deliberately conservative: only well-known formats and numbers with valid check digits.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from trainer.formats.canonical import Row
from trainer.formats.searching import RowText

Hints = Mapping[str, tuple[str, ...]]  # substring -> words of which one must occur too; none: the substring is enough

_COMMON_CHARACTERS = "AISE/:-.ykaoe "  # common in texts, the most frequent last; all others in a hint are rarer
DIGITS: Hints = {}  # for patterns that need many digits


@dataclass(frozen=True)
class PrivatePattern:
    """hints: every match contains one of them; a search for them first is what makes this fast."""

    kind: str
    name: str
    hints: Hints
    regex: re.Pattern[str]
    accepts: Callable[[str], bool] = bool  # a further check of the match
    group: int = 0  # the regex group that is masked

    def may_be_in(self, text: str, *, has_digits: bool) -> bool:
        if self.hints is DIGITS:
            return has_digits
        return any(
            [_rarest(substring) in text and _is_in(substring, words, text) for substring, words in self.hints.items()]
        )

    @property
    def placeholder(self) -> str:
        return f"[{self.name}]"


@cache
def _rarest(substring: str) -> str:
    """The rarest character of a hint: searching for it takes a twentieth of the time of the whole hint."""
    return min(substring, key=_COMMON_CHARACTERS.find)


def _is_in(substring: str, words: tuple[str, ...], text: str) -> bool:
    return substring in text and (not words or any([word in text for word in words]))


def _luhn(text: str) -> bool:
    """The check digit of card numbers (ISO/IEC 7812-1)."""
    digits = [int(one) for one in text if one.isdigit()]
    doubled = [sum(divmod(2 * one, 10)) for one in digits[-2::-2]]
    return len(set(digits)) > 2 and (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _iban(text: str) -> bool:
    """The check digits of an IBAN (ISO 13616)."""
    bare = text.replace(" ", "")
    return 15 <= len(bare) <= 34 and int("".join(str(int(one, 36)) for one in bare[4:] + bare[:4])) % 97 == 1


def _phone(text: str) -> bool:
    return 9 <= sum(map(str.isdigit, text)) <= 15 and len(set(text)) > 5


# Domains reserved for examples (RFC 2606), and image names such as logo@2x.png.
_EXAMPLE_ADDRESS = re.compile(
    r"@(?:[\w-]+\.){0,4}(?:example|test|invalid|localhost)(?:\.(?:com|org|net))?\Z|\.(?:png|jpe?g|gif|svg|webp)\Z"
)


def _is_real_address(address: str) -> bool:
    return not _EXAMPLE_ADDRESS.search(address.lower())


def _is_not_placeholder(password: str) -> bool:
    """False for placeholders, as in `user:password@` and `user:${PASSWORD}@`."""
    word = password.lower()
    return not re.fullmatch(r"[<{$\[%*x.].*|pass(?:word|wd)?|secret|pw|pwd|your.*", word)


def _looks_like_password(word: str) -> bool:
    """Contains letters and digits, which code and prose rarely have after "password:"."""
    return _is_not_placeholder(word) and any(map(str.isdigit, word)) and any(map(str.isalpha, word))


def _looks_random(text: str) -> bool:
    """False for keys in documentation, such as `sk-xxxxxxxx` or `AKIAIOSFODNN7EXAMPLE`."""
    return len(set(text[4:].lower())) > 6 and "example" not in text.lower() and "your" not in text.lower()


_TOKENS = (
    r"(?<![\w-])(?:(?:AKIA|ASIA)[0-9A-Z]{16}|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}|glpat-[\w-]{20,}"
    r"|xox[abprs]-[A-Za-z0-9-]{20,}|[sr]k_live_[A-Za-z0-9]{20,}|sk-(?:proj-|ant-|svcacct-)?[\w-]{32,}"
    r"|AIza[\w-]{35}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[\w-]{50,}|SG\.[\w-]{20,}\.[\w-]{40,})(?![\w-])"
)
_TOKEN_HINTS: Hints = {
    "_": ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "k_live_", "hf_", "npm_"),
    "-": ("glpat-", "sk-", "pypi-"),
    "AKIA": (),
    "ASIA": (),
    "AIza": (),
    "SG.": (),
    "xox": (),
}
_CARD = (
    r"(?<![\w.+-])(?:(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d)(?:[ -]?\d{4}){3}"
    r"|3[47]\d\d[ -]?\d{6}[ -]?\d{5})(?![\w.-]?\d)"
)
_EDGE = r"(?:[A-Z]{2,12} ){0,2}PRIVATE KEY(?: BLOCK)?-----"
_PRIVATE_KEY = rf"-----BEGIN {_EDGE}[\s\S]{{40,}}?(?:-----END {_EDGE}|\Z)"

PATTERNS = (
    PrivatePattern("secret", "private key", {"PRIVATE KEY": ()}, re.compile(_PRIVATE_KEY)),
    PrivatePattern("secret", "access key", _TOKEN_HINTS, re.compile(_TOKENS), _looks_random),
    PrivatePattern("secret", "token", {"eyJ": ()}, re.compile(r"(?<![\w.-])eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]{20,}")),
    PrivatePattern(
        "secret",
        "password",
        {"://": ()},
        re.compile(r"\b[a-z][a-z0-9+.-]{1,20}://[^\s:/@\"'<>]{1,64}:([^\s:/@\"'<>]{3,128})@[\w.-]+"),
        _is_not_placeholder,
        group=1,
    ),
    PrivatePattern(
        "secret",
        "password",
        {":": ("assw", "ASSW"), "=": ("assw", "ASSW")},
        re.compile(
            r"\b(?:[Pp]assw(?:or)?d|PASSW(?:OR)?D)[\"']? {0,2}[:=] {0,2}[\"']?"
            r"([^\s\"'<>,;()\[\]{}]{8,64}+)(?![\w(\[])"
        ),
        _looks_like_password,
        group=1,
    ),
    PrivatePattern(
        "secret",
        "token",
        {"Bearer ": ()},
        re.compile(r"\bBearer +([\w.~+/-]{20,512}=*)(?![\w.])"),
        lambda text: _looks_random(text) and _looks_like_password(text),
        group=1,
    ),
    PrivatePattern(
        "secret",
        "access key",
        {"_": ("aws_secret_", "AWS_SECRET_"), "K": ("SecretAccessKey", "secretAccessKey")},
        re.compile(
            r"(?:aws_secret_(?:access_)?key|AWS_SECRET_(?:ACCESS_)?KEY|[Ss]ecretAccessKey)"
            r"[\"']? {0,2}[:=] {0,2}[\"']?([\w/+]{40})(?![\w/+=])"
        ),
        _looks_random,
        group=1,
    ),
    PrivatePattern(
        "personal",
        "social security number",
        DIGITS,
        re.compile(
            r"(?i:\bSSN|social security)\D{0,24}?(?<!\d)((?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4})(?![\w-])"
        ),
        group=1,
    ),
    PrivatePattern(
        "personal",
        "phone number",
        DIGITS,
        re.compile(r"(?<![\w(])\([2-9]\d{2}\) ?(?!555-01)\d{3}-\d{4}(?![\w-])"),
    ),
    PrivatePattern(
        "personal",
        "e-mail address",
        {"@": ()},
        re.compile(r"(?<![\w.+%/:@-])[\w.+%-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w@])"),
        _is_real_address,
    ),
    PrivatePattern(
        "personal",
        "phone number",
        {"+": ()},
        re.compile(r"(?<![\w+=*/^.-])\+[1-9]\d{0,2}(?:[ ./-]?\(?\d{2,5}\)?){2,5}(?!\w)"),
        _phone,
    ),
    PrivatePattern(
        "personal",
        "IBAN",
        DIGITS,
        re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)"),
        _iban,
    ),
    PrivatePattern("personal", "card number", DIGITS, re.compile(_CARD), _luhn),
)
_DIGITS = re.compile(r"[0-9][0-9 -]{7}")  # in every IBAN and card number
_AS_DIGIT = bytes(ord("0") if chr(one) in "0123456789 -" else ord("x") for one in range(256))


def _has_digits(text: str) -> bool:
    return b"00000000" in text.encode("latin-1", "replace").translate(_AS_DIGIT) and _DIGITS.search(text) is not None


def _matches(pattern: PrivatePattern, text: str, *, has_digits: bool) -> Iterator[re.Match[str]]:
    if pattern.may_be_in(text, has_digits=has_digits):
        yield from (match for match in pattern.regex.finditer(text) if pattern.accepts(match[pattern.group]))


def find_private(row_text: RowText) -> dict[str, str]:
    """What a row contains, by kind of finding, described without repeating any of it."""
    found: dict[str, dict[str, None]] = {}
    whole = "\n".join([text for _, text in row_text.texts])
    has_digits = _has_digits(whole)
    likely = [pattern for pattern in PATTERNS if pattern.may_be_in(whole, has_digits=has_digits)]
    for who, text in row_text.texts if likely else ():
        has_digits = _has_digits(text)
        for pattern in likely:
            if next(_matches(pattern, text, has_digits=has_digits), None):
                found.setdefault(pattern.kind, {})[f"{pattern.name} ({who})"] = None
    return {kind: ", ".join(names) for kind, names in found.items()}


def mask_text(text: str, kind: str) -> str:
    """The text with a placeholder for each match of this kind."""
    has_digits = _has_digits(text)
    for pattern in PATTERNS:
        if pattern.kind == kind:
            for match in reversed(list(_matches(pattern, text, has_digits=has_digits))):
                text = text[: match.start(pattern.group)] + pattern.placeholder + text[match.end(pattern.group) :]
    return text


def mask_row(row: Row, kind: str) -> dict[str, Any]:
    """The row's fields with matches masked in messages, texts and tool arguments."""
    return {name: value if name == "tools" else _masked(value, kind) for name, value in row.shape().items()}


def _masked(value: Any, kind: str) -> Any:
    if isinstance(value, str):
        return mask_text(value, kind)
    if isinstance(value, list):
        return [_masked(one, kind) for one in value]
    if isinstance(value, dict):
        return {key: _masked_member(key, one, kind) for key, one in value.items()}
    return value


def _masked_member(key: str, value: Any, kind: str) -> Any:
    return value if key in ("role", "id", "type", "tool_call_id") else _masked(value, kind)
