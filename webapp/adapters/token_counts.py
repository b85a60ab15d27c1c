"""How many tokens the rows of a version have for a base model: counted once by a limited child."""

from bisect import bisect_right
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from webapp.adapters.models import BaseModel
from webapp.common.pulse import Pulse
from webapp.datasets.child import run_tokens
from webapp.datasets.kept_answers import KeptAnswer
from webapp.datasets.models import DatasetVersion


def kept_counts(version_id: UUID, base_id: UUID) -> KeptAnswer:
    return KeptAnswer(version_id, f"tokens-{base_id}.json", what="count", work="Counting the tokens", holds="ordered")


def counts_of(version: DatasetVersion, base: BaseModel) -> dict[str, Any] | None:
    """What `python -m trainer tokens` wrote, or {"failure": …}; None while it is not there."""
    return kept_counts(version.pk, base.pk).read()


@dataclass(frozen=True)
class Over:
    """Of the counted rows those that are longer than `most` tokens; so many have at least so many `characters`."""

    most: int
    rows: int
    percent: float
    characters: int


def rows_over(counts: dict[str, Any], length: int) -> list[Over]:
    """For `length`, and for the usual lengths up to the first that cuts no row."""
    tokens, characters = counts["ordered"]["tokens"], counts["ordered"]["characters"]
    longest = tokens[-1] if tokens else 0
    usual = sorted(map(int, counts["over"]))
    enough = next((most for most in usual if most >= longest), usual[-1])
    found = []
    for most in sorted({length, *(one for one in usual if one <= enough)}):
        cut = len(tokens) - bisect_right(tokens, most)
        found.append(Over(most, cut, 100 * cut / max(1, len(tokens)), characters[-cut] if cut else 0))
    return found


def count(version_id: UUID, base_id: UUID) -> None:
    """Count, unless it was done meanwhile or there is nothing to count."""
    version = DatasetVersion.objects.ready().filter(pk=version_id).first()
    base = BaseModel.objects.ready().filter(pk=base_id).first()
    kept = kept_counts(version_id, base_id)
    if version is None or base is None or kept.read() is not None:
        return
    pulse = Pulse(lambda: DatasetVersion.objects.filter(pk=version_id).exists())
    kept.make(lambda out: run_tokens(version.rows_path, base.folder, out, still_ours=pulse), written="tokens.json")
