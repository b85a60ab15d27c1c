"""Supervising: what a scripted trainer does decides what becomes of its job."""

import hashlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.conf import LazySettings
from django.db import OperationalError

from tests.cast import Cast
from tests.jobs.claimed import claimed
from tests.jobs.scripted import ScriptedTrainer, progress
from tests.make import ADAPTER_FILES, make_base, make_dataset, make_job
from trainer import events
from webapp.adapters.models import Adapter
from webapp.common.storage import adapter_folder
from webapp.jobs import lifecycle
from webapp.jobs.child import LOG_LINES
from webapp.jobs.models import Attempt, Job, JobEvent, JobStatus
from webapp.jobs.supervisor import Patience, prepare, supervise
from webapp.system.processes import Stage
from webapp.system.supervise import STOP_SECONDS

QUICK = Patience(look=0.02, flush=0.05, cancel=0.4, preempt=0.4, silence={"loading": 0.4}, silence_otherwise=20)


@pytest.fixture
def trainer(tmp_path: Path) -> ScriptedTrainer:
    return ScriptedTrainer(tmp_path)


def run(attempt: Attempt, trainer: ScriptedTrainer, meanwhile: Callable[[], object] = lambda: None) -> Job:
    """Supervise to the end; `meanwhile` happens at each look, and says True when the worker shuts down."""
    supervise(attempt, is_stopping=lambda: meanwhile() is True, trainer=trainer.command, patience=QUICK)
    attempt.refresh_from_db()
    return Job.objects.get(pk=attempt.job_id)


def once_it_trains(act: Callable[[], object]) -> Callable[[], None]:
    """Act at the first look that finds a step done."""
    todo = [act]

    def look() -> None:
        if todo and JobEvent.objects.filter(kind="progress").exists():
            todo.pop()()

    return look


def test_it_works(cast: Cast, trainer: ScriptedTrainer) -> None:
    attempt = claimed(cast)
    trainer.says(events.Phase(name="training"), progress(1)).logs("a library speaks").publishes(final_loss=1.5)
    job = run(attempt, trainer)
    assert (job.status, job.step, attempt.outcome) == (JobStatus.SUCCEEDED, 1, "succeeded")
    assert job.adapter
    kinds = list(job.events.values_list("kind", flat=True))
    assert kinds[0] == kinds[-1] == "status"
    assert {"phase", "progress", "log", "finished"} <= set(kinds)
    assert list(job.events.values_list("seq", flat=True)) == list(range(1, len(kinds) + 1))
    assert "a library speaks\n" in (attempt.folder / "log.txt").read_text()


def test_the_spec_names_base_and_rows(cast: Cast, trainer: ScriptedTrainer) -> None:
    base, version = make_base(), make_dataset(cast.team).versions.get()
    make_job(cast.team, base=base, version=version)
    trainer.runs("spec = json.load(open(sys.argv[2]))")
    trainer.runs("print(sys.argv[1], spec['model']['base'], spec['data']['path'], file=sys.stderr)")
    trainer.runs("print('secrets', [k for k in os.environ if k == 'SECRET_KEY'], file=sys.stderr)")
    trainer.runs("print('parent', os.environ['LOWRANK_DIE_WITH_PARENT'], file=sys.stderr)")
    run(claimed(cast), trainer.publishes())
    lines = list(JobEvent.objects.filter(kind="log").values_list("data__text", flat=True))
    assert lines == [f"train {base.path} {version.rows_path}", "secrets []", "parent 1"]


def test_a_reported_failure_is_told_as_it_is(cast: Cast, trainer: ScriptedTrainer) -> None:
    failed = events.Failed(code="out_of_memory", text="The GPU is full.", fix="Lower the length.")
    job = run(claimed(cast), trainer.says(failed).exits(5))
    assert (job.status, job.reason, job.reason_text, job.reason_fix) == (
        JobStatus.FAILED,
        "out_of_memory",
        "The GPU is full.",
        "Lower the length.",
    )


@pytest.mark.parametrize(("status", "reason"), [(1, "internal"), (7, "disk_full"), (99, "internal"), (0, "internal")])
def test_an_end_without_a_word_is_a_failure(cast: Cast, trainer: ScriptedTrainer, status: int, reason: str) -> None:
    job = run(claimed(cast), trainer.exits(status))
    assert (job.status, job.reason) == (JobStatus.FAILED, reason)


