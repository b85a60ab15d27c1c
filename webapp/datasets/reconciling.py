"""The scheduler's look at inspections and surveys: a lost worker's are given back, what waits is rung for again."""

from uuid import UUID

from django.conf import settings

from trainer.formats.survey import VERSION
from webapp.common.watch import Bell, Watch
from webapp.datasets import lifecycle, survey_lifecycle, tasks
from webapp.datasets.models import DatasetVersion, SurveyStatus, VersionStatus


class Inspections:
    """One process's watch over all inspections."""

    def __init__(self) -> None:
        self._beats: Watch[tuple[UUID, int]] = Watch(settings.LEASE_SECONDS)
        self._bell: Bell[UUID] = Bell(tasks.ring)

    def reconcile(self, now: float) -> None:
        """One look; `now` is this process's monotonic clock."""
        running = DatasetVersion.objects.filter(status=VersionStatus.INSPECTING)
        beats = {(pk, number): beat for pk, number, beat in running.values_list("pk", "inspection", "heartbeat")}
        for pk, number in self._beats.overdue(beats, now):
            lifecycle.interrupt(pk, number, seen_beat=beats[pk, number])
        waiting = DatasetVersion.objects.filter(status=VersionStatus.UPLOADED).values_list("pk", flat=True)
        self._bell.ring_for(list(waiting), now)


class Surveys:
    """One process's watch over all surveys."""

    def __init__(self) -> None:
        self._beats: Watch[tuple[UUID, int]] = Watch(settings.LEASE_SECONDS)
        self._bell: Bell[UUID] = Bell(tasks.ring_for_survey)

    def reconcile(self, now: float) -> None:
        """One look; `now` is this process's monotonic clock."""
        running = DatasetVersion.objects.filter(survey_status=SurveyStatus.RUNNING)
        beats = {(pk, number): beat for pk, number, beat in running.values_list("pk", "survey", "survey_heartbeat")}
        for pk, number in self._beats.overdue(beats, now):
            survey_lifecycle.interrupt(pk, number, seen_beat=beats[pk, number])
        ready = DatasetVersion.objects.ready()
        waiting = list(ready.filter(survey_status=SurveyStatus.WAITING).values_list("pk", flat=True))
        self._bell.ring_for(waiting, now)
        if not beats and not waiting:
            _repeat_one()


def _repeat_one() -> None:
    """Have a survey by an older release made again, the newest version's first: one at a time, when nothing waits."""
    done = DatasetVersion.objects.ready().filter(survey_status=SurveyStatus.DONE, survey_version__lt=VERSION)
    newest = done.order_by("-created_at").values_list("pk", flat=True).first()
    if newest:
        survey_lifecycle.repeat(newest, older_than=VERSION)
