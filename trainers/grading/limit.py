"""A limit of time for code that may take for ever: `within(5, call, late)` is what `call` returns,
or `late` after so many seconds of its own.

What counts is the CPU time of its thread, so that on a busy machine an answer is not another one;
`_PATIENCE` times as many seconds end what waits. Where a thread's time cannot be read by another
(anywhere but on Linux), those of the clock count for all threads but the main one.

Computer algebra takes some expressions for ever, and catches whatever is an `Exception` on its way;
what ends it here is none. The main thread is interrupted by a timer of the system, another one by
an exception that a second thread sets in it. Both reach code that is Python: one operation on huge
numbers ends first, so those must not be begun (`spelling.is_large`).
"""

from __future__ import annotations

import ctypes
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Final, TypeVar

_AGAIN_S: Final = 0.5  # until it is looked at once more, and raised where something swallowed it
_PATIENCE: Final = 20

Value = TypeVar("Value")


class _TooLong(BaseException):
    """The time is over."""


def within(seconds: float, call: Callable[[], Value], late: Value) -> Value:
    """What `call` returns, or `late` if that takes longer."""
    main = threading.current_thread() is threading.main_thread()
    if main and sys.platform != "win32":
        return _by_alarm(seconds, call, late)
    return _by_thread(seconds, call, late)


def _by_alarm(seconds: float, call: Callable[[], Value], late: Value) -> Value:
    running, is_over = True, _watch(seconds, time.thread_time)

    def stop(number: int, frame: FrameType | None) -> None:
        if running and is_over():
            raise _TooLong

    before = signal.signal(signal.SIGALRM, stop)
    left, every = signal.setitimer(signal.ITIMER_REAL, seconds, _AGAIN_S)
    try:
        try:
            return call()
        finally:
            running = False
    except _TooLong:
        return late
    finally:
        signal.setitimer(signal.ITIMER_REAL, left, every)  # the caller's, if there is one
        signal.signal(signal.SIGALRM, before)


def _by_thread(seconds: float, call: Callable[[], Value], late: Value) -> Value:
    target, done, lock = threading.get_ident(), threading.Event(), threading.Lock()
    is_over = _watch(seconds, _clock_of(target))

    def stop() -> None:
        wait = seconds
        while not done.wait(wait):
            with lock:
                if not done.is_set() and is_over():
                    _raise_in(target, ctypes.py_object(_TooLong))
            wait = _AGAIN_S

    threading.Thread(target=stop, daemon=True).start()
    try:
        try:
            return call()
        finally:
            with lock:
                done.set()
                _raise_in(target, None)  # not one that is on its way
    except _TooLong:
        return late


def _watch(seconds: float, clock: Callable[[], float]) -> Callable[[], bool]:
    """Whether a call that begins now has had its time."""
    own, begun = clock(), time.monotonic()
    return lambda: clock() - own >= seconds or time.monotonic() - begun >= _PATIENCE * seconds


def _clock_of(thread: int) -> Callable[[], float]:
    if sys.platform != "linux":
        return time.monotonic
    number = time.pthread_getcpuclockid(thread)
    return lambda: time.clock_gettime(number)


def _raise_in(thread: int, error: ctypes.py_object[type[BaseException]] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
