"""The named parts of a version: what a person may ask for, and what there is, in words."""

from dataclasses import dataclass
from typing import Any

from django import forms

from trainer.formats.splitting import NAME, TRAIN
from webapp.datasets.models import Dataset, DatasetVersion

METHODS = {
    "random": "By chance",
    "length": "Evenly over lengths",
    "turns": "Evenly over the number of answers",
    "system": "Evenly over system messages",
    "label": "Evenly over good and bad",
    "column": "Evenly over a column of the upload",
    "file": "A second file is the split",
    "back": "Take this split back",
    "none": "Take all splits back",
}
FIRST_NAMES = ("test", "validation")


@dataclass(frozen=True)
class Part:
    """One named part, its share of the rows, and how it was made. The rows in none have no name."""

    name: str
    rows: int
    percent: float
    how: str


def about_splits(version: DatasetVersion) -> dict[str, Any]:
    """What a page shows of them: the part to learn from first, then the largest; and how many rows were in them before.

    overlap: rows to learn from that say the same as a row of another part.
    """
    whole, named, plans = max(1, version.row_count), version.splits, version.report.get("split_plans", {})
    rest = {"": version.row_count - sum(named.values())} if named else {}
    found = [
        Part(name, rows, 100 * rows / whole, _how(plans[name]) if name in plans else "")
        for name, rows in (named | rest).items()
        if rows
    ]
    found.sort(key=lambda part: (part.name != TRAIN, not part.name, -part.rows))
    told = version.report.get("splits_kept", {})
    return {
        "parts": found,
        "overlap": int(version.report.get("overlap") or 0),
        "parts_kept": [
            (name, told["kept"].get(name, 0), rows) for name, rows in told.get("before", {}).items() if name != TRAIN
        ],
        "rows_new": told.get("new", 0),
    }


def _how(plan: dict[str, Any]) -> str:
    """How a part was made, in words."""
    if plan["method"] == "file":
        return f"the rows of {plan['file']}" if plan.get("file") else "the rows of a second file"
    by = f"evenly over {plan['column']}" if plan["method"] == "column" else METHODS[plan["method"]].lower()
    shares = " and ".join(f"{100 * share:g} %" for share in plan["shares"].values())
    return f"{by}: {shares} of all rows, seed {plan.get('seed', 42)}"


def divided(dataset: Dataset) -> DatasetVersion | None:
    """The version whose splits an upload takes over, where it has any."""
    version = dataset.versions.ready().first()
    return version if version and version.frozen_splits else None


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
    replace = forms.BooleanField(
        required=False,
        label="Replace the split of that name",
        help_text="Its rows are learned from again, unless they are drawn once more.",
    )
    drop_overlap = forms.BooleanField(
        required=False, label="Leave out rows that the second file has as well", initial=True
    )
    note = forms.CharField(max_length=500, required=False, label="Note")

    def __init__(self, *args: Any, version: DatasetVersion, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._there = there = version.frozen_splits
        if there:
            self.fields["name"].initial = next((name for name in FIRST_NAMES if name not in there), "")
        else:
            del self.fields["replace"]
        unfit = {"label"} if version.kind != "labelled" else {"turns"}
        unfit |= set() if version.splits else {"back", "none"}
        unfit |= set() if version.columns else {"column"}
        self.fields["name"].required = self["method"].value() != "none"
        self.fields["column"].choices = [("", "–"), *((name, name) for name in version.columns)]  # type: ignore[attr-defined]
        choices = [(name, label) for name, label in METHODS.items() if name not in unfit]
        self.fields["method"].choices = choices  # type: ignore[attr-defined]

    def clean_name(self) -> str:
        name: str = self.cleaned_data["name"]
        if name == TRAIN:
            raise forms.ValidationError("“train” is what is left. Choose another name.")
        return name

    def _check_name(self, cleaned: dict[str, Any]) -> None:
        """Splits stay as they are, unless a person says otherwise."""
        name, method = cleaned.get("name"), cleaned.get("method")
        if method == "back" and name and name not in self._there:
            self.add_error("name", f"There is no split “{name}”.")
        if method not in ("back", "none") and name in self._there and not cleaned.get("replace"):
            text = f"There is a split “{name}” already, and it stays. Choose another name, or replace it."
            self.add_error("name", text)

    def clean(self) -> dict[str, Any]:
        cleaned = super().clean() or {}
        self._check_name(cleaned)
        if cleaned.get("method") == "file" and not cleaned.get("file") and "file" not in self.errors:
            self.add_error("file", "Choose the file whose rows are the split.")
        if cleaned.get("method") == "column" and not cleaned.get("column") and "column" not in self.errors:
            self.add_error("column", "Choose the column whose values every split should have.")
        return cleaned

    @property
    def plan(self) -> dict[str, Any]:
        """As `revise` takes it."""
        asked = self.cleaned_data
        replace = {"replace": True} if asked.get("replace") else {}
        if asked["method"] == "file":
            return {"method": "file", "name": asked["name"], "drop_overlap": asked["drop_overlap"], **replace}
        if asked["method"] == "none" or (asked["method"] == "back" and len(self._there) == 1):
            return {"method": "none"}  # nothing is kept aside any more
        if asked["method"] == "back":
            return {"method": "back", "name": asked["name"]}
        share = (asked["percent"] or 10) / 100
        seed = 42 if asked["seed"] is None else asked["seed"]
        by = {"column": asked["column"]} if asked["method"] == "column" else {}
        return {"method": asked["method"], "shares": {asked["name"]: share}, "seed": seed, **by, **replace}

    @property
    def told(self) -> str:
        """What was written, or what was asked for."""
        written: str = self.cleaned_data["note"]
        plan = self.plan
        how = f"Evenly over {plan['column']}" if plan["method"] == "column" else METHODS[plan["method"]]
        if plan["method"] == "back":
            how = f"The split {plan['name']} taken back"
        return written or (f"{how}: {self.cleaned_data['percent'] or 10:g} %" if "shares" in plan else how)
