"""A body that is too large ends before it lies on disk, whether it tells its size or not."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from django.core.asgi import get_asgi_application
from django.urls import reverse

from webapp.common.body_limit import limit_body

Message = Mapping[str, Any]


async def post(pieces: list[bytes], *, limit: int, headers: list[tuple[bytes, bytes]]) -> tuple[int, int]:
    """Send a body in pieces; returns the status and how many pieces were taken."""
    taken, status = 0, 0
    path = reverse("dataset_new")
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": path,
        "headers": [(b"host", b"localhost"), *headers],
    }
    scope |= {"query_string": b"", "http_version": "1.1", "client": ("127.0.0.1", 1), "server": ("localhost", 80)}

    async def receive() -> Message:
        nonlocal taken
        taken += 1
        if taken > len(pieces):
            await asyncio.sleep(60)  # a client that waits for its answer
        return {"type": "http.request", "body": pieces[taken - 1], "more_body": taken < len(pieces)}

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    await limit_body(get_asgi_application(), limit)(scope, receive, send)
    return status, taken


@pytest.mark.django_db(transaction=True)
async def test_claimed_size_is_refused_unread() -> None:
    assert await post([b"x"], limit=100, headers=[(b"content-length", b"101")]) == (413, 0)


@pytest.mark.django_db(transaction=True)
async def test_body_without_a_size_is_refused_at_the_limit() -> None:
    assert await post([b"x" * 60] * 50, limit=100, headers=[]) == (413, 2)


@pytest.mark.django_db(transaction=True)
async def test_body_within_the_limit_reaches_the_page() -> None:
    status, _ = await post([b"x" * 60], limit=100, headers=[(b"content-length", b"60")])
    assert status == 403  # Django has read it and misses the CSRF token
