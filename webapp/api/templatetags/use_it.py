"""`{% use_it object %}`: the panel with code that uses an adapter, a dataset version or a job from outside."""

import re
from typing import Any

from django import template
from django.utils.html import escape
from django.utils.safestring import SafeString, mark_safe

from webapp.adapters.models import Adapter
from webapp.api.snippets import Snippet, of_adapter, of_job, of_version
from webapp.datasets.models import DatasetVersion
from webapp.jobs.models import Job

register = template.Library()


@register.inclusion_tag("api/_use_it.html", takes_context=True)
def use_it(context: dict[str, Any], thing: Adapter | DatasetVersion | Job) -> dict[str, Any]:
    return {"snippets": _snippets(thing, context["request"].build_absolute_uri("/v1"))}


@register.filter
def marked(text: str) -> SafeString:
    """Names between backticks as code, all else as plain text."""
    return mark_safe(re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text)))  # noqa: S308 - escaped just here


def _snippets(thing: Adapter | DatasetVersion | Job, address: str) -> list[Snippet]:
    if isinstance(thing, Adapter):
        return of_adapter(thing, address)
    return of_version(thing, address) if isinstance(thing, DatasetVersion) else of_job(thing, address)
