"""`nprdsl show`: a schema, or a trace, as text and pictures.

Sizes are those of the automaton over a vocabulary: a tokenizer's, or one token a byte.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import click
import numpy as np

from nprdsl import pictures
from nprdsl.cli.console import clean, console, print_json
from nprdsl.cli.failures import BadResult, Failure, as_failure, examining
from nprdsl.cli.files import STDIN, read_text, shown_name, without_last_newline
from nprdsl.cli.options import argument, command, option, terminals_option
from nprdsl.cli.terminals import load_schema
from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.grammar.ir import Block, Terminal
from nprdsl.pictures.messages import render_trace_error
from nprdsl.schema import Schema, shipped
from nprdsl.structure.violations import TraceError
from nprdsl.tokens.bitmask import unpack
from nprdsl.tokens.vocabulary import UnspellableError, Vocabulary
from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trace.layout import Layout

_NARROW, _WIDE = 20, 120  # columns of a picture
_MASK_CELLS: Final = 64
_EOS: Final = "<|end|>"  # of a byte-level vocabulary


@dataclass(frozen=True, slots=True, kw_only=True)
class ShowOptions:
    what: str = argument("SCHEMA|TRACE")
    schema: str | None = option(None, "WHAT is a trace of this schema [npr].", metavar="SCHEMA")
    mermaid: bool = option(False, "A Mermaid diagram instead of text.")
    svg: str | None = option(
        None, "Write a picture of the schema, or of the trace.", metavar="FILE"
    )
    mask_svg: str | None = option(
        None, "Write a picture of the trace's attention mask.", metavar="FILE"
    )
    tokenizer: str | None = option(None, "Count tokens of this tokenizer.", metavar="PATH")
    as_json: bool = option(False, "One JSON object.", flag="--json")
    terminals: str | None = terminals_option()


@command(ShowOptions, short_help="Show a schema, or a trace, as text or pictures.")
def show(options: ShowOptions) -> None:
    """Show a schema (its name or .lark path), or a trace (any other file, or `-`).

    Of a schema: rules, tags, forks, joins, the size of its automaton. Of a trace: its execution
    graph, its lanes, its attention mask.
    """
    what, schema = options.what, options.schema
    if schema is None and (what in shipped() or what.endswith(".lark")):
        with examining():
            _show_schema(load_schema(what, options.terminals), options)
    else:
        _check_exists(what)
        _show_trace(load_schema(schema or "npr", options.terminals), what, options)


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
    if options.mermaid:
        click.echo(pictures.schema_mermaid(schema.grammar), nl=False)
    elif options.as_json:
        print_json(_schema_record(schema, options))
    elif options.svg is None:
        click.echo(_schema_text(schema, options), nl=False)


def _schema_text(schema: Schema, options: ShowOptions) -> str:
    grammar = schema.grammar
    over = "a byte-level vocabulary" if options.tokenizer is None else options.tokenizer
    parts = [
        pictures.schema_text(grammar).rstrip("\n"),
        _titled("tags", [" ".join(schema.tags) or "none"]),
        _titled("terminals", [_terminal(t) for t in grammar.terminals.values()]),
        _titled("forks", [_fork(block) for block in grammar.blocks] or ["none"]),
        _titled("automaton", [f"over {over}: {_automaton_size(schema, options)}"]),
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


def _schema_record(schema: Schema, options: ShowOptions) -> dict[str, object]:
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
        "automaton": asdict(_automaton_size(schema, options)),
    }


@dataclass(frozen=True, slots=True)
class AutomatonSize:
    """`minimum`: the fewest tokens of a legal trace; `rows`: different masks on the way through it;
    `bytes`: of those masks."""

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


def _automaton_size(schema: Schema, options: ShowOptions) -> AutomatonSize:
    """Masks are computed where a generation comes to them, so they are counted on the shortest
    trace. Raises SchemaError."""
    if options.tokenizer is None:
        vocabulary = _byte_vocabulary(schema.tags)
    else:
        vocabulary = _tokenizer_vocabulary(options.tokenizer)
    bound = schema.bind(vocabulary)
    matcher = bound.matcher()
    masks = {id(matcher.mask())}
    for _ in range(bound.minimum):
        nearer = unpack(matcher.tight(0), vocabulary.size)  # tokens that bring the end nearer
        matcher.advance(int(np.argmax(nearer)))
        masks.add(id(matcher.mask()))
    width = (vocabulary.size + 31) // 32 * 4
    mode = str(bound.mode)
    return AutomatonSize(vocabulary.size, mode, bound.minimum, len(masks), len(masks) * width)


def _byte_vocabulary(tags: tuple[str, ...]) -> Vocabulary:
    """256 bytes, the tags as special tokens, and an end of sequence."""
    special = {name: 256 + index for index, name in enumerate((*tags, _EOS))}
    return Vocabulary({byte: bytes([byte]) for byte in range(256)}, special, _EOS)


def _tokenizer_vocabulary(path: str) -> Vocabulary:
    """The vocabulary of a `tokenizer.json`, or of the folder that it lies in."""
    file = Path(path) / "tokenizer.json" if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise Failure(f"no tokenizer at `{path}`; give a tokenizer.json or its folder")
    try:
        from tokenizers import Tokenizer
    except ModuleNotFoundError as error:
        raise Failure(
            "--tokenizer needs the tokenizers package; install it with: pip install 'nprdsl[local]'"
        ) from error
    text = read_text(str(file))
    with as_failure(ValueError, about=f"`{file}` is not JSON"):
        json.loads(text)
    # `tokenizers` raises bare Exception for a JSON that is no tokenizer, with the reason
    with as_failure(Exception, about=f"`{file}` is no tokenizer"):
        tokenizer = Tokenizer.from_str(text)
    with as_failure(ValueError, about=f"cannot use the tokenizer `{file}`"):
        return Vocabulary.from_tokenizer(tokenizer, eos=_configured_eos(file.parent))


def _configured_eos(folder: Path) -> str | None:
    """The end of sequence that stands in the configuration beside a tokenizer."""
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    with as_failure(ValueError, about=f"`{config}` is not JSON"):
        values = json.loads(read_text(str(config)))
    eos = values.get("eos_token") if isinstance(values, dict) else None
    name = eos.get("content") if isinstance(eos, dict) else eos
    return name if isinstance(name, str) else None


# traces


@dataclass(frozen=True, slots=True)
class DrawableTrace:
    """A trace as pictures need it: `units` are its characters or the texts of its tokens."""

    graph: ExecutionGraph
    layout: Callable[[], Layout]
    units: list[str]


def _show_trace(schema: Schema, file: str, options: ShowOptions) -> None:
    text = without_last_newline(read_text(file))
    try:
        if options.tokenizer is None:
            trace = _in_characters(schema, text)
        else:
            trace = _in_tokens(schema, text, options.tokenizer)
    except TraceError as error:
        raise BadResult(render_trace_error(error, text, file=shown_name(file))) from error
    if options.svg is not None:
        _write_text(options.svg, pictures.to_svg(trace.graph, trace.units))
    if options.mask_svg is not None:
        _write_text(options.mask_svg, pictures.mask_svg(trace.layout()))
    if options.mermaid:
        click.echo(pictures.to_mermaid(trace.graph), nl=False)
    elif options.as_json:
        print_json(trace.graph.to_dict())
    elif options.svg is None and options.mask_svg is None:
        click.echo(_trace_text(trace), nl=False)


def _in_characters(schema: Schema, text: str) -> DrawableTrace:
    graph, sampled = schema.parse(text).graph, np.zeros(len(text), np.uint8)
    return DrawableTrace(graph, lambda: Layout.from_graph(graph, sampled), list(text))


def _in_tokens(schema: Schema, text: str, tokenizer: str) -> DrawableTrace:
    schema.parse(text)  # places in the text, where the trace is not legal
    vocabulary = _tokenizer_vocabulary(tokenizer)
    bound = schema.bind(vocabulary)
    with as_failure(UnspellableError, kind=BadResult):
        trace = bound.parse(bound.encode(text))
    units = [vocabulary.text([token]) for token in trace.ids]
    return DrawableTrace(trace.graph, lambda: trace.layout, units)


def _trace_text(trace: DrawableTrace) -> str:
    width = max(_NARROW, min(_WIDE, console(sys.stdout).width))
    mask = pictures.mask_text(trace.layout(), min(_MASK_CELLS, width))
    lanes = clean(pictures.to_text(trace.graph, width))
    return f"{lanes}\nattention mask (rows see columns)\n{mask}"


def _write_text(name: str, text: str) -> None:
    with as_failure(OSError, about=f"cannot write `{name}`"):
        Path(name).write_text(text, encoding="utf-8")
