"""Pausing: held in the queue at once, after a checkpoint when running; resuming goes on from there. Twice is once."""

from pathlib import Path

import pytest
from django.urls import reverse
from django.utils import timezone

from tests.cast import Cast
from tests.jobs.claimed import claimed
from tests.jobs.scripted import ScriptedTrainer, progress
from tests.jobs.test_lifecycle import finished_folder
from tests.jobs.test_supervise_job import QUICK, once_it_trains, run
from tests.make import ADAPTER_FILES, make_attempt, make_dataset, make_job, make_worker
from trainer import events
from webapp.accounts.models import AuditEntry
from webapp.datasets.models import DatasetVersion, VersionStatus
from webapp.jobs import lifecycle
from webapp.jobs.claiming import claim_next
from webapp.jobs.models import ENDED, Attempt, Job, JobStatus
from webapp.jobs.reaper import Reaper
from webapp.jobs.supervisor import supervise


def ask(cast: Cast, job: Job, what: str, who: str = "bob") -> int:
    """The status of the answer to the button `what`: pause, resume or cancel."""
    status: int = cast.client(who).post(reverse(f"job_{what}", args=[job.pk])).status_code
    job.refresh_from_db()
    return status


def wishes(job: Job) -> list[str]:
    return [event.data["wish"] for event in job.events.filter(kind="wish")]


def test_a_queued_job_is_held_and_let_go(cast: Cast) -> None:
    job = make_job(cast.team)
    assert ask(cast, job, "pause") == 302
    assert (job.status, job.shown_status) == (JobStatus.QUEUED, "paused")
    assert claim_next(make_worker()) is None
    assert ask(cast, job, "resume") == 302
    assert (job.status, job.shown_status) == (JobStatus.QUEUED, "queued")
    assert claim_next(make_worker("second"))
    assert wishes(job) == ["pause", "resume"]
    actions = AuditEntry.objects.filter(action__startswith="job.").values_list("action", flat=True)
    assert set(actions) == {"job.pause", "job.resume"}


def test_a_running_job_gets_the_wish(cast: Cast) -> None:
    attempt = claimed(cast)
    job = Job.objects.get()
    assert ask(cast, job, "pause") == 302
    assert (job.status, job.shown_status) == (JobStatus.RUNNING, "pausing")
    assert lifecycle.wish_of(attempt) == "pause"
    lifecycle.requeue_paused(attempt)
    job.refresh_from_db()
    attempt.refresh_from_db()
    assert (job.status, job.shown_status, attempt.outcome) == (JobStatus.QUEUED, "paused", "paused")
    assert (job.fruitless_attempts, job.not_before) == (0, None)
    assert claim_next(make_worker("other")) is None


def test_the_trainer_keeps_a_checkpoint_and_the_next_attempt_goes_on_from_it(cast: Cast, tmp_path: Path) -> None:
    attempt = claimed(cast)
    trainer = ScriptedTrainer(tmp_path)
    trainer.runs("asked = []").runs("signal.signal(signal.SIGTERM, lambda *_: asked.append(1))").says(progress(1))
    trainer.runs("while not asked: time.sleep(0.01)").checkpoints(1).exits(75)
    job = run(attempt, trainer, once_it_trains(lambda: lifecycle.pause(attempt.job_id, "alice")))
    assert (job.shown_status, attempt.outcome, attempt.checkpoint_step) == ("paused", "paused", 1)
    assert lifecycle.resume(job.pk, "alice")
    second = claim_next(make_worker("second"))
    assert second
    other = ScriptedTrainer(tmp_path, "second").runs("print(sys.argv[-2:], file=sys.stderr)").publishes()
    job = run(second, other)
    assert (job.status, job.fruitless_attempts) == (JobStatus.SUCCEEDED, 0)
    said = job.events.filter(kind="log", attempt_number=2).values_list("data__text", flat=True).first()
    assert said == str(["--resume", str(job.folder)])


def test_a_trainer_that_was_done_when_the_signal_came_has_succeeded(cast: Cast, tmp_path: Path) -> None:
    """Python takes no more signals while it shuts down: one that comes then ends it, with its work behind it."""
    attempt = claimed(cast)
    trainer = ScriptedTrainer(tmp_path).runs("signal.signal(signal.SIGTERM, signal.SIG_DFL)").says(progress(1))
    trainer.runs(f"folder('adapter', {ADAPTER_FILES!r})").says(events.Finished(folder="adapter")).sleeps(30)
    job = run(attempt, trainer, once_it_trains(lambda: lifecycle.pause(attempt.job_id, "alice")))
    assert (job.status, job.paused, attempt.outcome) == (JobStatus.SUCCEEDED, False, "succeeded")


