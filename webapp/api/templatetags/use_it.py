"""`{% use_it object %}`: the panel with code that uses an adapter, a dataset version or a job from outside."""

from typing import Any

from django import template

from webapp.adapters.models import Adapter
from webapp.api.snippets import Snippet, of_adapter, of_job, of_version
from webapp.datasets.models import DatasetVersion
from webapp.jobs.models import Job

register = template.Library()


@register.inclusion_tag("api/_use_it.html", takes_context=True)
def use_it(context: dict[str, Any], thing: Adapter | DatasetVersion | Job) -> dict[str, Any]:
    return {"snippets": _snippets(thing, context["request"].build_absolute_uri("/v1"))}


def _snippets(thing: Adapter | DatasetVersion | Job, address: str) -> list[Snippet]:
    if isinstance(thing, Adapter):
        return of_adapter(thing, address)
    return of_version(thing, address) if isinstance(thing, DatasetVersion) else of_job(thing, address)
