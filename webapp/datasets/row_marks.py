"""Stars, ratings and tags of rows: what a team thinks of them, in every version."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction

from webapp.accounts.models import User
from webapp.common.errors import UserError
from webapp.datasets.models import Dataset, RowMark, RowTag

MOST_TAGS = 200  # names in a dataset: they are offered in a list


@dataclass
class Marks:
    """What is on one row."""

    starred: bool = False
    rating: int | None = None
    tags: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Change:
    """What to do with the marks of rows; None and empty leave them. A rating of 0 takes the rating away."""

    starred: bool | None = None
    rating: int | None = None
    tag: str = ""
    untag: str = ""


def marks_of(dataset: Dataset, row_ids: Collection[str]) -> dict[str, Marks]:
    """The marks of rows by their ids; rows without any have fresh ones."""
    found: dict[str, Marks] = defaultdict(Marks)
    for mark in RowMark.objects.filter(dataset=dataset, row_id__in=row_ids):
        found[mark.row_id] = Marks(mark.starred, mark.rating)
    for tag in RowTag.objects.filter(dataset=dataset, row_id__in=row_ids):
        found[tag.row_id].tags.append(tag.name)
    return found


def ids_with(dataset: Dataset, *, starred: bool = False, rating: int = 0, tag: str = "") -> frozenset[str] | None:
    """The rows with all of these marks; None when no mark is asked for."""
    asked: list[set[str]] = []
    if starred:
        asked.append(set(dataset.row_marks.filter(starred=True).values_list("row_id", flat=True)))
    if rating:
        asked.append(set(dataset.row_marks.filter(rating__gte=rating).values_list("row_id", flat=True)))
    if tag:
        asked.append(set(dataset.row_tags.filter(name=tag).values_list("row_id", flat=True)))
    return frozenset(set.intersection(*asked)) if asked else None


def tag_names(dataset: Dataset) -> list[str]:
    return list(dataset.row_tags.order_by("name").values_list("name", flat=True).distinct()[:MOST_TAGS])


@transaction.atomic
def change_marks(*, user: User, dataset: Dataset, row_ids: Collection[str], change: Change) -> None:
    """Put marks on rows, or take them away."""
    values: dict[str, Any] = {} if change.starred is None else {"starred": change.starred}
    values |= {} if change.rating is None else {"rating": change.rating or None}
    if values:
        marks = [RowMark(dataset=dataset, row_id=row_id, changed_by=user, **values) for row_id in row_ids]
        RowMark.objects.bulk_create(
            marks,
            update_conflicts=True,
            unique_fields=["dataset", "row_id"],
            update_fields=[*values, "changed_by", "changed_at"],
        )
    if name := clean_tag(change.tag):
        if name not in (known := tag_names(dataset)) and len(known) >= MOST_TAGS:
            raise UserError("too_many_tags", limit=MOST_TAGS)
        tags = [RowTag(dataset=dataset, row_id=row_id, name=name) for row_id in row_ids]
        RowTag.objects.bulk_create(tags, ignore_conflicts=True)
    if change.untag:
        dataset.row_tags.filter(name=change.untag, row_id__in=row_ids).delete()


def clean_tag(typed: str) -> str:
    """A tag as it is kept: one line without spaces around it."""
    printable = "".join(one for one in typed if one.isprintable())
    return " ".join(printable.split())[:40]