def test_cancel_hurries_a_trainer_that_was_asked_to_pause(cast: Cast, tmp_path: Path) -> None:
    attempt = claimed(cast)
    trainer = ScriptedTrainer(tmp_path).ignores_being_asked().says(progress(1)).sleeps(30)
    todo = [lambda: lifecycle.wish_cancel(attempt.job_id, "alice"), lambda: lifecycle.pause(attempt.job_id, "alice")]

    def look() -> bool:
        job = Job.objects.get()
        if todo and (job.step and len(todo) == 2 or job.paused and job.attempt_number):
            todo.pop()()
        return False

    supervise(attempt, is_stopping=look, trainer=trainer.command, patience=QUICK)
    job = Job.objects.get()
    assert (job.status, job.paused, job.events.latest("seq").data["reason"]) == (JobStatus.CANCELLED, False, "forced")


def test_a_worker_that_goes_does_not_wait_for_the_pause(cast: Cast, tmp_path: Path) -> None:
    attempt = claimed(cast)
    trainer = ScriptedTrainer(tmp_path).ignores_being_asked().says(progress(1)).sleeps(30)
    pause = once_it_trains(lambda: lifecycle.pause(attempt.job_id, "alice"))
    job = run(attempt, trainer, lambda: pause() or Job.objects.get().paused)
    assert (job.shown_status, attempt.outcome) == ("paused", "preempted")


def test_twice_is_once(cast: Cast) -> None:
    job = make_job(cast.team)
    assert [ask(cast, job, what) for what in ("resume", "pause", "pause", "resume", "resume")] == [302] * 5
    assert wishes(job) == ["pause", "resume"]


def test_a_pause_that_comes_too_late_changes_nothing(cast: Cast) -> None:
    attempt = claimed(cast)
    folder = finished_folder(attempt)
    assert lifecycle.pause(attempt.job_id, "alice")
    lifecycle.succeed(attempt, folder, {})
    job = Job.objects.get()
    assert (job.status, job.paused) == (JobStatus.SUCCEEDED, False)
    assert not lifecycle.pause(job.pk, "alice")
    assert not lifecycle.resume(job.pk, "alice")


def test_the_wish_is_taken_back_before_the_trainer_has_stopped(cast: Cast) -> None:
    attempt = claimed(cast)
    lifecycle.pause(attempt.job_id, "alice")
    lifecycle.resume(attempt.job_id, "alice")
    lifecycle.requeue_paused(attempt)
    job = Job.objects.get()
    assert (job.status, job.paused) == (JobStatus.QUEUED, False)
    assert claim_next(make_worker("second"))


def test_cancel_works_while_held_and_wins_while_pausing(cast: Cast) -> None:
    held = make_job(cast.team, paused=True)
    assert ask(cast, held, "cancel") == 302
    assert (held.status, held.paused) == (JobStatus.CANCELLED, False)
    attempt = start_another(cast)
    job = Job.objects.get(pk=attempt.job_id)
    assert [ask(cast, job, what) for what in ("pause", "cancel")] == [302, 302]
    assert (job.shown_status, lifecycle.wish_of(attempt)) == ("cancelling", "cancel")
    assert ask(cast, job, "pause") == 409, "the end counts more"
    lifecycle.requeue_paused(attempt)
    job.refresh_from_db()
    assert (job.status, job.paused) == (JobStatus.CANCELLED, False)


def start_another(cast: Cast) -> Attempt:
    make_job(cast.team, name="another", version=DatasetVersion.objects.first())
    attempt = claim_next(make_worker())
    assert attempt
    return attempt


def test_what_is_being_cancelled_is_not_paused(cast: Cast) -> None:
    attempt = claimed(cast)
    lifecycle.wish_cancel(attempt.job_id, "alice")
    job = Job.objects.get()
    assert ask(cast, job, "pause") == 409
    assert not job.paused


@pytest.mark.parametrize("status", ENDED)
@pytest.mark.parametrize("what", ["pause", "resume"])
def test_what_has_ended_stays_as_it_is(cast: Cast, status: JobStatus, what: str) -> None:
    job = make_job(cast.team, status=status)
    assert ask(cast, job, what) == 409
    assert (job.status, job.paused) == (status, False)
    assert not job.events.exists()


