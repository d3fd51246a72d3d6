"""An OpenAI-compatible endpoint on this machine whose every response is scripted.

A script gets each request, as it was sent, and says what comes back: a reply, an error, silence.
Non-goals: being a model.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATIENCE_S = 60.0  # after which a silent response gives up by itself


@dataclass(frozen=True)
class Asked:
    """One request. `number` counts all requests from 0; names of headers are in lower case."""

    number: int
    body: dict[str, Any]
    headers: Mapping[str, str]
    at: float

    @property
    def text(self) -> str:
        """All that the model is told."""
        return "\n".join(message["content"] for message in self.body["messages"])

    @property
    def form(self) -> dict[str, Any] | None:
        """The JSON schema of the reply, if the request has one."""
        wanted = self.body.get("response_format")
        return None if wanted is None else wanted["json_schema"]["schema"]


@dataclass(frozen=True)
class Said:
    """A reply of the model."""

    text: str
    finish: str = "stop"
    refusal: str | None = None
    usage: tuple[int, int] | None = (100, 10)

    def body(self) -> bytes:
        message = {"role": "assistant", "content": self.text, "refusal": self.refusal}
        told: dict[str, Any] = {
            "id": "1",
            "object": "chat.completion",
            "created": 0,
            "model": "scripted",
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish}],
        }
        if self.usage is not None:
            prompt, completion = self.usage
            total = prompt + completion
            told["usage"] = {
                "prompt_tokens": prompt,
                "completion_tokens": completion,
                "total_tokens": total,
            }
        return json.dumps(told).encode()


@dataclass(frozen=True)
class Failed:
    """An error of HTTP."""

    status: int
    message: str = "scripted"
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        return json.dumps({"error": {"message": self.message}}).encode()


@dataclass(frozen=True)
class Raw:
    """Success whose body is no completion."""

    data: bytes = b"<html>gateway</html>"


@dataclass(frozen=True)
class Cut:
    """A connection that breaks in the middle of the body."""


@dataclass(frozen=True)
class Silent:
    """No response until the client, or `release`, gives up."""


Response = Said | Failed | Raw | Cut | Silent
Script = Callable[[Asked], Response]


class Scripted:
    """A running endpoint; `asked` holds every request, `most` how many were open together."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self.most = 0
        self._open = 0
        self._lock = threading.Lock()
        self._released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                outer.respond(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def respond(self, handler: BaseHTTPRequestHandler) -> None:
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        with self._lock:
            headers = {name.lower(): value for name, value in handler.headers.items()}
            asked = Asked(len(self.asked), body, headers, time.monotonic())
            self.asked.append(asked)
            self._open += 1
            self.most = max(self.most, self._open)
        try:
            self._send(handler, self.script(asked))
        except (BrokenPipeError, ConnectionResetError):
            pass
        finally:
            with self._lock:
                self._open -= 1

    def _send(self, handler: BaseHTTPRequestHandler, response: Response) -> None:
        match response:
            case Silent():
                self._released.wait(PATIENCE_S)
                handler.close_connection = True
            case Cut():
                handler.send_response(200)
                handler.send_header("Content-Type", "application/json")
                handler.send_header("Content-Length", "1000")
                handler.end_headers()
                handler.wfile.write(b'{"choices": [')
                handler.close_connection = True
            case Raw():
                self._answer(handler, 200, response.data, {})
            case Failed():
                self._answer(handler, response.status, response.body(), response.headers)
            case Said():
                self._answer(handler, 200, response.body(), {})

    def _answer(
        self, handler: BaseHTTPRequestHandler, status: int, data: bytes, more: Mapping[str, str]
    ) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(data)))
        for name, value in more.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data)


@contextmanager
def scripted(script: Script) -> Iterator[Scripted]:
    """An endpoint that runs as long as the block."""
    server = Scripted(script)
    server.start()
    try:
        yield server
    finally:
        server.stop()
