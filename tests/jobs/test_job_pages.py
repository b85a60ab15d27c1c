"""The pages of jobs, painted from the database alone."""

import re
from datetime import timedelta

import pytest
from django.conf import LazySettings
from django.urls import reverse
from django.utils import timezone

from tests.adapters.test_download_adapter import body_of
from tests.cast import Cast
from tests.jobs.scripted import progress
from tests.make import make_adapter, make_attempt, make_job, make_job_event, make_worker
from webapp.jobs import history, lifecycle
from webapp.jobs.models import Attempt, Job, JobStatus, Worker
from webapp.jobs.standing import ordinal, standing

EVIL = "<img src=x onerror=alert(1)>"


def page(cast: Cast, job: Job, who: str = "vera") -> str:
    response = cast.client(who).get(reverse("job", args=[job.pk]))
    assert response.status_code == 200
    return response.content.decode()


def test_an_empty_list_offers_the_first_job(cast: Cast) -> None:
    assert "Train the first adapter" in cast.client("bob").get(reverse("jobs")).content.decode()
    assert "Train the first adapter" not in cast.client("vera").get(reverse("jobs")).content.decode()


def test_the_list_groups_and_filters(cast: Cast) -> None:
    for status in JobStatus.values:
        make_job(cast.team, name=f"it {status}", status=status)
    make_job(cast.charlie.personal_team, name="foreign")
    client = cast.client("vera")
    everything = client.get(reverse("jobs"))
    assert [name for name, _ in everything.context["groups"]] == ["Running", "Waiting", "Ended"]
    assert b"foreign" not in everything.content
    failed = client.get(reverse("jobs"), {"status": "failed"})
    assert [job.name for _, rows in failed.context["groups"] for job, _ in rows] == ["it failed"]
    assert client.get(reverse("jobs"), {"status": "nonsense"}).status_code == 200
    fragment = client.get(reverse("jobs"), headers={"HX-Request": "true"}).content
    assert b"<html" not in fragment
    assert b"it running" in fragment


def test_a_running_job(cast: Cast) -> None:
    worker = make_worker()
    job = make_job(cast.team, status=JobStatus.RUNNING, step=4, steps=10, phase="training", started_at=timezone.now())
    Job.objects.update(progress=vars(progress(4)))
    make_attempt(job, worker=worker)
    make_job_event(job, "progress", **vars(progress(4)))
    make_job_event(job, "log", text=EVIL, level="info")
    text = page(cast, job)
    assert "<title>40% · first try · Lowrank</title>" in text
    assert "Training: step 4 of 10." in text
    assert "CPU, 2 cores" in text
    assert EVIL not in text
    assert "&lt;img src=x" in text
    assert "Cancel job" not in text
    assert "Cancel job" in page(cast, job, "bob")


def test_a_silent_worker_is_told_before_its_lease_runs_out(cast: Cast, settings: LazySettings) -> None:
    settings.HEARTBEAT_SECONDS = 5
    job = make_job(cast.team, status=JobStatus.RUNNING, step=4, steps=10, phase="training")
    attempt = make_attempt(job, worker=make_worker(), seen_at=timezone.now() - timedelta(seconds=14))
    assert standing(job) == "Training: step 4 of 10."
    Attempt.objects.update(seen_at=timezone.now() - timedelta(seconds=20))
    told = " The worker has given no sign of life for 20 s; soon another one takes over."
    assert standing(job) == "Training: step 4 of 10." + told
    assert told in page(cast, job)
    lifecycle.heartbeat(attempt)
    assert standing(job) == "Training: step 4 of 10."


