"""JSON over HTTP to one server, with the standard library alone; streams as server-sent events.

Each call opens its own connection, so any thread may call. Another thread can cut a call off
(`Connection.cut`); the server then aborts what the call asked for.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import closing, suppress
from typing import Any, Final
from urllib.parse import urlsplit

from nprdsl.runtime.api_key import REFUSED, refusal
from nprdsl.runtime.errors import EngineUnavailableError

CONNECT_S: Final = 10.0  # to reach the server; there is no limit on how long it computes
ANSWER_S: Final = 60.0  # to say what it is
_ERRORS: Final = (OSError, http.client.HTTPException)


class ServerError(RuntimeError):
    """The server refused or failed; `status` is the HTTP status."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class Connection:
    """The connection of one call, which any thread may cut, also before it is open."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self.was_cut = False

    def opened(self, sock: socket.socket) -> None:
        """The call uses this socket now."""
        with self._lock:
            self._socket = sock
            if self.was_cut:
                self._shut_down()

    def cut(self) -> None:
        """Ends the connection; the call that reads from it raises EngineUnavailableError."""
        with self._lock:
            self.was_cut = True
            self._shut_down()

    def _shut_down(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it has ended by itself
                self._socket.shutdown(socket.SHUT_RDWR)


class Transport:
    """The server at `url`."""

    def __init__(self, url: str, api_key: str | None = None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"`{url}` is no address of a server, such as http://127.0.0.1:30000")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        self._secure = parts.scheme == "https"
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        self._key = api_key or ""
        if api_key:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def is_success(self, path: str) -> bool:
        """Whether a GET gives a status below 300. Raises EngineUnavailableError."""
        with closing(self._open("GET", path)) as response:
            return bool(response.status < 300)

    def get(self, path: str) -> Any:
        """The JSON of a response. Raises EngineUnavailableError, ServerError."""
        return self._call("GET", path, within=ANSWER_S)

    def post(self, path: str, body: Mapping[str, Any], connection: Connection | None = None) -> Any:
        """The JSON of a response. Raises EngineUnavailableError, ServerError."""
        return self._call("POST", path, body, connection)

    def events(
        self, path: str, body: Mapping[str, Any], connection: Connection | None = None
    ) -> Iterator[Any]:
        """The JSON of each server-sent event, up to `[DONE]`. Raises as `post`."""
        with closing(self._open("POST", path, body, connection)) as response:
            if response.status >= 300:
                raise self._refused(response.status, self._read(response))
            try:
                for line in response:
                    data = line.strip().removeprefix(b"data:").strip()
                    if data == b"[DONE]":
                        return
                    if data:
                        yield json.loads(data)
            except _ERRORS as error:
                raise self._unavailable(error) from error

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        connection: Connection | None = None,
        within: float | None = None,
    ) -> Any:
        with closing(self._open(method, path, body, connection, within)) as response:
            data = self._read(response)
        if response.status >= 300:
            raise self._refused(response.status, data)
        try:
            return json.loads(data)
        except ValueError:
            return data.decode("utf-8", "replace")

    def _open(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        connection: Connection | None = None,
        within: float | None = None,
    ) -> http.client.HTTPResponse:
        """Sends a request; gives the response once its head is there. Closing the response closes
        the connection. A server that is silent for longer than `within` seconds does not answer."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        http_connection = kind(self._host, self._port, timeout=CONNECT_S)
        headers = self._headers | {"Connection": "close"}
        data = None if body is None else json.dumps(body).encode()
        try:
            http_connection.connect()
            http_connection.sock.settimeout(within)
            if connection is not None:
                connection.opened(http_connection.sock)
            http_connection.request(method, self._path + path, data, headers)
            return http_connection.getresponse()
        except _ERRORS as error:
            http_connection.close()
            raise self._unavailable(error) from error

    def _read(self, response: http.client.HTTPResponse) -> bytes:
        try:
            return response.read()
        except _ERRORS as error:
            raise self._unavailable(error) from error

    def _refused(self, status: int, data: bytes) -> ServerError:
        if status == REFUSED:
            return ServerError(status, refusal(self.url, self._key))
        return ServerError(status, _error_message(data))

    def _unavailable(self, error: Exception) -> EngineUnavailableError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        return EngineUnavailableError(
            f"no server answers at {self.url} ({reason or type(error).__name__}); "
            "`nprdsl serve` starts one"
        )


def _error_message(data: bytes) -> str:
    """The message in the body of an error response, whichever of its forms SGLang used."""
    text = data.decode("utf-8", "replace").strip()
    try:
        body = json.loads(text)
    except ValueError:
        return text
    while isinstance(body, dict):
        body = body.get("error", body.get("message", body.get("detail")))
    return body if isinstance(body, str) else text
