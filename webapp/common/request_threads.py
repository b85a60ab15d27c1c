"""Threads that requests run their synchronous parts on: kept for the next one, where Django makes one for each."""

from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from asgiref.sync import ThreadSensitiveContext

from webapp.common.http import release_connections

MOST_IDLE = 32  # of one process; beyond them a thread ends with its request

Application = Callable[[Any, Any, Any], Awaitable[None]]


def on_kept_threads(application: Application) -> Application:
    """The application, each request of which has one thread to itself as long as it lives, and no other's."""
    idle: deque[ThreadPoolExecutor] = deque()

    def give_back(thread: ThreadPoolExecutor) -> None:
        """Runs on the thread itself, so after all that the request still had to do there."""
        if len(idle) < MOST_IDLE:
            idle.append(thread)
        else:
            release_connections()  # this thread's own, which nobody would close after it
            thread.shutdown(wait=False)

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        thread = idle.pop() if idle else ThreadPoolExecutor(max_workers=1, thread_name_prefix="request")
        try:
            async with ThreadSensitiveContext(executor=thread):
                await application(scope, receive, send)
        finally:
            thread.submit(give_back, thread)

    return serve
