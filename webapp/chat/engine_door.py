"""The chat worker's door to the engine, and the one place that loads torch: an engine per base model."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from webapp.adapters.models import Adapter, BaseModel
from webapp.common.errors import UserError
from webapp.common.storage import sha256_of

WEIGHTS = "adapter_model.safetensors"


def trainer_engine() -> Any:
    """The module `trainer.engine`. Its import takes seconds, so a chat worker does it before the first question."""
    from trainer import engine  # noqa: PLC0415 - torch is loaded here and nowhere else in the web project

    return engine


@dataclass(frozen=True)
class Ask:
    """One row of a batch."""

    prompt_ids: list[int]
    adapter: Adapter | None
    options: dict[str, Any]  # further fields of the engine's request


@dataclass
class Resident:
    """An engine in memory, how many turns use it now, and the weights files it knows, as they were when verified."""

    engine: Any
    users: int = 0
    verified: dict[str, tuple[int, int]] = field(default_factory=dict)  # by adapter: time of change and size
    lock: threading.Lock = field(default_factory=threading.Lock)

    def hold(self, adapter: Adapter) -> None:
        """Make an adapter known. UserError `adapter_damaged` when its weights are not what was published."""
        key, weights = str(adapter.pk), adapter.folder / WEIGHTS
        if not weights.is_file():
            raise UserError("adapter_damaged")
        state = (weights.stat().st_mtime_ns, weights.stat().st_size)
        with self.lock:
            if self.verified.get(key) != state:
                self._forget(key)
                if sha256_of(weights) != adapter.weights_sha256:
                    raise UserError("adapter_damaged")
                self.verified[key] = state
            self.engine.load_adapter(key, adapter.folder)

    def generate(
        self, asks: Sequence[Ask], should_stop: Callable[[], bool], *, background: bool = False
    ) -> Generator[Any]:
        """All rows together, each with its own adapter; yields the engine's chunks."""
        rows = [_request(ask) for ask in asks]
        chunks: Generator[Any] = self.engine.generate(rows, should_stop, background=background)
        return chunks

    def drop_vanished(self) -> None:
        """Forget adapters that were deleted; an answer that one is giving now goes on."""
        with self.lock:
            known = {str(pk) for pk in Adapter.objects.filter(pk__in=self.verified).values_list("pk", flat=True)}
            for key in set(self.verified) - known:
                self._forget(key)

    def _forget(self, key: str) -> None:
        if self.verified.pop(key, None):
            self.engine.drop_adapter(key)


class EngineDoor:
    """Engines by base folder. At most CHAT_ENGINES stay; one that nobody uses makes room for the next."""

    def __init__(self) -> None:
        # One turn at a time loads or waits for room and later ones queue behind it, so nobody is overtaken for ever.
        self._turnstile = threading.Lock()
        self._changed = threading.Condition()
        self._residents: dict[Path, Resident] = {}

    @contextmanager
    def opened(self, base: BaseModel) -> Iterator[Resident]:
        """The engine of a base model, loaded if need be; it stays at least until the block ends."""
        with self._turnstile:
            resident = self._enter(base.folder)
        try:
            yield resident
            resident.drop_vanished()  # at the end, when nobody waits for it
        finally:
            with self._changed:
                resident.users -= 1
                self._changed.notify_all()

    def _enter(self, folder: Path) -> Resident:
        with self._changed:
            resident = self._residents.pop(folder, None)
            if resident is None:
                self._make_room()
        if resident is None:
            resident = Resident(_load(folder))
        with self._changed:
            self._residents[folder] = resident  # the most recently used is last
            resident.users += 1
        return resident

    def _make_room(self) -> None:
        while len(self._residents) >= settings.CHAT_ENGINES:
            idle = next((folder for folder, one in self._residents.items() if one.users == 0), None)
            if idle is None:
                self._changed.wait()
            else:
                del self._residents[idle]


def _load(folder: Path) -> Any:
    return trainer_engine().Engine(
        folder,
        dtype=settings.CHAT_DTYPE,
        quantization=settings.CHAT_QUANTIZATION,
        max_adapters=settings.CHAT_ADAPTERS,
    )


def _request(ask: Ask) -> Any:
    return trainer_engine().Request(
        prompt_ids=ask.prompt_ids,
        adapter=str(ask.adapter.pk) if ask.adapter else None,
        **ask.options,
    )


door = EngineDoor()
