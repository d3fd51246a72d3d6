"""New weights wait for the step behind the last answer; who has requests running is told so.

A transport stands in for the server. Non-goals: weights that arrive (see `tests/sglang`).
"""

from __future__ import annotations

from typing import Any

import pytest

from nprdsl.runtime.sglang.client import weights
from nprdsl.runtime.sglang.client.weights import Weights, WeightsError


class StandIn:
    """A server whose last step is done when it has been asked `steps` times."""

    url = "http://stand-in"

    def __init__(self, steps: int) -> None:
        self.asked: list[str] = []
        self._steps = steps

    def is_success(self, path: str) -> bool:
        self.asked.append(path)
        self._steps -= 1
        return self._steps < 0

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(path)
        if self._steps < 0 or "update_weights" not in path:
            return {"success": True}
        return {"success": False, "message": "requests are still running"}


LOAD = "/update_weights_from_disk"
PUT = ["/begin_weight_update", "/update_weights_from_tensor", "/end_weight_update"]


@pytest.fixture(autouse=True)
def little_time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "_POLL_S", 0.0)
    monkeypatch.setattr(weights, "_IDLE_WITHIN_S", 0.05)


def test_a_server_is_given_time_for_its_last_step() -> None:
    server: Any = StandIn(2)
    Weights(server).load("folder")
    assert server.asked == [LOAD, *["/flush_cache"] * 3, LOAD]
    server = StandIn(0)
    Weights(server).put([])
    assert server.asked == [*PUT, "/flush_cache", *PUT]


def test_weights_are_sent_once_where_that_is_enough() -> None:
    server: Any = StandIn(-1)
    Weights(server).load("folder")
    assert server.asked == [LOAD]


def test_a_server_that_goes_on_is_told_as_one() -> None:
    server: Any = StandIn(10**9)
    with pytest.raises(WeightsError, match="requests are still running"):
        Weights(server).load("folder")