def test_back_off_and_count_of_interruptions_stay(cast: Cast) -> None:
    lifecycle.requeue_interrupted(claimed(cast), "killed")
    job = Job.objects.get()
    before = job.not_before, job.fruitless_attempts
    for what in ("pause", "resume"):
        ask(cast, job, what)
    assert (job.not_before, job.fruitless_attempts) == before
    assert job.not_before and job.not_before > timezone.now()


def test_an_attempt_that_is_lost_while_pausing_leaves_a_held_job(cast: Cast) -> None:
    attempt = claimed(cast)
    lifecycle.pause(attempt.job_id, "alice")
    lifecycle.requeue_interrupted(attempt, "killed")
    Job.objects.update(not_before=None)
    assert Job.objects.get().shown_status == "paused"
    assert claim_next(make_worker("second")) is None


def test_viewers_and_strangers_do_neither(cast: Cast) -> None:
    job = make_job(cast.team)
    answers = [ask(cast, job, what, who) for what in ("pause", "resume") for who in ("vera", "charlie")]
    assert answers == [403, 404, 403, 404]
    assert not job.paused


@pytest.mark.parametrize("address", ["jobs", "home", "job"])
def test_every_page_says_so(cast: Cast, address: str) -> None:
    job = make_job(cast.team, paused=True, step=4, steps=10)
    make_attempt(job)
    page = cast.client("bob").get(reverse(address, args=[job.pk] if address == "job" else []))
    assert b'data-status="paused"' in page.content
    if address == "job":
        assert b"Paused after step 4 of 10." in page.content
        assert reverse("job_resume", args=[job.pk]).encode() in page.content
        assert reverse("job_pause", args=[job.pk]).encode() not in page.content


def test_the_list_of_paused_jobs(cast: Cast) -> None:
    version = make_dataset(cast.team).versions.get()
    make_job(cast.team, name="held-one", version=version, paused=True)
    make_job(cast.team, name="free-one", version=version)
    for status, seen, unseen in (("paused", "held-one", "free-one"), ("queued", "free-one", "held-one")):
        page = cast.client("vera").get(reverse("jobs"), {"status": status}).content.decode()
        assert seen in page and unseen not in page


def test_a_job_waits_for_the_check_of_its_files(cast: Cast) -> None:
    dataset = make_dataset(cast.team, status=VersionStatus.INSPECTING)
    job = make_job(cast.team, version=dataset.versions.get())
    assert claim_next(make_worker()) is None
    page = cast.client("bob").get(reverse("job", args=[job.pk])).content.decode()
    assert "Waits for capitals v1 to be checked." in page
    dataset.versions.update(status=VersionStatus.READY)
    assert claim_next(make_worker("second"))


@pytest.mark.parametrize("which", ["dataset_version", "validation_version"])
def test_a_job_fails_with_what_the_check_of_a_file_says(cast: Cast, which: str) -> None:
    good, bad = (make_dataset(cast.team, name=name).versions.get() for name in ("good", "bad"))
    error = {"line": 7, "field": "messages", "problem": "there is no answer", "fix": "Add one.", "text": "{}"}
    DatasetVersion.objects.filter(pk=bad.pk).update(status=VersionStatus.REJECTED, report={"errors": [error]})
    job = make_job(cast.team, version=good)
    Job.objects.filter(pk=job.pk).update(**{which: bad})
    assert claim_next(make_worker()) is None
    Reaper().reconcile(0.0)
    job.refresh_from_db()
    assert (job.status, job.reason) == (JobStatus.FAILED, "dataset_invalid")
    assert (job.reason_text, job.reason_fix) == ("bad v1 cannot be used: line 7: there is no answer", "Add one.")


def test_a_claim_checks_again_what_it_found(cast: Cast) -> None:
    """Between choosing a job and claiming it somebody pauses it."""
    job = make_job(cast.team)
    assert lifecycle.pause(job.pk, "alice")
    assert lifecycle.claim(job.pk, make_worker()) is None


def test_events_tell_of_the_attempt_that_was_paused(cast: Cast) -> None:
    attempt = claimed(cast)
    lifecycle.record_events(attempt, [events.Phase(name="training")])
    lifecycle.pause(attempt.job_id, "alice")
    lifecycle.requeue_paused(attempt)
    last = Job.objects.get().events.latest("seq")
    assert last.data == {"from": "running", "to": "queued", "reason": "paused"}
