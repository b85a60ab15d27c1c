"""A client that leaves while its request is still being read."""

import asyncio
import threading

import pytest
from django.http import HttpResponseBase
from django.test import RequestFactory

from tests.cast import Cast
from webapp.accounts import keys
from webapp.api.auth import ApiRequest
from webapp.api.entry import InTwo, door

pytestmark = pytest.mark.django_db(transaction=True)


def test_what_was_begun_for_a_client_that_left_is_let_go_of(people: Cast) -> None:
    headers = {"Authorization": f"Bearer {keys.create(user=people.bob, name='script')}"}
    asked, may_end = threading.Event(), threading.Event()
    left: list[str] = []

    def ask(_: ApiRequest) -> str:
        asked.set()
        assert may_end.wait(10)
        return "the call"

    async def answer(_: ApiRequest, __: str) -> HttpResponseBase:
        raise AssertionError("nobody waits for it")

    async def leave_early() -> None:
        view = door(POST=InTwo(ask, answer, left.append))
        request = asyncio.create_task(view(RequestFactory().post("/v1/chat/completions", headers=headers)))
        await asyncio.to_thread(asked.wait, 10)
        request.cancel()
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await request

    asyncio.run(leave_early())
    assert left == ["the call"]
