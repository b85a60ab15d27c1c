"""A base model's tokenizer in which only the chat template can write special tokens, never the text of a person."""

import json
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from trainer.errors import TrainerError

# The squares of the lengths of all that is broken up, together: their beginnings and ends are kept as texts. Real
# vocabularies come to some millions.
MOST_SPELT = 1 << 27


@dataclass(frozen=True)
class Marked:
    """A rendered text in which special tokens have private names; `spans` are the template's own generation blocks."""

    text: str
    spans: tuple[tuple[int, int], ...]


class SafeTokenizer:
    """Encodes rendered templates exactly as the plain tokenizer does, apart from special tokens in people's text.

    The trick: inside this tokenizer every special token bears a private name that nobody can guess. People's text is
    broken up before it is rendered (`guard`) where it spells a special token; what is spelt whole afterwards came from
    the template and gets its private name (`mark`). So one pass over the whole text sees the same pieces as ever, and
    a spelt-out `<|im_start|>` of a person is ordinary characters.
    """

    def __init__(self, folder: Path, *, template: str) -> None:
        data = _read_tokenizer(folder)
        added = [token["content"] for token in data["added_tokens"] if token["content"].strip()]
        special = {token["content"] for token in data["added_tokens"] if token.get("special")}
        # Templates also build on added tokens that are not called special (<tool_call>): only answers may hold those.
        structural = {content for content in added if content in template}
        if sum(len(one) ** 2 for one in special | structural) > MOST_SPELT:
            raise TrainerError(
                "user_config", "The tokenizer's special tokens are far too long.", "Choose another base model."
            )
        self._plain = Tokenizer.from_str(json.dumps(data))
        self._is_byte_level = "ByteLevel" in json.dumps(data.get("decoder"))
        nonce = secrets.token_hex(12)  # letters and digits survive every filter of a template; nobody can guess them
        self.marks = (f"g{nonce}a", f"g{nonce}z")  # what a ChatTemplate is to put around generation blocks
        self._guard = f"u{nonce}"
        renamed = sorted(special | structural, key=len, reverse=True)
        self._private = {content: f"<{nonce}.{number}>" for number, content in enumerate(renamed)}
        self._public = {name: content for content, name in self._private.items()}
        self._tokenizer = Tokenizer.from_str(json.dumps(_rename(data, self._private)))
        self._ids = {content: self._plain.token_to_id(content) for content in renamed}
        for content, name in self._private.items():
            if self._tokenizer.token_to_id(name) != self._ids[content]:
                raise TrainerError("user_config", f"The tokenizer's special token {content} is ambiguous.")
        self._in_answers = _Spelling(special)
        self._elsewhere = _Spelling(special | structural)
        self._private_name = re.compile(rf"<{nonce}\.\d+>")
        self._meaningful = re.compile("|".join(map(re.escape, (*self.marks, self._guard, *renamed))))

    def first_ids(self) -> list[int]:
        """What this tokenizer itself puts before every text, such as a token that begins a document."""
        with_it, without = (self._plain.encode("a", add_special_tokens=one).ids for one in (True, False))
        return with_it[: with_it.index(without[0])]

    def last_ids(self) -> list[int]:
        """What this tokenizer itself puts after every text, such as a token that ends it."""
        with_it, without = (self._plain.encode("a", add_special_tokens=one).ids for one in (True, False))
        return with_it[with_it.index(without[0]) + len(without) :]

    def guard(self, value: Any, *, answer: bool = False) -> Any:
        """`value` with every special token spelt in its strings broken up, keys included."""
        spelling = self._in_answers if answer else self._elsewhere
        if isinstance(value, str):
            return spelling.broken_up(value, self._guard)
        if isinstance(value, dict):
            return {self.guard(key, answer=answer): self.guard(one, answer=answer) for key, one in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.guard(one, answer=answer) for one in value]
        return value

    def mark(self, rendered: str) -> Marked:
        """Give the template's special tokens their private names, mend guarded text, note and remove `marks`."""
        pieces: list[str] = []
        starts: list[int] = []
        spans: list[tuple[int, int]] = []
        length = last = 0
        for match in self._meaningful.finditer(rendered):
            found = match.group()
            new = rendered[last : match.start()]
            pieces.append(new)
            length += len(new)
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
        """Ids of a marked text, and the characters each came from."""
        try:
            encoding = self._tokenizer.encode(text, add_special_tokens=False)
        except UnicodeEncodeError as error:
            raise TrainerError(
                "dataset_invalid", "A text holds half of a character pair (a lone surrogate).", "Save it as UTF-8."
            ) from error
        return encoding.ids, encoding.offsets

    def public(self, text: str) -> str:
        """A marked text with the special tokens' own names."""
        return self._private_name.sub(lambda match: self._public[match.group()], text)

    def end_of_next(self, text: str, *, start: int, ids: Iterable[int]) -> int | None:
        """Where the first of the special tokens `ids` ends in a marked text from `start` on."""
        wanted = set(ids)
        for match in self._private_name.finditer(text, start):
            if self._ids[self._public[match.group()]] in wanted:
                return match.end()
        return None

    def special_id(self, content: str) -> int | None:
        return self._ids.get(content)

    def first_special(self, text: str, *, start: int) -> int | None:
        """The id of the first special token in a marked text from `start` on."""
        match = self._private_name.search(text, start)
        return self._ids[self._public[match.group()]] if match else None

    def encode_raw(self, text: str) -> list[int]:
        """As the plain tokenizer encodes: special tokens count wherever they are spelt."""
        return list(self._plain.encode(text).ids)

    @property
    def size(self) -> int:
        return int(self._plain.get_vocab_size())

    @property
    def special_ids(self) -> frozenset[int]:
        return frozenset(one for one in self._ids.values() if one is not None)

    def piece(self, token: int) -> bytes:
        """What one token stands for."""
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
    """Byte-level vocabularies write each byte as a visible character (Radford et al. 2019, GPT-2)."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + at): byte for at, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()


class _Spelling:
    """Finds where a text spells special tokens, whole or cut at its edge (the other half may stand next to it)."""

    def __init__(self, tokens: Iterable[str]) -> None:
        listed = sorted(tokens, key=len, reverse=True)
        spelt = (f"{re.escape(token[0])}(?={re.escape(token[1:])})" for token in listed)
        self._whole = re.compile("|".join(spelt) or "(?!)")
        self._heads = tuple({token[:cut] for token in listed for cut in range(1, len(token))})
        self._tails = tuple({token[cut:] for token in listed for cut in range(1, len(token))})

    def broken_up(self, text: str, guard: str) -> str:
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
        raise TrainerError("user_config", f"The base model's tokenizer.json is no valid JSON: {error}.") from error
    if not isinstance(data, dict) or not isinstance(data.get("model"), dict):
        raise TrainerError("user_config", "The base model's tokenizer.json does not describe a tokenizer.")
    return {**data, "truncation": None, "padding": None, "added_tokens": data.get("added_tokens") or []}


def _rename(data: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    """The tokenizer with other names for some tokens: same ids, same pieces of text."""
    model = dict(data["model"])
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    else:  # unigram: a list of pieces with their scores
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if model.get("merges"):  # a merge must not lead to the public name, which is no token any more
        model["merges"] = [merge for merge in model["merges"] if _merged(merge) not in names]
    added = [{**token, "content": names.get(token["content"], token["content"])} for token in data["added_tokens"]]
    return {**data, "model": model, "added_tokens": added, "post_processor": None}


def _merged(merge: str | list[str]) -> str:
    return merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge)
