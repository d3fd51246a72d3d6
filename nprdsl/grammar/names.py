"""Which name stands at which place of a schema's text: what an editor asks.

`names_of` lists every place where a name of one file is defined or used, in the order of the text.
`SchemaNames` answers from them what stands at a position, where it is defined (in an imported file
too), what is said above its definition, and which edits give it another name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, cached_property
from typing import Final

from nprdsl.grammar.declarations import (
    ConstructKind,
    Declare,
    Definition,
    Expression,
    Import,
    NameUse,
    SourceFile,
    TemplateUse,
    inside,
    is_terminal_name,
)
from nprdsl.grammar.diagnostics import Span
from nprdsl.grammar.namespaces import Linked, Namespace, Namespaces, Referent, package_folder
from nprdsl.grammar.reader import read, read_text
from nprdsl.grammar.tag_shapes import PREFIX

_NAME: Final = re.compile(r"_*[A-Z][A-Z0-9_]*|_*[a-z][a-z0-9_]*")
_RULE, _TERMINAL = "lower case letters, digits, `_`", "upper case letters, digits, `_`"


class RenameError(ValueError):
    """A name that cannot be given, or not here; the message says why, and the way out."""


@dataclass(frozen=True, slots=True)
class NamePlace:
    """One occurrence of a name; `template` is the template whose parameter it is, else empty."""

    name: str
    span: Span
    defines: bool
    template: str = ""


@dataclass(frozen=True, slots=True)
class FoundDefinition:
    """Where a name is defined, the text that defines it, and the comment above it."""

    span: Span
    text: str
    comment: str


class SchemaNames:
    """The names of one file that could be read."""

    def __init__(self, source: SourceFile, imports: Mapping[str, str] | None = None) -> None:
        self.source = source
        self._imports = imports

    @cached_property
    def places(self) -> tuple[NamePlace, ...]:
        """Every occurrence of a name, in the order of the text."""
        return tuple(names_of(self.source))

    @cached_property
    def _namespaces(self) -> Namespaces:
        return Namespaces(self.source, Linked(), self._imports)

    @property
    def _names(self) -> Namespace:
        return self._namespaces.main

    def at(self, line: int, column: int) -> NamePlace | None:
        """The name at a position, or that ends there; both count from 1."""
        for place in self.places:
            span = place.span
            if span.line == line and span.column <= column <= span.end_column:
                return place
        return None

    def everywhere(self, place: NamePlace) -> tuple[NamePlace, ...]:
        """Every occurrence in this file of what stands at a place."""
        what = (place.name, place.template)
        return tuple(other for other in self.places if (other.name, other.template) == what)

    def definition(self, place: NamePlace) -> FoundDefinition | None:
        """What defines the name; None where nothing does."""
        if place.template:
            first = next(other for other in self.everywhere(place) if other.defines)
            return FoundDefinition(first.span, f"a parameter of `{place.template}`", "")
        found = self._namespaces.find(self._names, place.name)
        match found:
            case Referent(namespace=names, definition=definition):
                return _defined(names.source, definition.own_name)
            case ConstructKind():
                return _defined(_constructs(), found)
            case Span():
                return FoundDefinition(found, f"%declare {place.name}", "")
            case None:
                return None

    def known(self) -> dict[str, str]:
        """Every name that may be used in this file, with the kind of thing that it is."""
        kinds: dict[str, str] = {}
        for name, definition in self._names.definitions.items():
            if is_terminal_name(name):
                kinds[name] = "terminal"
            else:
                kinds[name] = "template" if definition.parameters else "rule"
        kinds |= dict.fromkeys(self._names.declared, "terminal typed at load")
        for name, imported in self._names.imports.items():
            construct = imported.path[-1:] == ("parallel",) and name in set(ConstructKind)
            kinds[name] = "construct" if construct else "imported"
        return kinds

    def renamed(self, place: NamePlace, new: str) -> tuple[Span, ...]:
        """The places to put the new name at. Raises RenameError."""
        self._renameable(place)
        terminal = is_terminal_name(place.name)
        if _NAME.fullmatch(new) is None or is_terminal_name(new) != terminal:
            kind, form = ("terminal", _TERMINAL) if terminal else ("rule", _RULE)
            raise RenameError(f"`{new}` is no name of a {kind}: {form}")
        if new.startswith(PREFIX) != place.name.startswith(PREFIX):
            raise RenameError(f"`{PREFIX}…` makes tags of strings: the new name has it as the old")
        scope = {other.name for other in self.places if other.template in ("", place.template)}
        if new != place.name and new in scope | self.known().keys():
            raise RenameError(f"`{new}` is already defined; choose another name")
        return tuple(other.span for other in self.everywhere(place))

    def _renameable(self, place: NamePlace) -> None:
        if place.template:
            return
        if place.name == "start":
            raise RenameError("a schema begins at the rule `start`; it keeps its name")
        imported = self._names.imports.get(place.name)
        if imported is not None and imported.alias == imported.name:
            file = ".".join(imported.path)
            way = f"`%import .{file}.{imported.name} -> name` gives it another one here"
            raise RenameError(f"`{place.name}` is defined in `{file}`; {way}")
        if place.name not in self.known():
            raise RenameError(f"`{place.name}` is not defined")


def names_of(source: SourceFile) -> Iterator[NamePlace]:
    """Every occurrence of a name in a file, definitions first where they stand first."""
    for declaration in source.declarations:
        match declaration:
            case Definition():
                yield NamePlace(declaration.name, _end(declaration.span, declaration.name), True)
                parameters = tuple(_parameters(source, declaration))
                yield from parameters
                names = {place.name for place in parameters}
                for name, span in _uses(declaration.body):
                    template = declaration.name if name in names else ""
                    yield NamePlace(name, span, False, template)
            case Declare():
                yield NamePlace(declaration.name, _end(declaration.span, declaration.name), True)
            case Import():
                yield NamePlace(declaration.alias, _end(declaration.span, declaration.alias), True)
            case _:
                pass


def _uses(expression: Expression) -> Iterator[tuple[str, Span]]:
    for part in inside(expression):
        match part:
            case NameUse():
                yield part.name, _end(part.span, part.name)
            case TemplateUse():
                end = part.span.column + len(part.name)
                yield part.name, replace(part.span, end_line=part.span.line, end_column=end)
                for argument in part.arguments:
                    yield from _uses(argument)
            case _:
                pass


def _parameters(source: SourceFile, template: Definition) -> Iterator[NamePlace]:
    if not template.parameters:
        return
    span = template.span
    line = source.text.split("\n")[span.line - 1]
    end = line.find("}", span.end_column - 1)
    for match in _NAME.finditer(line, span.end_column - 1, end if end >= 0 else len(line)):
        if match[0] in template.parameters:
            place = replace(span, column=match.start() + 1, end_column=match.end() + 1)
            yield NamePlace(match[0], place, True, template.name)


def _end(span: Span, name: str) -> Span:
    """The name at the end of its span, behind modifiers or the words of an import."""
    column = span.end_column - len(name)
    return replace(span, line=span.end_line, column=column)


@cache
def _constructs() -> SourceFile:
    """The file that says what plain Lark sees of each construct."""
    file = package_folder("nprdsl.grammars") / "parallel.lark"
    return read(read_text(file), str(file))


def _defined(source: SourceFile, name: str) -> FoundDefinition:
    definition = next(
        one for one in source.declarations if isinstance(one, Definition) and one.name == name
    )
    lines, first = source.text.split("\n"), definition.span.line - 1
    ends = [part.span.end_line for part in inside(definition.body)]
    text = "\n".join(lines[first : max([*ends, first + 1])])
    above = first
    while above and lines[above - 1].startswith("//"):
        above -= 1
    comment = "\n".join(line.removeprefix("//").strip() for line in lines[above:first])
    return FoundDefinition(_end(definition.span, name), text, comment)