def test_a_finished_job_leads_with_its_adapter(cast: Cast) -> None:
    job = make_job(cast.team, status=JobStatus.SUCCEEDED, started_at=timezone.now(), ended_at=timezone.now())
    adapter = make_adapter(cast.team, job.base_model)
    Job.objects.update(adapter=adapter)
    for step, loss in ((0, 3.0), (10, 1.5)):
        make_job_event(job, "evaluated", step=step, loss=loss, perplexity=2.0, accuracy=0.5, rows=4)
        make_job_event(job, "sample", step=step, prompt="Who?", completion=f"answer {step}")
    text = page(cast, job)
    assert reverse("adapter", args=[adapter.pk]) in text
    assert f"{reverse('chat')}?adapter={adapter.pk}" in text
    assert "(50% lower)" in text
    assert "answer 0" in text
    assert "answer 10" in text
    assert "Time left" not in text
    assert "What it forgot" not in text


def test_a_job_tells_which_step_was_published_and_what_was_forgotten(cast: Cast) -> None:
    job = make_job(cast.team, status=JobStatus.SUCCEEDED, started_at=timezone.now(), ended_at=timezone.now())
    facts = {"steps": 30, "planned_steps": 90, "published_step": 10, "general_kl": 0.25}
    facts |= {"general_perplexity": 44.0, "general_perplexity_before": 40.0}
    adapter = make_adapter(cast.team, job.base_model, metrics=facts)
    spec = job.spec | {"evaluation": job.spec["evaluation"] | {"patience": 2}}
    Job.objects.update(adapter=adapter, spec=spec)
    for step, loss, kl, perplexity in ((0, 3.0, 0.0, 40.0), (10, 1.5, 0.25, 44.0), (20, 2.0, 0.5, 80.0)):
        general = {"general_kl": kl, "general_perplexity": perplexity}
        make_job_event(job, "evaluated", step=step, loss=loss, perplexity=2.0, accuracy=0.5, rows=4, **general)
    text = page(cast, job)
    assert "ended after step 30 of 90: 2 evaluations in a row were no better" in text
    assert "the weights of step 10, the best on held-out rows" in text
    assert "(50% lower)" in text, "of the published step, not the last"
    assert "general text became 10% harder to predict" in text
    assert "Perplexity on general text" in text
    about = cast.client("vera").get(reverse("adapter", args=[adapter.pk])).content.decode()
    assert "perplexity on general text 40.00 → 44.00" in about
    assert "of step 10 of 30, the best on held-out rows" in about


@pytest.mark.parametrize(
    ("after", "said"),
    [(40.2, "next to nothing"), (30.0, "nothing, general text even became easier"), (60.0, "50% harder")],
)
def test_forgetting_in_words(cast: Cast, after: float, said: str) -> None:
    job = make_job(cast.team, status=JobStatus.RUNNING, started_at=timezone.now())
    for step, perplexity in ((0, 40.0), (10, after)):
        general = {"general_kl": 0.1, "general_perplexity": perplexity}
        make_job_event(job, "evaluated", step=step, loss=1.0, perplexity=2.0, accuracy=0.5, rows=4, **general)
    text = page(cast, job)
    assert said in text
    assert ("a smaller rank keep more of it" in text) == (after == 60.0)


@pytest.mark.parametrize(
    ("losses", "advice"),
    [((2.0, 9.0, 8.0), "a lower learning rate"), ((2.0, 1.5, 2.5), "fewer epochs")],
)
def test_advice_on_a_worse_adapter_follows_its_losses(losses: tuple[float, ...], advice: str) -> None:
    found = history.gain([{"step": step, "loss": loss} for step, loss in enumerate(losses)])
    assert found
    assert found.percent < 0
    assert found.advice.startswith(advice)


def test_a_failed_job_says_why_and_what_to_do(cast: Cast) -> None:
    said = {
        "reason": "out_of_memory",
        "reason_text": "The GPU is full.\nIt is small.",
        "reason_fix": "Lower the length.",
    }
    job = make_job(cast.team, status=JobStatus.FAILED, **said)
    text = page(cast, job, "bob")
    for words in ("Out of memory", "The GPU is full.<br>It is small.", "Lower the length.", "Try again"):
        assert words in text
    assert "Try again" not in page(cast, job)


