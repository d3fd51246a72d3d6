"""`nprdsl show`: a schema, or a trace, as text and pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from nprdsl import pictures
from nprdsl.cli.console import clean, console
from nprdsl.cli.declared import load_schema, terminals_option
from nprdsl.cli.failures import Command, Failure, Rejected, examining, told
from nprdsl.cli.files import read_text, without_last_newline, write_text
from nprdsl.cli.sizes import automaton_size
from nprdsl.cli.vocabularies import byte_level, from_files
from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.grammar.ir import Block, Terminal
from nprdsl.pictures.messages import render_trace_error
from nprdsl.schema import Schema, shipped
from nprdsl.structure.violations import TraceError
from nprdsl.tokens.vocabulary import UnspellableError, Vocabulary
from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trace.layout import Layout

_NARROW, _WIDE = 20, 120  # columns of a picture
_MASK_CELLS = 64


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be shown of it; None and False are not asked for."""

    mermaid: bool
    svg: str | None
    mask_svg: str | None
    as_json: bool
    tokenizer: str | None


@click.command(cls=Command, short_help="Show a schema, or a trace, as text or pictures.")
@click.argument("what", metavar="SCHEMA|TRACE")
@click.option("--schema", metavar="SCHEMA", help="WHAT is a trace of this schema [npr].")
@click.option("--mermaid", is_flag=True, help="A Mermaid diagram instead of text.")
@click.option("--svg", metavar="FILE", help="Write a picture of the schema, or of the trace.")
@click.option("--mask-svg", metavar="FILE", help="Write a picture of the trace's attention mask.")
@click.option("--tokenizer", metavar="PATH", help="Count tokens of this tokenizer.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
@terminals_option
def show(
    what: str,
    schema: str | None,
    mermaid: bool,
    svg: str | None,
    mask_svg: str | None,
    tokenizer: str | None,
    as_json: bool,
    terminals: str | None,
) -> None:
    """Show a schema (its name or .lark path), or a trace (any other file, or `-`).

    Of a schema: rules, tags, forks, joins, the size of its automaton. Of a trace: its execution
    graph, its lanes, its attention mask.
    """
    asked = Asked(mermaid, svg, mask_svg, as_json, tokenizer)
    if schema is None and (what in shipped() or what.endswith(".lark")):
        with examining():
            _show_schema(load_schema(what, terminals), asked)
    else:
        _check_exists(what)
        _show_trace(load_schema(schema or "npr", terminals), what, asked)


def _check_exists(what: str) -> None:
    if what == "-" or Path(what).exists():
        return
    hint = did_you_mean(what, shipped()) or f"shipped: {', '.join(shipped())}"
    raise Failure(f"`{what}` is no schema that ships with the package, and no file; {hint}")


# schemas


def _show_schema(schema: Schema, asked: Asked) -> None:
    if asked.mask_svg is not None:
        raise Failure("a schema has no mask; --mask-svg is for traces")
    if asked.svg is not None:
        write_text(asked.svg, pictures.schema_svg(schema.grammar))
    if asked.mermaid:
        click.echo(pictures.schema_mermaid(schema.grammar), nl=False)
    elif asked.as_json:
        click.echo(json.dumps(_schema_record(schema, asked), ensure_ascii=False))
    elif asked.svg is None:
        click.echo(_schema_text(schema, asked), nl=False)


def _vocabulary(schema: Schema, asked: Asked) -> Vocabulary:
    return byte_level(schema.tags) if asked.tokenizer is None else from_files(asked.tokenizer)


def _schema_text(schema: Schema, asked: Asked) -> str:
    grammar = schema.grammar
    over = "a byte-level vocabulary" if asked.tokenizer is None else asked.tokenizer
    parts = [
        pictures.schema_text(grammar).rstrip("\n"),
        _titled("tags", [" ".join(schema.tags) or "none"]),
        _titled("terminals", [_terminal(t) for t in grammar.terminals.values()]),
        _titled("forks", [_fork(block) for block in grammar.blocks] or ["none"]),
        _titled(
            "automaton", [f"over {over}: {automaton_size(schema, _vocabulary(schema, asked))}"]
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _titled(title: str, lines: list[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _terminal(terminal: Terminal) -> str:
    shape = {
        "glue": f"glue {json.dumps(terminal.literal)}",
        "text": "free text",
        "regular": f"/{terminal.pattern}/",
        "typed": f"typed: {terminal.description}",
    }[terminal.kind]
    return f"{terminal.name}: {shape}"


def _fork(block: Block) -> str:
    if block.item is None:
        count = f"{block.low}..{'' if block.high is None else block.high} `{block.branch}`"
    else:
        count = f"one `{block.branch}` for each `{block.item}`"
    bound = f", bound by {', '.join(block.bound)}" if block.bound else ""
    return f"{block.rule}: {count}{bound}; join by {block.join}"


def _schema_record(schema: Schema, asked: Asked) -> dict[str, object]:
    grammar = schema.grammar
    return {
        "name": schema.name,
        "start": grammar.start,
        "rules": list(grammar.rules),
        "tags": list(schema.tags),
        "terminals": {name: str(t.kind) for name, t in grammar.terminals.items()},
        "forks": [
            {
                "rule": block.rule,
                "item": block.item,
                "branch": block.branch,
                "bound": list(block.bound),
                "low": block.low,
                "high": block.high,
                "join": str(block.join),
            }
            for block in grammar.blocks
        ],
        "automaton": asdict(automaton_size(schema, _vocabulary(schema, asked))),
    }


# traces


@dataclass(frozen=True, slots=True)
class Drawn:
    """A trace as pictures need it: `units` are its characters or the texts of its tokens."""

    graph: ExecutionGraph
    layout: Callable[[], Layout]
    units: list[str]


def _show_trace(schema: Schema, file: str, asked: Asked) -> None:
    text = without_last_newline(read_text(file))
    try:
        drawn = (
            _characters(schema, text)
            if asked.tokenizer is None
            else _tokens(schema, text, asked.tokenizer)
        )
    except TraceError as error:
        name = "stdin" if file == "-" else file
        raise Rejected(render_trace_error(error, text, file=name)) from error
    if asked.svg is not None:
        write_text(asked.svg, pictures.to_svg(drawn.graph, drawn.units))
    if asked.mask_svg is not None:
        write_text(asked.mask_svg, pictures.mask_svg(drawn.layout()))
    if asked.mermaid:
        click.echo(pictures.to_mermaid(drawn.graph), nl=False)
    elif asked.as_json:
        click.echo(json.dumps(drawn.graph.to_dict(), ensure_ascii=False))
    elif asked.svg is None and asked.mask_svg is None:
        click.echo(_trace_text(drawn), nl=False)


def _characters(schema: Schema, text: str) -> Drawn:
    graph = schema.parse(text).graph
    return Drawn(graph, lambda: Layout.from_graph(graph, np.zeros(len(text), np.uint8)), list(text))


def _tokens(schema: Schema, text: str, tokenizer: str) -> Drawn:
    schema.parse(text)  # places in the text, where the trace is not legal
    vocabulary = from_files(tokenizer)
    bound = schema.bind(vocabulary)
    with told(UnspellableError, kind=Rejected):
        trace = bound.parse(bound.encode(text))
    return Drawn(trace.graph, lambda: trace.layout, [vocabulary.text([i]) for i in trace.ids])


def _trace_text(drawn: Drawn) -> str:
    width = max(_NARROW, min(_WIDE, console(sys.stdout).width))
    mask = pictures.mask_text(drawn.layout(), min(_MASK_CELLS, width))
    lanes = clean(pictures.to_text(drawn.graph, width))
    return f"{lanes}\nattention mask (rows see columns)\n{mask}"
