"""Where a job stands, in one sentence."""

from django.conf import settings
from django.utils import timezone

from webapp.common.words import ago_text, duration_text
from webapp.jobs.claiming import place_in_line
from webapp.jobs.models import Attempt, FailureReason, Job, JobStatus, Worker

MISSED_HEARTBEATS = 3  # before a silence is worth a word

PHASES = {
    "": "Starting the trainer",
    "loading": "Loading the base model",
    "preparing": "Preparing the rows",
    "training": "Training",
    "evaluating": "Measuring on held-out rows",
    "saving": "Writing the adapter",
}

REASONS = {
    FailureReason.USER_CONFIG: "the settings do not work",
    FailureReason.DATASET_INVALID: "the dataset cannot be trained on",
    FailureReason.INPUT_CHANGED: "files changed meanwhile",
    FailureReason.OUT_OF_MEMORY: "out of memory",
    FailureReason.DIVERGED: "the training diverged",
    FailureReason.DISK_FULL: "the disk is full",
    FailureReason.STALLED: "the trainer stalled",
    FailureReason.INTERRUPTED_TOO_OFTEN: "interrupted too often",
    FailureReason.INTERNAL: "something went wrong inside",
}


def standing(job: Job) -> str:
    """A sentence for the head of the job's page and its row in the list."""
    match job.status:
        case JobStatus.QUEUED:
            return _queued(job)
        case JobStatus.RUNNING:
            return _running(job)
        case JobStatus.SUCCEEDED:
            return f"Finished in {duration_text(job.seconds_taken)}."
        case JobStatus.FAILED:
            return f"Failed{_after(job)}: {reason_words(job)}."
    return f"Cancelled{_after(job)}."


def reason_words(job: Job) -> str:
    """Why a job failed, in a few words; the trainer's own text says it in full."""
    return REASONS[FailureReason(job.reason or FailureReason.INTERNAL)]


def _queued(job: Job) -> str:
    if job.paused:
        return f"Paused{_after(job)}."
    if version := job.awaited_version:
        return f"Waits for {version} to be checked."
    if job.not_before and job.not_before > timezone.now():
        left = duration_text(max(1, round((job.not_before - timezone.now()).total_seconds())))
        return f"Interrupted{_after(job)}; tries again in {left}."
    return f"{ordinal(place_in_line(job))} in line; {_why_waiting()}"


def _why_waiting() -> str:
    live = Worker.objects.live()
    if not live.exists():
        last = Worker.objects.order_by("-seen_at").first()
        if last is None:
            return "no worker has been online yet."
        return f"no worker online, the last one was seen {ago_text((timezone.now() - last.seen_at).total_seconds())}."
    if live.idle().exists():
        return "a worker takes it in a moment."
    return f"{'the worker is' if live.count() == 1 else 'all workers are'} busy."


def _running(job: Job) -> str:
    if job.cancel_requested:
        return f"Cancelling{_after(job)}: the trainer was asked to stop."
    if job.paused:
        return f"Pausing{_after(job)}: the trainer keeps a checkpoint at its next step."
    doing = PHASES.get(job.phase, PHASES[""])
    again = f", attempt {job.attempt_number}" if job.attempt_number > 1 else ""
    return f"{doing}{again}{f': step {job.step} of {job.steps}' if job.steps else ''}.{_silence(job)}"


def _silence(job: Job) -> str:
    """What is behind numbers that stand still, while the lease of a worker that died has not run out."""
    attempt = Attempt.objects.filter(job=job, number=job.attempt_number).first()
    silent = (timezone.now() - attempt.seen_at).total_seconds() if attempt else 0
    if silent < MISSED_HEARTBEATS * settings.HEARTBEAT_SECONDS:
        return ""
    return f" The worker has given no sign of life for {duration_text(silent)}; soon another one takes over."


def _after(job: Job) -> str:
    return f" after step {job.step} of {job.steps}" if job.steps else ""


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, 11th, 21st."""
    suffix = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"
