"""Runs a batch in a chat worker: requests grouped by base model, many in one engine batch, behind everybody else."""

import logging
import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import Any
from uuid import UUID, uuid4

from django.db import DatabaseError, connection
from django.utils import timezone

from trainer.errors import TrainerError
from webapp.accounts.models import Team
from webapp.api import batch_lifecycle
from webapp.api.batch_file import ERRORS, OUTPUT, Line, Results, check, lines
from webapp.api.chat_answer import Choice
from webapp.api.chat_request import Asked, read_chat
from webapp.api.chat_wire import Head, completion
from webapp.api.completions_request import read_completion
from webapp.api.completions_wire import text_completion
from webapp.api.fields import Fields
from webapp.api.file_store import store_output
from webapp.api.models import ApiFile, Batch, BatchStatus
from webapp.api.wire import ApiError, from_user_error
from webapp.chat.calls import Piece
from webapp.chat.engine_door import Ask, door
from webapp.chat.pulse import shutting_down
from webapp.common.errors import UserError

logger = logging.getLogger(__name__)

CHAT = "/v1/chat/completions"
ENDPOINTS = {CHAT: (read_chat, completion), "/v1/completions": (read_completion, text_completion)}
READ_AHEAD = 512  # requests that are sorted by base model and length at a time
ROWS = 32  # of one engine batch
BEAT_SECONDS = 1.0

_one_at_a_time = threading.Lock()


def run_batches(*, worker: str) -> None:
    """Whatever waits, one after another; another thread of this worker that does so already is enough."""
    if not _one_at_a_time.acquire(blocking=False):
        return
    try:
        while not shutting_down.is_set() and (waiting := batch_lifecycle.waiting()):
            for batch_id in waiting:
                if token := batch_lifecycle.claim(batch_id, worker=worker):
                    _run_or_release(batch_id, token)
    finally:
        _one_at_a_time.release()


def _run_or_release(batch_id: UUID, token: str) -> None:
    """What breaks is logged by the worker; the batch is free again, and the scheduler rings for it in a while."""
    is_through = False
    try:
        _run(batch_id, token)
        is_through = True
    finally:
        if not is_through:
            kind = type(sys.exception()).__name__
            trouble = f"Answering failed inside the chat worker ({kind}); its log has the cause."
            batch_lifecycle.release_broken(batch_id, token, trouble=trouble)


def _run(batch_id: UUID, token: str) -> None:
    batch = Batch.objects.select_related("team", "created_by").get(pk=batch_id)
    run = Run(batch, token)
    with run.beating():
        try:
            run.through()
        except OSError as error:
            if not batch_lifecycle.is_hopeless(batch_id, token):
                raise
            # Others would have left it with what it has; only that itself can still be what fails.
            run.refuse(_error("results_unreadable", f"{UNREADABLE} ({type(error).__name__})."))


