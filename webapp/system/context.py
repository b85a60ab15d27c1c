"""What the frame around every page needs: teams to switch between, the jobs that run, and the theme."""

from functools import cache, partial
from typing import Any

from django.db.models import F
from django.http import HttpRequest

from webapp.accounts.access import has_role
from webapp.accounts.models import Team
from webapp.jobs.models import Job, JobStatus

THEMES = ("light", "dark")
RAIL_JOBS = 3


def frame(request: HttpRequest) -> dict[str, Any]:
    """Nothing here asks the database before a template uses it: error pages come through here too."""
    theme = request.COOKIES.get("theme", "")
    user = getattr(request, "user", None)
    team: Team | None = getattr(request, "team", None)
    fragment = request.headers.get("HX-Request") == "true"  # its errors are no page in a page
    context: dict[str, Any] = {"theme": theme if theme in THEMES else ""}
    if user is None or team is None:
        return context | {"shell": "_bare.html" if fragment else "plain.html"}
    return context | {
        "shell": "_bare.html" if fragment else "base.html",
        "teams": lambda: Team.objects.visible_to(user).order_by(F("personal_of").desc(nulls_last=True), "name"),
        # Remembered: templates ask more than once.
        "running_jobs": cache(partial(running_jobs, team)),
        "can_make": cache(partial(has_role, team, user)),  # such as a job, or a dataset
    }


def running_jobs(team: Team) -> list[Job]:
    """The jobs of a team that run now, for the foot of the rail."""
    return list(Job.objects.filter(team=team, status=JobStatus.RUNNING).order_by("started_at")[:RAIL_JOBS])
