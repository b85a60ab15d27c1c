"""Tags and filters that every template may use."""

from datetime import datetime
from typing import Any, Protocol

from django import forms, template
from django.forms import BoundField
from django.template import Context
from django.templatetags.static import static
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from webapp.common import words

register = template.Library()


class Coloured(Protocol):
    """What has one of the eight hues: an adapter."""

    hue: int


@register.simple_tag
def icon(name: str, label: str = "") -> SafeString:
    """An icon of static/img/icons.svg. Without a label it is decoration, hidden from screen readers."""
    address = static("img/icons.svg")
    if label:
        return format_html(
            '<svg class="icon" role="img" aria-label="{}"><use href="{}#{}"></use></svg>', label, address, name
        )
    return format_html('<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>', address, name)


@register.simple_tag
def status_badge(status: str, label: str = "") -> SafeString:
    """What a thing is doing, as icon, word and colour; `label` replaces the word."""
    state = words.state_of(str(status))
    return format_html(
        '<span class="badge badge-{}" data-status="{}">{}{}</span>',
        state.tone,
        status,
        icon(state.icon),
        label or state.word,
    )


@register.simple_tag
def hue(thing: Coloured | None) -> str:
    """The class of an adapter's colour; the base model (None) is grey."""
    return "hue-base" if thing is None else f"hue-{thing.hue % 8}"


FIELD_KINDS: list[tuple[type[forms.Widget], str]] = [
    (forms.RadioSelect, "radio"),
    (forms.CheckboxInput, "check"),
    (forms.FileInput, "file"),
    (forms.HiddenInput, "hidden"),
]


@register.inclusion_tag("_field.html")
def field(bound: BoundField, unit: str = "") -> dict[str, Any]:
    """A form field: label, control, hint and errors, tied together for screen readers."""
    kind = next((kind for widget, kind in FIELD_KINDS if isinstance(bound.field.widget, widget)), "text")
    return {"field": bound, "kind": kind, "unit": unit, "optional": not bound.field.required and kind == "text"}


@register.inclusion_tag("_nav_link.html", takes_context=True)
def nav_link(context: Context, name: str, label: str, icon_name: str) -> dict[str, Any]:
    """A link of the rail; it is the current one on every page below its address."""
    link = reverse(name)
    path = context["request"].path
    return {
        "link": link,
        "label": label,
        "icon": icon_name,
        "current": path == link or (name != "home" and path.startswith(link)),
    }


@register.filter
def ago(moment: datetime | None) -> str:
    """A relative time with the exact one on hover; app.js keeps it true while the page is open."""
    if moment is None:
        return words.NOTHING
    return format_html(
        '<time datetime="{}" title="{}" data-ago>{}</time>',
        moment.isoformat(),
        words.exact_text(moment),
        words.ago_text((timezone.now() - moment).total_seconds()),
    )


register.filter("bytes", words.bytes_text)
register.filter("duration", words.duration_text)
register.filter("number", words.number_text)
