"""One request to a server with the plugin: a call in a thread, its events, its result."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from threading import Event as Flag
from typing import Any, Final

from nprdsl.machine.branch_state import Written
from nprdsl.runtime.engine import Submission
from nprdsl.runtime.errors import EngineUnavailableError
from nprdsl.runtime.outcome import Ending, outcome
from nprdsl.runtime.results import Result
from nprdsl.runtime.sglang.client.transport import Line, ServerError, Transport
from nprdsl.runtime.sglang.protocol import ForkRequest, Report, Route, reports
from nprdsl.runtime.sglang.written import written_of
from nprdsl.structure.events import EndReason, Event

_INSIST_S: Final = 0.3  # an abort may overtake the request that it means, so it is said again


class Call:
    """A request with a name on the server, `rid`. `events`: someone will listen."""

    def __init__(
        self,
        number: int,
        submission: Submission,
        transport: Transport,
        *,
        events: bool,
        route: Route = Route.STRAIGHT,
    ) -> None:
        self.number = number
        self.submission = submission
        self.rid = uuid.uuid4().hex
        self.transport = transport
        self.route = route
        self._line = Line()
        self._listens = events
        self._events: SimpleQueue[Event | None] = SimpleQueue()
        self._aborted = Flag()
        self._future: Future[Result] = Future()
        self._started_s = time.perf_counter()

    def begin(self, pool: Executor) -> None:
        """Queues it."""
        self._pool = pool
        self._future = pool.submit(self._run)

    def events(self) -> Iterator[Event]:
        """What happens, until it has ended."""
        while (event := self._events.get()) is not None:
            yield event

    def result(self) -> Result:
        """Waits for it."""
        return self._future.result()

    def abort(self) -> None:
        """Ends it; `result` gives what there is."""
        if not self._aborted.is_set() and not self._future.done():
            self._aborted.set()
            self._pool.submit(self._insist)

    def _insist(self) -> None:
        while not self._future.done():
            try:
                self.transport.post("/abort_request", {"rid": self.rid})
            except EngineUnavailableError:
                return  # the call itself fails too, and says so
            except ServerError:  # a router passes no aborts on, but the end of a connection
                self._line.cut()
                return
            time.sleep(_INSIST_S)

    # -- in a thread of its own --------------------------------------------------------------------

    def _run(self) -> Result:
        try:
            if self._aborted.is_set():
                return self.ended(EndReason.ABORTED)
            return self._work()
        except (EngineUnavailableError, ServerError) as error:
            if self._line.was_cut:
                return self.ended(EndReason.ABORTED)
            return self.ended(EndReason.FAILED, error=str(error))
        finally:
            self._events.put(None)

    def _work(self) -> Result:
        """Raises EngineUnavailableError, ServerError."""
        asked = self.submission
        fork = ForkRequest.of(
            asked.schema,
            limits=asked.limits,
            join=asked.join,
            sampling=asked.sampling,
            parallel=asked.parallel,
            events=self._listens,
        )
        body = {
            "rid": self.rid,
            "input_ids": list(asked.machine.prompt),
            "stream": self._listens,
            **fork.fields(self.route),
        }
        last: dict[str, Any] = {}
        for last in self._answers(body):
            if "error" in last:
                raise ServerError(int(last["error"].get("code", 500)), last["error"]["message"])
            for report in reports(last["meta_info"]):
                for event in report.seen():
                    self._events.put(event)
                if report.final:
                    return self._reported(report)
        return self._unreported(last)

    def _answers(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if body["stream"]:
            yield from self.transport.events("/generate", body, self._line)
        else:
            yield self.transport.post("/generate", body, self._line)

    def _reported(self, report: Report) -> Result:
        assert report.finish is not None
        return self.ended(
            report.finish,
            written=written_of(report),
            forwards=report.forwards,
            error=report.error,
        )

    def _unreported(self, last: dict[str, Any]) -> Result:
        """It was ended before the plugin had anything to tell."""
        told = last.get("meta_info", {}).get("finish_reason") or {}
        if self._aborted.is_set() or (told.get("type") == "abort" and not told.get("status_code")):
            return self.ended(EndReason.ABORTED)
        message = told.get("message") or "the server closed the connection"
        return self.ended(EndReason.FAILED, error=message)

    def ended(
        self,
        finish: EndReason,
        *,
        written: Sequence[Written] = (),
        forwards: int = 0,
        error: str = "",
    ) -> Result:
        """The result of this call."""
        machine = self.submission.machine
        ending = Ending(
            request_id=self.number,
            finish=finish,
            forwards=forwards,
            time_s=time.perf_counter() - self._started_s,
            longest=len(written),
            error=error,
        )
        return outcome(machine.bound, machine.prompt, written, ending)

    def tell(self, events: Sequence[Event]) -> None:
        """Passes events on to who listens."""
        if self._listens:
            for event in events:
                self._events.put(event)
