"""Calls of an engine that asyncio waits for: a thread for each, and its items in the event loop.

An engine's own calls wait in the thread that makes them. `AsyncCall` lets a thread of its own wait,
so that the event loop is free, and hands what the call yields to a coroutine. All calls of one
engine share its rounds. A coroutine that is cancelled, or a generator that is closed, aborts the
requests of its call, and the thread ends with the round that runs; none outlives its call.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")

Begun = Callable[[int], None]  # told the number of each request, as soon as it has one


class _Over:
    """Behind the last item."""


class AsyncCall(Generic[Item]):
    """One call: a context in the event loop, which yields what `work` yields in its thread, as it
    comes, and raises what it raises. `abort` stops a request by its number, from any thread,
    without waiting. Used up by one iteration.

    No generator: where a loop ends, asyncio closes all that are open at once, also one that another
    is about to close, which it then calls an error.
    """

    def __init__(self, abort: Callable[[int], None], work: Callable[[Begun], Iterable[Item]]):
        self._abort = abort
        self._work = work
        self._loop = asyncio.get_running_loop()
        self._items: asyncio.Queue[Item | _Over] = asyncio.Queue()
        self._lock = threading.Lock()
        self._numbers: list[int] = []
        self._is_stopped = False

    async def __aenter__(self) -> AsyncCall[Item]:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="nprdsl-async")
        self._future = self._thread.submit(self._run)
        self._thread.shutdown(wait=False)  # it ends with its work
        return self

    def __aiter__(self) -> AsyncCall[Item]:
        return self

    async def __anext__(self) -> Item:
        item = await self._items.get()
        if not isinstance(item, _Over):
            return item
        await _ended(self._future)
        self._future.result()
        raise StopAsyncIteration

    async def __aexit__(self, *_: object) -> None:
        self._stop()
        await _ended(self._future)
        self._thread.shutdown()  # nothing is left of it

    def _run(self) -> None:
        try:
            for item in self._work(self._begun):
                self._put(item)
        finally:
            self._put(_Over())

    def _put(self, item: Item | _Over) -> None:
        self._loop.call_soon_threadsafe(self._items.put_nowait, item)

    def _begun(self, number: int) -> None:
        with self._lock:
            self._numbers.append(number)
            is_stopped = self._is_stopped
        if is_stopped:
            self._abort(number)

    def _stop(self) -> None:
        with self._lock:
            self._is_stopped = True
            numbers = tuple(self._numbers)
        for number in numbers:
            self._abort(number)


async def _ended(future: Future[None]) -> None:
    """Waits until the thread's work is done, whatever became of it."""
    done = asyncio.wrap_future(future)
    done.add_done_callback(lambda it: it.cancelled() or it.exception())  # has been looked at
    await asyncio.wait([done])
