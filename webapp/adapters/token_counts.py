"""How many tokens the rows of a version have for a base model: counted once by a limited child."""

from typing import Any
from uuid import UUID

from webapp.adapters.models import BaseModel
from webapp.common.pulse import Pulse
from webapp.datasets.child import run_tokens
from webapp.datasets.kept_answers import KeptAnswer
from webapp.datasets.models import DatasetVersion


def kept_counts(version_id: UUID, base_id: UUID) -> KeptAnswer:
    return KeptAnswer(version_id, f"tokens-{base_id}.json", what="count", work="Counting the tokens")


def counts_of(version: DatasetVersion, base: BaseModel) -> dict[str, Any] | None:
    """What `python -m trainer tokens` wrote, or {"failure": …}; None while it is not there."""
    return kept_counts(version.pk, base.pk).read()


def count(version_id: UUID, base_id: UUID) -> None:
    """Count, unless it was done meanwhile or there is nothing to count."""
    version = DatasetVersion.objects.ready().filter(pk=version_id).first()
    base = BaseModel.objects.ready().filter(pk=base_id).first()
    kept = kept_counts(version_id, base_id)
    if version is None or base is None or kept.read() is not None:
        return
    pulse = Pulse(lambda: DatasetVersion.objects.filter(pk=version_id).exists())
    kept.make(lambda out: run_tokens(version.rows_path, base.folder, out, still_ours=pulse), written="tokens.json")
