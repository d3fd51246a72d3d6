"""Servers that end are started again, with pauses that grow while they do not stay up."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from nprdsl.runtime.http.listening import CannotServeError
from nprdsl.runtime.sglang.supervision import LONGEST_PAUSE_S, Supervised, supervise


class Over(Exception):
    """The test has seen enough."""


@dataclass
class Fake:
    """Servers that live so long each; None: one that does not begin."""

    lives: list[float | None]
    clock: float = 0.0
    stopped: int = 0
    slept: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    _life: float = 0.0

    def start(self) -> Supervised:
        if not self.lives:
            raise Over
        life = self.lives.pop(0)
        if life is None:
            raise CannotServeError("no memory")
        self._life = life
        return self

    def wait(self) -> int:
        self.clock += self._life
        return -9

    def stop(self) -> None:
        self.stopped += 1

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)

    def run(self) -> None:
        with pytest.raises(Over):
            supervise(self.start, self.said.append, sleep=self.sleep, now=lambda: self.clock)


def test_pauses_double_until_a_server_stays_up() -> None:
    fake = Fake([100.0, 1.0, None, None, 500.0, 2.0])
    fake.run()
    assert fake.slept == [1.0, 2.0, 4.0, 8.0, 1.0, 2.0]
    assert fake.stopped == 4
    assert fake.said[0] == "SGLang ended with exit code -9; it is started again in 1 s"
    assert fake.said[2] == "no memory; it is started again in 4 s"


def test_pauses_have_an_end() -> None:
    fake = Fake([0.0] * 12)
    fake.run()
    assert fake.slept[-1] == LONGEST_PAUSE_S == max(fake.slept)


def test_what_cannot_begin_at_all_is_an_error() -> None:
    with pytest.raises(CannotServeError, match="no memory"):
        supervise(Fake([None]).start, print)
