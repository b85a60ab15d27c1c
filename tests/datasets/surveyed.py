"""Versions whose rows can be searched, and what their pages show."""

import json
import re
from pathlib import Path
from typing import Any

from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from tests.make import make_checked
from trainer.formats.survey import survey_rows
from webapp.datasets.models import Dataset, DatasetVersion, SurveyStatus


def make_surveyed(dataset: Dataset, folder: Path, rows: list[dict[str, Any]]) -> DatasetVersion:
    """The dataset's next version, checked and surveyed."""
    version = make_checked(dataset, folder, rows)
    survey_rows(version.rows_path, version.folder, lambda event: None)
    version.survey_status = SurveyStatus.DONE
    version.survey_report = json.loads((version.folder / "survey.json").read_text())
    version.save()
    return version


def asked(question: str, answer: str, *more: str, system: str = "") -> dict[str, Any]:
    """A row of chat."""
    roles = ("user", "assistant")
    said = [{"role": roles[place % 2], "content": text} for place, text in enumerate((question, answer, *more))]
    return {"messages": [*([{"role": "system", "content": system}] if system else []), *said]}


def rows_page(client: Client, version: DatasetVersion, **query: Any) -> tuple[list[int], str]:
    """The numbers of the rows that are shown, and the page."""
    answer: HttpResponse = client.get(reverse("dataset_rows", args=[version.pk]), query)
    assert answer.status_code == 200
    text = answer.content.decode()
    return [int(number) for number in re.findall(r'<tr data-number="(\d+)"', text)], text
