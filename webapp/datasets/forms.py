"""What the upload pages ask for."""

from typing import Any

from django import forms
from django.core.files.base import ContentFile, File

MOST_PASTED = 2_000_000  # characters; Django reads form fields into memory, files never


class FileForm(forms.Form):
    """Rows, as a file or pasted."""

    file = forms.FileField(
        required=False, allow_empty_file=True, label="File", help_text="JSON or JSONL, alpaca or chat messages."
    )
    text = forms.CharField(
        required=False,
        strip=False,
        max_length=MOST_PASTED,
        label="Or paste rows",
        widget=forms.Textarea(attrs={"rows": 8, "spellcheck": "false", "class": "mono"}),
        error_messages={"max_length": "This is too much to paste. Save it as a file and upload that."},
    )

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        file, text = cleaned.get("file"), (cleaned.get("text") or "").strip()
        if file and text:
            raise forms.ValidationError("There is both a file and pasted text. Remove one of them.")
        if not file and not text and not self.errors:
            raise forms.ValidationError("Choose a file, or paste some rows.")
        return cleaned

    @property
    def rows(self) -> "File[bytes]":
        """The upload, whichever way it came."""
        file: File[bytes] | None = self.cleaned_data["file"]
        return file or ContentFile(self.cleaned_data["text"].encode(), name="pasted.jsonl")


class UploadForm(FileForm):
    """Rows for a new dataset."""

    field_order = ("name", "file", "text")

    name = forms.CharField(
        required=False, max_length=120, label="Name", help_text="How the team finds it. Left empty, the file's name."
    )

    @property
    def dataset_name(self) -> str:
        given: str = self.cleaned_data["name"]
        stem = (self.rows.name or "").rsplit("/", 1)[-1].rsplit(".", 1)[0]
        return given or stem.replace("_", " ").strip()[:120] or "Dataset"
