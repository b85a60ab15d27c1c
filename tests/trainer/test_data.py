"""From rows to windows: the split, the plan and the cut into micro-batches."""

import json
import re
from array import array
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tiny import make_tiny_base
from tests.trainer.training import make_rows, make_spec
from trainer.data import Dataset, Item, Plan, load_dataset
from trainer.errors import TrainerError
from trainer.events import Log
from trainer.formats.check import check_file
from trainer.micro_batch import micro_batches
from trainer.rendering import Renderer


def load(base: Path, rows: Path, **parts: dict[str, Any]) -> Dataset:
    return load_dataset(make_spec(base, rows, **parts), Renderer.load(base), lambda event: None)


def make_items(lengths: list[int]) -> list[Item]:
    return [Item(array("i", range(length + 1)), bytes([0] + [1] * length)) for length in lengths]


def test_a_raw_file_and_its_canonical_rows_are_the_same_dataset(base: Path, tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    check_file(rows, tmp_path, skip_bad_rows=False, emit=lambda event: None)
    raw, canonical = load(base, rows), load(base, tmp_path / "rows.parquet")
    assert raw == canonical
    assert raw.content_hash == json.loads((tmp_path / "report.json").read_text())["content_hash"]


def test_of_many_rows_left_out_the_first_are_named(base: Path, tmp_path: Path) -> None:
    rows = make_rows(tmp_path)
    empty = [{"messages": [{"role": "user", "content": f"{one} cat " * 200}]} for one in range(1300)]
    answered = [{"messages": [*one["messages"], {"role": "assistant", "content": "Yes."}]} for one in empty]
    rows.write_text("\n".join([json.dumps(one) for one in answered] + [rows.read_text()]))
    said: list[Any] = []
    load_dataset(make_spec(base, rows), Renderer.load(base), said.append)
    text = "1,300 rows left out for having no token to learn: lines 1, 2, 3, 4, 5 and 1,295 more"
    assert text in [one.text for one in said if isinstance(one, Log)]


def test_packing_is_first_fit_decreasing() -> None:
    """Each row, longest first, goes into the first pass with room; one that none holds gets its own."""
    lengths = [70, 300, 10, 60, 50, 40, 30, 20]
    passes = micro_batches(make_items(lengths), 100, packed=True)
    found = [[row.length for row in one.rows] for one in passes]  # type: ignore[union-attr]
    assert found == [[300], [70, 30], [60, 40], [50, 20, 10]] and len(passes) == 4
    assert [row.length for row in passes[1].rows] == [70, 30]  # type: ignore[union-attr]


def test_the_holdout_does_not_depend_on_the_order(base: Path, tmp_path: Path) -> None:
    rows = make_rows(tmp_path, count=40)
    forward = load(base, rows, data={"holdout": 0.2})
    rows.write_text("\n".join(reversed(rows.read_text().splitlines())))
    backward = load(base, rows, data={"holdout": 0.2})
    assert len(forward.holdout) == 8 and len(forward.train) == 32
    assert {item.ids.tobytes() for item in forward.holdout} == {item.ids.tobytes() for item in backward.holdout}
    assert forward.content_hash != backward.content_hash
    other = load(base, rows, data={"holdout": 0.2}, optim={"seed": 1})
    assert {item.ids.tobytes() for item in other.holdout} != {item.ids.tobytes() for item in forward.holdout}


@pytest.mark.parametrize("copies", [2, 5])
def test_copies_of_a_row_stay_on_one_side(base: Path, tmp_path: Path, copies: int) -> None:
    rows = make_rows(tmp_path, count=9)
    rows.write_text("\n".join([rows.read_text()] * copies))
    data = load(base, rows, data={"holdout": 0.3})
    held = {item.ids.tobytes() for item in data.holdout}
    assert held and not held & {item.ids.tobytes() for item in data.train}
    rare = load(base, rows, data={"holdout": 0.01})
    assert len(rare.holdout) == copies


def test_no_holdout_and_a_single_row(base: Path, tmp_path: Path) -> None:
    assert not load(base, make_rows(tmp_path), data={"holdout": 0.0}).holdout
    single = load(base, make_rows(tmp_path, count=1), data={"holdout": 0.5})
    assert len(single.train) == 1 and not single.holdout


def test_nothing_after_the_last_trained_token_is_computed(base: Path, tmp_path: Path) -> None:
    """The template's line break after the end of a turn, and a question that nobody answers."""
    for item in load(base, make_rows(tmp_path)).train:
        assert item.loss_mask[-1] == 1 and item.ids[-1] == 2
        assert item.length == len(item.ids) - 1 and item.loss_mask[0] == 0


def test_prompts_are_masked(base: Path, tmp_path: Path) -> None:
    renderer = Renderer.load(base)
    for item in load(base, make_rows(tmp_path)).train:
        learnt = renderer.decode([one for one, flag in zip(item.ids, item.loss_mask, strict=True) if flag])
        assert learnt.startswith("The answer is") and "What is" not in learnt


def test_every_epoch_takes_every_row_once(base: Path, tmp_path: Path) -> None:
    items = make_items(list(range(1, 11)))
    plan = Plan(items, make_spec(base, tmp_path, optim={"epochs": 2.0, "batch_size": 4}))
    assert plan.steps == 6 and plan.steps_per_epoch == 3
    epochs = [[item.length for step in range(first, first + 3) for item in plan.window(step)] for first in (0, 3)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(1, 11)) and epochs[0] != epochs[1]
    assert [item.length for item in plan.window(1)] == epochs[0][4:8]  # any step, in any order


@pytest.mark.parametrize(
    ("optim", "steps"),
    [({"epochs": 0.5}, 3), ({"epochs": 0.01}, 1), ({"epochs": 3.0, "max_steps": 4}, 4), ({"epochs": 1.5}, 8)],
)
def test_how_many_steps(base: Path, tmp_path: Path, optim: dict[str, Any], steps: int) -> None:
    spec = make_spec(base, tmp_path, optim={"batch_size": 2, **optim})
    assert Plan(make_items([3] * 10), spec).steps == steps


def test_micro_batches_hold_their_budget_and_hardly_pad() -> None:
    items = make_items([5, 60, 7, 61, 6, 59, 64, 8])
    batches = micro_batches(items, 256)
    assert all(batch.ids.numel() <= 256 for batch in batches)
    assert sum(item.length for item in items) / sum(batch.ids.numel() for batch in batches) > 0.9
    assert sum(len(batch.labels) for batch in batches) == sum(item.trained_tokens for item in items)
    assert [batch.ids.shape for batch in micro_batches(make_items([300]), 256)] == [(1, 300)]


def one_row(folder: Path, question: str, **answer: Any) -> Path:
    rows = folder / "rows.jsonl"
    told = [{"role": "user", "content": question}, {"role": "assistant", "content": "x", **answer}]
    rows.write_text(json.dumps({"messages": told}))
    return rows


def test_a_dataset_without_anything_to_learn_is_refused(base: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainerError, match="cannot be used") as caught:
        load(base, one_row(tmp_path, "cat", weight=0))
    assert caught.value.code == "dataset_invalid"


def test_a_length_in_which_no_answer_begins_is_the_specs_mistake(base: Path, tmp_path: Path) -> None:
    (rows := tmp_path / "short").mkdir()
    long = one_row(tmp_path, "cat " * 500)
    with pytest.raises(TrainerError, match="The only row of the dataset has no token to learn within 128") as caught:
        load(base, long)
    assert (caught.value.code, caught.value.text.split(":")[0]) == ("user_config", "data.max_seq_length")
    enough = re.search(r"Raise it; (\d+) would cut none", caught.value.fix)
    assert enough
    assert len(load(base, long, data={"max_seq_length": int(enough[1])}).train) == 1

    with pytest.raises(TrainerError, match="The only row of the evaluation file rows.jsonl") as caught:
        load(base, make_rows(rows, count=4), data={"holdout_path": str(long)})
    assert caught.value.code == "user_config"


def test_a_row_that_the_template_refuses_is_named_by_its_line(tmp_path: Path) -> None:
    template = "{% for m in messages %}{% if 'bad' in m.content %}{{ raise_exception('No') }}{% endif %}{% endfor %}"
    base = make_tiny_base(tmp_path / "base", template=template)
    rows = make_rows(tmp_path, count=3)
    bad = {"messages": [{"role": "user", "content": "bad"}, {"role": "assistant", "content": "x"}]}
    rows.write_text(rows.read_text() + "\n" + json.dumps(bad))
    with pytest.raises(TrainerError, match="Line 4 of the dataset: .* No") as caught:
        load(base, rows)
    assert caught.value.code == "dataset_invalid"


def test_a_parquet_file_of_something_else(base: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"number": [1]}), tmp_path / "other.parquet")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 or not")
    for name, said in (("other.parquet", "format not recognised"), ("broken.parquet", "damaged or cut off")):
        with pytest.raises(TrainerError, match=said) as caught:
            load(base, tmp_path / name)
        assert caught.value.code == "dataset_invalid"
