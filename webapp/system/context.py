"""What the frame around every page needs: teams to switch between, the jobs that run, and the theme."""

from typing import Any

from django.db.models import F
from django.http import HttpRequest

from webapp.accounts.models import Role, Team, User
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
        "running_jobs": lambda: running_jobs(team),
        "can_make": lambda: can_make(user, team),
    }


def can_make(user: User, team: Team) -> bool:
    """Whether somebody may start a job, upload a dataset and the like in the team they work in."""
    role = team.role_of(user)
    return role is not None and role.includes(Role.MEMBER)


def running_jobs(team: Team) -> list[Job]:
    """The jobs of a team that run now, for the foot of the rail."""
    return list(Job.objects.filter(team=team, status=JobStatus.RUNNING).order_by("started_at")[:RAIL_JOBS])
