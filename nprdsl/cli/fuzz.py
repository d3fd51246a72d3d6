"""`nprdsl fuzz`: the properties of a schema on random traces."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from nprdsl.cli.console import clean
from nprdsl.cli.declared import load_schema, terminals_option
from nprdsl.cli.failures import Command, ExitCode, Failure, examining
from nprdsl.cli.progress import progress
from nprdsl.schema import Schema

if TYPE_CHECKING:
    from nprdsl.testing import FuzzReport


@click.command(cls=Command, short_help="Test a schema on random traces.")
@click.argument("schema", metavar="SCHEMA")
@click.option("--examples", type=click.IntRange(1), default=1000, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True, help="Other seeds, other traces.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@terminals_option
def fuzz(schema: str, examples: int, seed: int, as_json: bool, terminals: str | None) -> None:
    """Test a schema, by name or .lark path, on random traces.

    Legal traces must be accepted and read back, mutations refused with a fitting code, and the
    automaton must agree with the checker on both. Exit code 1 with the smallest counterexample.
    """
    try:
        import nprdsl.testing  # noqa: F401
    except ModuleNotFoundError as error:
        raise Failure(str(error)) from error
    started = time.perf_counter()
    with examining():
        report = _with_progress(load_schema(schema, terminals), examples, seed)
    if as_json:
        click.echo(json.dumps(asdict(report), ensure_ascii=False))
    else:
        click.echo(_told(report, time.perf_counter() - started))
    if not report.ok:
        sys.exit(ExitCode.BAD)


def _with_progress(schema: Schema, examples: int, seed: int) -> FuzzReport:
    from nprdsl import testing

    with progress(f"fuzzing {schema.name}", examples) as advance:
        return testing.fuzz(schema, examples, lambda *_: advance(), start=seed)


def _told(report: FuzzReport, seconds: float) -> str:
    lines = []
    if report.failure is not None:
        failure = report.failure
        lines += [
            f"error[{failure.broken}]: {clean(failure.message)}",
            *(f"  | {line}" for line in clean(failure.text).split("\n")),
        ]
    refused = sum(report.refused.values())
    outcome = "all hold" if report.ok else "FAILED"
    lines.append(
        f"{report.schema}: {report.examples} traces ({report.characters} characters), "
        f"{refused} mutations of {len(report.refused)} kinds, {seconds:.1f} s: {outcome}"
    )
    return "\n".join(lines)
