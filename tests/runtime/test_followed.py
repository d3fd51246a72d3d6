"""Several requests followed as one: whoever stops following stops them, whenever that is."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from nprdsl.runtime.http.followed import Followed


@pytest.mark.parametrize("turns", [0, 1, 3])
def test_nobody_follows_any_more(turns: int) -> None:
    """Also before the loop has had a turn to begin to listen."""
    stopped: list[int] = []

    async def follow(number: int) -> AsyncGenerator[int]:
        try:
            while True:
                await asyncio.sleep(0)
                yield number
        finally:
            stopped.append(number)

    async def leave() -> None:
        followed = Followed([7, 8], follow, stopped.append)
        for _ in range(turns):
            await asyncio.sleep(0)
        await followed.aclose()

    asyncio.run(leave())
    assert sorted(stopped) == [7, 8]
