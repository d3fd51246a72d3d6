"""Declarations of a file and of what it imports -> one flat table with unique names.

Imports are followed, templates are expanded where they are used, and every name that is left is
defined. The five templates of `parallel` have a meaning of their own and become `Construct`
nodes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from nprdsl.grammar.declarations import (
    Choice,
    Construct,
    ConstructKind,
    Definition,
    Expression,
    NameUse,
    Repetition,
    Sequence,
    Source,
    TemplateUse,
    is_terminal_name,
)
from nprdsl.grammar.diagnostics import DiagnosticCode, Span, did_you_mean
from nprdsl.grammar.imports import Found, Linked, Scope, Scopes

ARITY: Mapping[ConstructKind, tuple[str, ...]] = {
    ConstructKind.MAP: ("list",),
    ConstructKind.PROCESS: ("item", "branch"),
    ConstructKind.SPAWN: ("branch",),
    ConstructKind.REDUCE: ("element",),
    ConstructKind.REREAD: ("element",),
}


Environment = Mapping[str, Expression]


def link(source: Source) -> Linked:
    """Link the schema `source`; faults are collected in the result."""
    return _Linker(source).run()


class _Linker:
    def __init__(self, source: Source) -> None:
        self.result = Linked()
        self.names: dict[tuple[str, str], str] = {}
        self.queue: list[tuple[Scope, Definition]] = []
        self.active: list[tuple[str, str]] = []
        self.scopes = Scopes(source, self.result)

    def run(self) -> Linked:
        for name, imported in self.scopes.main.imports.items():
            if (found := self.scopes.imported(self.scopes.main, imported)) and isinstance(
                found, Found
            ):
                self.names.setdefault((found.scope.source.file, found.definition.name), name)
        for definition in self.scopes.main.definitions.values():
            if not definition.parameters or is_terminal_name(definition.name):
                self._enqueue(self.scopes.main, definition)
        while self.queue:
            self._link(*self.queue.pop(0))
        return self.result

    def _enqueue(self, scope: Scope, definition: Definition) -> str:
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

    def _unique(self, scope: Scope, name: str) -> str:
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

    def _link(self, scope: Scope, definition: Definition) -> None:
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
        self, node: Expression, scope: Scope, env: Environment, *, in_terminal: bool
    ) -> Expression:
        def inner(part: Expression) -> Expression:
            return self._expand(part, scope, env, in_terminal=in_terminal)

        match node:
            case NameUse():
                return self._use(node, scope, env, in_terminal=in_terminal)
            case TemplateUse() if in_terminal:
                message, way = (
                    "a terminal cannot use a template",
                    "write it out, or make this a rule",
                )
                self.result.report(DiagnosticCode.UNSUPPORTED, node.span, message, way)
                self.scopes.find(scope, node.name)
                return Sequence(tuple(inner(a) for a in node.arguments), node.span)
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
        self, use: NameUse, scope: Scope, env: Environment, *, in_terminal: bool
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
        found = self.scopes.find(scope, use.name)
        match found:
            case Found() if found.definition.parameters and not use.is_terminal:
                names = ", ".join(found.definition.parameters)
                self._arguments(use.span, use.name, f"{use.name}{{{names}}}")
            case Found():
                return replace(use, name=self._enqueue(found.scope, found.definition))
            case ConstructKind():
                self._arguments(use.span, use.name, _usage(found))
            case None if use.name not in scope.imports:
                self._undefined(use, scope)
            case _:
                pass
        return use

    def _undefined(self, use: NameUse | TemplateUse, scope: Scope) -> None:
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
        self, use: TemplateUse, arguments: tuple[Expression, ...], scope: Scope
    ) -> Expression:
        found = self.scopes.find(scope, use.name)
        match found:
            case ConstructKind():
                return self._construct(found, use, arguments)
            case Found() if found.definition.parameters and not is_terminal_name(use.name):
                return self._expansion(found, use, arguments)
            case Found() | Span():
                message = f"`{use.name}` is not a template"
                code, way = DiagnosticCode.TEMPLATE_ARGUMENTS, f"write `{use.name}` alone"
                self.result.report(code, use.span, message, way)
            case None if use.name not in scope.imports:
                self._undefined(use, scope)
            case None:
                pass
        return self._refused(use, arguments)

    def _construct(
        self, kind: ConstructKind, use: TemplateUse, arguments: tuple[Expression, ...]
    ) -> Expression:
        if len(arguments) != len(ARITY[kind]):
            self._count(use, len(ARITY[kind]), _usage(kind))
            return self._refused(use, arguments)
        return Construct(kind, arguments, use.span)

    def _count(self, use: TemplateUse, wanted: int, usage: str) -> None:
        plural = "" if wanted == 1 else "s"
        message = f"`{use.name}` takes {wanted} argument{plural}, not {len(use.arguments)}"
        code = DiagnosticCode.TEMPLATE_ARGUMENTS
        self.result.report(code, use.span, message, f"write `{usage}`")

    def _expansion(
        self, found: Found, use: TemplateUse, arguments: tuple[Expression, ...]
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
        return self._refused(use, arguments)

    def _refused(self, use: TemplateUse, arguments: tuple[Expression, ...]) -> Expression:
        """An empty sequence; the rules that the arguments name count as used."""
        parts = (part for argument in arguments for part in walk(argument))
        self.result.lost |= {part.name for part in parts if isinstance(part, NameUse)}
        return Sequence((), use.span)


def _usage(kind: ConstructKind) -> str:
    return f"{kind}{{{', '.join(ARITY[kind])}}}"


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
