"""Threads of requests: kept for the next one, and one request's alone while it lives."""

import asyncio
import threading
import time

from asgiref.sync import sync_to_async

from webapp.common.request_threads import MOST_IDLE, Application, let_go_of_thread, on_kept_threads

HTTP = {"type": "http"}


async def ask(application: Application, **more: object) -> None:
    await application({**HTTP, **more}, None, None)


def test_the_next_request_has_the_same_thread() -> None:
    seen: list[tuple[int, int]] = []

    async def application(*_: object) -> None:
        seen.append((await sync_to_async(threading.get_ident)(), await sync_to_async(threading.get_ident)()))

    async def main() -> None:
        served = on_kept_threads(application)
        for _ in range(3):
            await ask(served)
            await asyncio.sleep(0.05)

    asyncio.run(main())
    assert len({one for pair in seen for one in pair}) == 1
    assert threading.get_ident() not in seen[0]


def test_requests_at_once_have_a_thread_each_and_few_are_kept() -> None:
    both = threading.Barrier(MOST_IDLE + 4, timeout=10)
    seen: set[int] = set()

    async def application(*_: object) -> None:
        await sync_to_async(both.wait)()  # nobody gets past it unless all are on threads of their own
        seen.add(await sync_to_async(threading.get_ident)())

    async def main() -> None:
        served = on_kept_threads(application)
        await asyncio.gather(*(ask(served) for _ in range(MOST_IDLE + 4)))
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline and len(seen & {one.ident for one in threading.enumerate()}) > MOST_IDLE:
            await asyncio.sleep(0.02)
        assert len(seen & {one.ident for one in threading.enumerate()}) == MOST_IDLE

    asyncio.run(main())
    assert len(seen) == MOST_IDLE + 4


def test_a_request_that_was_given_up_keeps_its_thread_until_it_is_through() -> None:
    goes_on = threading.Event()
    threads: list[int] = []

    def slow() -> None:
        threads.append(threading.get_ident())
        goes_on.wait(10)

    async def application(scope: dict[str, object], *_: object) -> None:
        if scope.get("slow"):
            await sync_to_async(slow)()
        else:
            threads.append(await sync_to_async(threading.get_ident)())

    async def main() -> None:
        served = on_kept_threads(application)
        first = asyncio.create_task(ask(served, slow=True))
        while not threads:
            await asyncio.sleep(0.01)
        first.cancel()
        goes = asyncio.create_task(ask(served))
        await asyncio.wait_for(goes, 5)
        goes_on.set()
        await asyncio.gather(first, return_exceptions=True)

    asyncio.run(main())
    assert threads[0] != threads[1]


def test_a_request_that_lets_go_holds_no_thread_while_it_waits() -> None:
    """A stream between two looks: whoever comes meanwhile has the thread it had, and it has one again when it asks."""
    waits, goes_on = asyncio.Event(), asyncio.Event()
    threads: list[int] = []

    async def application(scope: dict[str, object], *_: object) -> None:
        threads.append(await sync_to_async(threading.get_ident)())
        if scope.get("long"):
            await let_go_of_thread()
            waits.set()
            await goes_on.wait()
            threads.append(await sync_to_async(threading.get_ident)())

    async def main() -> None:
        served = on_kept_threads(application)
        long = asyncio.create_task(ask(served, long=True))
        await waits.wait()
        await asyncio.sleep(0.05)
        await ask(served)
        await asyncio.sleep(0.05)
        goes_on.set()
        await long

    asyncio.run(main())
    assert len(threads) == 3
    assert len(set(threads)) == 1
