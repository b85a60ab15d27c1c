"""The pages of jobs: the list, a new job, one job, and its live events."""

from typing import Any
from uuid import UUID, uuid4

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from trainer.spec import SpecError
from webapp.accounts.access import TeamRequest, get_visible, get_with_role, has_role, require_role
from webapp.accounts.models import Role
from webapp.adapters.specs import portable_yaml
from webapp.common.http import attachment_response, in_threads, sse_response
from webapp.common.storage import pieces_of_file
from webapp.jobs import history, services
from webapp.jobs.estimates import outlook, refusal
from webapp.jobs.following import alook, follow_job
from webapp.jobs.forms import JobForm, RetryForm, all_presets, initial_values, values_of
from webapp.jobs.models import Job, JobQuerySet, JobStatus
from webapp.jobs.standing import reason_words, standing

FRAGMENT = "HX-Request"
LISTED = 200
STATUSES = ("queued", "running", "paused", "succeeded", "failed", "cancelled")
ASKED = ("name", "base_model", "dataset_version", "validation_version", "spec", "form_key")  # of a form


@login_required
@require_safe
def jobs(request: TeamRequest) -> HttpResponse:
    rows = Job.objects.visible_to(request.user).filter(team=request.team)
    status = request.GET.get("status", "")
    related = ("base_model", "dataset_version__dataset", "validation_version__dataset", "adapter", "created_by")
    listed = _with_status(rows, status).select_related(*related)[:LISTED]
    ctx = {
        "groups": _grouped(list(listed)),
        "any": rows.exists(),
        "status": status,
        "statuses": STATUSES,
        "moving": rows.unfinished().exists(),
        "can_change": has_role(request.team, request.user),
    }
    return render(request, "jobs/_list.html" if FRAGMENT in request.headers else "jobs/list.html", ctx)


def _with_status(rows: JobQuerySet, status: str) -> JobQuerySet:
    if status == "paused":
        return rows.paused()
    shown = rows.filter(status=status) if status in JobStatus.values else rows
    return shown.filter(paused=False) if status == JobStatus.QUEUED else shown


def _grouped(listed: list[Job]) -> list[tuple[str, list[tuple[Job, str]]]]:
    """Running, waiting, paused, ended; each job with its sentence."""
    order = {"running": "Running", "cancelling": "Running", "pausing": "Running", "queued": "Waiting"}
    groups: dict[str, list[tuple[Job, str]]] = {"Running": [], "Waiting": [], "Paused": [], "Ended": []}
    for job in listed:
        name = order.get(job.shown_status, "Paused" if job.shown_status == "paused" else "Ended")
        groups[name].append((job, standing(job)))
    groups["Waiting"].reverse()
    return [(name, rows) for name, rows in groups.items() if rows]


@login_required
@require_http_methods(["GET", "HEAD", "POST"])
def job_new(request: TeamRequest) -> HttpResponse:
    require_role(request.team, request.user, Role.MEMBER)
    data = request.POST if request.method == "POST" else None
    form = JobForm(data, user=request.user, team=request.team, initial=_initial(request))
    if form.is_bound and form.is_valid():
        asked = {key: form.cleaned_data[key] for key in ASKED}
        if twin := services.unfinished_twin(user=request.user, **asked):
            messages.info(request, "This job asks for the same and has not ended. Name the next one to queue it too.")
            return redirect("job", twin.pk)
        return redirect("job", services.submit_job(user=request.user, **asked).pk)
    ctx = {"form": form, "presets": all_presets(), **form.offers()} | _estimated(form)
    return render(request, "jobs/new.html", ctx, status=422 if form.is_bound else 200)


def _initial(request: TeamRequest) -> dict[str, Any]:
    """What the form shows first: the settings of the job that `from` names, or what a link chooses."""
    if "from" not in request.GET:
        return initial_values(request.GET)
    try:
        return values_of(
            get_visible(Job.objects.visible_to(request.user).filter(team=request.team), UUID(request.GET["from"]))
        )
    except (ValueError, SpecError):  # no id, or settings that are none any more
        return initial_values({})


@login_required
@require_POST
def job_estimate(request: TeamRequest) -> HttpResponse:
    require_role(request.team, request.user, Role.MEMBER)
    form = JobForm(request.POST, user=request.user, team=request.team)
    return render(request, "jobs/_estimate.html", {"form": form} | _estimated(form))


