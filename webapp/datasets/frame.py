"""What every page of a dataset version shows around its tab: head, tabs, who may change it."""

from typing import Any

from django.urls import reverse

from webapp.accounts.access import has_role
from webapp.accounts.models import User
from webapp.datasets import drafts, lineage
from webapp.datasets.models import DatasetVersion
from webapp.datasets.preview import FORMATS, checked_percent, state_sentence

TABS = {
    "overview": "Overview",
    "rows": "Rows",
    "findings": "Findings",
    "seen": "Tokens",
    "versions": "Versions",
    "use": "Use it",
}
# Tabs with an address of their own
PAGES = {"rows": "dataset_rows", "findings": "version_findings", "seen": "version_seen"}


def frame(user: User, version: DatasetVersion, tab: str) -> dict[str, Any]:
    dataset = version.dataset
    return {
        "dataset": dataset,
        "version": version,
        "newest": dataset.newest,
        "next_number": dataset.next_number,
        "sentence": state_sentence(version),
        "percent": checked_percent(version),
        "can_change": has_role(dataset.team, user),
        "draft": drafts.summary(user, version),
        "kept_by": lineage.made_of(dataset.versions.all()),
        "tab": tab,
        "tabs": _tabs(version),
        "report": version.report,
        "format": FORMATS.get(version.report.get("format", ""), "–"),
    }


def _tabs(version: DatasetVersion) -> list[tuple[str, str, str]]:
    """Name, label and address of each."""
    own = f"{reverse('dataset', args=[version.dataset_id])}?version={version.number}&tab="
    return [
        (name, label, reverse(PAGES[name], args=[version.pk]) if name in PAGES else own + name)
        for name, label in TABS.items()
    ]
