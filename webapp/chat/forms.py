"""The shape and limits of what a chat page may send: who answers, how, and the message."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from uuid import UUID, uuid4

from django import forms

from webapp.accounts.models import User
from webapp.adapters.models import Adapter, BaseModel
from webapp.chat.models import MAX_TARGETS
from webapp.chat.sampling import MAX_SEED, MAX_TEMPERATURE, MAX_TOKENS, MIN_TOP_P, Sampling
from webapp.chat.targets import Targets
from webapp.common.errors import CATALOGUE

MESSAGE_LENGTH = 200_000
PROMPT_LENGTH = 20_000


class MessageForm(forms.Form):
    message = forms.CharField(
        max_length=MESSAGE_LENGTH,
        strip=False,
        label="Message",
        error_messages={"required": CATALOGUE["empty_message"].text},
        widget=forms.Textarea(attrs={"rows": 2, "placeholder": "Ask something", "autofocus": True}),
    )


class BeginForm(MessageForm):
    """The first question, and a key that is new for every page: sent twice it begins one conversation."""

    form_key = forms.UUIDField(required=False, widget=forms.HiddenInput(attrs={"autocomplete": "off"}), initial=uuid4)

    def clean_form_key(self) -> UUID:
        return self.cleaned_data["form_key"] or uuid4()


class SettingsForm(forms.Form):
    """Who answers and how. A target is named `base:<id>` or `adapter:<id>`; only visible ones are choices."""

    target = forms.MultipleChoiceField(
        label="Models", error_messages={"required": f"{CATALOGUE['no_target'].text} {CATALOGUE['no_target'].fix}"}
    )
    system_prompt = forms.CharField(
        required=False,
        max_length=PROMPT_LENGTH,
        label="System prompt",
        help_text="Said to every model before the conversation; empty leaves it to the base model's template.",
        widget=forms.Textarea(attrs={"rows": 3}),
    )
    temperature = forms.FloatField(
        min_value=0,
        max_value=MAX_TEMPERATURE,
        label="Temperature",
        help_text="0 always takes the likeliest word, so answers repeat exactly; higher values vary more.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    top_p = forms.FloatField(
        min_value=MIN_TOP_P,
        max_value=1,
        label="Top p",
        help_text="Draws only from the likeliest words that together have this share; 1 draws from all.",
        widget=forms.NumberInput(attrs={"step": "any"}),
    )
    max_tokens = forms.IntegerField(
        min_value=1, max_value=MAX_TOKENS, label="Longest answer", help_text="An answer is cut after this many tokens."
    )
    seed = forms.IntegerField(
        min_value=0,
        max_value=MAX_SEED,
        label="Seed",
        help_text="Above temperature 0 the same seed draws the same answer to the same question.",
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        adapters = Adapter.objects.visible_to(user).filter(base_model__in=BaseModel.objects.ready())
        self.adapters = {f"adapter:{one.pk}": one for one in adapters.select_related("base_model", "team")}
        self.bases = {f"base:{one.pk}": one for one in BaseModel.objects.ready()}
        names = [(key, base.name) for key, base in self.bases.items()]
        names += [(key, adapter.name) for key, adapter in self.adapters.items()]
        self.fields["target"].choices = names  # type: ignore[attr-defined]  # a MultipleChoiceField, as declared

    def clean_target(self) -> Targets:
        keys = list(dict.fromkeys(self.cleaned_data["target"]))
        adapters = [self.adapters[key] for key in keys if key in self.adapters]
        bases = [self.bases[key] for key in keys if key in self.bases]
        if len(keys) > MAX_TARGETS:
            entry = CATALOGUE["too_many_targets"]
            raise forms.ValidationError(f"{entry.text.format(limit=MAX_TARGETS)} {entry.fix}")
        if len({one.pk for one in bases} | {one.base_model_id for one in adapters}) > 1:
            entry = CATALOGUE["mixed_bases"]
            raise forms.ValidationError(f"{entry.text} {entry.fix}")
        return Targets(bases[0] if bases else adapters[0].base_model, bool(bases), adapters)

    @property
    def sampling(self) -> Sampling:
        """The checked values."""
        return Sampling.stored(self.cleaned_data)

    @property
    def selected(self) -> set[str]:
        """The keys of the models that are ticked on the page."""
        return set(self["target"].value() or [])

    def _offered(self) -> list[tuple[str, Adapter]]:
        """Adapters to tick; checkpoints of them only where a link or the conversation names them."""
        chosen, shown = self.selected, {one.pk for one in self.adapters.values()}
        return [(name, one) for name, one in self.adapters.items() if name in chosen or one.of_id not in shown]

    @property
    def groups(self) -> list[tuple[BaseModel, str, list[tuple[str, Adapter]]]]:
        """Every ready base model with its key and the adapters on it, as the picker lists them."""
        return [
            (base, key, [(name, one) for name, one in self._offered() if one.base_model_id == base.pk])
            for key, base in self.bases.items()
        ]


def initial_values(sampling: Sampling) -> dict[str, str]:
    """As a person would type them: 0 and not 0.0."""
    return {name: f"{value:.10g}" for name, value in sampling.to_dict().items()}


def target_keys(targets: Targets) -> list[str]:
    """The form's names of targets."""
    base = [f"base:{targets.base_model.pk}"] if targets.include_base else []
    return base + [f"adapter:{adapter.pk}" for adapter in targets.adapters]


def linked_keys(adapter_ids: Iterable[str], base_ids: Iterable[str], form: SettingsForm) -> list[str]:
    """What a deep link names, as far as it may be chosen; else the newest adapter and its base, else a base model."""
    named = [f"base:{pk}" for pk in base_ids] + [f"adapter:{pk}" for pk in adapter_ids]
    known = [key for key in named if key in form.bases or key in form.adapters]
    if known:
        return known[:MAX_TARGETS]
    newest = next(((key, one) for key, one in form.adapters.items() if one.of_id is None), None)
    if newest:
        return [f"base:{newest[1].base_model_id}", newest[0]]
    return list(form.bases)[:1]
