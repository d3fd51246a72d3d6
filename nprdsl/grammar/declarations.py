"""The declarations of a schema file, as they are written: rules, terminals, imports, `%declare`.

`nprdsl.grammar.reader` makes them of a file's text. Each part keeps its place in the file, so that
a diagnostic can point to it. Names are not looked up yet and templates not applied; that is what
`nprdsl.grammar.linking` does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from nprdsl.grammar.diagnostics import Span


@dataclass(frozen=True, slots=True)
class NameUse:
    """A rule (lower case) or a terminal (upper case) by name."""

    name: str
    span: Span

    @property
    def is_terminal(self) -> bool:
        return is_terminal_name(self.name)


@dataclass(frozen=True, slots=True)
class StringLiteral:
    """`"text"`, or `"text"i`."""

    value: str  # without quotes and escapes
    ignore_case: bool
    span: Span


@dataclass(frozen=True, slots=True)
class RegexLiteral:
    """`/pattern/flags`"""

    pattern: str  # between the slashes, `\\/` read as `/`
    flags: str
    span: Span


@dataclass(frozen=True, slots=True)
class CharacterRange:
    """`"a".."z"`"""

    low: str
    high: str
    span: Span


@dataclass(frozen=True, slots=True)
class TemplateUse:
    """`name{argument, …}`"""

    name: str
    arguments: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Expansion:
    """Items one after another, perhaps none; Lark's word."""

    items: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Alternatives:
    """`option | option`"""

    options: tuple[Expression, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Repetition:
    """`x?`, `[x]`, `x*`, `x+`, `x~3`, `x~2..5`; `high` None is without limit."""

    node: Expression
    low: int
    high: int | None
    span: Span


class ConstructKind(StrEnum):
    """The templates of grammars/parallel.lark."""

    MAP = "map"
    PROCESS = "process"
    SPAWN = "spawn"
    REDUCE = "reduce"
    REREAD = "reread"


@dataclass(frozen=True, slots=True)
class Construct:
    """A use of a template of grammars/parallel.lark; linking makes it of `TemplateUse`."""

    kind: ConstructKind
    arguments: tuple[Expression, ...]
    span: Span


Expression = (
    NameUse
    | StringLiteral
    | RegexLiteral
    | CharacterRange
    | TemplateUse
    | Expansion
    | Alternatives
    | Repetition
    | Construct
)


@dataclass(frozen=True, slots=True)
class Definition:
    """A rule or terminal, or a template where `parameters` is not empty."""

    name: str  # without the modifiers `?` and `!`
    parameters: tuple[str, ...]
    priority: Span | None
    body: Expression
    span: Span  # of the name
    own_name: str  # in its own file, whatever it is called where it is imported


@dataclass(frozen=True, slots=True)
class Import:
    """`%import .path (names)` or `%import .path.name -> alias`, one value for each name."""

    path: tuple[str, ...]
    relative: bool
    name: str
    alias: str
    span: Span


@dataclass(frozen=True, slots=True)
class Declare:
    """One name of `%declare`."""

    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class Directive:
    """`%ignore`, `%override`, `%extend`: read, and refused later."""

    keyword: str
    span: Span


Declaration = Definition | Import | Declare | Directive


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file, read. `words` counts its names, strings and signs."""

    file: str
    text: str
    declarations: tuple[Declaration, ...]
    words: int = 0


def parts_of(expression: Expression) -> tuple[Expression, ...]:
    """What stands directly inside `expression`; of a use of a template, nothing."""
    match expression:
        case Expansion(items=parts) | Alternatives(options=parts) | Construct(arguments=parts):
            return parts
        case Repetition():
            return (expression.node,)
        case _:
            return ()


def inside(expression: Expression) -> Iterator[Expression]:
    """`expression` and all inside it, in the order of the text; uses of templates not entered."""
    pending = [expression]
    while pending:
        expression = pending.pop()
        yield expression
        pending.extend(reversed(parts_of(expression)))


def is_terminal_name(name: str) -> bool:
    """Lark's convention: names of terminals are upper case."""
    return name.lstrip("_")[:1].isupper()


# -- the same further down -----------------------------------------------------------------------


def below(declaration: Declaration, lines: int) -> Declaration:
    """A declaration of a text that begins so many lines further down."""
    span = lines_below(declaration.span, lines)
    if not isinstance(declaration, Definition):
        return replace(declaration, span=span)
    priority = declaration.priority and lines_below(declaration.priority, lines)
    return Definition(
        declaration.name,
        declaration.parameters,
        priority,
        _below(declaration.body, lines),
        span,
        declaration.own_name,
    )


def lines_below(span: Span, lines: int) -> Span:
    """The same so many lines further down; what has no place has none there either."""
    if span.end_line == 1 == span.end_column:
        return span
    return Span(span.file, lines + span.line, span.column, lines + span.end_line, span.end_column)


def _below(node: Expression, lines: int) -> Expression:
    span = lines_below(node.span, lines)
    match node:
        case NameUse():
            return NameUse(node.name, span)
        case StringLiteral():
            return StringLiteral(node.value, node.ignore_case, span)
        case Expansion():
            return Expansion(tuple([_below(item, lines) for item in node.items]), span)
        case Alternatives():
            return Alternatives(tuple([_below(option, lines) for option in node.options]), span)
        case Repetition():
            return Repetition(_below(node.node, lines), node.low, node.high, span)
        case TemplateUse():
            arguments = tuple([_below(argument, lines) for argument in node.arguments])
            return TemplateUse(node.name, arguments, span)
        case _:
            return replace(node, span=span)
