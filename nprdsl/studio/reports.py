"""The report of an evaluation or of a training run as a page draws it.

In go tables, curves and traces, the best first; out comes a versioned model for JSON. Of many
traces those at both ends are shown, whole, by the views of single traces.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import isfinite, nan
from typing import Final, Literal

from nprdsl.schema import Schema
from nprdsl.studio.lanes import StudioView
from nprdsl.studio.traces import TraceView, text_view

SHOWN: Final = 3  # traces of the best, and as many of the worst


class TableView(StudioView):
    """The first column names the rows."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


class CurveView(StudioView):
    """One figure over the steps."""

    title: str
    points: tuple[tuple[float, float], ...]


class SampleView(StudioView):
    """A trace; `note` says what became of it."""

    note: str
    best: bool
    trace: TraceView


class ReportView(StudioView):
    kind: Literal["report"] = "report"
    version: Literal[1] = 1
    title: str
    tables: tuple[TableView, ...]
    curves: tuple[CurveView, ...]
    samples: tuple[SampleView, ...]


def curves(metrics: Sequence[Mapping[str, float]]) -> tuple[CurveView, ...]:
    """A curve for each figure that two rows or more have, over their `step`."""
    names = dict.fromkeys(name for row in metrics for name in row if name != "step")
    points = {
        name: [(row["step"], row[name]) for row in metrics if isfinite(row.get(name, nan))]
        for name in names
    }
    return tuple(
        CurveView(title=name, points=tuple(found))
        for name, found in points.items()
        if len(found) > 1
    )


def samples(schema: Schema, ordered: Sequence[tuple[str, str, str]]) -> tuple[SampleView, ...]:
    """The ends of a list of (title, note, text), the best first."""
    best, worst = ordered[:SHOWN], ordered[SHOWN:][-SHOWN:]
    return tuple(
        SampleView(note=note, best=is_best, trace=text_view(schema, text, title=title))
        for is_best, part in ((True, best), (False, worst[::-1]))
        for title, note, text in part
    )
