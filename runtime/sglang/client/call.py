"""One request of a client to a server with the plugin, from its submission to its `Result`.

The HTTP call runs in a thread; another thread may follow its events, wait for its result, or abort
it. `nprdsl.runtime.sglang.client.rereading` has the variant for servers without the plugin.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Executor, Future, wait
from queue import SimpleQueue
from typing import Any, Final

from nprdsl.machine.transcript import WrittenToken
from nprdsl.runtime.engine import Submission
from nprdsl.runtime.errors import EngineUnavailableError
from nprdsl.runtime.results import Ending, Result, result_of
from nprdsl.runtime.sglang.client.transport import Connection, ServerError, Transport
from nprdsl.runtime.sglang.protocol import ForkRequest, Route, read_reports
from nprdsl.structure.events import EndReason, Event

_ABORT_AGAIN_S: Final = 0.3  # an abort may overtake its request, so it is sent until the call ends


class Call:
    """One request. `number` is the engine's name for it, `rid` the server's; `events` says whether
    somebody will read its events."""

    def __init__(
        self,
        number: int,
        submission: Submission,
        transport: Transport,
        *,
        events: bool,
        route: Route = Route.DIRECT,
    ) -> None:
        self.number = number
        self.submission = submission
        self.rid = uuid.uuid4().hex
        self.transport = transport
        self.route = route
        self._connection = Connection()
        self._has_listener = events
        self._events: SimpleQueue[Event | None] = SimpleQueue()  # None: the call has ended
        self._aborted = threading.Event()
        self._future: Future[Result] = Future()
        self._started_s = time.perf_counter()

    def start(self, pool: Executor, aborts: Executor) -> None:
        """Queues the call. Its aborts go through a pool of their own, so that they wait behind no
        other call."""
        self._aborts = aborts
        self._future = pool.submit(self._run)

    def events(self) -> Iterator[Event]:
        """The events of the request as they come, until it has ended."""
        while (event := self._events.get()) is not None:
            yield event

    def result(self) -> Result:
        """Waits for the result."""
        try:
            return self._future.result()
        except CancelledError:
            return self._result(EndReason.ABORTED)

    def abort(self) -> None:
        """Ends the request; `result` gives what was written so far."""
        if self._aborted.is_set() or self._future.done():
            return
        self._aborted.set()
        if self._future.cancel():  # it was still waiting for a thread
            self._events.put(None)
        else:
            self._aborts.submit(self._send_abort)

    def _send_abort(self) -> None:
        """Sends one, and queues the next, so that the aborts of many calls take turns."""
        if self._future.done():
            return
        try:
            self.transport.post("/abort_request", {"rid": self.rid})
        except EngineUnavailableError:
            return  # the call itself fails too, and says so
        except ServerError:  # a router has no such path; closing the connection aborts there
            self._connection.cut()
            return
        wait((self._future,), _ABORT_AGAIN_S)
        if not self._future.done():
            self._aborts.submit(self._send_abort)

    # -- in a thread of the pool -------------------------------------------------------------------

    def _run(self) -> Result:
        try:
            if self._aborted.is_set():
                return self._result(EndReason.ABORTED)
            return self._work()
        except (EngineUnavailableError, ServerError) as error:
            if self._connection.was_cut:
                return self._result(EndReason.ABORTED)
            return self._result(EndReason.FAILED, error=str(error))
        finally:
            self._events.put(None)

    def _work(self) -> Result:
        """Runs the request. Raises EngineUnavailableError, ServerError."""
        submission = self.submission
        fork_request = ForkRequest.of(
            submission.schema,
            limits=submission.limits,
            join=submission.join,
            sampling=submission.sampling,
            parallel=submission.parallel,
            native=not submission.machine.constrained,
            events=self._has_listener,
            logprobs=submission.logprobs,
        )
        body = {
            "rid": self.rid,
            "input_ids": list(submission.machine.prompt),
            "stream": self._has_listener,
            **fork_request.fields(self.route),
        }
        response: dict[str, Any] = {}
        for response in self._responses(body):
            if "error" in response:
                error = response["error"]
                raise ServerError(int(error.get("code", 500)), error["message"])
            for report in read_reports(response["meta_info"]):
                self._emit(report.read_events())
                if report.final:
                    assert report.finish is not None
                    return self._result(
                        report.finish,
                        written=report.written(),
                        forwards=report.forwards,
                        error=report.error,
                    )
        return self._result_without_report(response)

    def _responses(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """One response, or one for each chunk of a stream."""
        if body["stream"]:
            yield from self.transport.events("/generate", body, self._connection)
        else:
            yield self.transport.post("/generate", body, self._connection)

    def _result_without_report(self, last: dict[str, Any]) -> Result:
        """The server ended the request before the plugin could report anything of it."""
        reason = last.get("meta_info", {}).get("finish_reason") or {}
        is_abort = reason.get("type") == "abort" and not reason.get("status_code")
        if self._aborted.is_set() or is_abort:
            return self._result(EndReason.ABORTED)
        message = reason.get("message") or "the server closed the connection"
        return self._result(EndReason.FAILED, error=message)

    def _result(
        self,
        finish: EndReason,
        *,
        written: Sequence[WrittenToken] = (),
        forwards: int = 0,
        error: str = "",
    ) -> Result:
        machine = self.submission.machine
        ending = Ending(
            request_id=self.number,
            finish=finish,
            forwards=forwards,
            time_s=time.perf_counter() - self._started_s,
            longest=len(written),
            error=error,
            constrained=machine.constrained,
            limits=machine.limits,
        )
        return result_of(machine.bound, machine.prompt, written, ending)

    def _emit(self, events: Sequence[Event]) -> None:
        if self._has_listener:
            for event in events:
                self._events.put(event)
