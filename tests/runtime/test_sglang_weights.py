"""New weights wait for the step behind the last answer; who has requests running is told so.

A transport stands in for the server; `tests/sglang` has weights that arrive.
"""

from __future__ import annotations

from typing import Any

import pytest

from nprdsl.runtime.sglang.client.weights import Weights, WeightsError


class StandIn:
    """A server that takes weights once it is idle; when it is asked to wait until then, it either
    becomes so or runs on."""

    url = "http://stand-in"

    def __init__(self, *, idle: bool, ends: bool = True) -> None:
        self.asked: list[str] = []
        self._idle = idle
        self._ends = ends

    def is_success(self, path: str) -> bool:
        self.asked.append(path)
        self._idle = self._ends
        return self._idle

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(path)
        if self._idle or "update_weights" not in path:
            return {"success": True}
        return {"success": False, "message": "requests are still running"}


LOAD = "/update_weights_from_disk"
PUT = ["/begin_weight_update", "/update_weights_from_tensor", "/end_weight_update"]
WAIT = "/flush_cache?timeout=5.0"  # SGLang's own wait for its last request


def test_a_server_is_given_time_for_its_last_step() -> None:
    server: Any = StandIn(idle=False)
    Weights(server).load("folder")
    assert server.asked == [LOAD, WAIT, LOAD]
    server = StandIn(idle=False)
    Weights(server).put([])
    assert server.asked == [*PUT, WAIT, *PUT]


def test_weights_are_sent_once_where_that_is_enough() -> None:
    server: Any = StandIn(idle=True)
    Weights(server).load("folder")
    assert server.asked == [LOAD]


def test_a_server_that_goes_on_is_told_as_one() -> None:
    server: Any = StandIn(idle=False, ends=False)
    with pytest.raises(WeightsError, match="requests are still running"):
        Weights(server).load("folder")
    assert server.asked == [LOAD, WAIT]
