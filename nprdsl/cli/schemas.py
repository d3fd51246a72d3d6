"""`nprdsl schemas`: what ships with the package."""

from __future__ import annotations

import importlib.resources
import json
import re
import sys
from dataclasses import asdict, dataclass

import click
from rich.table import Table

from nprdsl.cli.console import console, is_terminal
from nprdsl.cli.failures import Command
from nprdsl.grammar import ir
from nprdsl.grammar.diagnostics import DiagnosticCode, SchemaError
from nprdsl.grammar.terminal_types import FreeText
from nprdsl.schema import load, shipped


@dataclass(frozen=True, slots=True)
class Entry:
    """One schema: `declares` names the terminals that need a type."""

    name: str
    tags: tuple[str, ...]
    forks: tuple[str, ...]
    joins: tuple[str, ...]
    declares: tuple[str, ...]
    about: str


def entries() -> list[Entry]:
    """All schemas of the package, by name."""
    return [_entry(name) for name in shipped()]


def _entry(name: str) -> Entry:
    source = (importlib.resources.files("nprdsl.grammars") / f"{name}.lark").read_text("utf-8")
    grammar, declares = _grammar(name)
    forks = {"spawn" if block.item is None else "map" for block in grammar.blocks}
    joins = {str(block.join) for block in grammar.blocks}
    return Entry(
        name, grammar.tags, tuple(sorted(forks)), tuple(sorted(joins)), declares, about(source)
    )


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


@click.command(cls=Command)
@click.option("--json", "as_json", is_flag=True, help="One JSON array.")
def schemas(as_json: bool) -> None:
    """List the schemas that come with the package."""
    found = entries()
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in found], ensure_ascii=False))
    elif is_terminal(sys.stdout):
        console().print(_table(found))
    else:
        for entry in found:
            click.echo(_plain(entry))


def _table(found: list[Entry]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 1, 0))
    table.add_column("schema", style="cyan", no_wrap=True)
    table.add_column("fork and join", no_wrap=True)
    table.add_column("tags", ratio=2)
    table.add_column("about", ratio=3)
    for entry in found:
        table.add_row(entry.name, _kind(entry), " ".join(_opening(entry)), _about(entry))
    return table


def _plain(entry: Entry) -> str:
    tags = " ".join(_opening(entry))
    return f"{entry.name}\n  {_kind(entry)}\n  {tags}\n  {_about(entry)}\n"


def _kind(entry: Entry) -> str:
    return f"{', '.join(entry.forks)} / {', '.join(entry.joins)}"


def _opening(entry: Entry) -> list[str]:
    return [tag for tag in entry.tags if not tag.startswith("</")]


def _about(entry: Entry) -> str:
    needs = f" (needs types for {', '.join(entry.declares)})" if entry.declares else ""
    return entry.about + needs
