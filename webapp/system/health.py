"""Whether the parts this server needs are there: database, broker, disk, live workers."""

import shutil
from collections.abc import Callable
from datetime import timedelta

from django.conf import settings
from django.db import DatabaseError, connection
from django.utils import timezone

from webapp.common import streams
from webapp.jobs.models import Worker

MIN_FREE_BYTES = 1024**3  # below this, checkpoints and uploads are about to fail
MISSED_HEARTBEATS = 3


def database_answers() -> bool:
    """By a new connection: one that is open already would not notice that the file has gone."""
    try:
        if not connection.in_atomic_block:
            connection.close()
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except DatabaseError:
        return False
    return True


def broker_answers() -> bool:
    return streams.ping()


def disk_has_room() -> bool:
    return shutil.disk_usage(settings.DATA_DIR).free >= MIN_FREE_BYTES


def worker_lives() -> bool:
    """Whether a worker that takes jobs was heard of lately. For people and load balancers: leases go by the count."""
    since = timezone.now() - timedelta(seconds=MISSED_HEARTBEATS * settings.HEARTBEAT_SECONDS)
    try:
        return Worker.objects.filter(stopped=False, seen_at__gte=since).exists()
    except DatabaseError:
        return False


CHECKS: dict[str, Callable[[], bool]] = {
    "database": database_answers,
    "broker": broker_answers,
    "disk": disk_has_room,
    "workers": worker_lives,
}


def failing() -> list[str]:
    """Names of the checks that fail now."""
    return [name for name, passes in CHECKS.items() if not passes()]
