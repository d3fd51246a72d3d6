"""Figures of traces and schemas for Prometheus, the same on every engine.

Engines tell an `Observer` what happens; `PrometheusMetrics` counts it, `UNOBSERVED` drops it. With
PROMETHEUS_MULTIPROC_DIR set, as SGLang sets it, several processes count into the same figures.
prometheus_client is imported where the first figure is made, behind that variable.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import cache
from typing import Final, Protocol

from nprdsl.machine.machine import Machine

_MOST_NAMES: Final = 512  # pairs of schema and rule; clients make up names
_OTHER: Final = "other"
_DEGREES: Final = (1, 1.25, 1.5, 2, 2.5, 3, 4, 6, 8, 12, 16)
_SECONDS: Final = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class SchemaOutcome(StrEnum):
    """What became of a schema that a client sent."""

    READ = "read"
    REFUSED = "refused"
    LATE = "late"  # it took more time than it may
    FAILED = "failed"  # by a fault of ours


class Observer(Protocol):
    """Who is told what happens on an engine. Called from the thread that runs its rounds."""

    def began(self, waited_s: float) -> None:
        """A trace has its memory, so long after it was asked for."""

    def ended(self, machine: Machine, finish: str) -> None:
        """A trace is over, for that reason."""

    def load(self, *, waiting: int, running: int, branches: int) -> None:
        """Traces that wait and run, and the branches that draw, at the end of a round."""


class _Unobserved:
    def began(self, waited_s: float) -> None:
        pass

    def ended(self, machine: Machine, finish: str) -> None:
        pass

    def load(self, *, waiting: int, running: int, branches: int) -> None:
        pass


UNOBSERVED: Final[Observer] = _Unobserved()
Told = Callable[[SchemaOutcome, float], None]  # what became of a schema, after so many seconds


def untold(reading: SchemaOutcome, seconds: float) -> None:
    """Nobody counts schemas."""


class PrometheusMetrics:
    """An `Observer`; one for each process (`prometheus_metrics`). Raises ModuleNotFoundError
    without prometheus_client."""

    def __init__(self) -> None:
        from prometheus_client import Counter, Gauge, Histogram

        def gauge(name: str, about: str) -> Gauge:
            return Gauge(name, about, multiprocess_mode="livesum")

        self._waiting = gauge("nprdsl_traces_waiting", "Traces that wait for memory.")
        self._running = gauge("nprdsl_traces_running", "Traces that run.")
        self._branches = gauge("nprdsl_branches_live", "Branches that draw tokens.")
        self._traces = Counter(
            "nprdsl_traces", "Traces that are over, by schema and end reason.", ["schema", "finish"]
        )
        self._tokens = Counter(
            "nprdsl_trace_tokens", "Tokens of traces that are over, by rule.", ["schema", "rule"]
        )
        self._degree = Histogram(
            "nprdsl_trace_degree", "Tokens of a trace per token of its longest path.",
            buckets=_DEGREES,
        )  # fmt: skip
        self._waited = Histogram(
            "nprdsl_trace_waiting_seconds", "Time until a trace has its memory.", buckets=_SECONDS
        )
        self._schemas = Counter(
            "nprdsl_schemas", "Schemas of clients, by what became of them.", ["outcome"]
        )
        self._reading = Histogram(
            "nprdsl_schema_read_seconds", "Time to read the schema of a client.", buckets=_SECONDS
        )
        self._names: set[tuple[str, str]] = set()

    def began(self, waited_s: float) -> None:
        self._waited.observe(max(0.0, waited_s))

    def ended(self, machine: Machine, finish: str) -> None:
        tokens = machine.events.tokens_by_rule()
        schema = machine.bound.grammar.name
        for rule, count in tokens.items():
            self._tokens.labels(*self._bounded(schema, rule)).inc(count)
        self._traces.labels(self._bounded(schema, "")[0], finish).inc()
        longest = machine.transcript.longest()
        if longest:
            self._degree.observe(tokens.total() / longest)

    def load(self, *, waiting: int, running: int, branches: int) -> None:
        self._waiting.set(waiting)
        self._running.set(running)
        self._branches.set(branches)

    def schema(self, reading: SchemaOutcome, seconds: float) -> None:
        """A client's schema was read, or not."""
        self._schemas.labels(reading.value).inc()
        self._reading.observe(seconds)

    def _bounded(self, schema: str, rule: str) -> tuple[str, str]:
        """The names as labels, while there are not too many: each is kept for ever."""
        names = (schema, rule)
        if names not in self._names and len(self._names) >= _MOST_NAMES:
            return _OTHER, _OTHER
        self._names.add(names)
        return names


@cache
def prometheus_metrics() -> PrometheusMetrics:
    """Those of this process. Raises ModuleNotFoundError without prometheus_client."""
    return PrometheusMetrics()


def exposition() -> tuple[bytes, str]:
    """All figures of this process in Prometheus' text format, with its content type."""
    from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

    return generate_latest(), CONTENT_TYPE_LATEST
