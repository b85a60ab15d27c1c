"""What a job is called that nobody named."""

from collections.abc import Iterator
from itertools import count

from webapp.datasets.models import DatasetVersion
from webapp.jobs.models import Job

NAME_LENGTH = 120


def free_name(version: DatasetVersion) -> str:
    """The dataset's name, numbered when a job of the team has it."""
    name = version.dataset.name[: NAME_LENGTH - 8]
    taken = set(Job.objects.filter(team=version.team, name__startswith=name).values_list("name", flat=True))
    return next(one for one in _numbered(name) if one not in taken)


def _numbered(name: str) -> Iterator[str]:
    """`name`, `name 2`, `name 3`, …"""
    yield name
    yield from (f"{name} {number}" for number in count(2))
