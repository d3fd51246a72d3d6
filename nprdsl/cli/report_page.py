"""The report page of `nprdsl eval --out`: all figures, and the lanes of the best and worst samples.

In goes a report; `NAME.html` beside `NAME.json` comes out, one file for any browser. Where the
pages are not built there is none.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from nprdsl.cli.figures import figure_rows
from nprdsl.schema import Schema
from nprdsl.studio.pages import StudioNotBuiltError, page
from nprdsl.studio.reports import ReportView, TableView, samples
from nprdsl.trace.journal import write_whole

if TYPE_CHECKING:
    from nprdsl.trainers.evaluate.reports import EvaluationReport
    from nprdsl.trainers.evaluate.samples import Sample


def evaluation_view(report: EvaluationReport, schema: Schema) -> ReportView:
    """The page of a report; right answers that are legal and short in steps are the best."""
    every = [
        (suite, sample) for suite, one in report.suites.items() for sample in one.of(report.mode)
    ]
    rows = tuple(figure_rows(report))
    ordered = sorted(every, key=lambda pair: _worth(pair[1]), reverse=True)
    return ReportView(
        title=f"{report.settings['model']}, {schema.name}",
        tables=(TableView(title="Figures", columns=("", *report.suites), rows=rows),),
        curves=(),
        samples=samples(
            schema,
            [(f"{suite}, {s.problem}", _note(s), s.text) for suite, s in ordered if s.text],
        ),
    )


def write_evaluation_page(report: EvaluationReport, schema: Schema, out: str) -> None:
    """Writes it beside the report. Raises OSError."""
    with suppress(StudioNotBuiltError):
        write_whole(Path(out).with_suffix(".html"), page(evaluation_view(report, schema)))


def _worth(sample: Sample) -> tuple[bool, bool, float]:
    return sample.right, sample.legal, sample.tokens / max(1, sample.critical_path)


def _note(sample: Sample) -> str:
    legal = "legal" if sample.legal else "not legal"
    right = "right" if sample.right else "wrong"
    tokens = f"{sample.tokens} tokens, critical path {sample.critical_path}"
    return f"{right}, {legal}, {tokens}, {sample.finish} {sample.error}".rstrip()
