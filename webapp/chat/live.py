"""One event stream for all columns of a turn: what is in the database, then the live stream, until all have ended."""

from __future__ import annotations

import re
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing
from uuid import UUID

from asgiref.sync import sync_to_async

from webapp.accounts.models import User
from webapp.chat import wire
from webapp.chat.models import Completion, Turn
from webapp.common import streams
from webapp.common.http import KEEP_ALIVE, STREAM_SECONDS, sse
from webapp.common.request_threads import release_connections

LOOK_SECONDS = 5.0  # how often access and the database are looked at while text comes; each second when none does
EVENT_ID = re.compile(r"[0-9]{1,19}-[0-9]{1,19}")  # as Redis makes them


def _look(user: User, turn_id: UUID) -> list[Completion] | None:
    """The turn's answers as this user may see them now; None when they may not, or it is gone."""
    try:
        # Asked anew in the database: what `user` says is as old as the stream.
        seen = Turn.objects.visible_to(user).filter(pk=turn_id, conversation__created_by__is_active=True)
        if not seen.exists():
            return None
        return list(Completion.objects.filter(turn_id=turn_id))
    finally:
        release_connections()  # a stream may last minutes; it holds no connection meanwhile


class Progress:
    """How far one page is, answer by answer."""

    def __init__(self) -> None:
        self._units: dict[str, int] = {}
        self._open: set[str] = set()
        self._told: set[str] = set()

    @property
    def is_over(self) -> bool:
        return not self._open

    def from_database(self, completions: list[Completion]) -> Iterator[wire.Event]:
        """What the database knows and the page does not: text the stream has lost, and ends."""
        self._open = {str(one.pk) for one in completions if one.is_active} - self._told
        for one in completions:
            key = str(one.pk)
            if key in self._open and wire.units(one.text) > self._units.setdefault(key, 0):
                self._units[key] = wire.units(one.text)
                yield wire.delta(one.pk, 0, one.text)
            elif not one.is_active and key not in self._told:
                self._told.add(key)
                yield wire.ended(one)

    def from_stream(self, entry: dict[str, str]) -> Iterator[wire.Event]:
        """An entry, unless it belongs to an answer that has ended or was asked anew."""
        name, data = wire.unpack(entry)
        key: str = data.get("completion", "")
        if key and key not in self._open:
            return
        if name == "delta":
            self._units[key] = max(self._units[key], data["at"] + wire.units(data["text"]))
        elif name == "end":
            self._open.discard(key)
            self._told.add(key)
        yield name, data


async def turn_events(user: User, turn: Turn, *, after: str = "") -> AsyncGenerator[str, None]:
    """Server-Sent Events of a turn. `after` is the browser's Last-Event-ID; closing the page stops nothing."""
    progress = Progress()
    deadline = time.monotonic() + STREAM_SECONDS
    start = after if EVENT_ID.fullmatch(after) else "0"
    yield "retry: 1000\n\n"
    async with aclosing(_entries(turn.stream, start)) as entries:
        looked = float("-inf")
        async for event_id, entry in entries:
            if entry is None or time.monotonic() - looked >= LOOK_SECONDS:
                completions = await sync_to_async(_look)(user, turn.pk)
                looked = time.monotonic()
                if completions is None:
                    yield sse("gone", {})
                    return
                for event in progress.from_database(completions):
                    yield sse(*event)
                yield KEEP_ALIVE
            if entry is not None:
                for event in progress.from_stream(entry):
                    yield sse(*event, event_id=event_id)
            if progress.is_over:
                yield sse("done", {})
                return
            if time.monotonic() >= deadline:
                return


async def _entries(stream: str, start: str) -> AsyncGenerator[tuple[str, dict[str, str] | None], None]:
    """The stream's entries, None whenever it is quiet, and None at once: an ended turn needs no stream."""
    yield "", None
    async with aclosing(streams.follow(stream, after=start)) as entries:
        async for found in entries:
            yield found or ("", None)
