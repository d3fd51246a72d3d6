"""Who is told what happens to traces in this process of a server: nobody, unless SGLang was started
with --enable-metrics."""

from __future__ import annotations

from typing import Final

from nprdsl.runtime.metrics import UNOBSERVED, Observer

_observers: Final[list[Observer]] = [UNOBSERVED]  # one


def observe(by: Observer) -> None:
    """Tells this observer from now on."""
    _observers[:] = [by]


def observer() -> Observer:
    """Who is told."""
    return _observers[0]
