"""What the pages ask for that bring data in."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from django import forms
from django.core.exceptions import ValidationError
from django.core.files.base import ContentFile, File
from django.db.models import QuerySet

from webapp.accounts.models import User
from webapp.datasets.models import DatasetVersion, Upload
from webapp.datasets.storing import Original, plain_name

MOST_PASTED = 2_000_000  # characters; Django reads form fields into memory, files never
MOST_FILES = 100
MOST_CHOICES = 50  # in a list; more are found by name
TYPES = (
    ".jsonl,.json,.ndjson,.csv,.tsv,.parquet,.arrow,.feather,.txt,.md,.gz,.zst,.zip,"
    "application/json,text/csv,text/plain,text/tab-separated-values,application/gzip,application/zip"
)


class FilesField(forms.FileField):
    """Any number of files."""

    widget = forms.FileInput

    def clean(self, data: Any, initial: Any = None) -> list["File[bytes]"]:
        given = data if isinstance(data, list) else [data] if data else []
        return [super(FilesField, self).clean(one, initial) for one in given]


class FilesInput(forms.FileInput):
    allow_multiple_selected = True


class FileForm(forms.Form):
    """Rows, as files, as files that arrived in parts before, or pasted."""

    nothing = "Choose a file, or paste some rows."

    file = FilesField(
        required=False,
        allow_empty_file=True,
        label="Files",
        widget=FilesInput(attrs={"multiple": True, "accept": TYPES}),
    )
    upload = forms.ModelMultipleChoiceField(
        queryset=Upload.objects.none(),
        required=False,
        widget=forms.MultipleHiddenInput,
        error_messages={"invalid_choice": "What was sent of a file is no longer here. Choose it again."},
    )
    text = forms.CharField(
        required=False,
        strip=False,
        max_length=MOST_PASTED,
        label="Or paste rows",
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "class": "mono"}),
        error_messages={"max_length": "This is too much to paste. Save it as a file and upload that."},
    )

    def __init__(self, *args: Any, user: User, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["upload"].queryset = Upload.objects.visible_to(user)  # type: ignore[attr-defined]

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        files, text = [*cleaned.get("file", []), *cleaned.get("upload", [])], (cleaned.get("text") or "").strip()
        if files and text:
            raise forms.ValidationError("There is both a file and pasted text. Remove one of them.")
        if not files and not text and not self.errors:
            raise forms.ValidationError(self.nothing)
        if len(files) > MOST_FILES:
            raise forms.ValidationError(f"At most {MOST_FILES} files at once.")
        return cleaned

    @property
    def originals(self) -> list[Original]:
        """What came, whichever way, in the order it was sent."""
        files: list[Original] = list(self.cleaned_data["file"])
        sent: dict[UUID, Upload] = {upload.pk: upload for upload in self.cleaned_data["upload"]}
        files += [sent[pk] for pk in dict.fromkeys(map(UUID, self["upload"].data or [])) if pk in sent]
        return files or [_pasted(self.cleaned_data["text"])]


class VersionForm(FileForm):
    """Rows for the next version of a dataset."""

    note = forms.CharField(max_length=500, required=False, label="Note", help_text="What is new in it, and why.")


class UploadForm(FileForm):
    """Rows for one new dataset, or for several."""

    field_order = ("name", "file", "text", "together")

    name = forms.CharField(
        required=False, max_length=120, label="Name", help_text="How the team finds it. Left empty, the file's name."
    )
    together = forms.BooleanField(
        required=False,
        label="Join the files into one dataset",
        help_text="Otherwise each file becomes a dataset of its own.",
    )

    @property
    def groups(self) -> list[tuple[str, list[Original]]]:
        """The datasets to make: a name, and the files of it."""
        given, files = self.cleaned_data["name"], self.originals
        if self.cleaned_data["together"] or len(files) == 1:
            return [(given or dataset_name(files), files)]
        return [(f"{given} {dataset_name([file])}".strip()[:120], [file]) for file in files]


def dataset_name(files: Iterable[Original]) -> str:
    """What a dataset of these files is called when nobody says: after the first."""
    name = plain_name(next(iter(files)).name)
    stem = name.removesuffix(".gz").removesuffix(".zst").rsplit(".", 1)[0]
    return stem.replace("_", " ").strip()[:120] or "Dataset"


def _pasted(text: str) -> "File[bytes]":
    """Pasted rows, under the name that such a file would have. Forms send each end of a line as CR LF."""
    text = text.replace("\r\n", "\n")
    start = text.lstrip("\ufeff \t\r\n")
    first = start.splitlines()[0]
    ending = "jsonl" if start[0] in "{[" else "tsv" if "\t" in first else "csv" if "," in first else "txt"
    return ContentFile(text.encode(), name=str(Path("pasted").with_suffix(f".{ending}")))


class NameForm(forms.Form):
    """What a dataset is called from now on."""

    name = forms.CharField(max_length=120)


class CopyForm(forms.Form):
    """A version that the person sees, as a new dataset of the team they work in."""

    version = forms.ModelChoiceField(
        queryset=DatasetVersion.objects.none(),
        label="Dataset",
        empty_label="Choose a dataset",
        error_messages={"invalid_choice": "This dataset is not there, or is not ready."},
    )
    name = forms.CharField(required=False, max_length=120, label="Name", help_text="Left empty, its own name.")

    def __init__(self, *args: Any, user: User, q: str = "", **kwargs: Any) -> None:
        """`q`: what the names of the datasets hold that are there to choose from; any that one sees may be sent."""
        super().__init__(*args, **kwargs)
        ready = DatasetVersion.objects.visible_to(user).ready().select_related("dataset__team")
        ready = ready.defer("report", "survey_report").order_by("-created_at", "pk")
        self.fields["version"].queryset = ready  # type: ignore[attr-defined]
        found = ready.filter(dataset__name__icontains=q) if q else ready
        self.found, shown = found.count(), list(found[:MOST_CHOICES])
        if (chosen := self._chosen(ready)) and chosen not in shown:
            shown.insert(0, chosen)
        named = [(one.pk, _version_label(one)) for one in shown]
        self.fields["version"].widget.choices = [("", "Choose a dataset"), *named]

    def _chosen(self, ready: "QuerySet[DatasetVersion]") -> DatasetVersion | None:
        try:
            return ready.filter(pk__in=[self["version"].value() or None]).first()
        except ValidationError:  # no id at all
            return None


def _version_label(version: DatasetVersion) -> str:
    rows = f"{version.row_count:,} row{'' if version.row_count == 1 else 's'}"
    return f"{version.dataset.name}, version {version.number} ({rows}, {version.dataset.team.name}) · {version.came_as}"


class HubForm(forms.Form):
    """Data files of the hub, as a new dataset."""

    hub_id = forms.RegexField(
        r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?$",
        label="Hub id",
        help_text="As the hub writes it: owner/name.",
        error_messages={"invalid": "Write it as owner/name."},
        widget=forms.TextInput(attrs={"placeholder": "owner/name", "spellcheck": "false", "autocapitalize": "off"}),
    )
    only = forms.CharField(
        required=False,
        max_length=200,
        label="Only files whose path contains",
        help_text="Such as train, or the name of a subset. Left empty, all data files are read as one dataset.",
    )
    revision = forms.RegexField(
        r"^[A-Za-z0-9][A-Za-z0-9._/-]{0,79}$",
        required=False,
        label="Revision",
        help_text="A branch, a tag or a commit. Left empty, the newest; whichever it is, its commit is written down.",
        error_messages={"invalid": "Write a branch, a tag or a commit."},
    )
    name = forms.CharField(required=False, max_length=120, label="Name", help_text="Left empty, the hub id.")
