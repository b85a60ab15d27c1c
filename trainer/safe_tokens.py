"""A tokenizer that is safe from special-token injection: only the chat template can write special tokens."""

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trainer.errors import TrainerError

# Limit of the sum of squared lengths of special tokens, as all prefixes and suffixes of each are stored. Real
# vocabularies reach a few million.
MAX_SQUARED_LENGTHS = 1 << 27


@dataclass(frozen=True)
class Marked:
    """A rendered text with private names for special tokens. `spans`: the template's generation blocks."""

    text: str
    spans: tuple[tuple[int, int], ...]


class SafeTokenizer:
    """Encodes rendered templates exactly as the plain tokenizer does, except for special tokens spelt in messages.

    Inside this tokenizer every special token has an unguessable private name. Before rendering, `guard` breaks up the
    special tokens that messages spell, so any that the rendered text contains come from the template; `mark` replaces
    these by their private names. The text is then encoded in one pass, in which `<|im_start|>` typed by a user is
    ordinary characters.
    """

    def __init__(self, folder: Path, *, template: str) -> None:
        data = _read_tokenizer(folder)
        added = [token["content"] for token in data["added_tokens"] if token["content"].strip()]
        special = {token["content"] for token in data["added_tokens"] if token.get("special")}
        # Templates also use added tokens that are not marked special (<tool_call>). Only answers may contain those.
        structural = {content for content in added if content in template}
        if sum(len(one) ** 2 for one in special | structural) > MAX_SQUARED_LENGTHS:
            raise TrainerError(
                "user_config", "The tokenizer's special tokens are far too long.", "Choose another base model."
            )
        self._plain = Tokenizer.from_str(json.dumps(data))
        self._is_byte_level = "ByteLevel" in json.dumps(data.get("decoder"))
        nonce = secrets.token_hex(12)  # unguessable, and letters and digits survive any template filter
        self.marks = (f"g{nonce}a", f"g{nonce}z")  # what a ChatTemplate puts around generation blocks
        self._guard = f"u{nonce}"
        renamed = sorted(special | structural, key=len, reverse=True)
        self._private = {content: f"<{nonce}.{number}>" for number, content in enumerate(renamed)}
        self._public = {name: content for content, name in self._private.items()}
        self._tokenizer = Tokenizer.from_str(json.dumps(_rename(data, self._private)))
        self._ids = {content: self._plain.token_to_id(content) for content in renamed}
        for content, name in self._private.items():
            if self._tokenizer.token_to_id(name) != self._ids[content]:
                raise TrainerError("user_config", f"The tokenizer's special token {content} is ambiguous.")
        self._answer_breaker = _TokenBreaker(special)
        self._breaker = _TokenBreaker(special | structural)
        self._private_name = re.compile(rf"<{nonce}\.\d+>")
        self._to_replace = re.compile("|".join(map(re.escape, (*self.marks, self._guard, *renamed))))

    def first_ids(self) -> list[int]:
        """The ids that the tokenizer adds before every text, such as BOS."""
        added, plain = (self._plain.encode("a", add_special_tokens=one).ids for one in (True, False))
        return added[: added.index(plain[0])]

    def last_ids(self) -> list[int]:
        """The ids that the tokenizer adds after every text, such as EOS."""
        added, plain = (self._plain.encode("a", add_special_tokens=one).ids for one in (True, False))
        return added[added.index(plain[0]) + len(plain) :]

    def guard(self, value: Any, *, answer: bool = False) -> Any:
        """`value` with the special tokens spelt in its strings and keys broken up."""
        breaker = self._answer_breaker if answer else self._breaker
        if isinstance(value, str):
            return breaker.break_up(value, self._guard)
        if isinstance(value, dict):
            return {self.guard(key, answer=answer): self.guard(one, answer=answer) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.guard(one, answer=answer) for one in value]
        return value

    def mark(self, rendered: str) -> Marked:
        """Replace special tokens by their private names, undo `guard`, and turn `marks` into spans."""
        pieces: list[str] = []
        starts: list[int] = []
        spans: list[tuple[int, int]] = []
        length = last = 0
        for match in self._to_replace.finditer(rendered):
            found = match.group()
            unchanged = rendered[last : match.start()]
            pieces.append(unchanged)
            length += len(unchanged)
            last = match.end()
            if found == self.marks[0]:
                starts.append(length)
            elif found == self.marks[1] and starts:
                spans.append((starts.pop(), length))
            elif found in self._private:
                pieces.append(self._private[found])
                length += len(self._private[found])
        return Marked("".join([*pieces, rendered[last:]]), tuple(spans))

    def encode(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a marked text, and each token's character offsets."""
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        except UnicodeEncodeError as error:
            raise TrainerError(
                "dataset_invalid", "A text contains half of a surrogate pair.", "Save it as UTF-8."
            ) from error
        return encoding.ids, encoding.offsets

    def public(self, text: str) -> str:
        """A marked text with the private names replaced by the special tokens."""
        return self._private_name.sub(lambda match: self._public[match.group()], text)

    def end_of_next(self, text: str, *, start: int, ids: Iterable[int]) -> int | None:
        """Where the first special token in `ids` ends in a marked text, searching from `start`."""
        wanted = set(ids)
        for match in self._private_name.finditer(text, start):
            if self._ids[self._public[match.group()]] in wanted:
                return match.end()
        return None

    def special_id(self, content: str) -> int | None:
        return self._ids.get(content)

    def first_special(self, text: str, *, start: int) -> int | None:
        """The id of the first special token in a marked text, searching from `start`."""
        match = self._private_name.search(text, start)
        return self._ids[self._public[match.group()]] if match else None

    def encode_raw(self, text: str) -> list[int]:
        """Encode with the plain tokenizer, which recognises special tokens wherever they are spelt."""
        return list(self._plain.encode(text).ids)

    @property
    def size(self) -> int:
        return int(self._plain.get_vocab_size())

    @property
    def largest_id(self) -> int:
        return max(self._plain.get_vocab().values(), default=0)

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(one for one in self._ids.values() if one is not None)

    def token_bytes(self, token: int) -> bytes:
        """The bytes of one token."""
        piece = self._plain.id_to_token(token) or ""
        if token in self._ids.values():
            return piece.encode()
        if self._is_byte_level:
            return bytes(BYTE_OF_CHARACTER[one] for one in piece if one in BYTE_OF_CHARACTER)
        if match := re.fullmatch("<0x([0-9A-F]{2})>", piece):
            return bytes.fromhex(match[1])
        return piece.replace("\u2581", " ").encode()

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        return str(self._plain.decode(list(ids), skip_special_tokens=skip_special))


def _byte_of_character() -> dict[str, int]:
    """Byte-level BPE represents each byte by a visible character (Radford et al. 2019, GPT-2)."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + at): byte for at, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()


class _TokenBreaker:
    """Breaks up special tokens spelt in a text, also partial ones at its ends, which adjacent text might complete."""

    def __init__(self, tokens: Iterable[str]) -> None:
        listed = sorted(tokens, key=len, reverse=True)
        spelt = (f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in listed)
        self._whole = re.compile("|".join(spelt) or "(?!)")
        self._heads = tuple({token[:cut] for token in listed for cut in range(1, len(token))})
        self._tails = tuple({token[cut:] for token in listed for cut in range(1, len(token))})

    def break_up(self, text: str, guard: str) -> str:
        body = text.strip()
        if not body:
            return text
        broken = self._whole.sub(lambda match: match.group() + guard, body)
        if body.startswith(self._tails):
            broken = guard + broken
        if body.endswith(self._heads):
            broken += guard
        return text if broken == body else text.replace(body, broken, 1)


def _read_tokenizer(folder: Path) -> dict[str, Any]:
    try:
        data = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainerError(
            "user_config", "The base model has no tokenizer.json.", "Choose a base model that ships one."
        ) from error
    except ValueError as error:
        raise TrainerError("user_config", f"The base model's tokenizer.json is not valid JSON: {error}.") from error
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise TrainerError("user_config", "The base model's tokenizer.json does not describe a tokenizer.")
    return {**data, "truncation": None, "padding": None, "added_tokens": data.get("added_tokens") or []}


def _rename(data: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """Rename tokens of the tokenizer; ids and segmentation stay the same."""
    model = dict(data["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): token for piece, token in vocabulary.items()}
    else:  # unigram: (piece, score)
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):  # no merge may produce an old name, which is no longer a token
        model["merges"] = [merge for merge in model["merges"] if _merged(merge) not in names]
    added = [{**token, "content": names.get(token["content"], token["content"])} for token in data["added_tokens"]]
    return {**data, "model": model, "added_tokens": added, "post_processor": None}


def _merged(merge: str | list[str]) -> str:
    return merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge)
