"""What the frame around every page needs: teams to switch between, and the jobs that run."""

from typing import Any

from django.http import HttpRequest


def frame(request: HttpRequest) -> dict[str, Any]:
    return {}
