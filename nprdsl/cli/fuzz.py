"""`nprdsl fuzz`: the properties of a schema on random traces."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import click

from nprdsl.cli.console import clean, print_json, progress
from nprdsl.cli.failures import ExitCode, as_failure, examining
from nprdsl.cli.options import AT_LEAST_1, argument, command, option, terminals_option
from nprdsl.cli.terminals import load_schema

if TYPE_CHECKING:
    from nprdsl.testing import FuzzReport


@dataclass(frozen=True, slots=True, kw_only=True)
class FuzzOptions:
    schema: str = argument("SCHEMA")
    examples: int = option(1000, type=AT_LEAST_1)
    seed: int = option(0, "Other seeds, other traces.")
    as_json: bool = option(False, "One JSON object.", flag="--json")
    terminals: str | None = terminals_option()


@command(FuzzOptions, short_help="Test a schema on random traces.")
def fuzz(options: FuzzOptions) -> None:
    """Test a schema, by name or .lark path, on random traces.

    The machine must end legally at any budget, legal traces must be accepted and read back,
    mutations refused with a fitting code, and the automaton must agree with the checker on both.
    Exit code 1 with the smallest counterexample.
    """
    with as_failure(ModuleNotFoundError):
        from nprdsl import testing
    started = time.perf_counter()
    with examining():
        schema = load_schema(options.schema, options.terminals)
        with progress(f"fuzzing {schema.name}", options.examples) as advance:
            report = testing.fuzz(
                schema, options.examples, lambda *_: advance(), start=options.seed
            )
    if options.as_json:
        print_json(asdict(report))
    else:
        click.echo(_summary(report, time.perf_counter() - started))
    if not report.ok:
        sys.exit(ExitCode.BAD)


def _summary(report: FuzzReport, seconds: float) -> str:
    lines = []
    if report.failure is not None:
        failure = report.failure
        where = f" ({failure.tokens} of the tags are tokens)" if failure.tokens else ""
        lines += [
            f"error[{failure.broken}]: {clean(failure.message)}{where}",
            *(f"  | {line}" for line in clean(failure.text).split("\n")),
        ]
    refused = sum(report.refused.values())
    outcome = "all hold" if report.ok else "FAILED"
    lines.append(
        f"{report.schema}: {report.examples} traces ({report.characters} characters), "
        f"{refused} mutations of {len(report.refused)} kinds, {seconds:.1f} s: {outcome}"
    )
    return "\n".join(lines)
