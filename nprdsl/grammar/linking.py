"""The declarations of a schema and of its imports, joined into one table of rules and terminals.

Imports are followed and every name is made unique (`common.INT` becomes `COMMON__INT`, as in Lark).
Templates are applied where they are used, so that none are left. The five of `parallel.lark` say
what runs in parallel; they become `Construct` values. Every name that is left is defined, or a
diagnostic says that it is not.

What a definition of the schema itself came to is kept for the next reading, which takes it where
the definition is the same one and every name in it means the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from nprdsl.grammar import load_limits
from nprdsl.grammar.declarations import (
    Alternatives,
    Construct,
    ConstructKind,
    Definition,
    Expansion,
    Expression,
    NameUse,
    Repetition,
    SourceFile,
    TemplateUse,
    inside,
    is_terminal_name,
    parts_of,
)
from nprdsl.grammar.diagnostics import DiagnosticCode, Fix, Span, nearest
from nprdsl.grammar.fixes import first_line, last_line, respelt
from nprdsl.grammar.load_limits import too_large
from nprdsl.grammar.namespaces import Linked, Namespace, Namespaces, Referent

_PARAMETERS: Mapping[str, tuple[str, ...]] = {
    ConstructKind.MAP: ("list",),
    ConstructKind.PROCESS: ("item", "branch"),
    ConstructKind.SPAWN: ("branch",),
    ConstructKind.REDUCE: ("element",),
    ConstructKind.REREAD: ("element",),
}
Arguments = Mapping[str, Expression]  # of the template that is being applied, by parameter


_LESS = "write repetitions as `x~2..5`, and what occurs several times as a rule, not as a template"


class _Size(NamedTuple):
    """Of an expanded expression: how many parts it has, and how deep they stand; kept with it, so
    that its id is its own."""

    expression: Expression
    parts: int
    depth: int


@dataclass(frozen=True, slots=True)
class _LinkedBefore:
    """A definition without a fault that applies no template of its schema, what each name in it
    meant, and what it came to."""

    definition: Definition
    meanings: tuple[tuple[str, str], ...]
    linked: Definition
    size: _Size


@dataclass(slots=True)
class KeptLinks:
    """What the last reading linked, by the id of the definition that is kept with it."""

    by_id: dict[int, _LinkedBefore] = field(default_factory=dict)


def link(
    source: SourceFile, imports: Mapping[str, str] | None = None, kept: KeptLinks | None = None
) -> Linked:
    """Link the schema `source`; faults are collected in the result. `imports` are the texts of the
    files beside it, by their paths from there; None where they are on disk. What is `kept` is
    used, and replaced."""
    return _Linker(source, imports, KeptLinks() if kept is None else kept).run()


class _Linker:
    def __init__(
        self, source: SourceFile, imports: Mapping[str, str] | None, kept: KeptLinks
    ) -> None:
        self.kept = kept
        self.links: dict[int, _LinkedBefore] = {}  # to be kept
        self.known: dict[str, str] = {}  # what names of the schema itself mean
        self.met: list[tuple[str, str]] = []  # meanings of names in the definition that is linked
        self.result = Linked()
        self.names: dict[tuple[str, str], str] = {}  # (file, name there) -> unique name
        self.taken: set[str] = set()  # unique names
        self.queue: deque[tuple[Namespace, Definition]] = deque()
        self.applied: list[tuple[str, str]] = []  # templates that are being applied
        self.depth = 0  # of the expression that is being expanded
        self.sizes: dict[int, _Size] = {}  # by the id of an expanded expression
        self.parts = 0  # of all bodies
        self.namespaces = Namespaces(source, self.result, imports)

    def run(self) -> Linked:
        main = self.namespaces.main
        for name, imported in main.imports.items():
            referent = self.namespaces.imported(main, imported)
            if isinstance(referent, Referent):
                self.taken.add(self.names.setdefault(_key(referent), name))
        for definition in main.definitions.values():
            if not definition.parameters or is_terminal_name(definition.name):
                self._enqueue(Referent(main, definition))
        while self.queue:
            namespace, definition = self.queue.popleft()
            before = self.kept.by_id.get(id(definition)) if namespace is main else None
            if before is None or not self._take(before):
                self._link(namespace, definition)
        self.kept.by_id = self.links
        return self.result

    def _enqueue(self, referent: Referent) -> str:
        """The unique name of a definition, whose body is linked later."""
        namespace, definition = referent.namespace, referent.definition
        name = self.names.get(_key(referent)) or self._unique(namespace, definition.name)
        self.names[_key(referent)] = name
        self.taken.add(name)
        table = self._table(name)
        if name not in table:
            table[name] = _named(definition, name)
            self.queue.append((namespace, definition))
        return name

    def _table(self, name: str) -> dict[str, Definition]:
        return self.result.terminals if is_terminal_name(name) else self.result.rules

    def _unique(self, namespace: Namespace, name: str) -> str:
        """Lark's own way: `stem__name`, an underscore in front stays in front."""
        if not namespace.stem:
            return name
        glue = "_" if name.startswith("_") else ""
        stem = namespace.stem.upper() if is_terminal_name(name) else namespace.stem.lower()
        unique = f"{glue}{stem}__{name.removeprefix('_')}"
        while unique in self.taken:
            unique += "_"
        return unique

    # -- what is kept -----------------------------------------------------------------------

    def _take(self, before: _LinkedBefore) -> bool:
        """Take what was linked before, if all that it says still means the same."""
        definition, linked = before.definition, before.linked
        if self.names[self.namespaces.main.source.file, definition.name] != linked.name:
            return False
        if any(self._meaning(name) != meaning for name, meaning in before.meanings):
            return False
        self.links[id(definition)] = before
        self._put(linked, before.size)
        return True

    def _keep(self, definition: Definition, linked: Definition) -> None:
        """Keep what was linked without a fault, if all names in it have a meaning."""
        meanings = tuple(dict.fromkeys(self.met))
        if all(meaning for _, meaning in meanings):
            size = self.sizes[id(linked.body)]
            self.links[id(definition)] = _LinkedBefore(definition, meanings, linked, size)

    def _meaning(self, name: str) -> str:
        """What a name of the schema itself stands for: a definition, by its unique name, a
        declared terminal, a construct; empty for a template and for nothing."""
        if name not in self.known:
            match self.namespaces.find(self.namespaces.main, name):
                case Referent(definition=definition) as found if not definition.parameters:
                    self.known[name] = self._enqueue(found)
                case ConstructKind() as kind:
                    self.known[name] = f"{kind}{{}}"
                case Span():
                    self.known[name] = "%declare"
                case _:
                    self.known[name] = ""
        return self.known[name]

    def _meet(self, name: str, namespace: Namespace) -> None:
        if namespace is self.namespaces.main:
            self.met.append((name, self._meaning(name)))

    def _put(self, linked: Definition, size: _Size) -> None:
        self._table(linked.name)[linked.name] = linked
        self.sizes[id(linked.body)] = size
        self.parts += size.parts
        if self.parts > load_limits.PARTS:
            what = f"the rules have {self.parts:,} parts"
            self.result.add(too_large(linked.span, what, load_limits.PARTS, _LESS))

    # -- bodies -----------------------------------------------------------------------------

    def _link(self, namespace: Namespace, definition: Definition) -> None:
        name = self.names[namespace.source.file, definition.name]
        faults, self.met = len(self.result.diagnostics), []
        if definition.priority is not None:
            self.result.unsupported(
                definition.priority,
                "priorities have no meaning here: the next tag decides every choice",
                "remove the priority",
                Fix(definition.priority, ""),
            )
        if definition.parameters and is_terminal_name(definition.name):
            message = f"`{definition.name}` is a template of a terminal"
            self.result.unsupported(definition.span, message, "write the terminal out")
            return
        body = self._expand(definition.body, namespace, {}, in_terminal=is_terminal_name(name))
        linked = replace(_named(definition, name), body=body)
        self._put(linked, self.sizes[id(body)])
        if namespace is self.namespaces.main and len(self.result.diagnostics) == faults:
            self._keep(definition, linked)

    def _expand(
        self, node: Expression, namespace: Namespace, arguments: Arguments, *, in_terminal: bool
    ) -> Expression:
        """`node` with names made unique and templates applied, of a size that is allowed."""
        self.depth += 1
        if self.depth > load_limits.DEPTH:
            self._too_deep(node.span, self.depth)
        expanded = self._expanded(node, namespace, arguments, in_terminal=in_terminal)
        self.depth -= 1
        if id(expanded) not in self.sizes:
            parts = depth = 1
            for part in parts_of(expanded):
                _, inner, below = self.sizes[id(part)]
                parts, depth = parts + inner, max(depth, below + 1)
            self.sizes[id(expanded)] = _Size(expanded, parts, depth)
            if depth > load_limits.DEPTH:
                self._too_deep(node.span, depth)
            if parts > load_limits.PARTS:
                what = f"this has {parts:,} parts, templates expanded"
                self.result.add(too_large(node.span, what, load_limits.PARTS, _LESS))
        return expanded

    def _too_deep(self, span: Span, depth: int) -> None:
        what = f"parts stand {depth} deep inside one another, templates expanded"
        way = "give what stands inside a rule of its own"
        self.result.add(too_large(span, what, load_limits.DEPTH, way))

    def _expanded(
        self, node: Expression, namespace: Namespace, arguments: Arguments, *, in_terminal: bool
    ) -> Expression:
        def inner(*parts: Expression) -> tuple[Expression, ...]:
            return tuple(
                [
                    self._expand(part, namespace, arguments, in_terminal=in_terminal)
                    for part in parts
                ]
            )

        match node:
            case NameUse():
                return self._use(node, namespace, arguments, in_terminal=in_terminal)
            case TemplateUse() if in_terminal:
                message = "a terminal cannot use a template"
                way = "write it out, or make this a rule"
                self.result.unsupported(node.span, message, way)
                self.namespaces.find(namespace, node.name)
                return Expansion(inner(*node.arguments), node.span)
            case TemplateUse():
                return self._template(node, inner(*node.arguments), namespace)
            case Expansion():
                return Expansion(inner(*node.items), node.span)
            case Alternatives():
                return Alternatives(inner(*node.options), node.span)
            case Repetition():
                return Repetition(inner(node.node)[0], node.low, node.high, node.span)
            case _:
                return node

    def _use(
        self, use: NameUse, namespace: Namespace, arguments: Arguments, *, in_terminal: bool
    ) -> Expression:
        if use.name in arguments:
            return arguments[use.name]
        if in_terminal and not use.is_terminal:
            self.result.report(
                DiagnosticCode.UNDEFINED_TERMINAL,
                use.span,
                f"a terminal cannot use the rule `{use.name}`",
                "use terminals only, or make this a rule",
            )
            return use
        self._meet(use.name, namespace)
        match self.namespaces.find(namespace, use.name):
            case Referent(definition=definition) if definition.parameters and not use.is_terminal:
                self._bare_template(use, _usage(use.name, definition.parameters))
            case Referent() as referent:
                name = self._enqueue(referent)
                return use if name == use.name else NameUse(name, use.span)
            case ConstructKind() as kind:
                self._bare_template(use, _usage(kind, _PARAMETERS[kind]))
            case None if use.name not in namespace.imports:
                self._undefined(use, namespace)
            case _:
                pass
        return use

    def _undefined(self, use: NameUse | TemplateUse, namespace: Namespace) -> None:
        terminal = is_terminal_name(use.name)
        code = DiagnosticCode.UNDEFINED_TERMINAL if terminal else DiagnosticCode.UNDEFINED_RULE
        kind = "terminal" if terminal else "rule"
        hint, fix = f"add a line `{use.name}: …`", None
        if use.name in set(ConstructKind) and isinstance(use, TemplateUse):
            line = f"%import .parallel ({use.name})"
            kind, hint, fix = "template", f"add `{line}`", first_line(use.span.file, line)
        elif near := nearest(use.name, namespace.known(terminal=terminal)):
            hint, fix = f"did you mean `{near}`?", respelt(use.span, use.name, near)
        elif terminal:
            line = f"%declare {use.name}"
            hint = f"define it, or `{line}` for a value typed when the schema is loaded"
            fix = last_line(namespace.source, line)
        message = f"the {kind} `{use.name}` is not defined"
        self.result.report(code, use.span, message, hint, fix=fix)

    # -- templates --------------------------------------------------------------------------

    def _template(
        self, use: TemplateUse, arguments: tuple[Expression, ...], namespace: Namespace
    ) -> Expression:
        self._meet(use.name, namespace)
        referent = self.namespaces.find(namespace, use.name)
        match referent:
            case ConstructKind():
                if self._fits(use, _PARAMETERS[referent], str(referent)):
                    return Construct(referent, arguments, use.span)
            case Referent(definition=d) if d.parameters and not is_terminal_name(use.name):
                if self._fits(use, d.parameters, use.name) and self._ends(referent, use):
                    return self._applied(referent, arguments)
            case Referent() | Span():
                self._misused(use, f"`{use.name}` is not a template", f"`{use.name}` alone")
            case None if use.name not in namespace.imports:
                self._undefined(use, namespace)
            case None:
                pass
        # refused: nothing stands here, and the rules that the arguments name count as used
        parts = (part for argument in arguments for part in inside(argument))
        self.result.lost |= {part.name for part in parts if isinstance(part, NameUse)}
        return Expansion((), use.span)

    def _fits(self, use: TemplateUse, parameters: tuple[str, ...], name: str) -> bool:
        """Whether the template has as many parameters as it is given arguments."""
        count = len(parameters)
        if len(use.arguments) == count:
            return True
        plural = "" if count == 1 else "s"
        message = f"`{use.name}` takes {count} argument{plural}, not {len(use.arguments)}"
        self._misused(use, message, _usage(name, parameters))
        return False

    def _ends(self, template: Referent, use: TemplateUse) -> bool:
        """Whether the template does not use itself."""
        if _key(template) not in self.applied:
            return True
        message = f"the template `{template.definition.name}` uses itself"
        self.result.unsupported(use.span, message, "write the recursion as rules without arguments")
        return False

    def _applied(self, template: Referent, arguments: tuple[Expression, ...]) -> Expression:
        definition = template.definition
        by_parameter = dict(zip(definition.parameters, arguments, strict=True))
        self.applied.append(_key(template))
        body = self._expand(definition.body, template.namespace, by_parameter, in_terminal=False)
        self.applied.pop()
        return body

    def _bare_template(self, use: NameUse, usage: str) -> None:
        self._misused(use, f"`{use.name}` is a template and needs its arguments", usage)

    def _misused(self, use: NameUse | TemplateUse, message: str, usage: str) -> None:
        code = DiagnosticCode.TEMPLATE_ARGUMENTS
        self.result.report(code, use.span, message, f"write {usage}")


def _named(definition: Definition, name: str) -> Definition:
    return definition if definition.name == name else replace(definition, name=name)


def _key(referent: Referent) -> tuple[str, str]:
    return referent.namespace.source.file, referent.definition.name


def _usage(name: str, parameters: tuple[str, ...]) -> str:
    return f"`{name}{{{', '.join(parameters)}}}`"
