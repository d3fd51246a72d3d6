"""The SGLang engine from asyncio, against a server that only tells events until it is aborted."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from typing import Any

import pytest

import nprdsl
from nprdsl.runtime.sglang.client.engine import SGLangEngine
from nprdsl.runtime.sglang.protocol import KEY, ServerInfo, TraceReport
from nprdsl.structure.events import EndReason, TokenEvent
from tests.runtime.tiny_models import byte_tokenizer

NPR = nprdsl.load("npr")
INFO = ServerInfo(nprdsl=version("nprdsl"), model="m", positions=4000, capacity=9000, outputs=320)


class Endless(ThreadingHTTPServer):
    """`aborted` is set by `/abort_request`; `asked` holds the requests for traces."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.aborted = threading.Event()
        self.asked: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Endless

    def do_GET(self) -> None:
        self.reply({"max_req_input_len": 4000, "nprdsl": INFO.model_dump()})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/abort_request":
            self.server.aborted.set()
            self.reply({})
            return
        self.server.asked.append(body)
        self.send_response(200)
        self.end_headers()
        event = TokenEvent(0, (), (65,), "A", False, "plan").to_dict()
        while not self.server.aborted.wait(0.01):
            if body["stream"]:
                self.tell(TraceReport(events=[event]))
        last = TraceReport(final=True, finish=EndReason.ABORTED)
        if body["stream"]:
            self.tell(last)
        else:
            self.wfile.write(json.dumps({"meta_info": {KEY: [last.wire()]}}).encode())

    def tell(self, report: TraceReport) -> None:
        chunk = {"meta_info": {KEY: [report.wire()]}}
        self.wfile.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")

    def reply(self, answer: dict[str, Any]) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(answer).encode())

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def serving() -> Iterator[tuple[Endless, SGLangEngine]]:
    with Endless() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        engine = SGLangEngine(url, tokenizer=byte_tokenizer(NPR.tags))
        yield server, engine
        engine.close()
        server.shutdown()


def test_a_stream_tells_events_and_is_aborted_when_it_is_closed() -> None:
    async def work(engine: SGLangEngine) -> list[Any]:
        told = []
        async with aclosing(engine.astream(NPR, "q", logprobs=True)) as events:
            async for event in events:
                told.append(event)
                if len(told) == 3:
                    return told
        return told

    with serving() as (server, engine):
        told = asyncio.run(work(engine))
        assert [event.rule for event in told] == ["plan"] * 3
        assert server.aborted.is_set() and not engine._open
        assert server.asked[0]["sampling_params"]["custom_params"][KEY]["logprobs"] is True


def test_a_call_that_is_cancelled_is_aborted_on_the_server() -> None:
    async def work(engine: SGLangEngine) -> None:
        async with asyncio.timeout(0.1):
            await engine.agenerate(NPR, "q")

    with serving() as (server, engine):
        with pytest.raises(TimeoutError):
            asyncio.run(work(engine))
        assert server.aborted.is_set() and not engine._open


def test_an_abort_waits_behind_no_open_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """All threads for calls are taken: one call waits for a thread, the others for their ends."""
    monkeypatch.setattr("nprdsl.runtime.sglang.client.engine.MOST_CALLS", 2)
    with serving() as (server, engine):
        first, second, third = (engine.submit(NPR, "q") for _ in range(3))
        engine.abort(third)
        assert engine.wait(third).finish is EndReason.ABORTED
        assert not server.aborted.is_set()
        engine.abort(first)
        assert engine.wait(first).finish is engine.wait(second).finish is EndReason.ABORTED
        assert server.aborted.is_set()
