"""A limit of time for code that may take for ever: `within(5, call, late)` is what `call` returns,
or `late` after so many seconds.

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
from collections.abc import Callable
from types import FrameType
from typing import Final, TypeVar

_AGAIN_S: Final = 0.5  # until it is raised once more, where something swallowed it

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
    running = True

    def stop(number: int, frame: FrameType | None) -> None:
        if running:
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

    def stop() -> None:
        wait = seconds
        while not done.wait(wait):
            with lock:
                if not done.is_set():
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


def _raise_in(thread: int, error: ctypes.py_object[type[BaseException]] | None) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), error)
