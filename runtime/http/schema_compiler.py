"""Reads the schemas of requests in processes of their own, within bounds on time and memory.

In goes the form of a schema and who sent it, out comes its grammar, packed for the other processes
of the server. An event loop awaits it, and is never kept: the work is done by `schema_worker`
processes, which are replaced when a schema takes too long. Clients take turns, and each has few
places in the queue. What came out is kept by the hash of the form, refusals too.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import OrderedDict, deque
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final

from nprdsl.runtime.http.refusals import PreparationError, RefusedError, TooManyError
from nprdsl.runtime.http.wire_forms import SchemaForm
from nprdsl.runtime.metrics import SchemaOutcome, Told, untold

DEADLINE_S: Final = 5.0
WORKERS: Final = min(2, max(1, (os.cpu_count() or 1) // 4))
MEMORY: Final = 1 << 30  # bytes of address space of one worker
PER_CLIENT: Final = 64  # schemas of one client that wait or are read
IN_ALL: Final = 512
OWN: Final = ""  # the client that is this process itself: it may send as many as it likes
PACKED_CHARACTERS: Final = 100_000  # of a grammar, which a scheduler binds between two steps
_KEPT: Final = 512  # results
_KEPT_CHARACTERS: Final = 64_000_000  # of all packed grammars
_LATE_AGAIN_S: Final = 60.0  # for so long a schema that took too long is not tried again
_LINE: Final = 1 << 28  # the longest answer, in bytes

_log = logging.getLogger(__name__)


def form_digest(form: SchemaForm) -> str:
    """Names a form in the cache and in the server's log."""
    return hashlib.sha256(form.model_dump_json().encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class _Answer:
    """What a form came to: the packed grammar; or why it is refused, or what of ours failed.
    `until`: in monotonic seconds."""

    grammar: str = ""
    refused: str = ""
    failed: str = ""
    until: float = float("inf")

    @property
    def reading(self) -> SchemaOutcome:
        if self.failed:
            return SchemaOutcome.FAILED
        if self.refused:
            return SchemaOutcome.REFUSED if self.until == float("inf") else SchemaOutcome.LATE
        return SchemaOutcome.READ

    def checked(self) -> str:
        """The grammar. Raises RefusedError, PreparationError."""
        if self.refused:
            raise RefusedError(self.refused)
        if self.failed:
            raise PreparationError(self.failed)
        return self.grammar


@dataclass(slots=True)
class _Job:
    digest: str
    form: SchemaForm
    done: asyncio.Future[_Answer]


class SchemaCompiler:
    """One for each server, used from one event loop. `deadline_s`: for reading one schema."""

    def __init__(
        self,
        *,
        deadline_s: float = DEADLINE_S,
        workers: int = WORKERS,
        memory: int = MEMORY,
        told: Told = untold,
    ) -> None:
        self._told = told
        self._deadline_s = deadline_s
        self._memory = memory
        self._places = workers
        self._idle: list[Process] = []
        self._working: set[asyncio.Task[None]] = set()
        self._queues: OrderedDict[str, deque[_Job]] = OrderedDict()  # by client, in turn
        self._open: dict[str, _Job] = {}  # by digest
        self._count: dict[str, int] = {}  # open jobs by client
        self._kept: OrderedDict[str, _Answer] = OrderedDict()  # the one longest unused first

    async def packed(self, form: SchemaForm, client: str = OWN) -> str:
        """The packed grammar. Raises RefusedError, or PreparationError where we are to blame."""
        digest = form_digest(form)
        answer = self._known(digest)
        if answer is None:
            job = self._open.get(digest) or self._enqueue(digest, form, client)
            answer = await asyncio.shield(job.done)
        return answer.checked()

    async def close(self) -> None:
        """Ends all workers; they end by themselves with the server."""
        for task in self._working:
            task.cancel()
        for process in self._idle:
            _kill(process)
            await process.wait()
        self._idle.clear()

    # -- what is known, what waits -----------------------------------------------------------------

    def _known(self, digest: str) -> _Answer | None:
        answer = self._kept.get(digest)
        if answer is None or monotonic() >= answer.until:
            return None
        self._kept.move_to_end(digest)
        return answer

    def _keep(self, digest: str, answer: _Answer) -> None:
        self._kept[digest] = answer
        self._kept.move_to_end(digest)
        while len(self._kept) > _KEPT or self._characters > _KEPT_CHARACTERS:
            self._kept.popitem(last=False)

    @property
    def _characters(self) -> int:
        return sum(len(answer.grammar) for answer in self._kept.values())

    def _enqueue(self, digest: str, form: SchemaForm, client: str) -> _Job:
        """Raises TooManyError."""
        if client != OWN and self._count.get(client, 0) >= PER_CLIENT:
            raise TooManyError(
                f"{PER_CLIENT} schemas of this client wait to be read already: try again later"
            )
        if client != OWN and len(self._open) >= IN_ALL:
            raise TooManyError(f"{IN_ALL} schemas wait to be read already: try again later")
        job = _Job(digest, form, asyncio.get_running_loop().create_future())
        self._open[digest] = job
        self._count[client] = self._count.get(client, 0) + 1
        job.done.add_done_callback(lambda _: self._leave(digest, client))
        self._queues.setdefault(client, deque()).append(job)
        if len(self._working) < self._places:
            task = asyncio.create_task(self._work())
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        return job

    def _leave(self, digest: str, client: str) -> None:
        del self._open[digest]
        self._count[client] -= 1
        if not self._count[client]:
            del self._count[client]

    def _next(self) -> _Job | None:
        """The oldest job of the client whose turn it is."""
        if not self._queues:
            return None
        client, queue = self._queues.popitem(last=False)
        job = queue.popleft()
        if queue:
            self._queues[client] = queue
        return job

    # -- one worker --------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Does jobs until none is left; the process then waits for the next ones."""
        while (job := self._next()) is not None:
            begin = monotonic()
            try:
                answer = await self._read(job)
            except OSError as error:  # no process can be started
                answer = self._failed(job.digest, str(error))
            self._told(answer.reading, monotonic() - begin)
            if not answer.failed:
                self._keep(job.digest, answer)
            job.done.set_result(answer)

    async def _read(self, job: _Job) -> _Answer:
        while True:
            process = await self._process()
            line = await _asked(process, job.form.model_dump_json())
            if line is not None:
                self._idle.append(process)
                return self._answer(job.digest, json.loads(line))
            code = await process.wait()
            if code in (-signal.SIGPROF, -signal.SIGALRM):
                message = (
                    f"to read the schema takes more than {self._deadline_s:g} s on this server: "
                    "make it smaller (the server's bound is --schema-timeout)"
                )
                return _Answer(refused=message, until=monotonic() + _LATE_AGAIN_S)
            if code != 0:  # else it had ended before it was asked
                return self._failed(job.digest, f"the worker ended with code {code}")

    async def _process(self) -> Process:
        """A worker that waits for a schema."""
        while self._idle:
            process = self._idle.pop()
            if process.returncode is None:
                return process
        return await self._start()

    async def _start(self) -> Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-W",
            "ignore",
            "-m",
            "nprdsl.runtime.http.schema_worker",
            str(self._deadline_s),
            str(self._memory),
            stdin=PIPE,
            stdout=PIPE,
            limit=_LINE,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )

    def _answer(self, digest: str, told: dict[str, str]) -> _Answer:
        if "refused" in told:
            return _Answer(refused=told["refused"])
        if "failed" in told:
            return self._failed(digest, told["failed"])
        grammar = told["grammar"]
        if len(grammar) > PACKED_CHARACTERS:
            message = (
                f"the schema is {len(grammar) / PACKED_CHARACTERS:.1f} times as large as a server "
                "takes from clients: make it smaller, or register it there (--schema-folder)"
            )
            return _Answer(refused=message)
        return _Answer(grammar)

    def _failed(self, digest: str, what: str) -> _Answer:
        _log.error("the schema %s could not be read: %s", digest, what)
        message = f"the schema could not be read; the server's log says why, for {digest[:16]}"
        return _Answer(failed=message)


async def _asked(process: Process, form: str) -> bytes | None:
    """The line that the worker answers with; None if it ends instead."""
    assert process.stdin is not None and process.stdout is not None
    try:
        process.stdin.write(form.encode() + b"\n")
        line = await process.stdout.readline()
    except ConnectionError:
        return None
    except asyncio.CancelledError:
        _kill(process)
        raise
    return line if line.endswith(b"\n") else None


def _kill(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
