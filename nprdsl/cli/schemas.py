"""`nprdsl schemas`: what ships with the package."""

from __future__ import annotations

import importlib.resources
import re
import sys
from dataclasses import asdict, dataclass

import click
from rich.table import Table

from nprdsl.cli.console import borderless_table, console, is_terminal, print_json
from nprdsl.cli.options import command, option
from nprdsl.grammar import ir
from nprdsl.grammar.diagnostics import DiagnosticCode, SchemaError
from nprdsl.grammar.terminal_types import FreeText
from nprdsl.schema import load, shipped


@dataclass(frozen=True, slots=True)
class SchemaSummary:
    """One schema: `declares` names the terminals that need a type."""

    name: str
    tags: tuple[str, ...]
    forks: tuple[str, ...]
    joins: tuple[str, ...]
    declares: tuple[str, ...]
    about: str


def _summary(name: str) -> SchemaSummary:
    source = (importlib.resources.files("nprdsl.grammars") / f"{name}.lark").read_text("utf-8")
    grammar, declares = _grammar(name)
    forks = sorted({"spawn" if block.item is None else "map" for block in grammar.blocks})
    joins = sorted({str(block.join) for block in grammar.blocks})
    tags = grammar.tags
    return SchemaSummary(name, tags, tuple(forks), tuple(joins), declares, about(source))


def _grammar(name: str) -> tuple[ir.Grammar, tuple[str, ...]]:
    """A schema that needs types is read as if they were free text."""
    try:
        return load(name).grammar, ()
    except SchemaError as error:
        untyped = [d for d in error.diagnostics if d.code is DiagnosticCode.UNTYPED_TERMINAL]
        names = [re.findall(r"`(\w+)`", d.message)[0] for d in untyped]
        if not names:
            raise
        return load(name, dict.fromkeys(names, FreeText)).grammar, tuple(names)


def about(source: str) -> str:
    """The first sentence of the comment at the head of a schema, without the file's name."""
    lines: list[str] = []
    for line in source.splitlines():
        comment = line.removeprefix("//").strip()
        if not line.startswith("//") or not comment:
            break
        lines.append(comment)
    text = re.sub(r"^\S+\.lark: ", "", " ".join(lines))
    return re.split(r"(?<=[a-z)\d])\.\s", f"{text} ", maxsplit=1)[0].strip().rstrip(".")


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemasOptions:
    as_json: bool = option(False, "One JSON array.", flag="--json")


@command(SchemasOptions)
def schemas(options: SchemasOptions) -> None:
    """List the schemas that come with the package."""
    summaries = [_summary(name) for name in shipped()]
    if options.as_json:
        print_json([asdict(summary) for summary in summaries])
    elif is_terminal(sys.stdout):
        console().print(_table(summaries))
    else:
        for summary in summaries:
            click.echo("\n  ".join(_cells(summary)) + "\n")


def _table(summaries: list[SchemaSummary]) -> Table:
    table = borderless_table(below=1)
    table.add_column("schema", style="cyan", no_wrap=True)
    table.add_column("fork and join", no_wrap=True)
    table.add_column("tags", ratio=2)
    table.add_column("about", ratio=3)
    for summary in summaries:
        table.add_row(*_cells(summary))
    return table


def _cells(summary: SchemaSummary) -> tuple[str, str, str, str]:
    """Name, fork and join, opening tags, what it is."""
    kind = f"{', '.join(summary.forks)} / {', '.join(summary.joins)}"
    tags = " ".join(tag for tag in summary.tags if not tag.startswith("</"))
    needs = f" (needs types for {', '.join(summary.declares)})" if summary.declares else ""
    return summary.name, kind, tags, summary.about + needs
