"""Rows in a list inside one JSON object: read row by row, the list named, whatever stands beside it too."""

import re
from pathlib import Path

import pytest

from tests.trainer.files import GOOD, check

CHAT = '{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}'
WRAPPED = {
    "alone": '{"data": [%s]}',
    "spread": '{\n  "data": [\n    %s\n  ]\n}\n',
    "between others": '{"version": "1", "train": [%s], "n": {"of": [1, 2]}}',
    "under a name of its own": '{"paare": [%s]}',
}


@pytest.mark.parametrize("case", WRAPPED)
def test_rows_in_a_list_inside_an_object_are_read(tmp_path: Path, case: str) -> None:
    report = check(tmp_path, WRAPPED[case] % f"{GOOD},\n{GOOD}", name="rows.json")
    assert (report["rows"], report["errors"], report["container"]) == (2, [], "json")
    name = re.search(r'"(\w+)": \[\s*{', WRAPPED[case] % GOOD)
    assert name and report["saw"].startswith(f'The rows stand in the list "{name[1]}". All 2 rows')
    beside = ["Skipped beside the list of rows: version, n."]
    assert report["repairs"] == (beside if case == "between others" else [])


def test_a_bad_row_in_such_a_list_has_its_line(tmp_path: Path) -> None:
    report = check(tmp_path, f'{{"data": [\n{GOOD},\n{{"instruction": "a"}}]}}')
    assert [(error["line"], error["field"]) for error in report["errors"]] == [(3, "output")]


BROKEN = {
    "a second list": (f'{{"train": [{GOOD}],\n "test": [{GOOD}]}}', "a second list of rows", 2),
    "not closed": (f'{{"data": [{GOOD}]\n', "the object is not closed with }", 2),
    "more behind": (f'{{"data": [\n{GOOD}]}} x', "more after the end of the object", 2),
    "no rows": ('{"data": [{"a": "b"},\n]}', "a comma after the last row", 2),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_object_around_rows_is_refused_at_its_line(tmp_path: Path, case: str) -> None:
    text, problem, line = BROKEN[case]
    report = check(tmp_path, text, name="rows.json")
    assert not (tmp_path / "out" / "rows.parquet").exists()
    assert [(report["errors"][-1][name]) for name in ("line", "problem")] == [line, problem]


@pytest.mark.parametrize(
    "row", [CHAT, '{"prompt": "p", "answers": [{"answer": "a", "rank": 1}, {"answer": "b", "rank": 2}]}']
)
def test_one_row_with_a_list_of_its_own_is_a_row(tmp_path: Path, row: str) -> None:
    report = check(tmp_path, row)
    assert (report["rows"], report["container"], report["errors"]) == (1, "jsonl", [])
