"""What takes too long ends, in the main thread and in others, whatever it swallows."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable

import pytest

from nprdsl.trainers.grading.limit import within


def spin() -> str:
    while True:
        pass


def swallow() -> str:
    while True:
        try:
            spin()
        except Exception:
            continue


def nested() -> str:
    return within(0.05, spin, "inner") + within(0.05, spin, "inner")


def quick() -> str:
    return "done"


def wait() -> str:
    time.sleep(0.6)
    return "waited"


def fail() -> str:
    raise LookupError("its own")


CALLS: list[tuple[Callable[[], str], str]] = [
    (spin, "late"),
    (swallow, "late"),
    (quick, "done"),
    (wait, "waited"),
    (nested, "innerinner"),
]


def results() -> list[str]:
    return [within(0.3, call, "late") for call, _ in CALLS]


def test_the_main_thread_is_left_in_time() -> None:
    before = signal.getsignal(signal.SIGALRM)
    assert results() == [wanted for _, wanted in CALLS]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_another_thread_is_left_in_time() -> None:
    found: list[str] = []
    thread = threading.Thread(target=lambda: found.extend(results()), daemon=True)
    thread.start()
    thread.join(30)
    assert found == [wanted for _, wanted in CALLS]


def test_what_only_waits_ends_too() -> None:
    def sleep() -> str:
        while True:
            time.sleep(0.01)

    assert within(0.01, sleep, "late") == "late"


def test_errors_are_passed_on() -> None:
    with pytest.raises(LookupError, match="its own"):
        within(1.0, fail, "late")
