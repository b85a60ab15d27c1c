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
    """A team by its name or its short name, or everyone on the server. The person's own teams are offered."""

    with_everyone = forms.BooleanField(required=False, widget=forms.HiddenInput)
    team = forms.CharField(
        max_length=90,
        error_messages={"required": "Name a team."},
        help_text="Its name, or its short name: the end of its page's address. Its members can use and download the "
        "adapter.",
        widget=forms.TextInput(attrs={"autocomplete": "off", "list": "share-teams", "spellcheck": "false"}),
    )

    def clean(self) -> dict[str, Any]:
        data = super().clean() or {}
        data["found"] = None
        if data.get("with_everyone"):
            self.errors.pop("team", None)
        elif "team" in data:
            data["found"] = self._team(data["team"])
        return data

    def _team(self, called: str) -> Team | None:
        """The short name is one team's alone; a name may be that of several."""
        found = Team.objects.filter(slug=called.lower()).first()
        if found is None:
            named = Team.objects.filter(name__iexact=called)[:2]
            if len(named) == 1:
                return named[0]
            many = "There are several teams of this name. Give the short name."
            self.add_error("team", many if named else "There is no team of this name.")
        return found
