"""Where people go after they changed something."""

from django.urls import reverse
from django.utils.http import url_has_allowed_host_and_scheme

from webapp.accounts.access import TeamRequest
from webapp.datasets.models import DatasetVersion


def version_link(version: DatasetVersion) -> str:
    return f"{reverse('dataset', args=[version.dataset_id])}?version={version.number}"


def came_from(request: TeamRequest) -> str:
    """Where the person came from, when that is a page of ours; else nothing."""
    asked = request.POST.get("back") or request.GET.get("back") or ""
    return asked if asked.startswith("/") and url_has_allowed_host_and_scheme(asked, allowed_hosts=None) else ""
