"""The shapes of the wire: errors, lists, deletions, times, and how our own failures look there."""

import math
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.http import HttpResponse, JsonResponse

from webapp.common.errors import UserError

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}  # others by class of status


class ApiError(Exception):
    """An answer with `{"error": …}`. `retry` tells the client whether to try again; None leaves it to its own rules.

    `param` names the field of the request, such as `messages[1].content`; `retry_after` is in seconds.
    """

    def __init__(  # noqa: PLR0913 - the fields of the wire's error
        self,
        status: int,
        message: str,
        type: str = "",
        param: str | None = None,
        code: str | None = None,
        *,
        retry: bool | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.type = type or TYPES.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
        # The client sends a 409 three times unless it is told that nothing will change.
        self.retry = False if retry is None and status == 409 else retry
        self.retry_after = retry_after
        self.headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}

    @property
    def body(self) -> dict[str, Any]:
        """Also what goes into a stream that broke: `data: {"error": …}`."""
        fields = {"message": self.message, "type": self.type, "param": self.param, "code": self.code}
        return {"error": fields}


def error_response(error: ApiError) -> HttpResponse:
    response = JsonResponse(error.body, status=error.status, headers=error.headers)
    if error.retry is not None:
        response["x-should-retry"] = "true" if error.retry else "false"
    if error.retry_after is not None:
        response["retry-after"] = str(max(1, math.ceil(error.retry_after)))
        response["retry-after-ms"] = str(max(1, math.ceil(error.retry_after * 1000)))
    return response


def from_user_error(error: UserError, *, param: str | None = None) -> ApiError:
    """What a page would say, on the wire."""
    return ApiError(error.status, f"{error.text} {error.fix}", param=param, code=error.code)


def listing(data: Sequence[dict[str, Any]], *, has_more: bool = False) -> JsonResponse:
    """A list; the client asks for the next page with `after=<last_id>` as long as `has_more`."""
    ends = {"first_id": data[0]["id"], "last_id": data[-1]["id"]} if data else {"first_id": None, "last_id": None}
    return JsonResponse({"object": "list", "data": data, "has_more": has_more, **ends})


def deleted(wire_id: str, kind: str) -> JsonResponse:
    return JsonResponse({"id": wire_id, "object": kind, "deleted": True})


def timestamp(moment: datetime) -> int:
    """Whole seconds since 1970."""
    return int(moment.timestamp())


def timestamp_or_none(moment: datetime | None) -> int | None:
    return None if moment is None else timestamp(moment)
