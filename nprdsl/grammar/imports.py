"""The files of a schema and the names in each: imports are found, opened and looked up here.

Beside the schema's own folder, imports are searched among the grammars that are shipped and, for
terminals such as `common.INT`, among Lark's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources
from pathlib import Path

from nprdsl.grammar.declarations import (
    ConstructKind,
    Declare,
    Definition,
    Directive,
    Import,
    Source,
    is_terminal_name,
)
from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, SchemaError, Span, did_you_mean
from nprdsl.grammar.reader import read


@dataclass(slots=True)
class Linked:
    """`rules` and `terminals` by unique name, in the order in which they were met."""

    rules: dict[str, Definition] = field(default_factory=dict)
    terminals: dict[str, Definition] = field(default_factory=dict)
    declared: dict[str, Span] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    used: set[str] = field(default_factory=set)  # names of the schema itself that something uses
    lost: set[str] = field(default_factory=set)  # rules named in uses that were refused
    diagnostics: dict[Diagnostic, None] = field(default_factory=dict)

    def report(
        self,
        code: DiagnosticCode,
        span: Span,
        message: str,
        suggestion: str = "",
        related: tuple[tuple[Span, str], ...] = (),
    ) -> None:
        """A template that is expanded twice reports its faults once."""
        self.diagnostics[Diagnostic(code, span, message, suggestion, related)] = None


@dataclass(frozen=True, eq=False, slots=True)
class Scope:
    """The names of one file."""

    source: Source
    stem: str  # empty for the schema itself
    folder: Path
    definitions: Mapping[str, Definition]
    declared: Mapping[str, Span]
    imports: Mapping[str, Import]

    def known(self, *, terminal: bool) -> list[str]:
        names = [*self.definitions, *self.declared, *self.imports]
        return [n for n in names if is_terminal_name(n) == terminal]


@dataclass(frozen=True, slots=True)
class Found:
    """What a name stands for: a definition in its scope, or a construct."""

    scope: Scope
    definition: Definition


class Scopes:
    """All files that are open, by path; `main` is the schema itself."""

    def __init__(self, source: Source, result: Linked) -> None:
        self.result = result
        self.scopes: dict[str, Scope] = {}
        self.main = self._scope(source, stem="")

    def _scope(self, source: Source, *, stem: str) -> Scope:
        definitions: dict[str, Definition] = {}
        declared: dict[str, Span] = {}
        imports: dict[str, Import] = {}
        places: dict[str, Span] = {}
        for declaration in source.declarations:
            if isinstance(declaration, Directive):
                if not stem:
                    self._refuse_directive(declaration)
                continue
            name = declaration.alias if isinstance(declaration, Import) else declaration.name
            if name in places:
                self._duplicate(name, declaration.span, places[name])
                continue
            places[name] = declaration.span
            match declaration:
                case Definition():
                    definitions[name] = declaration
                case Declare():
                    declared[name] = declaration.span
                case Import():
                    imports[name] = declaration
        scope = Scope(source, stem, Path(source.file).parent, definitions, declared, imports)
        self.scopes[source.file] = scope
        self.result.sources.append(source)
        if not stem:
            self.result.declared.update(declared)
        return scope

    def _refuse_directive(self, directive: Directive) -> None:
        ways = {
            "%ignore": "write the white space where it may stand, as glue: `_NL`",
            "%override": "define the rule under a name of its own",
            "%extend": "define the rule under a name of its own",
        }
        message = f"`{directive.keyword}` has no meaning in a schema"
        way = ways[directive.keyword]
        self.result.report(DiagnosticCode.UNSUPPORTED, directive.span, message, way)

    def _duplicate(self, name: str, span: Span, first: Span) -> None:
        self.result.report(
            DiagnosticCode.DUPLICATE_NAME,
            span,
            f"`{name}` is already defined on line {first.line}",
            "give one of the two another name",
            ((first, f"`{name}` is first defined here"),),
        )

    def _open(self, scope: Scope, imported: Import) -> Scope | None:
        """The scope of the file that `imported` names; None after a diagnostic."""
        if not imported.path:
            message = "an import names a file and what it takes from it"
            way = f"write `%import {imported.name} (name, name)`"
            self.result.report(DiagnosticCode.IMPORT_NOT_FOUND, imported.span, message, way)
            return None
        path = Path(*imported.path).with_suffix(".lark")
        places = [scope.folder / path]
        for package in ("nprdsl.grammars", "lark.grammars"):
            if package == "nprdsl.grammars" or not imported.relative:
                places.append(_package_folder(package) / path)
        for place in places:
            if str(place) in self.scopes:
                return self.scopes[str(place)]
            if place.is_file():
                return self._load(place, imported)
        self._not_found(imported, path, places)
        return None

    def _load(self, place: Path, imported: Import) -> Scope | None:
        try:
            source = _read_cached(place.read_text(encoding="utf-8"), str(place))
        except SchemaError as error:
            self.result.diagnostics.update(dict.fromkeys(error.diagnostics))
            return None
        except (OSError, UnicodeDecodeError) as error:
            message = f"`{place.name}` cannot be read: {error}"
            self.result.report(DiagnosticCode.IMPORT_NOT_FOUND, imported.span, message)
            return None
        return self._scope(source, stem=place.stem)

    def _not_found(self, imported: Import, path: Path, places: list[Path]) -> None:
        near = {f.stem for p in places if p.parent.is_dir() for f in p.parent.glob("*.lark")}
        hint = did_you_mean(path.stem, sorted(near | {"parallel", "common"}))
        self.result.report(
            DiagnosticCode.IMPORT_NOT_FOUND,
            imported.span,
            f"no file `{path}` beside the schema or among the grammars that are shipped",
            hint or f"put `{path}` beside the schema",
        )

    def find(self, scope: Scope, name: str) -> Found | ConstructKind | Span | None:
        """What `name` stands for in `scope`; a `Span` is the place of a `%declare`."""
        if scope is self.main:
            self.result.used.add(name)
        if name in scope.definitions:
            return Found(scope, scope.definitions[name])
        if name in scope.declared:
            self.result.declared.setdefault(name, scope.declared[name])
            return scope.declared[name]
        if name in scope.imports:
            return self.imported(scope, scope.imports[name])
        return None

    def imported(self, scope: Scope, imported: Import) -> Found | ConstructKind | Span | None:
        if imported.path[-1:] == ("parallel",) and imported.name in set(ConstructKind):
            return ConstructKind(imported.name)
        target = self._open(scope, imported)
        if target is None:
            return None
        found = self.find(target, imported.name)
        if found is None:
            terminal = is_terminal_name(imported.name)
            known = target.known(terminal=terminal)
            code = DiagnosticCode.UNDEFINED_TERMINAL if terminal else DiagnosticCode.UNDEFINED_RULE
            file = Path(target.source.file).name
            message = f"`{file}` has no `{imported.name}`"
            way = did_you_mean(imported.name, known) or f"`{file}` has " + ", ".join(known)
            self.result.report(code, imported.span, message, way)
        return found


@lru_cache(maxsize=64)
def _read_cached(text: str, file: str) -> Source:
    return read(text, file)


@lru_cache(maxsize=4)
def _package_folder(package: str) -> Path:
    parent, _, name = package.rpartition(".")
    return Path(str(resources.files(parent) / name))
