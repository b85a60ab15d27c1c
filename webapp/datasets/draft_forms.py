"""What the pages of a draft ask for."""

from typing import Any

from django import forms

# What a new row of each kind begins with.
QUESTION = {"role": "user", "content": ""}
ANSWER = {"role": "assistant", "content": ""}
EMPTY: dict[str, dict[str, Any]] = {
    "chat": {"messages": [QUESTION, ANSWER]},
    "text": {"text": ""},
    "preference": {"prompt": [QUESTION], "chosen": [ANSWER], "rejected": [ANSWER]},
    "labelled": {"prompt": [QUESTION], "completion": [ANSWER], "label": True},
}


class DraftForm(forms.Form):
    """What to save a draft as. `newest` is the newest version that the page showed, `onto` the one to change."""

    note = forms.CharField(max_length=500, required=False, label="Note", help_text="What changed, and why.")
    newest = forms.IntegerField(required=False, widget=forms.HiddenInput)
    onto = forms.IntegerField(required=False, widget=forms.HiddenInput)
