"""What the home page shows: the four first steps while they last, then what runs, what ended and what is new."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from django.db.models import Case, DurationField, ExpressionWrapper, F, Q, QuerySet, Value, When

from webapp.accounts.access import TeamRequest, has_role
from webapp.accounts.models import Team, User
from webapp.adapters.models import Adapter, BaseModel, BaseSource, BaseStatus
from webapp.chat.models import Turn
from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.jobs.models import ENDED, Job, JobStatus, Worker

FINISHED, RECENT = 6, 5
ENOUGH_JOBS = 4  # a team with more successes knows the way, also when it never chats


@dataclass(frozen=True)
class FirstSteps:
    """How far a team has come: a dataset, a run, its adapter, a chat. Read from the database, never stored."""

    team: Team
    user: User

    @cached_property
    def base(self) -> BaseModel | None:
        """The demo model, or else one that is ready."""
        demo_first = Case(When(source=BaseSource.DEMO, then=Value(0)), default=Value(1))
        return BaseModel.objects.exclude(status=BaseStatus.FAILED).order_by(demo_first, "created_at").first() or (
            BaseModel.objects.first()
        )

    @cached_property
    def version(self) -> DatasetVersion | None:
        """The newest that is ready, else the newest."""
        versions = DatasetVersion.objects.filter(dataset__team=self.team).select_related("dataset")
        ready_first = Case(When(status=VersionStatus.READY, then=Value(0)), default=Value(1))
        return versions.order_by(ready_first, "-created_at").first()

    @cached_property
    def job(self) -> Job | None:
        """The job that came furthest."""
        furthest = [JobStatus.SUCCEEDED, JobStatus.RUNNING, JobStatus.QUEUED]
        rank = Case(*[When(status=status, then=Value(i)) for i, status in enumerate(furthest)], default=Value(9))
        return Job.objects.filter(team=self.team).select_related("adapter").order_by(rank, "-created_at").first()

    @cached_property
    def adapter(self) -> Adapter | None:
        return Adapter.objects.finals().filter(team=self.team).select_related("base_model").first()

    @cached_property
    def done(self) -> dict[str, bool]:
        under_way = self.job is not None and self.job.status not in (JobStatus.FAILED, JobStatus.CANCELLED)
        return {
            "dataset": self.version is not None and self.version.is_ready,
            "run": under_way or self.adapter is not None,
            "watch": self.adapter is not None,
            "chat": Turn.objects.filter(conversation__team=self.team, conversation__created_by=self.user).exists(),
        }

    @property
    def states(self) -> dict[str, str]:
        """Each step is done, next (the first that is not done) or later."""
        open_steps = [step for step, is_done in self.done.items() if not is_done]
        return {
            step: "done" if is_done else "next" if step == open_steps[0] else "later"
            for step, is_done in self.done.items()
        }

    @property
    def is_over(self) -> bool:
        if all(self.done.values()):
            return True
        return Job.objects.filter(team=self.team, status=JobStatus.SUCCEEDED).count() >= ENOUGH_JOBS


def home_context(request: TeamRequest) -> dict[str, Any]:
    """Everything on the home page of this team; `is_live` says whether it changes by itself."""
    team, user = request.team, request.user
    steps = FirstSteps(team, user)
    jobs = Job.objects.filter(team=team)
    unfinished = list(jobs.unfinished().order_by(F("started_at").asc(nulls_last=True), "created_at"))
    can_change = has_role(team, user)
    context: dict[str, Any] = {
        "steps": steps if can_change and not steps.is_over else None,
        "base": steps.base,
        "running": [job for job in unfinished if job.status == JobStatus.RUNNING],
        "waiting": [job for job in unfinished if job.status == JobStatus.QUEUED],
        "finished": list(finished(team)),
        "versions": list(recent_versions(team)),
        "shared": list(shared_with(team)),
        "can_change": can_change,
        "no_worker": not Worker.objects.live().exists(),
    }
    inspecting = any(version.is_pending for version in context["versions"])
    fetching = steps.base is not None and steps.base.status == BaseStatus.FETCHING
    return context | {"is_live": bool(unfinished) or inspecting or (fetching and context["steps"] is not None)}


def finished(team: Team) -> QuerySet[Job]:
    took = ExpressionWrapper(F("ended_at") - F("started_at"), output_field=DurationField())
    ended = Job.objects.filter(team=team, status__in=ENDED).select_related("adapter").annotate(took=took)
    return ended.order_by("-ended_at")[:FINISHED]


def recent_versions(team: Team) -> QuerySet[DatasetVersion]:
    found = DatasetVersion.objects.filter(dataset__team=team).select_related("dataset")
    return found.order_by("-created_at")[:RECENT]


def shared_with(team: Team) -> QuerySet[Adapter]:
    """Adapters of other teams that this one may use."""
    granted = Q(shares__team=team) | Q(shares__isnull=False, shares__team__isnull=True)
    return Adapter.objects.filter(granted).exclude(team=team).distinct().select_related("team", "base_model")[:RECENT]
