"""What the page of tokens is asked for in its address."""

from typing import Any
from urllib.parse import urlencode

from django import forms

from trainer.spec import TrainSpec
from webapp.adapters.models import BaseModel

VIEWS = {"tokens": "Tokens", "text": "Text", "chat": "Chat"}
USUAL_LENGTH = TrainSpec().data.max_seq_length


class SeenForm(forms.Form):
    """What makes no sense is passed over, never an error."""

    base = forms.ModelChoiceField(BaseModel.objects.none(), required=False)
    length = forms.IntegerField(required=False, min_value=8, max_value=10**6)
    train_on = forms.ChoiceField(required=False, choices=[("answers", "answers"), ("everything", "everything")])
    view = forms.ChoiceField(required=False, choices=list(VIEWS.items()))
    start = forms.IntegerField(required=False, min_value=1, max_value=10**10)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["base"].queryset = BaseModel.objects.ready()  # type: ignore[attr-defined]

    @property
    def given(self) -> dict[str, Any]:
        """What was said and makes sense, with what holds where nothing was said."""
        self.is_valid()
        said = {name: value for name, value in self.cleaned_data.items() if value not in (None, "")}
        base = said.get("base") or BaseModel.objects.ready().first()
        length = min(USUAL_LENGTH, (base.facts.get("context_length") or USUAL_LENGTH) if base else USUAL_LENGTH)
        usual = {"length": length, "train_on": "answers", "view": "tokens", "start": 1}
        return usual | said | {"base": base}


def link(given: dict[str, Any], **changes: Any) -> str:
    """The query of an address like this one with some things otherwise."""
    said = given | changes
    return "?" + urlencode({name: getattr(value, "pk", value) for name, value in said.items() if value is not None})
