"""A dataset as an upload makes it: stored, and checked by the real child."""

from django.core.files.uploadedfile import SimpleUploadedFile

from tests.cast import Cast
from webapp.datasets import services, tasks
from webapp.datasets.models import DatasetVersion


def inspect(version: DatasetVersion) -> DatasetVersion:
    tasks.inspect(str(version.pk))
    version.refresh_from_db()
    return version


def uploaded(cast: Cast, content: bytes, name: str = "rows.jsonl") -> DatasetVersion:
    file = SimpleUploadedFile(name, content)
    return inspect(services.upload_dataset(user=cast.bob, team=cast.team, name="rows", file=file).versions.get())