def test_a_killed_trainer_is_tried_again_from_its_checkpoint(
    cast: Cast, trainer: ScriptedTrainer, tmp_path: Path
) -> None:
    first = claimed(cast)
    job = run(first, trainer.says(progress(1)).checkpoints(1).is_killed())
    assert (job.status, first.outcome, first.checkpoint_step) == (JobStatus.QUEUED, "interrupted", 1)
    second = claimed(cast)
    other = ScriptedTrainer(tmp_path, "second").runs("print(sys.argv[-2:], file=sys.stderr)").publishes()
    job = run(second, other)
    assert (job.status, job.attempt_number) == (JobStatus.SUCCEEDED, 2)
    said = JobEvent.objects.filter(kind="log", attempt_number=2).values_list("data__text", flat=True).first()
    assert said == str(["--resume", str(first.folder.parent)]), (
        "the trainer takes the furthest sound one of all attempts"
    )


def test_cancel_ends_the_trainer(cast: Cast, trainer: ScriptedTrainer) -> None:
    attempt = claimed(cast)
    trainer.stops_when_asked().says(progress(1)).sleeps(30)
    job = run(attempt, trainer, once_it_trains(lambda: lifecycle.wish_cancel(attempt.job_id, "alice")))
    assert (job.status, attempt.outcome) == (JobStatus.CANCELLED, "cancelled")


def test_cancel_forces_a_trainer_that_does_not_listen(cast: Cast, trainer: ScriptedTrainer) -> None:
    attempt = claimed(cast)
    trainer.ignores_being_asked().says(progress(1)).sleeps(30)
    job = run(attempt, trainer, once_it_trains(lambda: lifecycle.wish_cancel(attempt.job_id, "alice")))
    assert job.status == JobStatus.CANCELLED
    assert job.events.latest("seq").data["reason"] == "forced"


def test_a_lost_lease_kills_the_trainer_and_touches_nothing(
    cast: Cast, trainer: ScriptedTrainer, tmp_path: Path
) -> None:
    attempt = claimed(cast)
    trainer.runs(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))").ignores_being_asked().says(
        progress(1)
    ).sleeps(30)

    job = run(attempt, trainer, once_it_trains(lambda: lifecycle.requeue_interrupted(attempt, "lost")))
    assert (job.status, attempt.outcome) == (JobStatus.QUEUED, "interrupted")
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_silence_is_a_stall(cast: Cast, trainer: ScriptedTrainer) -> None:
    job = run(claimed(cast), trainer.says(events.Phase(name="loading")).sleeps(30))
    assert (job.status, job.reason) == (JobStatus.FAILED, "stalled")
    assert "while loading" in job.reason_text


@pytest.mark.parametrize("listens", [True, False])
def test_a_shutdown_hands_the_job_back(cast: Cast, trainer: ScriptedTrainer, listens: bool) -> None:
    attempt = claimed(cast)
    trainer = trainer.stops_when_asked() if listens else trainer.ignores_being_asked()
    job = run(attempt, trainer.says(progress(1)).sleeps(30), lambda: True)
    assert (job.status, attempt.outcome, job.fruitless_attempts) == (JobStatus.QUEUED, "preempted", 0)


def test_what_the_trainer_started_goes_with_it(cast: Cast, trainer: ScriptedTrainer, tmp_path: Path) -> None:
    trainer.runs("import subprocess").runs("helper = subprocess.Popen(['sleep', '60'])")
    trainer.runs(f"open({str(tmp_path / 'pid')!r}, 'w').write(str(helper.pid))").publishes()
    run(claimed(cast), trainer)
    pid = int((tmp_path / "pid").read_text())
    for _ in range(50):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().split()[2] == "Z":
            return
        time.sleep(0.02)
    os.kill(pid, signal.SIGKILL)
    pytest.fail("a helper of the trainer outlived it")


def test_floods_of_lines_are_bounded(cast: Cast, trainer: ScriptedTrainer) -> None:
    attempt = claimed(cast)
    trainer.runs("for n in range(6000): print('x' * 2500, file=sys.stderr)").publishes()
    job = run(attempt, trainer)
    logs = list(job.events.filter(kind="log").values_list("data__text", flat=True))
    told = sum(text.startswith("x") for text in logs)
    assert job.status == JobStatus.SUCCEEDED
    assert told <= LOG_LINES
    assert max(map(len, logs)) == 2000
    left_out = sum(int(text.split()[0]) for text in logs if "lines left out" in text)
    assert told + left_out == 6000
    assert (attempt.folder / "log.txt").read_text().count("\n") == 6000


