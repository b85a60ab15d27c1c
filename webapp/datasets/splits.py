"""The named parts of a version: what a person may ask for, and what there is, in words."""

from dataclasses import dataclass
from typing import Any

from django import forms

from trainer.formats.splitting import NAME, TRAIN
from webapp.datasets.models import DatasetVersion

METHODS = {
    "random": "By chance",
    "length": "Evenly over lengths",
    "turns": "Evenly over the number of answers",
    "system": "Evenly over system messages",
    "label": "Evenly over good and bad",
    "column": "Evenly over a column of the upload",
    "file": "A second file is the split",
    "none": "Take all splits back",
}


@dataclass(frozen=True)
class Part:
    """One named part and its share of the rows."""

    name: str
    rows: int
    percent: float


def parts_of(version: DatasetVersion) -> list[Part]:
    """The part to learn from first, then the largest."""
    whole = max(1, version.row_count)
    found = [Part(name, rows, 100 * rows / whole) for name, rows in version.splits.items()]
    return sorted(found, key=lambda part: (part.name != TRAIN, -part.rows))


def overlap_of(version: DatasetVersion) -> int:
    """Rows to learn from that say the same as a row of another part."""
    return int(version.report.get("overlap") or 0)


class SplitForm(forms.Form):
    """How to divide a version."""

    method = forms.ChoiceField(choices=(), label="How", initial="random")
    column = forms.ChoiceField(
        choices=(),
        required=False,
        label="Column",
        help_text="What the upload said beside the rows. A column of many numbers is divided by tenths.",
    )
    name = forms.RegexField(
        rf"^(?:{NAME.pattern})\Z",
        initial="test",
        label="Name of the split",
        help_text="Training measures on “test” and never learns from it.",
        error_messages={"invalid": "Use small letters, digits, - and _, beginning with a letter."},
    )
    percent = forms.FloatField(
        initial=10, min_value=0.01, max_value=99, required=False, label="Share", help_text="Per cent of the rows."
    )
    seed = forms.IntegerField(
        initial=42,
        min_value=0,
        max_value=2**31 - 1,
        required=False,
        label="Seed",
        help_text="The same seed, the same rows.",
    )
    file = forms.FileField(
        required=False, label="Second file", help_text="Its rows become the split; yours are what is learned from."
    )
    drop_overlap = forms.BooleanField(
        required=False, label="Leave out rows that the second file has as well", initial=True
    )
    note = forms.CharField(max_length=500, required=False, label="Note")

    def __init__(self, *args: Any, version: DatasetVersion, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        unfit = {"label"} if version.kind != "labelled" else {"turns"}
        unfit |= set() if version.splits else {"none"}
        unfit |= set() if version.columns else {"column"}
        self.fields["column"].choices = [("", "–"), *((name, name) for name in version.columns)]  # type: ignore[attr-defined]
        choices = [(name, label) for name, label in METHODS.items() if name not in unfit]
        self.fields["method"].choices = choices  # type: ignore[attr-defined]

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if name == TRAIN:
            raise forms.ValidationError("“train” is what is left. Choose another name.")
        return name

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        if cleaned.get("method") == "file" and not cleaned.get("file") and "file" not in self.errors:
            self.add_error("file", "Choose the file whose rows are the split.")
        if cleaned.get("method") == "column" and not cleaned.get("column") and "column" not in self.errors:
            self.add_error("column", "Choose the column whose values every split should have.")
        return cleaned

    @property
    def plan(self) -> dict[str, Any]:
        """As `revise` takes it."""
        asked = self.cleaned_data
        if asked["method"] == "file":
            return {"method": "file", "name": asked["name"], "drop_overlap": asked["drop_overlap"]}
        if asked["method"] == "none":
            return {"method": "none"}
        share = (asked["percent"] or 10) / 100
        seed = 42 if asked["seed"] is None else asked["seed"]
        by = {"column": asked["column"]} if asked["method"] == "column" else {}
        return {"method": asked["method"], "shares": {asked["name"]: share}, "seed": seed, **by}

    @property
    def told(self) -> str:
        """What was written, or what was asked for."""
        written: str = self.cleaned_data["note"]
        plan = self.plan
        how = f"Evenly over {plan['column']}" if plan["method"] == "column" else METHODS[plan["method"]]
        return written or (f"{how}: {self.cleaned_data['percent'] or 10:g} %" if "shares" in plan else how)
