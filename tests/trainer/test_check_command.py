"""`python -m trainer check` and `survey` by hand: the errors and where they lie, and what `--help` says of both."""

from pathlib import Path

import pytest

from tests.trainer.files import check
from trainer.commands import MAPPING_TEXT, parser
from trainer.errors import TrainerError
from trainer.events import Log
from trainer.formats.check import MAX_LISTED
from trainer.formats.mapping import SHAPES, TURN_KEYS
from trainer.formats.survey import survey_rows

BAD = '{"instruction": "a"}'


def test_the_first_errors_are_told_with_their_fix_and_all_are_counted(tmp_path: Path) -> None:
    report = check(tmp_path, f"{BAD}\n" * 20 + '{"instruction": "a", "output": 5}\n')
    told = [event.text for event in report["events"] if isinstance(event, Log)]
    assert told[0] == 'line 1, output: field is missing. Add "output" with a text to this row.'
    assert len(told) == MAX_LISTED + 1
    where = tmp_path / "out" / "bad.jsonl"
    assert told[-1] == f"All errors: 20 × field is missing; 1 × must be text, not a number. Each with its line: {where}"


def test_few_errors_are_all_told(tmp_path: Path) -> None:
    report = check(tmp_path, f"{BAD}\n")
    assert [event.text[:6] for event in report["events"] if isinstance(event, Log)] == ["line 1"]


def test_help_names_every_field_of_a_mapping_and_where_findings_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser().parse_args(["check", "--help"])
    assert "run survey" in " ".join(capsys.readouterr().out.split())
    said = [f"{kind}: {' '.join(shape.required)} [{' '.join(shape.optional)}]" for kind, shape in SHAPES.items()]
    assert MAPPING_TEXT.startswith("; ".join(said).replace(" []", "") + ".")
    assert all(f'"{name}"' in MAPPING_TEXT for name in ("turns", *TURN_KEYS, "user", "assistant"))


@pytest.mark.parametrize("name", ["a folder", "nothing"])
def test_a_survey_of_no_rows_says_so(tmp_path: Path, name: str) -> None:
    (tmp_path / "a folder").mkdir()
    with pytest.raises(TrainerError) as failed:
        survey_rows(tmp_path / name, tmp_path, emit=lambda event: None)
    assert failed.value.code == "dataset_invalid" and "rows.parquet" in failed.value.fix
