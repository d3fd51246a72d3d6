"""`nprdsl check`: are these traces legal?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final

import click

from nprdsl.cli.console import print_json
from nprdsl.cli.failures import ExitCode, Failure
from nprdsl.cli.files import (
    STDIN,
    json_object,
    numbered_lines,
    read_text,
    shown_name,
    without_last_newline,
)
from nprdsl.cli.options import AT_LEAST_0, AT_LEAST_1, argument, command, option, terminals_option
from nprdsl.cli.terminals import load_schema
from nprdsl.pictures.messages import render_violation
from nprdsl.prompting.examples import ENDING
from nprdsl.schema import Schema
from nprdsl.structure.stack import Bounds
from nprdsl.structure.violations import Violation

_LISTED: Final = 5  # files and rows that cannot be read, told one by one


@dataclass(frozen=True, slots=True)
class CheckedTrace:
    """One trace and what is wrong with it; `row` is its line in a JSONL file."""

    file: str
    row: int | None
    text: str
    violations: tuple[Violation, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckOptions:
    files: tuple[str, ...] = argument("FILES...")
    schema: str = option("npr", "A name or a .lark path.")
    jsonl_field: str | None = option(
        None, "FILES are JSONL; the trace is in this field.", metavar="FIELD"
    )
    depth: int | None = option(None, "How deep blocks may be nested.", type=AT_LEAST_0)
    branches: int | None = option(None, "The most branches of a fork.", type=AT_LEAST_1)
    blocks: int | None = option(None, "The most blocks of a branch.", type=AT_LEAST_0)
    as_json: bool = option(False, "One JSON array.", flag="--json")
    terminals: str | None = terminals_option()


@command(CheckOptions, short_help="Check traces: legal or not, and where.")
def check(options: CheckOptions) -> None:
    """Check traces: one in each file, or one in each row of a .jsonl file (field `text`; `trace`
    in an .examples.jsonl).

    `-` is stdin. Exit code 0 if all are legal, 1 if any is not, 2 if any cannot be read.
    """
    schema = load_schema(options.schema, options.terminals)
    bounds = Bounds(options.depth, options.branches, options.blocks)
    traces: list[CheckedTrace] = []
    unreadable: list[Failure] = []
    for file in options.files:
        try:
            for trace in _checked(schema, bounds, file, options.jsonl_field, unreadable.append):
                traces.append(trace)
                if not options.as_json:
                    _show(trace)
        except Failure as failure:
            unreadable.append(failure)
    for told in unreadable[:_LISTED]:
        told.show()
    if more := unreadable[_LISTED:]:
        click.echo(f"error: {len(more)} more cannot be read", err=True)
    illegal = sum(1 for trace in traces if trace.violations)
    if options.as_json:
        print_json([_record(trace) for trace in traces])
    elif traces:
        click.echo(_summary(traces, illegal))
    if unreadable or illegal:
        sys.exit(ExitCode.USAGE if unreadable else ExitCode.BAD)


def _checked(
    schema: Schema,
    bounds: Bounds,
    file: str,
    field: str | None,
    leave_out: Callable[[Failure], None],
) -> Iterator[CheckedTrace]:
    """The traces of a file; a row that holds none is left out, and told why."""
    text = read_text(file)
    if file.endswith(".lark"):
        raise Failure(
            f"`{file}` is a schema, no trace: `nprdsl show {file}` checks it, `--schema {file}` "
            "checks traces of it"
        )
    if field is None and not file.endswith(".jsonl"):
        trace = without_last_newline(text)
        yield CheckedTrace(file, None, trace, tuple(schema.check(trace, bounds)))
        return
    field = field or ("trace" if file.endswith(ENDING) else "text")
    for row, line in numbered_lines(text):
        try:
            trace = _trace(json_object(line, f"{file}:{row}"), field, f"{file}:{row}")
        except Failure as failure:
            leave_out(failure)
            continue
        yield CheckedTrace(file, row, trace, tuple(schema.check(trace, bounds)))


def _trace(row: dict[str, Any], field: str, place: str) -> str:
    value = row.get(field)
    if not isinstance(value, str):
        wrong = "is not a text" if field in row else f"is not among {', '.join(row)}"
        raise Failure(f"{place}: the field `{field}` {wrong}; name it with --jsonl-field")
    return value


def _show(trace: CheckedTrace) -> None:
    name = shown_name(trace.file)
    if trace.row is not None and trace.file != STDIN:
        name = f"{name}[{trace.row}]"
    for violation in trace.violations:
        click.echo(render_violation(violation, trace.text, file=name) + "\n")


def _summary(traces: list[CheckedTrace], illegal: int) -> str:
    count = "1 trace" if len(traces) == 1 else f"{len(traces)} traces"
    if not illegal:
        return f"{count}: legal" if len(traces) == 1 else f"{count}: all legal"
    violations = sum(len(trace.violations) for trace in traces)
    errors = "1 error" if violations == 1 else f"{violations} errors"
    return f"{count}: {illegal} illegal, {errors}"


def _record(trace: CheckedTrace) -> dict[str, object]:
    return {
        "file": trace.file,
        "row": trace.row,
        "legal": not trace.violations,
        "violations": [asdict(violation) for violation in trace.violations],
    }
