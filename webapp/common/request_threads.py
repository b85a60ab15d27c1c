"""Threads that requests run their synchronous parts on: kept for the next one, where Django makes one for each."""

from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import Any, TypeVar

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.db import close_old_connections, connections

MOST_IDLE = 32  # of one process; beyond them a thread ends with its request
MOST_OPEN = 8  # that wait with a connection to the database, of those whose request let go of them to be quick

Application = Callable[[Any, Any, Any], Awaitable[None]]
T = TypeVar("T")


class RequestThread(Executor):
    """One thread for all that a request does, and no other request's meanwhile.

    Once the request lets go of it, each further call has any idle thread for itself: what waits for minutes holds
    neither a thread nor a connection to the database, and that stays open for the next request.
    """

    def __init__(self, idle: deque[ThreadPoolExecutor]) -> None:
        self._idle = idle
        self._held: ThreadPoolExecutor | None = None
        self._holds = True
        self._most_open = MOST_IDLE

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        thread, self._held = self._held or self._taken(), None
        done = thread.submit(fn, *args, **kwargs)
        if self._holds:
            self._held = thread
        else:
            thread.submit(self._give_back, thread)
        return done

    def let_go(self, *, most_open: int) -> None:
        """Its connection stays open unless so many threads are waiting already. The first word counts."""
        if not self._holds:
            return
        self._holds, self._most_open = False, most_open
        thread, self._held = self._held, None
        if thread is not None:
            thread.submit(self._give_back, thread)

    def _taken(self) -> ThreadPoolExecutor:
        thread = self._idle.pop() if self._idle else ThreadPoolExecutor(max_workers=1, thread_name_prefix="request")
        thread.submit(close_old_connections)  # of its last request, should that be long ago
        return thread

    def _give_back(self, thread: ThreadPoolExecutor) -> None:
        """Runs on the thread itself, so after all that the request still had to do there."""
        idle = len(self._idle)
        if idle < self._most_open:
            close_old_connections()
        else:
            connections.close_all()  # this thread's own
        if idle < MOST_IDLE:
            self._idle.append(thread)
        else:
            thread.shutdown(wait=False)


_thread: ContextVar[RequestThread | None] = ContextVar("request_thread", default=None)


def on_kept_threads(application: Application) -> Application:
    """The application, each request of which has one thread to itself until it lets go of it or ends."""
    idle: deque[ThreadPoolExecutor] = deque()

    async def serve(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
            return
        thread = RequestThread(idle)
        mine = _thread.set(thread)
        try:
            async with ThreadSensitiveContext(executor=thread):
                await application(scope, receive, send)
        finally:
            _thread.reset(mine)
            thread.let_go(most_open=MOST_IDLE)

    return serve


async def let_go_of_thread(*, most_open: int = 0) -> None:
    """From here on the request mostly waits. Its connection is closed, unless it may stay open for the next one."""
    thread = _thread.get()
    if thread is not None:
        thread.let_go(most_open=most_open)
    else:
        await sync_to_async(release_connections)()


def release_connections() -> None:
    """Close what this thread holds of the database, unless a transaction is open on it."""
    for connection in connections.all(initialized_only=True):
        if not connection.in_atomic_block:
            connection.close()