def test_what_is_no_event_is_a_line_of_the_log(cast: Cast, trainer: ScriptedTrainer) -> None:
    trainer.prints("hello").prints('{"kind": "progress", "n": 1}').prints("10%\r20%\r30%").publishes()
    job = run(claimed(cast), trainer)
    logs = [event.data["text"] for event in job.events.filter(kind="log")]
    assert logs == ["hello", '{"kind": "progress", "n": 1}', "30%"]
    assert job.status == JobStatus.SUCCEEDED


def test_a_full_disk_ends_the_log_file_alone(cast: Cast, trainer: ScriptedTrainer) -> None:
    attempt = claimed(cast)
    attempt.folder.mkdir(parents=True)
    (attempt.folder / "log.txt").symlink_to("/dev/full")
    failed = events.Failed(code="disk_full", text="The disk is full.", fix="Make room.")
    job = run(attempt, trainer.logs("before").says(progress(1)).logs("after").says(failed).exits(7))
    assert (job.status, job.reason, job.step) == (JobStatus.FAILED, "disk_full", 1)
    assert set(job.events.filter(kind="log").values_list("data__text", flat=True)) == {"before", "after"}


WEIGHTS = hashlib.sha256(ADAPTER_FILES["adapter_model.safetensors"].encode()).hexdigest()


def fails_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The database goes away after the adapter's folder has been moved, before the transaction ends."""
    real, away = Adapter.objects.create, [True]

    def create(**values: Any) -> Adapter:
        adapter = real(**values)
        if away:
            away.pop()
            raise OperationalError("the database is away")
        return adapter

    monkeypatch.setattr(Adapter.objects, "create", create)


@pytest.mark.django_db(transaction=True)
def test_publishing_that_lost_the_database_half_way_is_done_again(
    cast: Cast, trainer: ScriptedTrainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = claimed(cast)
    fails_once(monkeypatch)
    job = run(attempt, trainer.publishes(weights_sha256=WEIGHTS))
    assert (job.status, attempt.outcome) == (JobStatus.SUCCEEDED, "succeeded")
    assert job.adapter
    assert {path.name for path in job.adapter.folder.iterdir()} == set(ADAPTER_FILES)
    assert not (attempt.folder / "adapter").exists()


@pytest.mark.django_db(transaction=True)
def test_other_weights_in_the_adapters_place_are_not_taken_for_the_jobs(cast: Cast, trainer: ScriptedTrainer) -> None:
    attempt = claimed(cast)
    left = adapter_folder(lifecycle.adapter_id_of(attempt.job_id))
    left.mkdir(parents=True)
    (left / "adapter_model.safetensors").write_text("of an attempt that lost its lease")
    job = run(attempt, trainer.says(events.Finished(folder="adapter", facts={"weights_sha256": WEIGHTS})).exits(0))
    assert (job.status, job.reason) == (JobStatus.FAILED, "internal")
    assert not Adapter.objects.exists()


def test_a_worker_that_goes_has_less_time_than_its_own_supervisor_gives_it() -> None:
    """`manage.py up` kills what has not gone by then; the trainer's end must have been written down before."""
    assert Patience().preempt + 1 < STOP_SECONDS[Stage.WORKERS]


@pytest.mark.django_db(transaction=True)
def test_a_database_that_is_away_loses_nothing(
    cast: Cast, trainer: ScriptedTrainer, monkeypatch: pytest.MonkeyPatch, settings: LazySettings
) -> None:
    settings.HEARTBEAT_SECONDS = 0.05
    away, real = [True] * 5, lifecycle.record_events

    def record(attempt: Attempt, batch: list[events.Event]) -> int:
        if away:
            away.pop()
            raise OperationalError("the database is away")
        return real(attempt, batch)

    monkeypatch.setattr(lifecycle, "record_events", record)
    job = run(claimed(cast), trainer.says(progress(1)).sleeps(0.5).says(progress(2)).publishes())
    assert job.status == JobStatus.SUCCEEDED
    assert [event.data["step"] for event in job.events.filter(kind="progress")] == [1, 2]
    assert job.attempts.get().heartbeat > 2


def test_tokens_may_be_kept_beside_the_rows(cast: Cast) -> None:
    attempt = claimed(cast)
    prepare(attempt)
    assert (attempt.job.dataset_version.folder / "tokens").is_dir()
