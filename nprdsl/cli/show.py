"""`nprdsl show`: a schema, or a trace, as text and pictures.

Sizes are those of the automaton over a vocabulary: a tokenizer's, or one token a byte.
"""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np

from nprdsl import pictures, studio
from nprdsl.cli.console import clean, console, print_json
from nprdsl.cli.failures import BadResult, Failure, as_failure, examining
from nprdsl.cli.files import STDIN, read_text, shown_name, without_last_newline
from nprdsl.cli.options import argument, command, option, terminals_option
from nprdsl.cli.terminals import load_schema
from nprdsl.cli.vocabularies import byte_vocabulary, model_vocabulary, tokenizer_vocabulary
from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.grammar.ir import Block, Terminal
from nprdsl.masks.bound_schema import BoundSchema, SpelledTagsWarning
from nprdsl.pictures.messages import render_trace_error
from nprdsl.schema import Schema, shipped
from nprdsl.structure.violations import TraceError
from nprdsl.tokens.bitmask import unpack
from nprdsl.tokens.vocabulary import UnspellableError
from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trace.layout import Layout

_NARROW, _WIDE = 20, 120  # columns of a picture
_MASK_CELLS: Final = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowOptions:
    what: str = argument("SCHEMA|TRACE")
    schema: str | None = option(
        None, "WHAT is a trace of this schema [the first that reads it].", metavar="SCHEMA"
    )
    mermaid: bool = option(False, "A Mermaid diagram instead of text.")
    svg: str | None = option(
        None, "Write a picture of the schema, or of the trace.", metavar="FILE"
    )
    mask_svg: str | None = option(
        None, "Write a picture of the trace's attention mask.", metavar="FILE"
    )
    html: str | None = option(
        None, "Write a page that shows the schema, or the trace, in a browser.", metavar="FILE"
    )
    model: str | None = option(
        None, "Count tokens of this model; show the ids of the tags.", metavar="PATH|NAME"
    )
    tokenizer: str | None = option(None, "As --model, for a tokenizer.", metavar="PATH")
    as_json: bool = option(False, "One JSON object.", flag="--json")
    terminals: str | None = terminals_option()


@command(ShowOptions, short_help="Show a schema, or a trace, as text or pictures.")
def show(options: ShowOptions) -> None:
    """Show a schema (its name or .lark path), or a trace (any other file, or `-`).

    Of a schema: rules, tags, forks, joins, the size of its automaton. Of a trace: its execution
    graph, its lanes, its attention mask. The page of a trace that is not legal shows its faults at
    their places.
    """
    what, schema = options.what, options.schema
    if options.model is not None and options.tokenizer is not None:
        raise click.UsageError("--model and --tokenizer exclude each other")
    if schema is None and (what in shipped() or what.endswith(".lark")):
        with examining():
            _show_schema(load_schema(what, options.terminals), options)
    else:
        _check_exists(what)
        text = without_last_newline(read_text(what))
        read_by = _reading(text) if schema is None else load_schema(schema, options.terminals)
        _show_trace(read_by, text, options)


def _check_exists(what: str) -> None:
    if what == STDIN or Path(what).exists():
        return
    hint = did_you_mean(what, shipped()) or f"shipped: {', '.join(shipped())}"
    raise Failure(f"`{what}` is no schema that ships with the package, and no file; {hint}")


# schemas


def _show_schema(schema: Schema, options: ShowOptions) -> None:
    if options.mask_svg is not None:
        raise Failure("a schema has no mask; --mask-svg is for traces")
    if options.svg is not None:
        _write_text(options.svg, pictures.schema_svg(schema.grammar))
    if options.html is not None:
        over = options.model or options.tokenizer or "a byte-level vocabulary"
        _write_page(options.html, studio.schema_view(schema, _bound(schema, options), over))
    if options.mermaid:
        click.echo(pictures.schema_mermaid(schema.grammar), nl=False)
    elif options.as_json:
        print_json(_schema_record(schema, options))
    elif options.svg is None and options.html is None:
        click.echo(_schema_text(schema, options), nl=False)


def _schema_text(schema: Schema, options: ShowOptions) -> str:
    grammar = schema.grammar
    over, bound = options.model or options.tokenizer, _bound(schema, options)
    tags = [" ".join(schema.tags) or "none"] if over is None else _tag_lines(bound)
    size = f"over {over or 'a byte-level vocabulary'}: {_automaton_size(bound)}"
    parts = [
        pictures.schema_text(grammar).rstrip("\n"),
        _titled("tags", tags),
        _titled("terminals", [_terminal(t) for t in grammar.terminals.values()]),
        _titled("forks", [_fork(block) for block in grammar.blocks] or ["none"]),
        _titled("automaton", [size]),
    ]
    return "\n\n".join(parts) + "\n"


def _titled(title: str, lines: list[str]) -> str:
    return "\n".join([title, *(f"  {line}" for line in lines)])


def _tag_lines(bound: BoundSchema) -> list[str]:
    """Every tag with its token, or with the tokens that spell it."""
    width = max(map(len, bound.grammar.tags), default=0)
    lines = []
    for tag in bound.grammar.tags:
        token = bound.tag_tokens.get(tag)
        spelled = " ".join(map(str, bound.vocabulary.encode(tag))) if token is None else ""
        lines.append(f"{tag:{width}}  {f'spelled: {spelled}' if token is None else token}")
    return lines or ["none"]


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


