"""JSON over HTTP to one server, with the standard library alone; streams as server-sent events.

Every call has a connection of its own, so that any thread may call, and closing one ends what it
asked for.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from nprdsl.runtime.errors import EngineUnavailableError

CONNECT_S: Final = 10.0  # to reach the server; what it computes takes as long as it takes
_ERRORS: Final = (OSError, http.client.HTTPException)


class ServerError(RuntimeError):
    """The server refused or failed; `status` is that of HTTP."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Line:
    """The connection of one call, which any thread may cut: the server then ends what it asked
    for."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._connection: _Connection | None = None
        self.was_cut = False

    def hold(self, connection: _Connection) -> None:
        """The call has this connection now."""
        with self._lock:
            self._connection = connection
            if self.was_cut:
                connection.cut()

    def cut(self) -> None:
        """Ends the connection; who reads from it gets EngineUnavailableError."""
        with self._lock:
            self.was_cut = True
            if self._connection is not None:
                self._connection.cut()


class Transport:
    """One server at `url`."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"`{url}` is no address of a server, such as http://127.0.0.1:30000")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._secure = parts.scheme == "https"
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def answers(self, path: str) -> bool:
        """Whether a GET gives success. Raises EngineUnavailableError."""
        connection, response = self._open("GET", path, None)
        with connection:
            return bool(response.status < 300)

    def get(self, path: str) -> Any:
        """Raises EngineUnavailableError, ServerError."""
        return self._call("GET", path, None)

    def post(self, path: str, body: Mapping[str, Any], line: Line | None = None) -> Any:
        """Raises EngineUnavailableError, ServerError."""
        return self._call("POST", path, body, line)

    def events(self, path: str, body: Mapping[str, Any], line: Line | None = None) -> Iterator[Any]:
        """The events of a stream, until it says that it is done. Raises as `post`."""
        connection, response = self._open("POST", path, body, line)
        with connection:
            if response.status >= 300:
                raise ServerError(response.status, _said(self._read(response)))
            try:
                for each in response:
                    data = each.strip().removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        return
                    if data:
                        yield json.loads(data)
            except _ERRORS as error:
                raise self._lost(error) from error

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None, line: Line | None = None
    ) -> Any:
        connection, response = self._open(method, path, body, line)
        with connection:
            data = self._read(response)
        if response.status >= 300:
            raise ServerError(response.status, _said(data))
        try:
            return json.loads(data)
        except ValueError:
            return data.decode("utf-8", "replace")

    def _open(
        self, method: str, path: str, body: Mapping[str, Any] | None, line: Line | None = None
    ) -> tuple[_Connection, http.client.HTTPResponse]:
        connection = _Connection(self._host, self._port, secure=self._secure)
        if line is not None:
            line.hold(connection)
        data = None if body is None else json.dumps(body).encode()
        try:
            response = connection.ask(method, self._path + path, data, self._headers)
        except _ERRORS as error:
            connection.close()
            raise self._lost(error) from error
        return connection, response

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except _ERRORS as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> EngineUnavailableError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return EngineUnavailableError(
            f"no server answers at {self.url} ({reason or type(error).__name__}); "
            "`nprdsl serve` starts one"
        )


class _Connection:
    """One connection; waits without end once the server was reached."""

    def __init__(self, host: str, port: int | None, *, secure: bool) -> None:
        kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
        self._inner = kind(host, port, timeout=CONNECT_S)
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._was_cut = False

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ask(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        self._inner.connect()
        self._inner.sock.settimeout(None)
        with self._lock:
            self._socket = self._inner.sock
            if self._was_cut:
                self._end()
        self._inner.request(method, path, body, dict(headers))
        return self._inner.getresponse()

    def cut(self) -> None:
        """From another thread: what is read from it ends."""
        with self._lock:
            self._was_cut = True
            self._end()

    def close(self) -> None:
        self._inner.close()

    def _end(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it has ended by itself
                self._socket.shutdown(socket.SHUT_RDWR)


def _said(data: bytes) -> str:
    """The message of an error, in any of the forms that SGLang gives it."""
    text = data.decode("utf-8", "replace").strip()
    try:
        body = json.loads(text)
    except ValueError:
        return text
    while isinstance(body, dict):
        found = body.get("error", body.get("message", body.get("detail")))
        if found is None:
            return text
        body = found
    return body if isinstance(body, str) else text
