"""Large files are read by several processes: nothing they find depends on where one stops and the next begins."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.files import GOOD, bad_lines_of, check, rows_of
from trainer.formats import quick, section, sections
from trainer.formats.canonical import Content, canonical_bytes, canonical_json
from trainer.formats.containers.json_text import LineReader
from trainer.formats.containers.record import Notes
from trainer.formats.detect import FAMILIES, other_family
from trainer.formats.family import Family, no_fast_path
from trainer.formats.findings import Statistics
from trainer.formats.section import SectionReader
from trainer.formats.strict import StrictDecoder
from trainer.formats.string_counts import UNSURE, StringCounts

CHAT = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'


def mixed_lines(count: int) -> str:
    rare = {
        7: '{"instruction": "no output"}',
        11: "",
        13: CHAT,
        17: GOOD,
        19: '{"instruction": "a", "output": "b\u2028", "mood": 1}',
        23: "{broken",
        29: json.dumps({"instruction": "long", "output": "x" * 900}),
    }
    lines = [
        next((text for every, text in rare.items() if n % every == every - 1), "")
        if any(n % every == every - 1 for every in rare)
        else json.dumps({"instruction": f"q{n}", "output": "é" * (n % 50) + "."}, ensure_ascii=bool(n % 2))
        for n in range(count)
    ]
    return "\n".join(lines)


def talk_lines(count: int) -> str:
    """Conversations, some of which are longer, hold tools or weights, or are wrong."""
    asked, said = {"role": "user", "content": 'Hi ": '}, {"role": "assistant", "content": "\u00fc\n"}
    rare: dict[int, list[dict[str, Any]]] = {
        5: [{"role": "system", "content": "Be kind."}, asked, said],
        7: [asked, said, asked, said | {"weight": 0}],
        11: [asked],
        13: [{"role": "developer", "content": ""}, asked, said],
        17: [asked, {"role": "assistant", "content": "\0"}],
    }
    rows = ({"messages": next((rare[e] for e in rare if n % e == e - 1), [asked, said])} for n in range(count))
    odd = {3: '{"messages" : []}', 8: '{"messages": [], "messages": []}', 19: CHAT.replace("Hi", "\u2028")}
    return "\n".join(odd.get(n % 23) or json.dumps(row, ensure_ascii=bool(n % 2)) for n, row in enumerate(rows))


@pytest.mark.parametrize("lines", [mixed_lines, talk_lines])
def test_sections_find_what_one_process_finds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: Callable[[int], str]
) -> None:
    content = "\ufeff" + lines(2000)
    alone = check(tmp_path, content, skip=True)
    expected, bad = rows_of(tmp_path), bad_lines_of(tmp_path)
    monkeypatch.setattr(sections, "LARGE", 1000)
    monkeypatch.setattr(sections, "SECTION", 20_000)
    monkeypatch.setattr(sections, "SLOT", 25_000)  # too small for some: what does not fit comes through the pipe
    monkeypatch.setattr(section, "BLOCK", 1500)
    together = check(tmp_path, content, skip=True)
    assert alone | {"events": 0} == together | {"events": 0}
    assert alone["bad_rows"] > 100 and alone["mixed" if lines is mixed_lines else "repairs"]
    assert (rows_of(tmp_path), bad_lines_of(tmp_path)) == (expected, bad)


@pytest.mark.parametrize("size", [7, 64, 1000])
def test_every_line_belongs_to_one_section(tmp_path: Path, size: int) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(mixed_lines(120))
    whole = file.stat().st_size
    parts = [SectionReader(file, None).read(at, min(at + size, whole), first=at == 0) for at in range(0, whole, size)]
    with file.open("rb") as opened:
        reader = LineReader(opened, Notes())
        texts = [record.text.strip() for record in reader.records()]
    assert [text.strip() for part in parts for _, _, text in part.rejected] == texts
    assert sum(part.lines for part in parts) == reader.lines


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)
PIECES = st.lists(
    st.sampled_from(
        ['{"a"', ":", " :", "1", '"x"', '"\\":"', ",", '"a"', "}", "{", "[", "]", "-0", "0.0", "1e400", '"b"']
    )
    | st.sampled_from(
        ["NaN", "\\u0000", '"\\u0000"', '"\\ud83d"', "9" * 19, "9" * 20, "-" + "9" * 19, " ", "\t", "1e15"]
    ),
    max_size=14,
)


@settings(max_examples=400, deadline=None)
@given(PIECES.map("".join) | JSON.map(lambda value: json.dumps({"a": value})))
def test_quick_reading_says_what_strict_reading_says(text: str) -> None:
    value = quick.decode(text.encode("utf-8", "surrogatepass"))
    if value is quick.NEEDS_STRICT:
        return
    strict = StrictDecoder()
    expected, end = strict.decode(text.strip())
    assert strict.found is None and not text.strip()[end:].strip()
    assert repr(value) == repr(expected)  # the order of keys, and 0 apart from 0.0 and -0.0


@settings(max_examples=300, deadline=None)
@given(st.lists(PIECES.map("".join) | JSON.map(lambda value: json.dumps({"a": value})), min_size=1, max_size=4))
def test_a_line_of_as_many_strings_as_were_kept_has_lost_none(texts: list[str]) -> None:
    block = b"".join(text.encode("utf-8", "surrogatepass") + b"\n" for text in texts)
    counts = StringCounts(block)
    by_line, kept = counts.by_line(), [strings_kept(line) for line in block.split(b"\n")[:-1]]
    for line, there, found in zip(block.split(b"\n"), by_line, kept, strict=False):
        if found == there:
            strict = StrictDecoder()
            assert repr(list(orjson.loads(line))) == repr(list(strict.decode(line.decode().strip())[0]))
            assert strict.found is None or strict.found.problem in ("number too large", "NUL character")
    if counts.total != UNSURE and None not in kept:
        assert counts.total == sum(by_line)
        assert counts.total >= sum(found for found in kept if found)


def strings_of(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(strings_of(inner) for inner in value.values())
    return sum(strings_of(inner) for inner in value) if isinstance(value, list) else isinstance(value, str)


def strings_kept(line: bytes) -> int | None:
    try:
        value = orjson.loads(line)
    except ValueError:
        return None
    return strings_of(value) if isinstance(value, dict) else None


@pytest.mark.parametrize(
    ("line", "there"),
    [
        (b'{"a": "b"}', 2),
        (b'{"a": "x", "a" : "x"}', 4),
        (rb'{"a": "\"b\""}', 2),
        (rb'{"a": "b\\"}', UNSURE),
        ('{"a": "\u2029"}'.encode(), UNSURE),
    ],
)
def test_strings_are_counted_or_looked_at_closely(line: bytes, there: int) -> None:
    counts = StringCounts(b'{"c": 1}\n' + line + b"\n")
    assert counts.by_line() == [1, there]
    assert counts.total == (there + 1 if there > 0 else UNSURE)


TEXT = st.sampled_from(["", " ", "a", "\0", '\u00fc": ', "\u2028", "x\ny"]) | st.none() | st.integers(0, 1)
NAME = st.sampled_from(["system", "user", "human", "gpt", "assistant", "developer", "tool", "function_call"]) | TEXT
TURN = st.fixed_dictionaries({"role": NAME, "content": TEXT}, optional={"weight": TEXT}) | st.fixed_dictionaries(
    {"from": NAME, "value": TEXT}, optional={"role": NAME}
)
TURNS = st.lists(TURN, max_size=4) | TEXT
ROW = st.fixed_dictionaries(
    {}, optional={"messages": TURNS, "conversations": TURNS, "tools": TEXT, "label": TEXT | st.booleans()}
) | st.fixed_dictionaries(
    {"instruction": TEXT, "output": TEXT},
    optional={name: TEXT for name in ("input", "system", "history", "kto_tag", "images", "rejected", "else")},
)


@settings(max_examples=300, deadline=None)
@given(ROW, st.sampled_from([family for family in FAMILIES if family.fast_path is not no_fast_path]))
def test_usual_rows_are_what_their_family_makes_of_them(row: dict[str, Any], family: Family) -> None:
    if (found := family.fast_path(row)) is None:
        return
    messages, strings = found
    assert other_family(row, family) is None
    assert family.to_content(row) == Content(messages=messages)
    assert not [*family.ignored_fields(row), *family.repaired(row)]
    assert strings == strings_of(row)
    one, other = Statistics(), Statistics()
    one.add_texts([messages])
    other.add(Content(messages=messages))
    assert one.to_dict(duplicates=0) == other.to_dict(duplicates=0)


@pytest.mark.parametrize(
    ("row", "name"),
    [
        (json.loads(GOOD), "alpaca"),
        (json.loads(GOOD) | {"input": "x"}, "alpaca"),
        (json.loads(CHAT), "messages"),
        ({"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}, "sharegpt"),
    ],
)
def test_the_usual_row_is_one(row: dict[str, Any], name: str) -> None:
    assert next(family for family in FAMILIES if family.name == name).fast_path(row)


def test_quick_reading_takes_the_usual_row() -> None:
    for row in (GOOD, CHAT, '{"a": "x\\n\\"y", "b": [{"c": 0.5, "d": -3, "e": null}]}'):
        assert quick.decode(row.encode()) == json.loads(row)


@settings(max_examples=300, deadline=None)
@given(JSON)
def test_canonical_bytes_are_those_of_canonical_json(value: Any) -> None:
    try:
        expected = canonical_json(value).encode()
    except ValueError:
        with pytest.raises(ValueError):
            canonical_bytes(value)
        return
    assert canonical_bytes(value) == expected


@pytest.mark.parametrize("text", ['\x00\x1f\x7f\x80\u2028\u2029\ufeff\U0001f600"\\/\b\f\n\r\t', "\ud83d"])
def test_every_character_is_written_alike(text: str) -> None:
    value = [{"role": "user", "content": text}]
    if text == "\ud83d":
        with pytest.raises(UnicodeEncodeError):
            canonical_bytes(value)
    else:
        assert canonical_bytes(value) == canonical_json(value).encode()
