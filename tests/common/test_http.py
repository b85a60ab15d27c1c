"""Streams and downloads hold no database connection while they last."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import connection
from django.http import HttpRequest

from webapp.common.http import attachment_response, sse_response


def look_something_up() -> None:
    connection.ensure_connection()


def holds_a_connection() -> bool:
    return connection.connection is not None


async def looks() -> AsyncGenerator[str, None]:
    """Says, while it is sent, whether the thread of the request holds a connection."""
    yield str(await sync_to_async(holds_a_connection)())


async def looks_in_bytes() -> AsyncGenerator[bytes, None]:
    yield str(await sync_to_async(holds_a_connection)()).encode()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("kind", ["events", "download"])
async def test_the_connection_is_given_back_first(kind: str) -> None:
    response: Any
    if kind == "events":
        response = sse_response(HttpRequest(), looks())
    else:
        response = attachment_response(looks_in_bytes(), name="a.zip", content_type="application/zip")
    await sync_to_async(look_something_up)()
    assert await sync_to_async(holds_a_connection)()
    assert [piece async for piece in response.streaming_content] == [b"False"]
