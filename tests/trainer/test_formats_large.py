"""Large files are read by several processes: nothing they find depends on where one stops and the next begins."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.trainer.files import GOOD, bad_lines_of, check, rows_of
from trainer.formats import quick, sections
from trainer.formats.canonical import canonical_bytes, canonical_json
from trainer.formats.containers.json_text import LineReader
from trainer.formats.strict import StrictDecoder

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


def test_sections_find_what_one_process_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = "\ufeff" + mixed_lines(3000)
    alone = check(tmp_path, content, skip=True)
    expected, bad = rows_of(tmp_path), bad_lines_of(tmp_path)
    monkeypatch.setattr(sections, "LARGE", 1000)
    monkeypatch.setattr(sections, "SECTION", 20_000)
    together = check(tmp_path, content, skip=True)
    assert alone | {"events": 0} == together | {"events": 0}
    assert alone["bad_rows"] > 100 and alone["mixed"]
    assert (rows_of(tmp_path), bad_lines_of(tmp_path)) == (expected, bad)


@pytest.mark.parametrize("size", [7, 64, 1000])
def test_every_line_belongs_to_one_section(tmp_path: Path, size: int) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(mixed_lines(120))
    worker = sections.Worker(file, None)
    whole = file.stat().st_size
    parts = [worker.read(at, min(at + size, whole), first=at == 0) for at in range(0, whole, size)]
    with file.open("rb") as opened:
        reader = LineReader(opened, sections.Notes())
        texts = [record.text.strip() for record in reader.records()]
    assert [text.strip() for part in parts for _, _, text in part.refused] == texts
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
    if value is quick.ODD:
        return
    strict = StrictDecoder()
    expected, end = strict.decode(text.strip())
    assert strict.found is None and not text.strip()[end:].strip()
    assert repr(value) == repr(expected)  # the order of keys, and 0 apart from 0.0 and -0.0


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
