"""Removes what the API keeps for a time only: expired files, uploads that nobody completed, answers of yesterday."""

import logging
import shutil
import time
from datetime import timedelta

from django.conf import settings
from django.utils import timezone

from webapp.accounts.models import Role, Team, User
from webapp.api.file_store import AnyFile, delete_file
from webapp.api.idempotency import KEPT
from webapp.api.models import ApiFile, KeptAnswer, PartedUpload, UploadStatus
from webapp.api.upload_store import LIFETIME
from webapp.api.wire import ApiError
from webapp.common.errors import UserError
from webapp.datasets.models import DatasetVersion

logger = logging.getLogger(__name__)

FORGOTTEN = timedelta(days=1)  # uploads that ended are told of for so long


def remove_expired() -> int:
    """Remove it all; how many files and uploads went."""
    now = timezone.now()
    KeptAnswer.objects.filter(created_at__lt=now - KEPT).delete()
    files = [*ApiFile.objects.filter(expires_at__lte=now), *DatasetVersion.objects.filter(expiry__expires_at__lte=now)]
    return sum(map(_remove_file, files)) + _remove_uploads()


def _remove_file(file: AnyFile) -> bool:
    try:
        delete_file(user=file.created_by or _owner(file.team), file=file)
    except (UserError, ApiError) as error:  # a job was made from it: it goes when that has gone
        logger.info("the expired file %s stays: %s", file.pk, error)
        return False
    return True


def _owner(team: Team) -> User:
    return team.memberships.filter(role=Role.OWNER).select_related("user")[0].user


def _remove_uploads() -> int:
    now = timezone.now()
    late = PartedUpload.objects.filter(expires_at__lte=now)
    over = list(late.filter(status__in=(UploadStatus.PENDING, UploadStatus.COMPLETING)))
    late.filter(pk__in=[upload.pk for upload in over]).update(status=UploadStatus.EXPIRED)
    for upload in over:
        shutil.rmtree(upload.folder, ignore_errors=True)
    late.filter(expires_at__lte=now - FORGOTTEN).delete()
    for folder in (settings.FILES_DIR / "api-parts").glob("*"):  # of requests that were killed
        if time.time() - folder.stat().st_mtime > 2 * LIFETIME.total_seconds():
            shutil.rmtree(folder, ignore_errors=True)
    return len(over)
