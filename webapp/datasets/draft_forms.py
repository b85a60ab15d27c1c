"""What the pages of a draft ask for."""

from typing import Any

from django import forms

MOST_AT_ONCE = 10_000

# What a new row of each kind begins with.
QUESTION = {"role": "user", "content": ""}
ANSWER = {"role": "assistant", "content": ""}
EMPTY: dict[str, dict[str, Any]] = {
    "chat": {"messages": [QUESTION, ANSWER]},
    "text": {"text": ""},
    "preference": {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [ANSWER]},
    "labelled": {"prompt": [QUESTION], "completion": [ANSWER], "label": True},
}


class NumbersField(forms.TypedMultipleChoiceField):
    """Numbers of rows."""

    def __init__(self) -> None:
        super().__init__(coerce=int)

    def valid_value(self, value: str) -> bool:
        return value.isascii() and value.isdigit() and len(value) < 10

    def validate(self, value: list[str]) -> None:
        super().validate(value)
        if len(value) > MOST_AT_ONCE:
            raise forms.ValidationError(f"At most {MOST_AT_ONCE} rows at once.")


class RemoveForm(forms.Form):
    """Rows to remove."""

    number = NumbersField()


class DraftForm(forms.Form):
    """What to save a draft as. `newest` is the newest version that the page showed, `onto` the one to change."""

    note = forms.CharField(max_length=500, required=False, label="Note", help_text="What changed, and why.")
    newest = forms.IntegerField(required=False, widget=forms.HiddenInput)
    onto = forms.IntegerField(required=False, widget=forms.HiddenInput)
