"""What every page of a dataset version shows around its tab: head, tabs, who may change it."""

from typing import Any

from webapp.accounts.models import Role, Team, User
from webapp.datasets import drafts, services
from webapp.datasets.models import DatasetVersion
from webapp.datasets.preview import FORMATS, state_sentence

TABS = {"overview": "Overview", "rows": "Rows", "versions": "Versions"}


def frame(user: User, version: DatasetVersion, tab: str) -> dict[str, Any]:
    dataset = version.dataset
    return {
        "dataset": dataset,
        "version": version,
        "newest": dataset.newest,
        "sentence": state_sentence(version),
        "can_change": can_change(user, dataset.team),
        "draft": drafts.summary(user, version),
        "kept_by": services.job_made_from(dataset),
        "tab": tab,
        "tabs": TABS,
        "report": version.report,
        "format": FORMATS.get(version.report.get("format", ""), "–"),
    }


def can_change(user: User, team: Team) -> bool:
    role = team.role_of(user)
    return role is not None and role.includes(Role.MEMBER)
