"""Several requests of an engine in this process, followed as one by whoever answers a client.

Each is queued in a thread, since prompts are read there, and listened to in the event loop. What
nobody waits for any more is stopped, wherever its client has gone away.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Generic, TypeVar

Item = TypeVar("Item")
Follow = Callable[[int], AsyncGenerator[Item]]  # what happens to a request of that number


class _Over:
    """Behind the last item."""


class Followed(Generic[Item]):
    """What happens to several requests, each item with the place of its request, as it comes.

    Made in the event loop, where it begins to listen at once. `aclose` stops all of them, whether
    somebody has listened or not.
    """

    def __init__(
        self, numbers: Sequence[int], follow: Follow[Item], abort: Callable[[int], None]
    ) -> None:
        self._numbers = numbers
        self._abort = abort
        self._items: asyncio.Queue[tuple[int, Item | _Over]] = asyncio.Queue()
        self._tasks = [
            asyncio.create_task(self._listen(index, follow(number)))
            for index, number in enumerate(numbers)
        ]

    @property
    def count(self) -> int:
        """How many requests there are."""
        return len(self._tasks)

    def when_over(self, do: Callable[[], object]) -> None:
        """Calls it when nothing is listened to any more, whoever has."""
        asyncio.gather(*self._tasks, return_exceptions=True).add_done_callback(lambda _: do())

    def stop(self, index: int) -> None:
        """Stops the request of that place; its last item comes all the same."""
        self._abort(self._numbers[index])

    async def __aiter__(self) -> AsyncGenerator[tuple[int, Item]]:
        """Raises what following raises."""
        running = len(self._tasks)
        while running:
            index, item = await self._items.get()
            if isinstance(item, _Over):
                running -= 1
                await self._tasks[index]
            else:
                yield index, item

    async def aclose(self) -> None:
        await asyncio.sleep(0)  # so that all have begun to listen: one that has not stops nothing
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _listen(self, index: int, items: AsyncGenerator[Item]) -> None:
        try:
            async with aclosing(items):
                async for item in items:
                    self._items.put_nowait((index, item))
        finally:
            self._items.put_nowait((index, _Over()))


async def submitted(submit: Callable[[], list[int]], discard: Callable[[int], None]) -> list[int]:
    """What `submit` gives, called in a thread. Where nobody waits for it any more, the requests
    that it has begun are discarded."""
    call = asyncio.ensure_future(asyncio.to_thread(submit))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        call.add_done_callback(lambda it: _discarded(it, discard))
        raise


def _discarded(call: asyncio.Future[list[int]], discard: Callable[[int], None]) -> None:
    if call.cancelled() or call.exception() is not None:
        return
    for number in call.result():
        discard(number)
