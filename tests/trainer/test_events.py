"""Events: one line of JSON each, read back equal, and nothing that JSON cannot say."""

import json

import pytest

from trainer.events import (
    EVENT_TYPES,
    Checkpoint,
    Evaluated,
    Event,
    Failed,
    Fetched,
    Finished,
    Log,
    Memory,
    Phase,
    Progress,
    RowsRead,
    Sample,
    decode,
    encode,
)

EVENTS: list[Event] = [
    Phase(name="loading"),
    Progress(
        step=1,
        of=2,
        loss=0.1,
        learning_rate=1e-4,
        grad_norm=3.0,
        trained_tokens=4,
        tokens_per_second=5.5,
        seconds_left=6.0,
        memory_bytes=7,
    ),
    Evaluated(step=1, loss=0.5, perplexity=1.6, accuracy=0.7, rows=3),
    Sample(step=1, prompt="a\nb\u2028", completion="日本 🐈"),
    Checkpoint(step=1, folder="checkpoints/step-000001"),
    Memory(step=1, peak_bytes=7, foretold_bytes=6, device="cpu"),
    Log(text="hello", level="warning"),
    Fetched(done=1, of=2, what="weights"),
    RowsRead(rows=1, done=2, of=3),
    Finished(folder="adapter", facts={"loss": 1.0}),
    Failed(code="internal", text="x", fix="y"),
]


def test_every_kind_reads_back_equal() -> None:
    assert {type(event) for event in EVENTS} == set(EVENT_TYPES.values())
    for number, event in enumerate(EVENTS, 1):
        line = encode(number, event)
        assert "\n" not in line and decode(line) == (number, event)


def test_no_number_that_json_lacks() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode(1, Evaluated(step=1, loss=float("nan"), perplexity=1.0, accuracy=0.0, rows=1))


def test_a_newer_trainers_fields_are_passed_over() -> None:
    line = json.dumps({"n": 3, "kind": "log", "text": "x", "level": "info", "colour": "red"})
    assert decode(line) == (3, Log(text="x"))


@pytest.mark.parametrize("line", ["", "null", "[]", '{"n": 1}', '{"n": "1", "kind": "log"}', '{"n": 1, "kind": "log"}'])
def test_what_is_no_event(line: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 # JSON's own error or ours
        decode(line)
