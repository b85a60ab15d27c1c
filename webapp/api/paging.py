"""Pages of lists: `after`, `limit` and `order` as the client sends them, over rows that have `created_at` and `pk`."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar
from uuid import UUID

from django.db import models
from django.db.models import Q
from django.http import HttpRequest

from webapp.api.fields import bad

M = TypeVar("M", bound=models.Model)

ORDERS = {"asc": False, "desc": True, "ascending": False, "descending": True}


@dataclass(frozen=True)
class Asked:
    """Which page. `after` is the wire's id of the item before it, empty for the first page."""

    after: str
    limit: int
    newest_first: bool


def asked(request: HttpRequest, *, usual: int = 20, most: int = 100) -> Asked:
    """Read the query; 400 with `param` for what is no number, too many, or no order."""
    limit = request.GET.get("limit", "")
    if limit and not (limit.isascii() and limit.isdigit() and len(limit) < 9 and 1 <= int(limit) <= most):
        bad("limit", f"`limit` must be a whole number from 1 to {most}.")
    order = request.GET.get("order", "desc") or "desc"
    if order not in ORDERS:
        bad("order", "`order` must be asc or desc.")
    return Asked(request.GET.get("after", ""), int(limit) if limit else usual, ORDERS[order])


Place = tuple[datetime, Any]  # where an item stands: created_at, pk


def place_after(rows: "models.QuerySet[M]", page: Asked, id_of: Callable[[str], UUID | None]) -> Place | None:
    """Where the item `page.after` stands among the rows; 400 when it is none of them."""
    if not page.after:
        return None
    pk = id_of(page.after)
    place: Place | None = rows.filter(pk=pk).values_list("created_at", "pk").first() if pk else None
    if place is None:
        bad("after", "`after` is the id of nothing in this list.")
    return place


def rows_of(rows: "models.QuerySet[M]", page: Asked, place: Place | None) -> "models.QuerySet[M]":
    """One row more than the page holds, in order; the one more says that there is another page."""
    if place:
        moment, pk = place
        sign = "lt" if page.newest_first else "gt"
        beyond = Q(**{f"created_at__{sign}": moment}) | Q(created_at=moment, **{f"pk__{sign}": pk})
        rows = rows.filter(beyond)
    order = ("-created_at", "-pk") if page.newest_first else ("created_at", "pk")
    return rows.order_by(*order)[: page.limit + 1]


def page_of(rows: "models.QuerySet[M]", page: Asked, id_of: Callable[[str], UUID | None]) -> tuple[list[M], bool]:
    """The rows of a page, and whether there are more."""
    found = list(rows_of(rows, page, place_after(rows, page, id_of)))
    return found[: page.limit], len(found) > page.limit
