"""/v1/fine_tuning/jobs: the team's trainings."""

import re
from collections.abc import Callable
from typing import Any

from django.http import HttpResponse, JsonResponse

from webapp.accounts.access import require_role
from webapp.accounts.models import Role
from webapp.api.auth import ApiRequest
from webapp.api.checkpoints import checkpoints_of
from webapp.api.fields import bad, json_body
from webapp.api.job_events import events_of
from webapp.api.jobs_asked import submit
from webapp.api.jobs_wire import job_object, with_related
from webapp.api.names import JOB, base_names, ready_bases, uuid_of
from webapp.api.paging import Asked, asked, page_of
from webapp.api.wire import ApiError, listing
from webapp.jobs import services
from webapp.jobs.models import Job, JobQuerySet

MOST_LISTED = 1000
METADATA = re.compile(r"metadata\[(.*)\]", re.DOTALL)  # a key may have brackets of its own


def list_jobs(request: ApiRequest) -> HttpResponse:
    page = asked(request, most=MOST_LISTED)
    rows = _with_metadata(request, Job.objects.visible_to(request.user).filter(team=request.team))
    found, has_more = page_of(with_related(rows), page, lambda wire: uuid_of(wire, JOB))
    names = base_names(ready_bases())
    return listing([job_object(job, names) for job in found], has_more=has_more)


def create(request: ApiRequest) -> HttpResponse:
    return _told(submit(request, json_body(request)))


def show(request: ApiRequest, job: str) -> HttpResponse:
    return _told(_found(request, job))


def cancel(request: ApiRequest, job: str) -> HttpResponse:
    return _changed(request, job, services.request_cancel)


def pause(request: ApiRequest, job: str) -> HttpResponse:
    return _changed(request, job, services.pause_job)


def resume(request: ApiRequest, job: str) -> HttpResponse:
    return _changed(request, job, services.resume_job)


def list_events(request: ApiRequest, job: str) -> HttpResponse:
    page = asked(request, most=MOST_LISTED)
    found, has_more = events_of(_found(request, job), page)
    return listing(found, has_more=has_more)


def list_checkpoints(request: ApiRequest, job: str) -> HttpResponse:
    page = asked(request, usual=10)
    found = _after(checkpoints_of(_found(request, job)), page)
    return listing(found[: page.limit], has_more=len(found) > page.limit)


def _changed(request: ApiRequest, job: str, change: Callable[..., None]) -> HttpResponse:
    found = _found(request, job)
    require_role(found.team, request.user, Role.MEMBER)
    change(user=request.user, job=found)
    return _told(_found(request, job))


def _told(job: Job) -> HttpResponse:
    fresh = with_related(Job.objects.filter(pk=job.pk)).get()
    return JsonResponse(job_object(fresh, base_names(ready_bases())))


def _found(request: ApiRequest, job: str) -> Job:
    pk = uuid_of(job, JOB)
    found = with_related(Job.objects.visible_to(request.user)).filter(pk=pk).first() if pk else None
    if found is None:
        text = f"There is no fine-tuning job `{job[:100]}`, or your key may not see it."
        raise ApiError(404, text, param="fine_tuning_job_id", code="not_found")
    return found


def _after(found: list[dict[str, Any]], page: Asked) -> list[dict[str, Any]]:
    """What comes after the item `page.after` in a list that is all there."""
    found = found if page.newest_first else found[::-1]
    if not page.after:
        return found
    ids = [one["id"] for one in found]
    if page.after not in ids:
        bad("after", "`after` is the id of nothing in this list.")
    return found[ids.index(page.after) + 1 :]


def _with_metadata(request: ApiRequest, rows: JobQuerySet) -> JobQuerySet:
    """`metadata[key]=value` for jobs that have it, `metadata=null` for jobs without any; 400 for what is neither."""
    given = {name: value for name, value in request.GET.items() if name.startswith("metadata")}
    if not given:
        return rows
    if given == {"metadata": "null"}:
        return rows.filter(metadata={})
    wanted = {match[1]: value for name, value in given.items() if (match := METADATA.fullmatch(name))}
    if len(wanted) < len(given):
        bad("metadata", "`metadata` must be `metadata[key]=value`, or `metadata=null` for jobs without any.")
    # Compared here: in a database's JSON path a key of digits would be a place in a list.
    told = rows.exclude(metadata={}).values_list("pk", "metadata")
    return rows.filter(pk__in=[pk for pk, told in told if wanted.items() <= told.items()])
