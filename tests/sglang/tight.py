"""A server with little room: a pool of 480 tokens, five rows, prompts in chunks of 32, and all of
SGLang's own checks of memory on: what it loses, or frees twice, ends it.

Tests import `tight` and `all_is_back`. Every test ends in bounded time: `run` is the watchdog.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sglang.server import Server

POOL, ROWS, CHUNK, QUEUE = 480, 5, 32, 24


@pytest.fixture(scope="session")
def tight(tiny: Path) -> Iterator[Server]:
    """The server."""
    os.environ["SGLANG_CHECK_KV_PAGE_INVARIANTS"] = "1"
    started = Server(
        tiny,
        max_total_tokens=POOL,
        max_running_requests=ROWS,
        chunked_prefill_size=CHUNK,
        max_queued_requests=QUEUE,
    )
    del os.environ["SGLANG_CHECK_KV_PAGE_INVARIANTS"]  # of this server alone
    yield started
    started.stop()


@pytest.fixture(autouse=True)
def all_is_back(tight: Server) -> Iterator[None]:
    """After every test nothing runs, and SGLang has found every slot and row in its place."""
    yield
    try:
        tight.settle()
    finally:
        tight.abort(everything=True)  # of a test that failed