def _schema_record(schema: Schema, options: ShowOptions) -> dict[str, object]:
    grammar, bound = schema.grammar, _bound(schema, options)
    return {
        "name": schema.name,
        "start": grammar.start,
        "rules": list(grammar.rules),
        "tags": list(schema.tags),
        "tag_tokens": dict(bound.tag_tokens),
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
        "automaton": asdict(_automaton_size(bound)),
    }


@dataclass(frozen=True, slots=True)
class AutomatonSize:
    """`minimum`: tokens that are enough for a legal trace; `rows`: different masks on the way
    through it; `bytes`: of those masks."""

    vocabulary: int
    tags: str
    minimum: int
    rows: int
    bytes: int

    def __str__(self) -> str:
        size, unit = (2**20, "MB") if self.bytes >= 2**20 else (2**10, "kB")
        return (
            f"{self.vocabulary} tokens, tags {self.tags}; the shortest trace takes {self.minimum}, "
            f"{self.rows} different masks ({self.bytes / size:.1f} {unit}) on its way"
        )


def _automaton_size(bound: BoundSchema) -> AutomatonSize:
    """Masks are computed where a generation comes to them, so they are counted on the shortest
    trace."""
    matcher, vocabulary = bound.matcher(), bound.vocabulary
    masks = {id(matcher.mask())}
    for _ in range(bound.minimum):
        nearer = unpack(matcher.tight(0), vocabulary.size)  # tokens that bring the end nearer
        matcher.advance(int(np.argmax(nearer)))
        masks.add(id(matcher.mask()))
    width = (vocabulary.size + 31) // 32 * 4
    mode = str(bound.mode)
    return AutomatonSize(vocabulary.size, mode, bound.minimum, len(masks), len(masks) * width)


def _bound(schema: Schema, options: ShowOptions) -> BoundSchema:
    """The schema over the vocabulary that was asked for. Raises SchemaError."""
    if options.model is not None:
        vocabulary = model_vocabulary(options.model)
    elif options.tokenizer is not None:
        vocabulary = tokenizer_vocabulary(options.tokenizer)
    else:
        vocabulary = byte_vocabulary(schema.tags)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SpelledTagsWarning)  # each tag is shown
        return schema.bind(vocabulary)


# traces


@dataclass(frozen=True, slots=True)
class DrawableTrace:
    """A trace as pictures need it: `units` are its characters or the texts of its tokens."""

    graph: ExecutionGraph
    layout: Callable[[], Layout]
    units: list[str]
    view: Callable[[], studio.TraceView]


def _reading(text: str) -> Schema:
    schema = studio.recognised(text)
    click.echo(f"read as a trace of `{schema.name}`; --schema takes another one", err=True)
    return schema


def _show_trace(schema: Schema, text: str, options: ShowOptions) -> None:
    title = "trace" if options.what == STDIN else Path(options.what).name
    try:
        if options.tokenizer is None and options.model is None:
            trace = _in_characters(schema, text, title)
        else:
            trace = _in_tokens(schema, text, title, options)
    except TraceError as error:
        if options.html is not None:
            _write_page(options.html, studio.text_view(schema, text, title=title))
        raise BadResult(render_trace_error(error, text, file=shown_name(options.what))) from error
    if options.html is not None:
        _write_page(options.html, trace.view())
    if options.svg is not None:
        _write_text(options.svg, pictures.to_svg(trace.graph, trace.units, tags=schema.tag_pattern))
    if options.mask_svg is not None:
        _write_text(options.mask_svg, pictures.mask_svg(trace.layout(), trace.graph))
    if options.mermaid:
        click.echo(pictures.to_mermaid(trace.graph), nl=False)
    elif options.as_json:
        print_json(trace.graph.to_dict())
    elif options.svg is None and options.mask_svg is None and options.html is None:
        click.echo(_trace_text(trace), nl=False)


def _in_characters(schema: Schema, text: str, title: str) -> DrawableTrace:
    graph, sampled = schema.parse(text).graph, np.zeros(len(text), np.uint8)
    return DrawableTrace(
        graph,
        lambda: Layout.from_graph(graph, sampled),
        list(text),
        lambda: studio.text_view(schema, text, title=title),
    )


def _in_tokens(schema: Schema, text: str, title: str, options: ShowOptions) -> DrawableTrace:
    schema.parse(text)  # places in the text, where the trace is not legal
    bound = _bound(schema, options)
    vocabulary = bound.vocabulary
    with as_failure(UnspellableError, kind=BadResult):
        trace = bound.parse(bound.encode(text))
    units = [vocabulary.text([token]) for token in trace.ids]
    return DrawableTrace(
        trace.graph,
        lambda: trace.layout,
        units,
        lambda: studio.token_view(bound, trace, title=title),
    )


def _trace_text(trace: DrawableTrace) -> str:
    width = max(_NARROW, min(_WIDE, console(sys.stdout).width))
    mask = pictures.mask_text(trace.layout(), min(_MASK_CELLS, width))
    lanes = clean(pictures.to_text(trace.graph, width))
    return f"{lanes}\nattention mask (rows see columns)\n{mask}"


def _write_page(name: str, view: studio.TraceView | studio.SchemaView) -> None:
    with as_failure(studio.StudioNotBuiltError):
        text = studio.page(view)
    _write_text(name, text)


def _write_text(name: str, text: str) -> None:
    with as_failure(OSError, about=f"cannot write `{name}`"):
        Path(name).write_text(text, encoding="utf-8")
