"""Nectar's preference layout: a prompt with ranked answers, of which the best two make a pair."""

from typing import Any

from trainer.formats.canonical import Content
from trainer.formats.family import Family
from trainer.formats.fields import decode_if_json, read_text
from trainer.formats.problems import BadRow, json_type
from trainer.formats.question import check_different, read_prompt

BEST_TWO = 'with ranked "answers" (Nectar), of which the two best make a pair'


def matches(row: dict[str, Any]) -> float:
    """How much a row looks like this family, from 0 to 1."""
    answers = row.get("answers")
    if isinstance(answers, str):
        return 1.0 if answers.startswith("[{") and '"rank"' in answers else 0.0
    first = answers[0] if isinstance(answers, list) and answers else None
    return 1.0 if isinstance(first, dict) and "rank" in first and ("prompt" in row or "question" in row) else 0.0


def read(row: dict[str, Any]) -> Content:
    """The best-ranked answer is chosen, the next one rejected."""
    answers = decode_if_json(row.get("answers"), "answers")
    if not isinstance(answers, list):
        raise BadRow("answers", f"must be a list, not {json_type(answers)}", 'Use a list of {"answer", "rank"}.')
    ranked = sorted((_ranked(answer, number) for number, answer in enumerate(answers)), key=lambda one: one[0])
    if len(ranked) < 2 or ranked[0][0] == ranked[1][0]:
        raise BadRow("answers", "no answer is better than the others", "Rank at least two answers, 1 is the best.")
    chosen, rejected = ([{"role": "assistant", "content": text}] for _, text in ranked[:2])
    check_different(chosen, rejected, "answers")
    return Content(prompt=read_prompt(row), chosen=chosen, rejected=rejected)


def _ranked(answer: object, number: int) -> tuple[float, str]:
    where = f"answers[{number}]"
    if not isinstance(answer, dict):
        raise BadRow(where, f"must be an object, not {json_type(answer)}", 'Use {"answer": …, "rank": …}.')
    rank = answer.get("rank")
    if isinstance(rank, bool) or not isinstance(rank, (int, float)):
        raise BadRow(f"{where}.rank", f"must be a number, not {json_type(rank)}", "Write the rank, 1 for the best.")
    try:
        return rank, read_text(answer, "answer")
    except BadRow as bad:
        raise bad.under(where) from None


FAMILY = Family(
    name="ranked answers",
    kind="preference",
    saw=f'"prompt" {BEST_TWO}',
    layout=lambda row: f'"{"prompt" if "prompt" in row else "question"}" {BEST_TWO}',
    fields=frozenset({"prompt", "question", "system", "answers"}),
    matches=matches,
    read=read,
)
