"""What the pages about adapters and base models accept."""

import re
from typing import Any

from django import forms

from webapp.accounts.models import Team
from webapp.adapters.models import BaseModel, BaseSource

HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
REVISION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,79}")


class BaseForm(forms.Form):
    """A base model to add: where it comes from, and what to call it."""

    source = forms.ChoiceField(
        label="Where it comes from",
        choices=[
            (BaseSource.HUB.value, "The Hugging Face hub: it is downloaded once"),
            (BaseSource.FOLDER.value, "A folder of this server: it is used where it lies"),
        ],
        initial=BaseSource.HUB.value,
        widget=forms.RadioSelect,
    )
    location = forms.CharField(
        label="Hub id or folder",
        max_length=500,
        help_text="Such as Qwen/Qwen2.5-0.5B-Instruct, or the full path of a folder.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    revision = forms.CharField(
        max_length=80,
        required=False,
        help_text="Branch, tag or commit of a hub id. Empty takes the main branch. The commit found is kept.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "spellcheck": "false"}),
    )
    name = forms.CharField(
        max_length=120, required=False, help_text="What people here call it. Empty takes the hub id or folder name."
    )

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if name and BaseModel.objects.filter(name=name).exists():
            raise forms.ValidationError("There is a base model of this name already.")
        return name

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        if data.get("source") == BaseSource.HUB and "location" in data:
            if not HUB_ID.fullmatch(data["location"]) or ".." in data["location"]:
                self.add_error("location", "A hub id has the form owner/name.")
            if data.get("revision") and (not REVISION.fullmatch(data["revision"]) or ".." in data["revision"]):
                self.add_error("revision", "This is no branch, tag or commit.")
        return data


class AdapterNameForm(forms.Form):
    name = forms.CharField(label="Name of the adapter", max_length=120)


class ShareForm(forms.Form):
    """A team by its short name, or everyone on the server."""

    with_everyone = forms.BooleanField(required=False, widget=forms.HiddenInput)
    team = forms.SlugField(
        label="Short name of the team",
        error_messages={"required": "Name a team."},
        help_text="It stands in the address of the team's page. Its members can use and download the adapter.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "placeholder": "such as red-team", "spellcheck": "false"}),
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        data["found"] = None
        if data.get("with_everyone"):
            self.errors.pop("team", None)
        elif "team" in data:
            data["found"] = Team.objects.filter(slug=data["team"]).first()
            if data["found"] is None:
                self.add_error("team", "There is no team of this short name.")
        return data
