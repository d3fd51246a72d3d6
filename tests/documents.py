"""Markdown documents as tests: their fenced blocks, and what the examples in them print.

A block behind an example that is marked `console` holds what the example prints, or its beginning
and `…`. Non-goals: a Markdown parser; fences stand at the beginning of a line.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.pictures.messages import render_diagnostic, render_violation
from nprdsl.schema import load
from nprdsl.structure.violations import TraceError

DOCS: Final = Path(__file__).parents[1] / "docs"
_FENCE = re.compile(r"^```(?P<info>[^\n`]+)\n(?P<body>.*?)^```$", re.M | re.S)
_OUTPUT = "console"


@dataclass(frozen=True, slots=True)
class Block:
    """One fenced block; `info` is what stands behind the opening fence."""

    info: str
    body: str
    line: int

    @property
    def language(self) -> str:
        return self.info.split()[0]

    @property
    def title(self) -> str:
        """The word behind the language: a file or a schema; empty if there is none."""
        return self.info.partition(" ")[2]


@dataclass(frozen=True, slots=True)
class Printed:
    """What an example prints, the codes that it shows included."""

    text: str
    codes: tuple[str, ...] = ()


def blocks(text: str) -> list[Block]:
    """All fenced blocks, in order."""
    return [
        Block(m["info"], m["body"], text.count("\n", 0, m.start()) + 2)
        for m in _FENCE.finditer(text)
    ]


def remade(text: str, run: Callable[[Block], Printed | None]) -> str:
    """The document with the real output of its examples; None leaves what stands there."""
    last: list[Printed | None] = [None]

    def replaced(found: re.Match[str]) -> str:
        block = Block(found["info"], found["body"], text.count("\n", 0, found.start()) + 2)
        if block.language != _OUTPUT:
            last[0] = run(block)
            return found[0]
        printed = last[0]
        return found[0] if printed is None else f"```{block.info}\n{_as_shown(printed, block)}```"

    return _FENCE.sub(replaced, text)


def _as_shown(printed: Printed, block: Block) -> str:
    """What is printed; as many lines of it as the document shows if that ends with `…`."""
    lines, shown = printed.text.splitlines(keepends=True), block.body.splitlines()
    if shown and shown[-1] == "…":
        return "".join(lines[: len(shown) - 1]) + "…\n"
    return f"{printed.text}\n"


def run_schema(source: str, folder: Path) -> Printed:
    """The faults of a schema, as a person sees them."""
    file = folder / "example.lark"
    file.write_text(source, encoding="utf-8")
    try:
        load(file)
    except SchemaError as error:
        sources = {str(file): source}
        shown = [render_diagnostic(d, sources) for d in error.diagnostics]
        return Printed("\n\n".join(shown), tuple(d.code for d in error.diagnostics))
    return Printed("")


def run_trace(text: str, schema: str) -> Printed:
    """The violations of a trace, as a person sees them; the last line break is the document's."""
    trace = text.removesuffix("\n")
    found = load(schema).check(trace)
    shown = [render_violation(v, trace) for v in found]
    return Printed("\n\n".join(shown), tuple(v.code for v in found))


def run_python(block: Block, names: dict[str, object]) -> Printed:
    """What a piece of Python prints, the last line of the exception that ends it included."""
    written = io.StringIO()
    source = "\n" * (block.line - 1) + block.body
    code = compile(source, f"<{block.language} block>", "exec", dont_inherit=True)
    with contextlib.redirect_stdout(written):
        try:
            exec(code, names)
        except (ValueError, OSError) as error:
            print(f"{type(error).__name__}: {error}")
            return Printed(written.getvalue().rstrip("\n"), _codes(error))
    return Printed(written.getvalue().rstrip("\n"))


def _codes(error: Exception) -> tuple[str, ...]:
    if isinstance(error, SchemaError):
        return tuple(d.code for d in error.diagnostics)
    if isinstance(error, TraceError):
        return tuple(v.code for v in error.violations)
    return (type(error).__name__,)
