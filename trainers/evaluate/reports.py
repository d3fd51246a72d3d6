"""What an evaluation leaves behind: one JSON file with settings, figures and every sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from nprdsl.trace.journal import write_whole
from nprdsl.trainers.evaluate.figures import Figures
from nprdsl.trainers.evaluate.samples import Mode, Sample


class ReportError(ValueError):
    """A file that is no report, or reports that cannot be compared."""


@dataclass(frozen=True, slots=True)
class SuiteReport:
    """One suite: where its problems come from, the rows that were none, figures and samples."""

    source: str
    digest: str
    rejected: tuple[str, ...]
    figures: Figures
    samples: tuple[Sample, ...]

    def of(self, mode: Mode) -> tuple[Sample, ...]:
        """The samples decoded in a mode."""
        return tuple(sample for sample in self.samples if sample.mode is mode)


@dataclass(frozen=True, slots=True)
class EvaluationReport:
    """A whole evaluation. `settings` is all that it depends on, as JSON values."""

    version: str
    settings: Mapping[str, Any]
    suites: Mapping[str, SuiteReport]

    @property
    def mode(self) -> Mode:
        """The mode that the figures are of."""
        return Mode(self.settings["modes"][0])


_ADAPTER: Final = TypeAdapter(EvaluationReport)


def summary(report: EvaluationReport) -> dict[str, Any]:
    """The report as JSON values, without the samples."""
    values: dict[str, Any] = _ADAPTER.dump_python(
        report, mode="json", exclude={"suites": {"__all__": {"samples"}}}
    )
    return values


def write_report(path: Path, report: EvaluationReport) -> None:
    """Writes the file whole, or not at all. Raises OSError."""
    write_whole(path, _ADAPTER.dump_json(report, indent=1) + b"\n")


def read_report(path: Path) -> EvaluationReport:
    """The report in a file. Raises ReportError."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ReportError(f"cannot read `{path}`: {error.strerror}") from error
    try:
        report = _ADAPTER.validate_json(data)
    except ValidationError as error:
        fault = error.errors()[0]
        place = ".".join(map(str, fault["loc"][:4]))
        about = f" (at `{place}`)" if place else ""
        said = fault["msg"][:1].lower() + fault["msg"][1:]
        raise ReportError(f"`{path}` is no report of `nprdsl eval`: {said}{about}") from error
    modes = report.settings.get("modes")
    if not isinstance(modes, list) or not modes or modes[0] not in list(Mode):
        raise ReportError(f"`{path}` is no report of `nprdsl eval`: it names no mode")
    return report
