"""Sizes, times, numbers and states in words, and the template tags that show them."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from django import forms
from django.template import Context, Template

from webapp.adapters.models import BaseStatus
from webapp.chat.models import CompletionStatus
from webapp.common import words
from webapp.datasets.models import VersionStatus
from webapp.jobs.models import JobStatus


def rendered(source: str, **context: Any) -> str:
    return Template(source).render(Context(context)).strip()


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "–"), (0, "0 B"), (999, "999 B"), (1_000, "1.0 kB"), (61_000, "61 kB"), (999_999, "1.0 MB"),
     (4_234_000_000, "4.2 GB"), (141_000_000_000, "141 GB"), (2_500_000_000_000_000, "2,500 TB")],
)  # fmt: skip
def test_bytes(count: float | None, text: str) -> None:
    assert words.bytes_text(count) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0, "0 s"), (0.42, "0.4 s"), (45, "45 s"), (59.7, "1 min"), (130, "2 min 10 s"), (3600, "1 h"),
     (11_100, "3 h 5 min"), (187_200, "2 d 4 h"), (-5, "0 s"), (timedelta(minutes=2), "2 min")],
)  # fmt: skip
def test_duration(seconds: float | timedelta | None, text: str) -> None:
    assert words.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(None, "–"), ("", "–"), (1234567, "1,234,567"), (0.0001, "0.0001"), (0.2841, "0.284"), (1.2841, "1.28"),
     (12.34, "12.3"), (1204.3, "1,204"), (2.0, "2"), (True, "1")],
)  # fmt: skip
def test_number(value: Any, text: str) -> None:
    assert words.number_text(value) == text
    assert words.number_text(1.2, 3) == "1.200"


def test_ago_is_relative_with_the_exact_time_on_hover() -> None:
    moment = datetime.now(UTC) - timedelta(minutes=5, seconds=3)
    html = rendered("{{ moment|ago }}", moment=moment)
    assert ">5 min ago</time>" in html
    assert f'title="{words.exact_text(moment)}"' in html
    assert "UTC" in html
    assert rendered("{{ moment|ago }}", moment=None) == "–"


@pytest.mark.parametrize("choices", [JobStatus, VersionStatus, BaseStatus, CompletionStatus])
def test_every_state_has_a_word_an_icon_and_a_tone(choices: Any) -> None:
    for status in choices.values:
        state = words.STATES[status]
        html = rendered("{% status_badge status %}", status=status)
        assert f"badge-{state.tone}" in html
        assert f"#{state.icon}" in html
        assert state.word in html


def test_an_unknown_state_is_shown_by_its_own_name_and_escaped() -> None:
    html = rendered("{% status_badge status %}", status="<b>odd</b>")
    assert "<b>" not in html
    assert "badge-idle" in html


def test_icons_are_decoration_unless_labelled() -> None:
    assert 'aria-hidden="true"' in rendered('{% icon "play" %}')
    assert 'aria-label="Start"' in rendered('{% icon "play" "Start" %}')


def test_hue_of_an_adapter_and_of_the_base() -> None:
    assert rendered("{% hue adapter %}", adapter=SimpleNamespace(hue=3)) == "hue-3"
    assert rendered("{% hue adapter %}", adapter=None) == "hue-base"


class Form(forms.Form):
    name = forms.CharField(help_text="What it is called.")
    note = forms.CharField(required=False)
    kind = forms.ChoiceField(choices=[("a", "A")], widget=forms.RadioSelect)
    agree = forms.BooleanField(required=False, help_text="Now.")
    key = forms.CharField(widget=forms.HiddenInput)


def test_field_ties_label_hint_and_error_to_the_control() -> None:
    html = rendered("{% field form.name %}", form=Form({}))
    assert '<label for="id_name">' in html
    assert 'id="id_name_helptext"' in html
    assert 'aria-invalid="true"' in html
    described = html.split('aria-describedby="')[1].split('"')[0].split()
    assert described
    assert all(f'id="{name}"' in html for name in described)


def test_field_knows_its_kinds() -> None:
    form = Form()
    assert "optional" in rendered("{% field form.note %}", form=form)
    assert "<legend" in rendered("{% field form.kind %}", form=form)
    assert 'class="check"' in rendered("{% field form.agree %}", form=form)
    assert "label" not in rendered("{% field form.key %}", form=form)
    assert '<span class="unit">tokens</span>' in rendered('{% field form.name unit="tokens" %}', form=form)
