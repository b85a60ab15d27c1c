"""What the machines page shows: each worker, what it has and what it does, and how to add another."""

from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.utils import timezone

from webapp.accounts.access import TeamRequest
from webapp.accounts.models import User
from webapp.jobs.models import Attempt, Job, JobStatus, Worker

KEEP_DAYS = 7  # a worker that stopped longer ago is history


@dataclass(frozen=True)
class Machine:
    """A worker as its row on the page; `job` is None when idle, or when its job is another team's."""

    worker: Worker
    is_busy: bool
    job: Job | None

    @property
    def state(self) -> str:
        """For people: whether it takes jobs is decided by its counter, not by this clock."""
        if self.worker.stopped:
            return "offline"
        if timezone.now() - self.worker.seen_at > timedelta(seconds=2 * settings.LEASE_SECONDS):
            return "missing"
        return "working" if self.is_busy else "online"


def machines_of(user: User) -> list[Machine]:
    """Every worker of the server. What it works on is named only to members of the team that asked for it."""
    attempts = Attempt.objects.filter(ended_at=None, job__status=JobStatus.RUNNING, worker__isnull=False)
    jobs = {attempt.worker_id: attempt.job for attempt in attempts.select_related("job")}
    visible = set(Job.objects.visible_to(user).filter(pk__in=[job.pk for job in jobs.values()]).values_list("pk"))
    since = timezone.now() - timedelta(days=KEEP_DAYS)
    workers = Worker.objects.live() | Worker.objects.filter(stopped=True, seen_at__gte=since)
    return [
        Machine(
            worker=one, is_busy=one.pk in jobs, job=job if (job := jobs.get(one.pk)) and (job.pk,) in visible else None
        )
        for one in workers.order_by("stopped", "name")
    ]


def machines_context(request: TeamRequest) -> dict[str, Any]:
    machines = machines_of(request.user)
    return {
        "machines": machines,
        "online": sum(machine.state in ("online", "working") for machine in machines),
        "busy": sum(machine.state == "working" for machine in machines),
        "waiting": Job.objects.claimable().count(),
        "embedded_queue": urlsplit(settings.REDIS_URL).scheme == "unix",
        "embedded_database": settings.DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3",
    }