@dataclass
class Run:
    """One worker's work on one batch."""

    batch: Batch
    token: str
    over: threading.Event = field(default_factory=threading.Event)
    unwanted: threading.Event = field(default_factory=threading.Event)
    hopeless: bool = False

    def through(self) -> None:
        results = Results(self.batch.folder)
        try:
            if not self.has_failed(results):  # looked at first: reading the file may be what fails
                if not self.begin():
                    return
                self.answer(results)
        finally:
            results.close()
        self.end(results)

    def has_failed(self, results: Results) -> bool:
        """Whether too many attempts were in vain. What the last one answered before it was cut off counts."""
        self._count(results)
        self.hopeless = batch_lifecycle.is_hopeless(self.batch.pk, self.token)
        return self.hopeless

    def begin(self) -> bool:
        """Whether there is something to answer."""
        file = ApiFile.objects.filter(pk=self.batch.input_file_id).first()
        is_there = file is not None and file.path.is_file()
        total, errors = check(file.path, self.batch.endpoint) if file and is_there else (0, [GONE])
        if errors:
            self.refuse(*errors)
            return False
        batch_lifecycle.begin(self.batch.pk, self.token, total=total)
        if not batch_lifecycle.is_wanted(self.batch.pk, self.token):  # cancelled, or expired, before anybody came
            self.unwanted.set()
        return True

    def refuse(self, *errors: dict[str, Any]) -> None:
        """It fails, and leaves no results."""
        if batch_lifecycle.refuse(self.batch.pk, self.token, errors=list(errors)):
            shutil.rmtree(self.batch.folder, ignore_errors=True)

    def answer(self, results: Results) -> None:
        asked = (line for line in lines(self.batch.input_file.path) if not results.has(line.custom_id))
        while not self.should_stop() and (some := list(islice(asked, READ_AHEAD))):
            for group in self._groups(some, results):
                if not self.should_stop():
                    self._answer_group(group, results)
                self._count(results)
            self._count(results)

    def should_stop(self) -> bool:
        return self.unwanted.is_set() or shutting_down.is_set()

    def end(self, results: Results) -> None:
        """It has come to its end, with what there is; a worker that shuts down leaves the rest to the next."""
        if shutting_down.is_set() and not self.unwanted.is_set():
            batch_lifecycle.hand_back(self.batch.pk, self.token)
            return
        status = BatchStatus.COMPLETED
        if not batch_lifecycle.finalize(self.batch.pk, self.token):
            status = BatchStatus.CANCELLED
        elif self.unwanted.is_set():
            status = BatchStatus.EXPIRED
        elif self.hopeless:
            status = BatchStatus.FAILED
        found = {field: self._stored(results, name) for field, name in FILES.items()}
        if status == BatchStatus.FAILED:
            found["errors"] = [_given_up(self.batch)]
        if batch_lifecycle.end(self.batch.pk, self.token, status=status, found=found):
            shutil.rmtree(self.batch.folder, ignore_errors=True)

    def _stored(self, results: Results, name: str) -> Any:
        path = results.paths[name]
        if not path.stat().st_size:
            return None
        seconds = self.batch.output_seconds
        with path.open("rb") as file:
            return store_output(
                team=self.batch.team,
                user=self.batch.created_by,
                purpose="batch_output",
                filename=f"batch_{self.batch.pk.hex}_{name}",
                chunks=iter(lambda: file.read(1 << 20), b""),
                expires_at=timezone.now() + timedelta(seconds=seconds) if seconds else None,
            )

    def _groups(self, some: list[Line], results: Results) -> Iterator[list[tuple[Line, Asked]]]:
        """Requests that can share an engine batch, the long prompts apart from the short ones."""
        read, _ = ENDPOINTS[self.batch.endpoint]
        by_base: dict[UUID, list[tuple[Line, Asked]]] = {}
        team: Team = self.batch.team
        for line in some:
            try:
                asked = read(self.batch.created_by, team, Fields(line.body))
            except (ApiError, UserError) as error:
                _fail(results, line, error)
            else:
                by_base.setdefault(asked.found.base.pk, []).append((line, asked))
        for group in by_base.values():
            group.sort(key=lambda one: len(one[1].prompts[0]))
            while group:
                size = max(1, ROWS // max(len(asked.prompts) for _, asked in group[:ROWS]))
                yield group[:size]
                del group[:size]

    def _answer_group(self, group: list[tuple[Line, Asked]], results: Results) -> None:
        try:
            self._generate(group, results)
        except (TrainerError, UserError) as error:
            if len(group) > 1:  # one of them is to blame: each for itself
                for one in group:
                    if not (results.has(one[0].custom_id) or self.should_stop()):
                        self._answer_group([one], results)
            elif not results.has(group[0][0].custom_id):
                _fail(results, group[0][0], ApiError(500, f"{error.text} {error.fix}".strip(), code=error.code))

    def _generate(self, group: list[tuple[Line, Asked]], results: Results) -> None:
        rows = [(line, asked, number) for line, asked in group for number in range(len(asked.prompts))]
        choices = {line.custom_id: [Choice() for _ in asked.prompts] for line, asked in group}
        with door.opened(group[0][1].found.base) as engine:
            for adapter in {asked.found.adapter for _, asked in group if asked.found.adapter}:
                engine.hold(adapter)
            asks = [_ask(asked, number) for _, asked, number in rows]
            with closing(engine.generate(asks, self.should_stop, background=True)) as chunks:
                for chunk in chunks:
                    line, asked, number = rows[chunk.row]
                    mine = choices[line.custom_id]
                    scored = [(one.token, one.logprob, list(one.top)) for one in chunk.scored]
                    mine[number].take(Piece(number, chunk.text, chunk.tokens, chunk.finish, scored))
                    if chunk.finish and all(choice.finish for choice in mine):
                        results.add(OUTPUT, self._answered(line, asked, mine))

    def _answered(self, line: Line, asked: Asked, choices: list[Choice]) -> dict[str, Any]:
        _, shape = ENDPOINTS[self.batch.endpoint]
        prefix = "chatcmpl-" if self.batch.endpoint == CHAT else "cmpl-"
        head = Head(f"{prefix}{uuid4().hex}", int(time.time()), asked)
        return _entry(line, 200, shape(head, choices))

    def _count(self, results: Results) -> None:
        if not batch_lifecycle.count(self.batch.pk, self.token, completed=results.completed, failed=results.failed):
            self.unwanted.set()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """For the time of the block, signs of life from a thread of its own, and a look whether it is still wanted."""
        thread = threading.Thread(target=self._beat, name=f"batch {self.batch.pk}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self.over.set()
            thread.join()

    def _beat(self) -> None:
        try:
            while not self.over.wait(BEAT_SECONDS):
                try:
                    if not batch_lifecycle.is_wanted(self.batch.pk, self.token):
                        self.unwanted.set()
                except DatabaseError as error:  # busy or away for a moment; the next look tries again
                    logger.warning("batch %s: %s", self.batch.pk, error)
        finally:
            connection.close()


FILES = {"output_file": OUTPUT, "error_file": ERRORS}
UNREADABLE = "What this batch has answered can be neither read nor written"


def _error(code: str, message: str) -> dict[str, Any]:
    """Of the batch as a whole."""
    return {"code": code, "line": None, "message": message, "param": None}


GONE = _error("input_file_gone", "The input file is no longer here.")


def _given_up(batch: Batch) -> dict[str, Any]:
    text = f"{batch_lifecycle.MOST_ATTEMPTS} attempts in a row broke off before they had answered anything."
    if batch.starts > batch_lifecycle.MOST_STARTS:
        text = f"{batch_lifecycle.MOST_STARTS} attempts broke off before they had answered everything."
    return _error("interrupted_too_often", f"{text} {batch.trouble}")


def _ask(asked: Asked, number: int) -> Ask:
    seed = asked.options["seed"]
    bias = {int(token): value for token, value in asked.options["logit_bias"].items()}
    own = {"seed": None if seed is None else (seed + number) % 2**63, "logit_bias": bias}
    return Ask(asked.prompts[number], asked.found.adapter, asked.options | own)


def _fail(results: Results, line: Line, error: ApiError | UserError) -> None:
    told = from_user_error(error) if isinstance(error, UserError) else error
    results.add(ERRORS, _entry(line, told.status, told.body))


def _entry(line: Line, status: int, body: dict[str, Any]) -> dict[str, Any]:
    response = {"status_code": status, "request_id": f"req_{uuid4().hex}", "body": body}
    return {"id": f"batch_req_{uuid4().hex}", "custom_id": line.custom_id, "response": response, "error": None}
