"""Declarations of a file and of what it imports -> one flat table of definitions, names made unique.

Imports are followed, templates are expanded where they are used, and every name that is left is
defined. The five templates of `parallel` have a meaning of their own and become `Construct`
nodes. Non-goals: what the definitions mean (see `nprdsl.resolve`, `nprdsl.patterns`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path

from nprdsl import reader
from nprdsl.diagnostics import Diagnostic, DiagnosticCode, SchemaError, Span, did_you_mean
from nprdsl.reader import (
    Choice,
    Construct,
    ConstructKind,
    Definition,
    Expression,
    Import,
    NameUse,
    Repetition,
    Sequence,
    Source,
    TemplateUse,
    is_terminal_name,
)

ARITY: Mapping[ConstructKind, tuple[str, ...]] = {
    ConstructKind.MAP: ("list",),
    ConstructKind.PROCESS: ("item", "branch"),
    ConstructKind.SPAWN: ("branch",),
    ConstructKind.REDUCE: ("element",),
    ConstructKind.REREAD: ("element",),
}


@dataclass(slots=True)
class Linked:
    """`rules` and `terminals` by unique name, in the order in which they were met."""

    rules: dict[str, Definition] = field(default_factory=dict)
    terminals: dict[str, Definition] = field(default_factory=dict)
    declared: dict[str, Span] = field(default_factory=dict)
    sources: list[Source] = field(default_factory=list)
    used: set[str] = field(default_factory=set)  # names of the schema itself that something uses
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
class _Scope:
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
class _Found:
    """What a name stands for: a definition in its scope, or a construct."""

    scope: _Scope
    definition: Definition


Environment = Mapping[str, Expression]


def link(source: Source) -> Linked:
    """Link the schema `source`; faults are collected in the result."""
    return _Linker(source).run()


@lru_cache(maxsize=64)
def _read(text: str, file: str) -> Source:
    return reader.read(text, file)


class _Linker:
    def __init__(self, source: Source) -> None:
        self.result = Linked()
        self.scopes: dict[str, _Scope] = {}
        self.names: dict[tuple[str, str], str] = {}
        self.queue: list[tuple[_Scope, Definition]] = []
        self.active: list[tuple[str, str]] = []
        self.main = self._scope(source, stem="")

    def run(self) -> Linked:
        for name, imported in self.main.imports.items():
            if (found := self._imported(self.main, imported)) and isinstance(found, _Found):
                self.names.setdefault((found.scope.source.file, found.definition.name), name)
        for definition in self.main.definitions.values():
            if not definition.parameters:
                self._enqueue(self.main, definition)
        while self.queue:
            self._link(*self.queue.pop(0))
        return self.result

    # -- files ------------------------------------------------------------------------------

    def _scope(self, source: Source, *, stem: str) -> _Scope:
        definitions: dict[str, Definition] = {}
        declared: dict[str, Span] = {}
        imports: dict[str, Import] = {}
        places: dict[str, Span] = {}
        for declaration in source.declarations:
            if isinstance(declaration, reader.Directive):
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
                case reader.Declare():
                    declared[name] = declaration.span
                case Import():
                    imports[name] = declaration
        scope = _Scope(source, stem, Path(source.file).parent, definitions, declared, imports)
        self.scopes[source.file] = scope
        self.result.sources.append(source)
        if not stem:
            self.result.declared.update(declared)
        return scope

    def _refuse_directive(self, directive: reader.Directive) -> None:
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

    def _open(self, scope: _Scope, imported: Import) -> _Scope | None:
        """The scope of the file that `imported` names; None after a diagnostic."""
        path = Path(*imported.path).with_suffix(".lark")
        places = [scope.folder / path]
        for package in ("nprdsl.grammars", "lark.grammars"):
            if not imported.relative or scope is not self.main or package == "nprdsl.grammars":
                places.append(_package_folder(package) / path)
        for place in places:
            if str(place) in self.scopes:
                return self.scopes[str(place)]
            if place.is_file():
                return self._load(place, imported)
        self._not_found(imported, path, places)
        return None

    def _load(self, place: Path, imported: Import) -> _Scope | None:
        try:
            source = _read(place.read_text(encoding="utf-8"), str(place))
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

    # -- names ------------------------------------------------------------------------------

    def _find(self, scope: _Scope, name: str) -> _Found | ConstructKind | Span | None:
        """What `name` stands for in `scope`; a `Span` is the place of a `%declare`."""
        if scope is self.main:
            self.result.used.add(name)
        if name in scope.definitions:
            return _Found(scope, scope.definitions[name])
        if name in scope.declared:
            self.result.declared.setdefault(name, scope.declared[name])
            return scope.declared[name]
        if name in scope.imports:
            return self._imported(scope, scope.imports[name])
        return None

    def _imported(self, scope: _Scope, imported: Import) -> _Found | ConstructKind | Span | None:
        if imported.path[-1:] == ("parallel",) and imported.name in set(ConstructKind):
            return ConstructKind(imported.name)
        target = self._open(scope, imported)
        if target is None:
            return None
        found = self._find(target, imported.name)
        if found is None:
            terminal = is_terminal_name(imported.name)
            known = target.known(terminal=terminal)
            code = DiagnosticCode.UNDEFINED_TERMINAL if terminal else DiagnosticCode.UNDEFINED_RULE
            file = Path(target.source.file).name
            message = f"`{file}` has no `{imported.name}`"
            self.result.report(code, imported.span, message, did_you_mean(imported.name, known))
        return found

    def _enqueue(self, scope: _Scope, definition: Definition) -> str:
        """The unique name of `definition`, whose body is linked later."""
        key = (scope.source.file, definition.name)
        name = self.names.setdefault(key, self._unique(scope, definition.name))
        table = self._table(name)
        if name not in table:
            table[name] = replace(definition, name=name)
            self.queue.append((scope, definition))
        return name

    def _table(self, name: str) -> dict[str, Definition]:
        return self.result.terminals if is_terminal_name(name) else self.result.rules

    def _unique(self, scope: _Scope, name: str) -> str:
        """Lark's own way: `stem__name`, an underscore in front stays in front."""
        if not scope.stem:
            return name
        glue = "_" if name.startswith("_") else ""
        stem = scope.stem.upper() if is_terminal_name(name) else scope.stem.lower()
        unique = f"{glue}{stem}__{name.removeprefix('_')}"
        while unique in self.names.values():
            unique += "_"
        return unique

    # -- bodies -----------------------------------------------------------------------------

    def _link(self, scope: _Scope, definition: Definition) -> None:
        name = self.names[scope.source.file, definition.name]
        if definition.priority is not None:
            self.result.report(
                DiagnosticCode.UNSUPPORTED,
                definition.priority,
                "priorities have no meaning here: the next tag decides every choice",
                "remove the priority",
            )
        if definition.parameters and is_terminal_name(definition.name):
            message = f"`{definition.name}` is a template of a terminal"
            way = "write the terminal out"
            self.result.report(DiagnosticCode.UNSUPPORTED, definition.span, message, way)
            return
        body = self._expand(definition.body, scope, {}, in_terminal=is_terminal_name(name))
        self._table(name)[name] = replace(definition, name=name, body=body)

    def _expand(
        self, node: Expression, scope: _Scope, env: Environment, *, in_terminal: bool
    ) -> Expression:
        def inner(part: Expression) -> Expression:
            return self._expand(part, scope, env, in_terminal=in_terminal)

        match node:
            case NameUse():
                return self._use(node, scope, env, in_terminal=in_terminal)
            case TemplateUse():
                arguments = tuple(inner(a) for a in node.arguments)
                return self._template(node, arguments, scope)
            case Sequence():
                return replace(node, items=tuple(inner(i) for i in node.items))
            case Choice():
                return replace(node, options=tuple(inner(o) for o in node.options))
            case Repetition():
                return replace(node, node=inner(node.node))
            case _:
                return node

    def _use(
        self, use: NameUse, scope: _Scope, env: Environment, *, in_terminal: bool
    ) -> Expression:
        if use.name in env:
            return env[use.name]
        if in_terminal and not use.is_terminal:
            self.result.report(
                DiagnosticCode.UNDEFINED_TERMINAL,
                use.span,
                f"a terminal cannot use the rule `{use.name}`",
                "use terminals only, or make this a rule",
            )
            return use
        found = self._find(scope, use.name)
        match found:
            case _Found() if found.definition.parameters and not use.is_terminal:
                names = ", ".join(found.definition.parameters)
                self._arguments(use.span, use.name, f"{use.name}{{{names}}}")
            case _Found():
                return replace(use, name=self._enqueue(found.scope, found.definition))
            case ConstructKind():
                self._arguments(use.span, use.name, _usage(found))
            case None if use.name not in scope.imports:
                self._undefined(use, scope)
            case _:
                pass
        return use

    def _undefined(self, use: NameUse | TemplateUse, scope: _Scope) -> None:
        terminal = is_terminal_name(use.name)
        code = DiagnosticCode.UNDEFINED_TERMINAL if terminal else DiagnosticCode.UNDEFINED_RULE
        kind = "terminal" if terminal else "rule"
        hint = did_you_mean(use.name, scope.known(terminal=terminal))
        if use.name in set(ConstructKind) and isinstance(use, TemplateUse):
            kind, hint = "template", f"add `%import .parallel ({use.name})`"
        elif not hint and terminal:
            hint = (
                f"define it, or `%declare {use.name}` for a value typed when the schema is loaded"
            )
        message = f"the {kind} `{use.name}` is not defined"
        self.result.report(code, use.span, message, hint or f"add a line `{use.name}: …`")

    def _arguments(self, span: Span, name: str, usage: str) -> None:
        message = f"`{name}` is a template and needs its arguments"
        code = DiagnosticCode.TEMPLATE_ARGUMENTS
        self.result.report(code, span, message, f"write `{usage}`")

    def _template(
        self, use: TemplateUse, arguments: tuple[Expression, ...], scope: _Scope
    ) -> Expression:
        found = self._find(scope, use.name)
        match found:
            case ConstructKind():
                return self._construct(found, use, arguments)
            case _Found() if found.definition.parameters:
                return self._expansion(found, use, arguments)
            case _Found() | Span():
                message = f"`{use.name}` is not a template"
                code, way = DiagnosticCode.TEMPLATE_ARGUMENTS, f"write `{use.name}` alone"
                self.result.report(code, use.span, message, way)
            case None if use.name not in scope.imports:
                self._undefined(use, scope)
            case None:
                pass
        return Sequence((), use.span)

    def _construct(
        self, kind: ConstructKind, use: TemplateUse, arguments: tuple[Expression, ...]
    ) -> Expression:
        if len(arguments) != len(ARITY[kind]):
            self._count(use, len(ARITY[kind]), _usage(kind))
            return Sequence((), use.span)
        return Construct(kind, arguments, use.span)

    def _count(self, use: TemplateUse, wanted: int, usage: str) -> None:
        plural = "" if wanted == 1 else "s"
        message = f"`{use.name}` takes {wanted} argument{plural}, not {len(use.arguments)}"
        code = DiagnosticCode.TEMPLATE_ARGUMENTS
        self.result.report(code, use.span, message, f"write `{usage}`")

    def _expansion(
        self, found: _Found, use: TemplateUse, arguments: tuple[Expression, ...]
    ) -> Expression:
        definition = found.definition
        key = (found.scope.source.file, definition.name)
        if len(arguments) != len(definition.parameters):
            usage = f"{use.name}{{{', '.join(definition.parameters)}}}"
            self._count(use, len(definition.parameters), usage)
        elif key in self.active:
            message = f"the template `{definition.name}` uses itself"
            way = "write the recursion as rules without arguments"
            self.result.report(DiagnosticCode.UNSUPPORTED, use.span, message, way)
        else:
            self.active.append(key)
            env = dict(zip(definition.parameters, arguments, strict=True))
            body = self._expand(definition.body, found.scope, env, in_terminal=False)
            self.active.pop()
            return body
        return Sequence((), use.span)


def _usage(kind: ConstructKind) -> str:
    return f"{kind}{{{', '.join(ARITY[kind])}}}"


@lru_cache(maxsize=4)
def _package_folder(package: str) -> Path:
    parent, _, name = package.rpartition(".")
    return Path(str(resources.files(parent) / name))


def walk(node: Expression) -> Iterator[Expression]:
    """`node` and everything inside it, in order."""
    yield node
    match node:
        case Sequence():
            parts: tuple[Expression, ...] = node.items
        case Choice():
            parts = node.options
        case Repetition():
            parts = (node.node,)
        case Construct():
            parts = node.arguments
        case _:
            parts = ()
    for part in parts:
        yield from walk(part)
