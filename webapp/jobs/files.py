"""The dataset versions a job is made from, and what is said when one of them cannot be used."""

from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.jobs.models import Job

FILES = ("dataset_version__dataset", "validation_version__dataset")


def refused_version(job: Job) -> DatasetVersion | None:
    """The file of a job that its check refused."""
    versions = (job.dataset_version, job.validation_version)
    return next((one for one in versions if one is not None and one.status == VersionStatus.REJECTED), None)


def refusal(job: Job) -> tuple[str, str]:
    """What is wrong with that file and what to do: what the check said first, with its line."""
    version = refused_version(job)
    if version is None:
        return "A file of this job cannot be used.", "Look at its dataset's page."
    failure = version.report.get("failure")
    if failure:
        return f"{version} cannot be used: {failure['text']}", failure.get("fix", "")
    errors = version.report.get("errors", [])
    if not errors:
        return f"{version} cannot be used.", "Its page says why."
    first = errors[0]
    where = f"line {first['line']}: " if first.get("line") else ""
    return f"{version} cannot be used: {where}{first.get('problem', '')}", first.get("fix", "")