def _estimated(form: JobForm) -> dict[str, Any]:
    """The card beside the form, for what it says now, as far as that can be read."""
    asked = form.asked()
    if asked is None:
        return {"outlook": None}
    spec, base, version = asked
    aside = form.cleaned_data.get("validation_version") if form.is_bound else None
    return {
        "outlook": outlook(spec, base, version, aside),
        "refusal": refusal(version, base),
        "yaml": portable_yaml(spec, base, version),
        "is_pending": version.is_pending,
    }


@login_required
@require_safe
def job(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_visible(_with_all(request), pk)
    attempts = list(found.attempts.select_related("worker"))
    evaluations = history.evaluations(found)
    published = history.published(found, evaluations)
    ctx = {
        "job": found,
        "sentence": standing(found),
        "reason": reason_words(found),
        "chart": history.chart(found, evaluations),
        "evaluations": evaluations,
        "gain": history.gain(published),
        "forgotten": history.forgotten(published),
        "log": history.log_tail(found),
        "probes": history.probes(found),
        "attempts": attempts,
        "worker": attempts[-1].worker if attempts else None,
        "yaml": _yaml(found),
        "can_change": has_role(found.team, request.user),
        "retry": RetryForm(),
    }
    return render(request, "jobs/detail.html", ctx)


@login_required
@require_GET
async def job_events(request: HttpRequest, pk: UUID) -> HttpResponseBase:
    user_id: Any = (await request.auser()).pk
    after = _number(request.headers.get("Last-Event-ID") or request.GET.get("after"))
    if await alook(user_id, pk, after) is None:
        raise Http404
    return sse_response(request, follow_job(user_id, pk, after))


@login_required
@require_POST
def job_cancel(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(Job.objects.visible_to(request.user).select_related("team"), pk, request.user)
    services.request_cancel(user=request.user, job=found)
    messages.success(request, f"{found.name} is being cancelled.")
    return redirect("job", found.pk)


@login_required
@require_POST
def job_pause(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(Job.objects.visible_to(request.user).select_related("team"), pk, request.user)
    services.pause_job(user=request.user, job=found)
    return redirect("job", found.pk)


@login_required
@require_POST
def job_resume(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(Job.objects.visible_to(request.user).select_related("team"), pk, request.user)
    services.resume_job(user=request.user, job=found)
    return redirect("job", found.pk)


@login_required
@require_POST
def job_retry(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(_with_all(request), pk, request.user)
    form = RetryForm(request.POST)
    key = form.cleaned_data["form_key"] if form.is_valid() else uuid4()
    return redirect("job", services.retry_job(user=request.user, job=found, form_key=key).pk)


@login_required
@require_POST
def job_delete(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_with_role(_with_all(request), pk, request.user)
    services.delete_job(user=request.user, job=found)
    messages.success(request, f"{found.name} was deleted.")
    return redirect("jobs")


@login_required
@require_safe
def job_spec(request: TeamRequest, pk: UUID) -> HttpResponse:
    found = get_visible(_with_all(request), pk)
    text = _yaml(found)
    disposition = {"Content-Disposition": f'attachment; filename="job-{found.pk}.yaml"'}
    return HttpResponse(text, content_type="application/yaml", headers=disposition)


@login_required
@require_safe
def job_log(request: TeamRequest, pk: UUID) -> HttpResponseBase:
    found = get_visible(Job.objects.visible_to(request.user), pk)
    number = _number(request.GET.get("attempt")) or found.attempt_number
    file = get_object_or_404(found.attempts, number=number).folder / "log.txt"
    if not file.is_file():
        raise Http404
    name = f"job-{found.pk}-a{number}.txt"
    return attachment_response(in_threads(pieces_of_file(file)), name=name, content_type="text/plain; charset=utf-8")


def _yaml(found: Job) -> str:
    return portable_yaml(found.train_spec, found.base_model, found.dataset_version, found.validation_version)


def _with_all(request: TeamRequest) -> Any:
    related = ("team", "base_model", "dataset_version__dataset__team", "validation_version__dataset__team", "adapter")
    return Job.objects.visible_to(request.user).select_related(*related, "created_by")


def _number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdigit() and len(text) < 19 else 0
