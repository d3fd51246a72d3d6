"""Many chains at the same time, their outcomes in the order of the chains.

Each chain waits for one reply at a time, so the chains under way are the requests in flight.
A run that ends for any reason, a kill included, is continued by running it again: every reply that
was received is in the cache.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final

from nprdsl.trainers.curate.pipeline import Curator
from nprdsl.trainers.curate.rows import Chain, Curated, Rejected

Outcome = Curated | Rejected
_AHEAD: Final = 8  # chains that may be done before the first of them, for each request in flight


async def curate_all(
    curator: Curator,
    chains: Iterable[Chain],
    take: Callable[[Outcome], None],
    *,
    in_flight: int = 8,
) -> None:
    """Give the outcome of every chain to `take`, in order, with `in_flight` requests at most.

    Raises UnusableEndpointError where no chain can be curated, OSError of the cache.
    """
    if in_flight < 1:
        raise ValueError(f"{in_flight} requests in flight are none; give 1 or more")
    gate = asyncio.Semaphore(in_flight)

    async def one(chain: Chain) -> Outcome:
        async with gate:
            return await curator.curate(chain)

    under_way: deque[asyncio.Task[Outcome]] = deque()
    try:
        for chain in chains:
            under_way.append(asyncio.create_task(one(chain)))
            if len(under_way) == in_flight * _AHEAD:
                take(await under_way[0])
                under_way.popleft()
        while under_way:
            take(await under_way[0])
            under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
