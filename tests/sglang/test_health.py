"""`/health` says at once what SGLang finds out, and nothing else than it."""

from __future__ import annotations

import asyncio
import time
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import Response

from nprdsl.runtime.sglang.http import health
from tests.sglang.served import Served

SLOW_S = 30.0


def asked(monkeypatch: pytest.MonkeyPatch, check_s: float, sign_s: float) -> int:
    """The status where SGLang's own check fails after `check_s`, and the scheduler answers after
    `sign_s`."""

    async def check(request: Any) -> Response:
        await asyncio.sleep(check_s)
        return Response(status_code=503)

    async def ask() -> Response:
        manager = SimpleNamespace(last_receive_tstamp=0.0)
        sign = asyncio.create_task(asyncio.sleep(sign_s))
        sign.add_done_callback(lambda _: setattr(manager, "last_receive_tstamp", time.time() + 1))
        try:
            return await asyncio.wait_for(health.first_sign(manager, None), SLOW_S)  # type: ignore[arg-type]
        finally:
            for task in [sign, *health._checks]:
                task.cancel()

    monkeypatch.setattr(health, "health_generate", check)
    return asyncio.run(ask()).status_code


def test_a_sign_of_life_is_told_before_the_check_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, check_s=10 * SLOW_S, sign_s=0.01) == 200


def test_without_a_sign_it_is_what_the_check_says(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, check_s=0.01, sign_s=10 * SLOW_S) == 503


def test_a_server_tells_sooner_than_sglang_alone(served: Served) -> None:
    """SGLang's own check looks after a second."""
    took = []
    for _ in range(5):
        begun = time.perf_counter()
        assert httpx.get(f"{served.url}/health", timeout=SLOW_S).status_code == 200
        took.append(time.perf_counter() - begun)
    assert min(took) < 1
