"""A schema's text while it is written: its faults, and what may be said at a place of it.

`analyse` reads a text that may be wrong at the moment. What it gives answers an editor: the faults
with their fixes, what a name, a string or a construct at a position means, and which words may be
written there. A language server and a page with an editor ask the same questions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nprdsl.grammar.declarations import (
    ConstructKind,
    Definition,
    Expression,
    StringLiteral,
    TemplateUse,
    inside,
    is_terminal_name,
)
from nprdsl.grammar.diagnostics import Diagnostic, SchemaError, Span
from nprdsl.grammar.ir import Grammar, Terminal, TerminalKind
from nprdsl.grammar.names import NamePlace, SchemaNames
from nprdsl.grammar.reader import read, readable
from nprdsl.grammar.resolve import Kept, read_grammar
from nprdsl.grammar.tag_shapes import is_tag, promises_tags, shown
from nprdsl.grammar.terminal_types import TerminalType

_IMPORTS: Final = re.compile(r"^%import\s+\.?parallel\b", re.M)
_BEFORE: Final = re.compile(r"(?:(%)|[A-Za-z_]\w*)$|$")
# whole strings and regular expressions, or the beginning of one or of a comment
_INSIDE: Final = re.compile(r'"(?:\\.|[^"\\])*"|/(?!/)(?:\\.|[^/\\])*/|(["/])')
_DIRECTIVES: Final = {
    "%import .parallel (map, process, reduce)": "the constructs of parallel reasoning",
    "%declare TEXT": "free text up to the next tag",
}
_CONSTRUCTS: Final = {
    ConstructKind.MAP: "map{list}",
    ConstructKind.PROCESS: "process{item, branch}",
    ConstructKind.SPAWN: "spawn{branch}~2..8",
    ConstructKind.REDUCE: "reduce{element}",
    ConstructKind.REREAD: "reread{element}",
}
_KINDS: Final = {
    TerminalKind.GLUE: "glue: written as it stands here; any white space, or none, is read",
    TerminalKind.TEXT: "free text up to the next tag, not blank",
    TerminalKind.REGULAR: "a value that this expression matches",
    TerminalKind.TYPED: "a value of the type that is given at load",
}


@dataclass(frozen=True, slots=True)
class SuggestedWord:
    """What may be written at a place: the text, the kind of thing, a sentence or none."""

    text: str
    kind: str
    says: str = ""


@dataclass(frozen=True, slots=True)
class SchemaAnalysis:
    """What is known of a text; `grammar` is None where it has faults, and `names` are those of the
    declarations that can be read."""

    text: str
    faults: tuple[Diagnostic, ...]
    names: SchemaNames
    grammar: Grammar | None

    def hover(self, line: int, column: int) -> tuple[Span, str] | None:
        """What stands at a position (counted from 1), in Markdown, and its place."""
        place = self.names.at(line, column)
        if place is not None:
            return place.span, self._name(place)
        for declaration in self.names.source.declarations:
            if isinstance(declaration, Definition):
                tags = promises_tags(declaration)
                for part in _strings(declaration.body):
                    at = part.span
                    if at.line == line and at.column <= column < at.end_column:
                        return at, _string(part, tags=tags)
        return None

    def _name(self, place: NamePlace) -> str:
        found = self.names.definition(place)
        if found is None:
            return f"`{place.name}` is not defined"
        said = [f"```lark\n{found.text}\n```"]
        terminal = None if self.grammar is None else self.grammar.terminals.get(place.name)
        if terminal is not None:
            said.append(_terminal(terminal))
        if found.comment:
            said.append(found.comment)
        return "\n\n".join(said)

    def completions(self, line: int, column: int) -> list[SuggestedWord]:
        """What may be written at a position, nothing inside strings and comments."""
        rows = self.text.split("\n")
        before = rows[line - 1][: column - 1] if line <= len(rows) else ""
        if _in_string_or_comment(before):
            return []
        match = _BEFORE.search(before)
        start = before if match is None else before[: match.start()]
        if not start.strip() and (match is None or match[1] or not match[0]):
            return [SuggestedWord(text, "directive", says) for text, says in _DIRECTIVES.items()]
        if start.lstrip().startswith("%import"):
            return [
                SuggestedWord(kind.value, "construct", form) for kind, form in _CONSTRUCTS.items()
            ]
        known = self.names.known()
        if start.lstrip().startswith("%declare"):
            return [] if "TEXT" in known else [SuggestedWord("TEXT", "terminal", "free text")]
        if start.lstrip().startswith("%"):
            return []
        in_terminal = is_terminal_name(start.strip().partition(":")[0] or "x")
        return [
            SuggestedWord(_CONSTRUCTS.get(ConstructKind(n), n) if kind == "construct" else n, kind)
            for n, kind in known.items()
            if is_terminal_name(n) or not in_terminal
        ]


def analyse(
    text: str,
    file: str,
    types: Mapping[str, TerminalType] | None = None,
    imports: Mapping[str, str] | None = None,
    kept: Kept | None = None,
) -> SchemaAnalysis:
    """What is known of a schema's text. `file`, `types`, `imports` and `kept` are those of
    `nprdsl.grammar.resolve.read_grammar`; types of terminals that it does not declare are left
    out."""
    try:
        source = read(text, file)
    except SchemaError as error:
        names = SchemaNames(readable(text, file), imports)
        return SchemaAnalysis(text, error.diagnostics, names, None)
    names = SchemaNames(source, imports)
    given = {name: spec for name, spec in (types or {}).items() if name in names.known()}
    try:
        grammar = read_grammar(
            text, file=file, name="schema", types=given, imports=imports, kept=kept
        )
    except SchemaError as error:
        return SchemaAnalysis(text, error.diagnostics, names, None)
    return SchemaAnalysis(text, (), names, grammar)


def is_schema(text: str) -> bool:
    """Whether a file of Lark's is one of ours: it takes constructs from `parallel`."""
    return _IMPORTS.search(text) is not None


def _strings(expression: Expression) -> list[StringLiteral]:
    found = []
    for part in inside(expression):
        if isinstance(part, StringLiteral):
            found.append(part)
        elif isinstance(part, TemplateUse):
            found += [one for argument in part.arguments for one in _strings(argument)]
    return found


def _string(literal: StringLiteral, *, tags: bool) -> str:
    text = shown(literal.value)
    if tags or is_tag(literal.value):
        return f"the tag `{text}`: no value holds it, and the parser finds it wherever it stands"
    return f"`{text}`, written and read as it stands"


def _terminal(terminal: Terminal) -> str:
    said = _KINDS[terminal.kind]
    return f"{said}: {terminal.description}" if terminal.description else said


def _in_string_or_comment(before: str) -> bool:
    return any(match[1] is not None for match in _INSIDE.finditer(before))
