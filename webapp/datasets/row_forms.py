"""What the row table is asked for in its address, and what changes of marks send."""

from typing import Any

from django import forms

from webapp.datasets.row_marks import Change

SIZES = (25, 50, 100, 200)
MOST_ROWS_AT_ONCE = 500  # marked by one request


class RowsForm(forms.Form):
    """Everything an address of the row table may say. What makes no sense is passed over, never an error."""

    q = forms.CharField(required=False, max_length=300)
    finding = forms.CharField(required=False, max_length=60)
    role = forms.CharField(required=False, max_length=20)
    split = forms.CharField(required=False, max_length=100)
    script = forms.CharField(required=False, max_length=40)
    column = forms.CharField(required=False, max_length=300, strip=False)  # name=value, see survey_columns
    tag = forms.CharField(required=False, max_length=40)
    starred = forms.BooleanField(required=False)
    rating = forms.IntegerField(required=False, min_value=1, max_value=5)
    shortest = forms.IntegerField(required=False, min_value=0, max_value=10**10)
    longest = forms.IntegerField(required=False, min_value=0, max_value=10**10)
    turns = forms.IntegerField(required=False, min_value=0, max_value=10**6)
    turns_to = forms.IntegerField(required=False, min_value=0, max_value=10**6)
    start = forms.IntegerField(required=False, min_value=1, max_value=10**10)
    end = forms.IntegerField(required=False, min_value=1, max_value=10**10)
    size = forms.TypedChoiceField(required=False, coerce=int, empty_value=None, choices=[(n, n) for n in SIZES])
    row = forms.IntegerField(required=False, min_value=1, max_value=10**10)

    @property
    def given(self) -> dict[str, Any]:
        """What was said and makes sense."""
        self.is_valid()
        return {name: value for name, value in self.cleaned_data.items() if value not in (None, "", False)}


class NumbersField(forms.Field):
    """Numbers of rows, each under the same name."""

    widget = forms.SelectMultiple

    def clean(self, value: Any) -> list[int]:
        words = [str(word) for word in value or []]
        if not words or not all(word.isascii() and word.isdigit() and len(word) < 12 for word in words):
            raise forms.ValidationError("Choose some rows first.")
        if len(words) > MOST_ROWS_AT_ONCE:
            raise forms.ValidationError(f"At most {MOST_ROWS_AT_ONCE} rows at once.")
        return [int(word) for word in words]


class RowsAtOnceForm(forms.Form):
    """Rows of a version by their numbers."""

    number = NumbersField()


class MarksForm(RowsAtOnceForm):
    """Rows of a version by number, and what to do with their marks."""

    star = forms.ChoiceField(required=False, choices=[("on", "on"), ("off", "off")])
    rating = forms.TypedChoiceField(required=False, coerce=int, empty_value=None, choices=[(n, n) for n in range(6)])
    tag = forms.CharField(required=False, max_length=40)
    untag = forms.CharField(required=False, max_length=40)
    back = forms.CharField(required=False, max_length=2000)

    @property
    def change(self) -> Change:
        said = self.cleaned_data
        starred = {"on": True, "off": False}.get(said["star"])
        return Change(starred=starred, rating=said["rating"], tag=said["tag"], untag=said["untag"])