@pytest.mark.parametrize(
    ("reason", "first"),
    [
        ("user_config", "Change the settings"),
        ("dataset_invalid", "Change the settings"),
        ("input_changed", "Try again"),
        ("internal", "Try again"),
    ],
)
def test_the_button_that_helps_stands_out(cast: Cast, reason: str, first: str) -> None:
    text = page(cast, make_job(cast.team, status=JobStatus.FAILED, reason=reason), "bob")
    buttons = re.findall(
        r'class="btn( btn-primary)?"[^>]*>\s*<svg.*?</svg>\s*(Change the settings|Try again)', text, re.S
    )
    assert sorted(buttons) == sorted(
        (" btn-primary" * (name == first), name) for name in ("Change the settings", "Try again")
    )


def test_strangers_see_nothing(cast: Cast) -> None:
    job = make_job(cast.team, attempt_number=1)
    make_attempt(job)
    for name in ("job", "job_spec", "job_log"):
        assert cast.client("charlie").get(reverse(name, args=[job.pk])).status_code == 404


def test_spec_and_log_are_downloads(cast: Cast) -> None:
    job = make_job(cast.team)
    make_attempt(job, log="one\n<b>two</b>\n")
    spec = cast.client("vera").get(reverse("job_spec", args=[job.pk]))
    assert f"base: {job.base_model.name}" in spec.content.decode()
    log = cast.client("vera").get(reverse("job_log", args=[job.pk]))
    assert body_of(log) == b"one\n<b>two</b>\n"
    for response in (spec, log):
        assert response["Content-Disposition"].startswith("attachment;")
        assert response["X-Content-Type-Options"] == "nosniff"
    assert cast.client("vera").get(reverse("job_log", args=[job.pk]), {"attempt": "7"}).status_code == 404


def test_why_a_job_waits(cast: Cast) -> None:
    first, second = make_job(cast.team), make_job(cast.team)
    assert standing(first) == "1st in line; no worker has been online yet."
    make_worker()
    assert standing(second) == "2nd in line; a worker takes it in a moment."
    make_attempt(make_job(cast.team, status=JobStatus.RUNNING), worker=Worker.objects.get())
    assert standing(second) == "2nd in line; the worker is busy."
    Worker.objects.update(stopped=True, seen_at=timezone.now() - timedelta(minutes=5))
    assert standing(second) == "2nd in line; no worker online, the last one was seen 5 min ago."
    second.not_before, second.step, second.steps = timezone.now() + timedelta(seconds=30), 3, 9
    assert standing(second).startswith("Interrupted after step 3 of 9; tries again in ")


@pytest.mark.parametrize(
    ("number", "words"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st")]
)
def test_ordinals(number: int, words: str) -> None:
    assert ordinal(number) == words


def test_the_chart_is_thinned_and_without_repeats(cast: Cast, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(history, "MOST_POINTS", 10)
    job = make_job(cast.team)
    for step in (*range(1, 31), *range(21, 46)):  # interrupted at 30, resumed from 20
        make_job_event(job, "progress", **vars(progress(step, of=45)))
    curves = history.chart(job, history.evaluations(job))
    assert len(curves["steps"]) <= 10
    assert curves["steps"] == sorted(set(curves["steps"]))
    assert curves["steps"][-1] == 45
    assert {len(curves[name]) for name in ("steps", "loss", "learning_rate", "grad_norm")} == {len(curves["steps"])}


def test_what_is_not_measured_yet_is_not_there_empty(cast: Cast) -> None:
    job = make_job(cast.team, status=JobStatus.QUEUED)
    text = page(cast, job)
    assert 'id="job-tiles" hidden' in text
    assert re.search(r'id="chart"[^>]* hidden>', text)
    assert "The curve starts with the first step." in text
    assert '<details class="fold">\n  <summary>From a script</summary>' in text
    Job.objects.update(status=JobStatus.RUNNING, progress=vars(progress(1)), step=1, steps=10)
    make_job_event(job, "progress", **vars(progress(1)))
    text = page(cast, job)
    assert 'id="job-tiles">' in text
    assert not re.search(r'id="chart"[^>]* hidden>', text)
