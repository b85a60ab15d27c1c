"""What the log leaves out, and that everything else stays in it."""

import logging
import sys

import pytest

from webapp.system import logs


def record(text: str, **extra: object) -> logging.LogRecord:
    made = logging.LogRecord("name", logging.WARNING, "file", 1, text, (), None)
    made.__dict__ |= extra
    return made


@pytest.mark.parametrize(("status", "kept"), [(422, False), (404, True), (500, True)])
def test_forms_with_errors_are_no_news(status: int, kept: bool) -> None:
    assert logs.WithoutRefusedForms().filter(record("Unprocessable Entity: /jobs/new/", status_code=status)) is kept
    assert logs.WithoutRefusedForms().filter(record("something else"))


def test_heads_are_no_news() -> None:
    assert not logs.WithoutHeads().filter(record("ASGI app sent body bytes on a no-body response (method=%s)"))
    assert logs.WithoutHeads().filter(record("Worker timeout"))


def test_a_sentence_stays_without_its_traceback() -> None:
    try:
        raise OSError("away")
    except OSError:
        made = record("the broker is away", exc_info=sys.exc_info())
    assert logs.WithoutTraceback().filter(made)
    assert made.exc_info is None
