"""What is said of a file that was recognised: its own columns and the layout, and nothing that is not so."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.trainer.files import check
from trainer.formats.detect import recognise

TURNS = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
OTHER = [TURNS[0], {"role": "assistant", "content": "Go away"}]
SHAREGPT = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
PAIR = {"chosen": "Hello", "rejected": "Go away"}

SEEN: list[tuple[dict[str, Any], str]] = [
    ({"agent_trace": TURNS}, '"agent_trace" with role and content (OpenAI)'),
    ({"texts": TURNS}, '"texts" with role and content (OpenAI)'),
    ({"text": TURNS}, '"text" with role and content (OpenAI)'),
    ({"dialogue": SHAREGPT}, '"dialogue" with from and value (ShareGPT)'),
    ({"prompt": "Hi", **PAIR}, '"prompt", "chosen" and "rejected" (DPO as TRL has it)'),
    ({"chosen": TURNS, "rejected": OTHER}, '"chosen" and "rejected" as whole conversations (DPO'),
    ({"instruction": "Hi", **PAIR}, "(DPO as LLaMA-Factory has it, alpaca)"),
    (
        {"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": {"from": "gpt", "value": "No"}},
        '"conversations" up to the answers "chosen" and "rejected"',
    ),
    ({"question": "Hi", **PAIR}, '"question", "chosen" and "rejected" (DPO as Intel'),
    (
        {"prompt": "Hi", "text": "Hello", "rejected_text": "No"},
        '"prompt", "text" and "rejected_text" (DPO as AutoTrain',
    ),
    ({"instruction": "Hi", "chosen_response": "a", "rejected_response": "b"}, "(DPO as Argilla has it)"),
    (
        {"input": {"messages": TURNS[:1]}, "preferred_output": TURNS[1:], "non_preferred_output": OTHER[1:]},
        "(DPO as OpenAI has it)",
    ),
    ({"conversations": SHAREGPT, "kto_tag": True}, '"conversations" and a "kto_tag"'),
    ({"prompt": "Hi", "completion": "Hello", "label": True}, "(KTO as TRL has it)"),
]


@pytest.mark.parametrize(("row", "said"), SEEN)
def test_the_sentence_names_the_columns_that_are_there(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    report = check(tmp_path, json.dumps(row))
    assert said in report["saw"]
    assert (report["rows"], report["errors"]) == (1, [])


@pytest.mark.parametrize("row", [row for row, _ in SEEN])
def test_what_is_read_is_neither_called_passed_over_nor_kept_as_a_tag(tmp_path: Path, row: dict[str, Any]) -> None:
    report = check(tmp_path, json.dumps(row | {"source": "web"}))
    assert set(report["ignored_fields"]) == set(report["statistics"]["columns"]) == {"source"}


def test_layouts_of_one_family_are_counted() -> None:
    rows = [{"texts": TURNS}, {"messages": TURNS}, {"messages": TURNS}]
    assert '"messages" with role and content (OpenAI): 2 or "texts" with role' in recognise(rows).saw


def test_a_column_in_capitals_that_ends_in_trace_is_read(tmp_path: Path) -> None:
    report = check(tmp_path, json.dumps({"Agent_Trace": TURNS}))
    assert (report["rows"], report["ignored_fields"]) == (1, {})
    assert report["repairs"] == ['The column "Agent_Trace" is read as "agent_trace".']
