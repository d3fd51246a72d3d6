"""How fast a run trains: entries and operations a second, and the share of what a device can do.

In go the work of each update and its seconds; out come metrics of a step for one process, which is
one device. Rollouts and their engine are not counted: what they take is told beside.
"""

from __future__ import annotations

from nprdsl.trainers.batch.update import Work
from nprdsl.trainers.run.model_size import ModelSize


class TrainingSpeed:
    """Adds up the updates of a step. `peak_tflops`: what a device can do, if that is known."""

    def __init__(self, size: ModelSize, processes: int, peak_tflops: float | None) -> None:
        self._size = size
        self._processes = processes
        self._peak = peak_tflops
        self._work = Work()
        self._seconds = 0.0

    def made(self, work: Work, seconds: float) -> None:
        """An update of all processes took so long."""
        self._work += work
        self._seconds += seconds

    def metrics(self) -> dict[str, float]:
        """Of the updates since the last call; none without one."""
        work, seconds = self._work, self._seconds * self._processes
        self._work, self._seconds = Work(), 0.0
        if not work.entries or not seconds:
            return {}
        teraflops = self._size.flops(work.entries, work.squares, work.scored) / seconds / 1e12
        made = {"speed/entries": work.entries / seconds, "speed/tflops": teraflops}
        return made if self._peak is None else {**made, "speed/mfu": teraflops / self._peak}
