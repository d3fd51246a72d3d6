"""Stops the work for a client that has gone away, before and while an answer is sent.

ASGI tells of that in the messages that a request goes on to receive. So both functions listen there
beside their work; whatever they do last, the work is over when they end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, TypeVar

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from nprdsl.runtime.http.replies import StreamReply

Value = TypeVar("Value")


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Value]) -> Value | None:
    """What the work comes to; None, and the work is cancelled, if the client went away before."""
    gone = asyncio.ensure_future(_gone(receive))
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait({gone, task}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        await _cancelled(gone)
        await _cancelled(task)


class EventStream(Response):
    """Sends server-sent events until they end or the client goes away; then what wrote them is
    stopped."""

    def __init__(self, reply: StreamReply) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        gone = asyncio.ensure_future(_gone(receive))
        sending = asyncio.ensure_future(self._send(send))
        try:
            await asyncio.wait({gone, sending}, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                with suppress(OSError):  # to write to a client that is gone
                    sending.result()
        finally:
            await _cancelled(gone)
            await _cancelled(sending)
            await self._reply.chunks.aclose()
            await self._reply.close()

    async def _send(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
        await send(start)
        async for chunk in self._reply.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _gone(receive: Receive) -> None:
    """Ends when the client is gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _cancelled(task: asyncio.Future[Any]) -> None:
    """Cancels it, and waits until it is over."""
    task.cancel()
    await asyncio.wait({task})
    if not task.cancelled():
        task.exception()  # has been looked at
