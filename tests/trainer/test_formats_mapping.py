"""Column mappings: what a person says of columns is checked, read, and guessed where names give it away."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.errors import TrainerError
from trainer.formats import iter_rows, mapping
from trainer.formats.check import Known, check_file
from trainer.formats.problems import BadRow

ASK, HELLO, WHAT = (
    {"role": role, "content": text} for role, text in (("user", "Hi"), ("assistant", "Hello."), ("assistant", "What?"))
)
SYSTEM = {"role": "system", "content": "S"}

MAPPED: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    "prompt and answer": (
        {"kind": "prompt_completion", "fields": {"prompt": "Q", "answer": "A", "system": "role"}},
        {"Q": "Hi", "A": "Hello.", "role": "S", "other": 1},
        {"messages": [SYSTEM, ASK, HELLO]},
    ),
    "with context": (
        {"kind": "prompt_completion", "fields": {"prompt": "Q", "answer": "A", "context": "C"}},
        {"Q": "Hi", "A": "Hello.", "C": "there"},
        {"messages": [{"role": "user", "content": "Hi\nthere"}, HELLO]},
    ),
    "a number for an answer": (
        {"kind": "prompt_completion", "fields": {"prompt": "Q", "answer": "A"}},
        {"Q": "Hi", "A": 4},
        {"messages": [ASK, {"role": "assistant", "content": "4"}]},
    ),
    "conversation": (
        {"kind": "chat", "fields": {"messages": "talk", "system": "role"}},
        {"talk": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello."}], "role": "S"},
        {"messages": [SYSTEM, ASK, HELLO]},
    ),
    "conversation with roles": (
        {"kind": "chat", "fields": {"messages": "talk"}},
        {"talk": json.dumps([ASK, HELLO])},
        {"messages": [ASK, HELLO]},
    ),
    "preference": (
        {"kind": "preference", "fields": {"prompt": "Q", "chosen": "up", "rejected": "down"}},
        {"Q": "Hi", "up": "Hello.", "down": "What?"},
        {"prompt": [ASK], "chosen": [HELLO], "rejected": [WHAT]},
    ),
    "preference without a prompt": (
        {"kind": "preference", "fields": {"chosen": "up", "rejected": "down"}},
        {"up": [ASK, HELLO], "down": [ASK, WHAT]},
        {"prompt": [ASK], "chosen": [HELLO], "rejected": [WHAT]},
    ),
    "labelled": (
        {"kind": "labelled", "fields": {"prompt": "Q", "answer": "A", "label": "liked"}},
        {"Q": "Hi", "A": "Hello.", "liked": 0},
        {"prompt": [ASK], "completion": [HELLO], "label": False},
    ),
    "text": ({"kind": "text", "fields": {"text": "body"}}, {"body": "Once."}, {"text": "Once."}),
    "a picture that the person leaves out": (
        {"kind": "text", "fields": {"text": "caption"}},
        {"caption": "A cat.", "image": "cat.png"},
        {"text": "A cat."},
    ),
    "columns that are called like others": (
        {"kind": "prompt_completion", "fields": {"prompt": "output", "answer": "instruction"}},
        {"output": "Hi", "instruction": "Hello."},
        {"messages": [ASK, HELLO]},
    ),
}


@pytest.mark.parametrize("name", MAPPED)
def test_a_file_is_read_as_a_mapping_says(tmp_path: Path, name: str) -> None:
    given_mapping, row, shape = MAPPED[name]
    file, told = tmp_path / "rows.jsonl", tmp_path / "mapping.json"
    file.write_text(json.dumps(row))
    told.write_text(json.dumps(given_mapping))
    assert mapping.problems(given_mapping, list(row)) == []
    family = mapping.read_mapping(told)
    check_file(file, tmp_path / "out", skip_bad_rows=False, emit=lambda event: None, known=Known(mapping=family))
    [only] = iter_rows(tmp_path / "out" / "rows.parquet")
    assert only.shape() == shape
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["format"], report["kind"], report["mixed"]) == ("mapping", only.kind, [])
    assert report["saw"].startswith(f'"{next(iter(given_mapping["fields"].values()))}" as ')
    assert set(report["ignored_fields"]) == set(row) - set(given_mapping["fields"].values())


@pytest.mark.parametrize(
    ("given_mapping", "place", "problem"),
    [
        ([], "", "the mapping must be an object"),
        ({"fields": {}}, "kind", "unknown kind"),
        ({"kind": ["chat"], "fields": {}}, "kind", "unknown kind"),
        ({"kind": "text"}, "fields", "must be an object"),
        ({"kind": "text", "fields": {}}, "fields.text", "no column chosen"),
        ({"kind": "text", "fields": {"text": ""}}, "fields.text", "no column chosen"),
        ({"kind": "text", "fields": {"text": 3}}, "fields.text", "must be the name of a column"),
        ({"kind": "text", "fields": {"text": "nowhere"}}, "fields.text", "no such column"),
        ({"kind": "text", "fields": {"text": "a", "label": "b"}}, "fields.label", "unknown field"),
    ],
)
def test_a_wrong_mapping_is_refused_with_its_place(given_mapping: Any, place: str, problem: str) -> None:
    found = mapping.problems(given_mapping, ["a", "b"])
    assert [(one.field, one.problem) for one in found] == [(place, problem)] and found[0].fix


def test_a_wrong_mapping_file_is_a_sentence(tmp_path: Path) -> None:
    file = tmp_path / "mapping.json"
    for content in (b"{", b"\xff", b'{"kind": "text", "fields": {}}', b"[" * 100_000):
        file.write_bytes(content)
        with pytest.raises(TrainerError) as error:
            mapping.read_mapping(file)
        assert (error.value.code, bool(error.value.fix)) == ("user_config", True)


def test_errors_name_the_columns_of_the_file() -> None:
    family = mapping.mapped_family(
        {"kind": "prompt_completion", "fields": {"prompt": "Q", "answer": "A", "history": "H"}}
    )
    wrong: dict[str, dict[str, Any]] = {"A": {"Q": "Hi"}, "Q": {"A": "x"}, "H[0]": {"Q": "a", "A": "b", "H": [1]}}
    for place, row in wrong.items():
        with pytest.raises(BadRow) as bad:
            family.to_content(row)
        assert bad.value.found.field == place
        assert "completion" not in bad.value.found.fix and "instruction" not in bad.value.found.fix


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(['[{"role": 1}]', "[{"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["role", "content", "from"]), inner),
    max_leaves=4,
)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(sorted(MAPPED)), st.dictionaries(st.sampled_from("ab"), VALUES))
def test_no_row_makes_a_mapping_raise_anything_but_a_bad_row(name: str, row: dict[str, Any]) -> None:
    kind = MAPPED[name][0]["kind"]
    shape = mapping.SHAPES[kind]
    family = mapping.mapped_family(
        {
            "kind": kind,
            "fields": dict.fromkeys(shape.required, "a") | {"prompt": "b"}
            if "prompt" in shape.targets
            else dict.fromkeys(shape.required, "a"),
        }
    )
    try:
        family.to_content(row).to_bytes()
    except BadRow as bad:
        assert bad.found.fix


@pytest.mark.parametrize(
    ("columns", "kind", "fields"),
    [
        (["User question", "Bot reply"], "prompt_completion", {"prompt": "User question", "answer": "Bot reply"}),
        (
            ["id", "ask", "reply", "System Prompt"],
            "prompt_completion",
            {"prompt": "ask", "answer": "reply", "system": "System Prompt"},
        ),
        (["dialog", "n"], "chat", {"messages": "dialog"}),
        (["q", "better", "worse", "query"], "preference", {"chosen": "better", "rejected": "worse", "prompt": "query"}),
        (["prompt", "output", "feedback"], "labelled", {"prompt": "prompt", "answer": "output", "label": "feedback"}),
        (["body"], "text", {"text": "body"}),
        (["frage", "reply_text"], "prompt_completion", {"answer": "reply_text"}),
        (["x", "b"], "prompt_completion", {}),
        (["q", "a"], "prompt_completion", {"prompt": "q", "answer": "a"}),
        (["is_a_test", "q_1"], "prompt_completion", {}),
        ([], "prompt_completion", {}),
    ],
)
def test_a_mapping_is_guessed_from_names(columns: list[str], kind: str, fields: dict[str, str]) -> None:
    assert mapping.suggest(columns) == {"kind": kind, "fields": fields}


@given(st.lists(st.text(max_size=12), max_size=8))
def test_a_guess_is_always_a_mapping_of_these_columns(columns: list[str]) -> None:
    guess = mapping.suggest(columns)
    chosen = list(guess["fields"].values())
    assert set(chosen) <= set(columns) and len(set(chosen)) == len(chosen)
    assert all(problem.problem == "no column chosen" for problem in mapping.problems(guess, columns))
