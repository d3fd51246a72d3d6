"""A request through an ASGI application that guards another, without a server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple


class Answered(NamedTuple):
    """The status, how many pieces of the body were taken, and what the application read."""

    status: int
    taken: int
    read: bytes


def send_through(
    guard: Callable[[Any], Any],
    pieces: Sequence[bytes],
    *,
    method: str = "POST",
    path: str = "/generate",
    headers: dict[str, str] | None = None,
) -> Answered:
    """`guard` is given the application; the body comes in pieces."""
    coming: list[dict[str, Any]] = [
        {"type": "http.request", "body": piece, "more_body": i + 1 < len(pieces)}
        for i, piece in enumerate(pieces)
    ]
    sent: list[Any] = []
    read = bytearray()

    async def receive() -> dict[str, Any]:
        return coming.pop(0) if coming else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            read.extend(message["body"])
            more = message["more_body"]
        assert (await receive())["type"] == "http.disconnect"
        await send({"type": "http.response.start", "status": 200, "headers": []})

    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": method, "path": path, "headers": given}
    asyncio.run(guard(app)(scope, receive, send))
    return Answered(sent[0]["status"], len(pieces) - len(coming), bytes(read))
