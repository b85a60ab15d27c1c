"""Health for machines to read: whether the process lives, and whether the server can do its work."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from webapp.system.health import failing


@require_safe
@never_cache
def healthz(request: HttpRequest) -> JsonResponse:
    """Always 200: an answer means that the process lives."""
    return JsonResponse({"status": "ok"})


@require_safe
@never_cache
def readyz(request: HttpRequest) -> JsonResponse:
    """200 when everything is there, else 503 with the names of what is missing, and nothing more: anyone may ask."""
    missing = failing()
    if missing:
        return JsonResponse({"status": "not ready", "missing": missing}, status=503)
    return JsonResponse({"status": "ready"})
