"""How torch's threads wait for each other: awake for a moment, or asleep where others need the
processors.

A step of a small model is thousands of short operations that threads share. Asleep between two of
them, they must be woken for each, and a step takes nearly twice as long. Awake until there is work,
which is libgomp's own way, several programs on the same processors bring each other to a
standstill. So they stay awake for a fifth of a millisecond where processors are idle when the
command begins, and else go to sleep at once. What the environment says goes before.
"""

from __future__ import annotations

import os
import statistics
import time
from pathlib import Path
from typing import Final

COUNT: Final = "GOMP_SPINCOUNT"
POLICY: Final = "OMP_WAIT_POLICY"
SPINS: Final = "10000"
_LOAD: Final = Path("/proc/loadavg")
_LOOKS: Final = 3
_PAUSE: Final = 0.005  # seconds between two looks


def settle_waiting() -> None:
    """Says so by the environment, which libgomp reads once, when torch is imported."""
    if COUNT in os.environ or POLICY in os.environ:
        return
    if processors_are_taken():
        os.environ.update({COUNT: "0", POLICY: "passive"})
    else:
        os.environ[COUNT] = SPINS


def processors_are_taken(load: Path = _LOAD) -> bool:
    """Whether others' threads run on more than half of the processors, as the kernel's file `load`
    says; no where it is not there."""
    seen = []
    for _ in range(_LOOKS):
        seen.append(_running(load))
        time.sleep(_PAUSE)
    return statistics.median(seen) > (os.cpu_count() or 1) // 2


def _running(load: Path) -> int:
    """Threads that run or could, without this one."""
    try:
        runnable, _, _ = load.read_text(encoding="ascii").split()[3].partition("/")
    except OSError:
        return 0
    return int(runnable) - 1
