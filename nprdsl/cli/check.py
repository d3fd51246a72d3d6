"""`nprdsl check`: are these traces legal?"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass

import click

from nprdsl.cli.declared import load_schema, terminals_option
from nprdsl.cli.failures import Command, ExitCode, Failure
from nprdsl.cli.files import read_text, without_last_newline
from nprdsl.pictures.messages import render_violation
from nprdsl.schema import Schema
from nprdsl.structure.stack import Bounds
from nprdsl.structure.violations import Violation


@dataclass(frozen=True, slots=True)
class Checked:
    """One trace and what is wrong with it; `row` is its line in a JSONL file."""

    file: str
    row: int | None
    text: str
    violations: tuple[Violation, ...]

    @property
    def name(self) -> str:
        return self.file if self.row is None else f"{self.file}[{self.row}]"


@click.command(cls=Command, short_help="Check traces: legal or not, and where.")
@click.argument("files", nargs=-1, required=True, metavar="FILES...")
@click.option("--schema", default="npr", show_default=True, help="A name or a .lark path.")
@click.option("--jsonl-field", metavar="FIELD", help="FILES are JSONL; the trace is in this field.")
@click.option("--depth", type=click.IntRange(0), help="How deep blocks may be nested.")
@click.option("--branches", type=click.IntRange(1), help="The most branches of a fork.")
@click.option("--blocks", type=click.IntRange(0), help="The most blocks of a branch.")
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
@terminals_option
def check(
    files: tuple[str, ...],
    schema: str,
    jsonl_field: str | None,
    depth: int | None,
    branches: int | None,
    blocks: int | None,
    as_json: bool,
    terminals: str | None,
) -> None:
    """Check traces: one in each file, or one in each row of a .jsonl file (field `text`).

    `-` is stdin. Exit code 0 if all are legal, 1 if any is not, 2 if any cannot be read.
    """
    loaded = load_schema(schema, terminals)
    bounds = Bounds(depth, branches, blocks)
    found: list[Checked] = []
    unreadable = 0
    for file in files:
        try:
            for one in _checked(loaded, bounds, file, jsonl_field):
                found.append(one)
                if not as_json:
                    _tell(one)
        except Failure as failure:
            failure.show()
            unreadable += 1
    illegal = sum(1 for one in found if one.violations)
    if as_json:
        click.echo(json.dumps([_record(one) for one in found], ensure_ascii=False))
    elif found:
        click.echo(_summary(found, illegal))
    if unreadable or illegal:
        sys.exit(ExitCode.USAGE if unreadable else ExitCode.BAD)


def _checked(schema: Schema, bounds: Bounds, file: str, field: str | None) -> Iterator[Checked]:
    text = read_text(file)
    if field is None and not file.endswith(".jsonl"):
        trace = without_last_newline(text)
        yield Checked(file, None, trace, tuple(schema.check(trace, bounds)))
        return
    for row, line in enumerate(text.split("\n"), 1):
        if line.strip():
            trace = _field(file, row, line, field or "text")
            yield Checked(file, row, trace, tuple(schema.check(trace, bounds)))


def _field(file: str, row: int, line: str, field: str) -> str:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise Failure(f"{file}:{row}: the row is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise Failure(f"{file}:{row}: the row is not a JSON object")
    value = values.get(field)
    if not isinstance(value, str):
        wrong = "is not a text" if field in values else f"is not among {', '.join(values)}"
        raise Failure(f"{file}:{row}: the field `{field}` {wrong}; name it with --jsonl-field")
    return value


def _tell(one: Checked) -> None:
    name = "stdin" if one.file == "-" else one.name
    for violation in one.violations:
        click.echo(render_violation(violation, one.text, file=name) + "\n")


def _summary(found: list[Checked], illegal: int) -> str:
    traces = "1 trace" if len(found) == 1 else f"{len(found)} traces"
    if not illegal:
        return f"{traces}: legal" if len(found) == 1 else f"{traces}: all legal"
    violations = sum(len(one.violations) for one in found)
    errors = "1 error" if violations == 1 else f"{violations} errors"
    return f"{traces}: {illegal} illegal, {errors}"


def _record(one: Checked) -> dict[str, object]:
    return {
        "file": one.file,
        "row": one.row,
        "legal": not one.violations,
        "violations": [asdict(violation) for violation in one.violations],
    }
