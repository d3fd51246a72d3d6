"""The report page of a training run: its last figures, its curves, its best and worst rollouts.

In goes the folder of a run; `report.html` in it comes out, one file for any browser. Where the
pages are not built there is none.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Final

from nprdsl.schema import Schema
from nprdsl.studio.pages import StudioNotBuiltError, page
from nprdsl.studio.reports import ReportView, TableView, curves, samples
from nprdsl.trace.journal import write_whole
from nprdsl.trainers.run.directory import RunDirectory

_LAST: Final = 40  # rollouts, of which the best and the worst are shown
_REPORT: Final = "report.html"


def run_report(directory: RunDirectory, schema: Schema) -> ReportView:
    """What the folder has come to so far."""
    metrics = directory.metrics()
    last = {name: value for row in metrics for name, value in row.items()}
    table = TableView(
        title="The last figures",
        columns=("", "value"),
        rows=tuple((name, f"{value:.6g}") for name, value in last.items()),
    )
    rollouts = sorted(directory.rollouts()[-_LAST:], key=lambda row: -float(row["reward"]))
    return ReportView(
        title=directory.path.name,
        tables=(table,),
        curves=curves(metrics),
        samples=samples(schema, [_told(row) for row in rollouts]),
    )


def write_run_report(directory: RunDirectory, schema: Schema) -> None:
    """Writes it into the folder. Raises OSError."""
    with suppress(StudioNotBuiltError):
        write_whole(directory.path / _REPORT, page(run_report(directory, schema)))


def _told(row: dict[str, Any]) -> tuple[str, str, str]:
    note = f"reward {row['reward']:g}, {'right' if row['right'] else 'wrong'}, {row['finish']}"
    return f"step {row['step']}, {row['problem']}", note, str(row["text"])
