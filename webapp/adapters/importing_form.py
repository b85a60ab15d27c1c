"""What the page asks for that imports an adapter."""

from typing import Any

from django import forms

from webapp.adapters.models import BaseModel
from webapp.datasets.forms import FileForm, FilesField, FilesInput

TYPES = ".zip,.tar,.tgz,.gz,.safetensors,.json,.md,application/zip,application/gzip"


class ImportForm(FileForm):
    """An adapter's files, and the base model when they do not name one of ours."""

    field_order = ("file", "base", "name")
    nothing = "Choose the adapter: an archive of its folder, or its files."

    text = None  # type: ignore[assignment] # so Django takes a field away
    file = FilesField(
        required=False,
        allow_empty_file=True,
        label="Files",
        widget=FilesInput(attrs={"multiple": True, "accept": TYPES}),
    )
    base = forms.ModelChoiceField(
        queryset=BaseModel.objects.none(),
        required=False,
        label="Base model",
        empty_label="The one that the adapter names",
        help_text="An adapter works with the very base model it was made for, and with no other.",
    )
    name = forms.CharField(required=False, max_length=120, label="Name", help_text="Left empty, the archive's name.")

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.fields["base"].queryset = BaseModel.objects.ready()  # type: ignore[attr-defined]
