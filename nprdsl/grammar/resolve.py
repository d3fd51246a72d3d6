"""A schema's text to its grammar, or to all diagnostics: the way through this folder.

`read_grammar` reads, links, resolves and checks. To resolve is to make the nodes of
`nprdsl.grammar.ir` out of linked declarations: strings become tags or literals, names become
references or fields, and the constructs of each sequence are paired into blocks: a map with the
process and the join that follow it, a spawn with its join.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path

from nprdsl.grammar import declarations, ir, load_limits
from nprdsl.grammar.checks import CheckedSets, validate
from nprdsl.grammar.declarations import (
    CharacterRange,
    Construct,
    ConstructKind,
    Definition,
    Expression,
    NameUse,
    RegexLiteral,
    StringLiteral,
)
from nprdsl.grammar.diagnostics import DiagnosticCode, Fix, Span, did_you_mean
from nprdsl.grammar.field_borders import field_faults
from nprdsl.grammar.ir import children
from nprdsl.grammar.linking import KeptLinks, link
from nprdsl.grammar.namespaces import Linked
from nprdsl.grammar.reader import read
from nprdsl.grammar.tag_shapes import PREFIX, is_tag, promises_tags, tag_texts
from nprdsl.grammar.terminal_patterns import FREE_TEXT, KeptTerminal, Terminals
from nprdsl.grammar.terminal_types import TerminalType
from nprdsl.grammar.walk import KeptValues, Uses, uses_of

START = "start"
_JOINS = {ConstructKind.REDUCE: ir.JoinKind.REDUCE, ConstructKind.REREAD: ir.JoinKind.REREAD}
# What is wrong with a construct that has no partner in its sequence, and the way out.
_UNPAIRED = {
    DiagnosticCode.JOIN_WITHOUT_FORK: (
        "`{0}` has no `process` or `spawn` before it in this sequence",
        "write `map{{…}} process{{…}} {0}{{…}}` in one sequence of one rule; a join apart from its "
        "fork, or of branches that it names, cannot be said",
    ),
    DiagnosticCode.FORK_WITHOUT_JOIN: (
        "`{0}` has no join after it in this sequence",
        "add `reduce{{…}}` (merge the branches' KV) or `reread{{…}}` (read them again) behind it, "
        'if only for a closing tag, as in `end: "</end>"`; a fork without a join cannot be said, '
        "nor two forks with one join: branches of several kinds are alternatives of one rule",
    ),
    DiagnosticCode.PROCESS_WITHOUT_MAP: (
        "`{0}` has no `map` before it in this sequence",
        "put `map{{list}}` before it in the same sequence, or use `spawn{{branch}}~m..n` for "
        "branches by count; a fork apart from its list, or a second one of it, cannot be said",
    ),
    DiagnosticCode.MAP_WITHOUT_PROCESS: (
        "`{0}` has no `process` after it in this sequence",
        "add `process{{item, branch}}` behind it",
    ),
}


def read_grammar(
    source: str,
    *,
    file: str,
    name: str,
    types: Mapping[str, TerminalType],
    imports: Mapping[str, str] | None = None,
    kept: Kept | None = None,
) -> ir.Grammar:
    """Read, link, resolve and validate a schema. Raises `SchemaError` with every diagnostic.

    `file` is the path of the schema, `types` the types of declared terminals by name. Imports are
    searched beside the schema; or, where they are given, in `imports`: texts by relative path.
    What is `kept` of a reading makes that of a text much like it shorter, and is replaced.
    """
    kept = Kept() if kept is None else kept
    linked = link(read(source, file), imports, kept.links)
    terminals = Terminals(linked, types, kept.terminals)
    terminals.check_types()
    resolver = _Resolver(linked, terminals, types, kept.rules)
    rules = resolver.rules()
    if not linked.diagnostics:
        kept.terminals, kept.rules.by_id = terminals.keep, resolver.keep
    grammar = _grammar(rules, linked, terminals, types, file=file, name=name)
    uses = uses_of(rules, kept.values)
    for fault in validate(rules, grammar, linked, uses, kept.sets):
        linked.add(fault)
    linked.refuse()
    for fault in islice(field_faults(grammar, uses), load_limits.FAULTS):
        linked.add(fault)
    linked.refuse()
    return grammar


_Leaf = NameUse | StringLiteral | RegexLiteral | CharacterRange


@dataclass(frozen=True, slots=True)
class _ResolvedBefore:
    """A linked definition, the tags or the terminals that its leaves were, its blocks, and the rule
    that it came to."""

    definition: Definition
    meanings: tuple[tuple[_Leaf, tuple[str, ...] | ir.Terminal], ...]
    blocks: tuple[ir.Block, ...]
    rule: ir.Rule
    names: tuple[str, ...]  # that stand in it


@dataclass(slots=True)
class KeptRules:
    """The rules that the last reading without a fault resolved, by the id of the definition that is
    kept with each, and what terminals lead them."""

    by_id: dict[int, _ResolvedBefore] = field(default_factory=dict)
    values: KeptValues = field(default_factory=KeptValues)


@dataclass(slots=True)
class Kept:
    """What one reading of a schema leaves for the next: each thing beside all that it was made of,
    to be used where that is the same. So a reading says what it would say alone."""

    links: KeptLinks = field(default_factory=KeptLinks)
    terminals: dict[str, KeptTerminal] = field(default_factory=dict)
    rules: KeptRules = field(default_factory=KeptRules)
    values: KeptValues = field(default_factory=KeptValues)  # of rules
    sets: CheckedSets = field(default_factory=CheckedSets)


class _Resolver:
    def __init__(
        self,
        linked: Linked,
        terminals: Terminals,
        types: Mapping[str, TerminalType],
        kept: KeptRules,
    ) -> None:
        self.kept = kept
        self.keep: dict[int, _ResolvedBefore] = {}
        self.met: list[tuple[_Leaf, tuple[str, ...] | ir.Terminal]] = []  # in this rule
        self.blocks: list[ir.Block] = []  # of this rule
        self.linked = linked
        self.terminals = terminals
        self.types = types
        self.rule = ""
        self.count = 0  # of blocks of the rules before
        self._tag_texts: dict[str, tuple[str, ...]] = {}  # by terminal
        self._passed: dict[frozenset[str], Mapping[str, bool]] = {}  # by the terminals that are cut

    def rules(self) -> dict[str, ir.Rule]:
        """All rules that are linked, reachable or not."""
        rules = {}
        for name, definition in self.linked.rules.items():
            resolved = self.kept.by_id.get(id(definition))
            if resolved is None or not self._holds(resolved):
                resolved = self._resolved(name, definition)
            self.keep[id(definition)] = resolved
            self.count += len(resolved.blocks)
            rules[name] = resolved.rule
        return rules

    def _resolved(self, name: str, definition: Definition) -> _ResolvedBefore:
        self.rule, self.met, self.blocks = name, [], []
        rule = ir.Rule(name, self.node(definition.body), definition.span)
        met, blocks = tuple(self.met), tuple(self.blocks)
        return _ResolvedBefore(definition, met, blocks, rule, self._names(definition))

    def _holds(self, before: _ResolvedBefore) -> bool:
        """Whether a rule would come out as before."""
        return all(self._meaning(leaf) == meaning for leaf, meaning in before.meanings) and all(
            block.index == index and self._bound(block.item, block.branch) == block.bound
            for index, block in enumerate(before.blocks, self.count)
        )

    def _meaning(self, leaf: _Leaf) -> tuple[str, ...] | ir.Terminal:
        if isinstance(leaf, NameUse) and self._is_tag(leaf.name):
            return self._tags(leaf.name)
        return self._terminal(leaf)

    def _terminal(self, leaf: _Leaf) -> ir.Terminal:
        if isinstance(leaf, NameUse):
            return self.terminals.named(leaf)
        return self.terminals.anonymous(leaf)

    def node(self, node: Expression) -> ir.Node:
        match node:
            case declarations.Alternatives():
                return ir.Alt(tuple(self.node(o) for o in node.options), node.span)
            case declarations.Repetition() if _construct(node) is None:
                return ir.Repeat(self.node(node.node), node.low, node.high, node.span)
            case declarations.Expansion() | declarations.Repetition() | Construct():
                return self._sequence(node)
            case NameUse():
                return self._name(node)
            case StringLiteral():
                return self._string(node)
            case RegexLiteral() | CharacterRange():
                return self._field(node)
            case declarations.TemplateUse():
                raise AssertionError("templates are expanded before")

    def _name(self, use: NameUse) -> ir.Node:
        if not use.is_terminal:
            return ir.Ref(use.name, use.span)
        definition = self.linked.terminals.get(use.name)
        if self._is_tag(use.name):
            tags = [ir.Tag(text, use.span) for text in self._tags(use.name)]
            self.met.append((use, self._tags(use.name)))
            if not tags and definition is not None:
                self._no_tag(definition)
            if len(tags) > 1:
                return ir.Alt(tuple(tags), use.span)
            return tags[0] if tags else ir.Tag(use.name, use.span)  # reported: it stands for one
        if definition is not None:
            self._blind_tag(definition.body)
        return self._field(use)

    def _field(self, leaf: _Leaf) -> ir.Field:
        terminal = self._terminal(leaf)
        self.met.append((leaf, terminal))
        return ir.Field(terminal, leaf.span)

    def _tags(self, name: str) -> tuple[str, ...]:
        """The tags that a terminal is by definition; none for other terminals."""
        if name not in self._tag_texts:
            definition = self.linked.terminals.get(name)
            found = () if definition is None else tag_texts(definition)
            self._tag_texts[name] = found
        return self._tag_texts[name]

    def _is_tag(self, name: str) -> bool:
        definition = self.linked.terminals.get(name)
        if definition is None:
            return name.startswith(PREFIX) and name in self.linked.declared
        return bool(self._tags(name)) or promises_tags(definition)

    def _no_tag(self, definition: Definition) -> None:
        self.linked.unsupported(
            definition.span,
            f"`{definition.own_name}` is named as a tag, and a tag is a fixed string",
            'write its strings out, as in `"a" | "b"`: each is a tag; what may differ in a tag is '
            "a terminal between two tags; what is no tag has a name without `TAG_`",
        )

    def _blind_tag(self, node: Expression) -> None:
        """Report a tag in brackets that may be written in capitals."""
        if isinstance(node, StringLiteral) and node.ignore_case and is_tag(node.value):
            message = f"the tag `{node.value}` has one spelling only"
            flag = replace(node.span, line=node.span.end_line, column=node.span.end_column - 1)
            way = f'remove the `i`: `"{node.value}"`'
            self.linked.unsupported(node.span, message, way, Fix(flag, ""))

    def _string(self, node: StringLiteral) -> ir.Node:
        if not node.value:
            self.terminals.refuse_empty(node)
            return ir.Seq((), node.span)
        self._blind_tag(node)
        if node.ignore_case and not is_tag(node.value):
            return self._field(node)
        kind = ir.Tag if is_tag(node.value) else ir.Literal
        return kind(node.value, node.span)

    # -- blocks -----------------------------------------------------------------------------

    def _sequence(self, node: Expression) -> ir.Node:
        items = list(_flat(node))
        blocks = self._blocks(items)
        parts = tuple(self._item(item, blocks.get(i)) for i, item in enumerate(items))
        return parts[0] if len(parts) == 1 else ir.Seq(parts, node.span)

    def _item(self, item: Expression, block: ir.Block | None) -> ir.Node:
        construct = _construct(item)
        if construct is None:
            return self.node(item)
        inner = self.node(construct.arguments[-1])
        if block is None:  # reported; what it holds is validated all the same
            return inner
        if construct.kind is ConstructKind.MAP:
            return ir.MapNode(block, inner, construct.span)
        if construct.kind in _JOINS:
            return ir.JoinNode(block, inner, construct.span)
        return ir.ForkNode(block, ir.Ref(block.branch, inner.span), construct.span)

    def _blocks(self, items: list[Expression]) -> dict[int, ir.Block]:
        """Pair the constructs of one sequence: the block of each, by its index."""
        blocks: dict[int, ir.Block] = {}
        opened: int | None = None  # index of a map that waits for its process
        forked: int | None = None  # index of a fork that waits for its join
        for index, item in enumerate(items):
            construct = _construct(item)
            if construct is None:
                if forked is not None and not _is_glue(item):
                    self._between(item, items[forked])
            elif construct.kind in _JOINS:
                parts = [i for i in (opened, forked, index) if i is not None]
                if forked is None:
                    self._unpaired(DiagnosticCode.JOIN_WITHOUT_FORK, item)
                elif block := self._block([items[i] for i in parts]):
                    blocks.update(dict.fromkeys(parts, block))
                opened = forked = None
            else:
                if forked is not None:
                    self._unpaired(DiagnosticCode.FORK_WITHOUT_JOIN, items[forked])
                    opened = forked = None
                if construct.kind is ConstructKind.PROCESS:
                    if opened is None:
                        self._unpaired(DiagnosticCode.PROCESS_WITHOUT_MAP, item)
                    forked = index
                    continue
                if opened is not None:
                    self._unpaired(DiagnosticCode.MAP_WITHOUT_PROCESS, items[opened])
                is_map = construct.kind is ConstructKind.MAP
                opened, forked = (index, None) if is_map else (None, index)
        if forked is not None:
            self._unpaired(DiagnosticCode.FORK_WITHOUT_JOIN, items[forked])
        elif opened is not None:
            self._unpaired(DiagnosticCode.MAP_WITHOUT_PROCESS, items[opened])
        return blocks

    def _block(self, parts: list[Expression]) -> ir.Block | None:
        """The block of a map, a process and a join, or of a spawn and a join."""
        whole, join = parts[-2], _construct(parts[-1])
        fork = _construct(whole)
        assert fork is not None and join is not None
        names = [self._rule_name(a, fork) for a in fork.arguments]
        low, high = self._counts(whole, fork)
        by_item = fork.kind is ConstructKind.PROCESS
        if None in names or (by_item and len(parts) == 2):
            return None
        branch, item = names[-1] or "", names[0] if by_item else None
        bound = self._bound(item, branch)
        first, last = parts[0].span, join.span
        span = Span(first.file, first.line, first.column, last.end_line, last.end_column)
        kind, index = _JOINS[join.kind], self.count + len(self.blocks)
        block = ir.Block(index, self.rule, item, branch, bound, low, high, kind, span)
        self.blocks.append(block)
        return block

    def _rule_name(self, argument: Expression, fork: Construct) -> str | None:
        if isinstance(argument, NameUse) and not argument.is_terminal:
            return argument.name if argument.name in self.linked.rules else None
        code = DiagnosticCode.TEMPLATE_ARGUMENTS
        message = f"an argument of `{fork.kind}` must be the name of a rule"
        way = "give what stands here a rule of its own"
        self.linked.report(code, argument.span, message, way)
        return None

    def _counts(self, whole: Expression, fork: Construct) -> tuple[int, int | None]:
        if fork.kind is ConstructKind.PROCESS:
            return 1, None
        if not isinstance(whole, declarations.Repetition):
            return 1, 1
        if whole.low < 1:
            message = "a fork needs one branch at least"
            way = "write `spawn{…}+` or `spawn{…}~1..n`; make the whole block optional instead"
            self.linked.report(DiagnosticCode.TEMPLATE_ARGUMENTS, whole.span, message, way)
        return max(1, whole.low), whole.high

    # -- bound terminals --------------------------------------------------------------------

    def _bound(self, item: str | None, branch: str) -> tuple[str, ...]:
        """Terminals before the first free text that is not itself in both, in the item's order.
        Whether all ways write them is looked at in `nprdsl.grammar.bindings`."""
        if item is None:
            return ()
        shared: Set[str] | None = None
        while True:
            kept = self._texts if shared is None else shared
            cut = frozenset(name for name in self._texts if name == "TEXT" or name not in kept)
            listed, repeated = (self._led(rule, cut) for rule in (item, branch))
            if shared == (shared := listed.keys() & repeated.keys()):
                return tuple(name for name in listed if name in shared)

    @cached_property
    def _uses(self) -> Uses:
        rules = self.linked.rules
        uses = {n: [r for r in self._names(rule) if r in rules] for n, rule in rules.items()}
        return Uses(uses, rules, self.kept.values)

    def _names(self, definition: Definition) -> tuple[str, ...]:
        """The names in a definition, each once."""
        known = self.kept.by_id.get(id(definition))
        if known is not None:
            return known.names
        parts = declarations.inside(definition.body)
        return tuple(dict.fromkeys(part.name for part in parts if isinstance(part, NameUse)))

    @cached_property
    def _texts(self) -> tuple[str, ...]:
        return tuple(name for name in self.linked.declared if self._is_text(name))

    @cached_property
    def _all_tags(self) -> frozenset[str]:
        """The terminals that are tags."""
        terminals = (*self.linked.terminals, *self.linked.declared)
        return frozenset(name for name in terminals if self._is_tag(name))

    def _is_text(self, name: str) -> bool:
        given = self.types.get(name)
        return given.free_text if given is not None else name in FREE_TEXT

    def _led(self, rule: str, cut: frozenset[str]) -> dict[str, None]:
        what = "led", cut, self._all_tags
        return self._uses.once(what, rule, rule, partial(self._leading, rule, cut))

    def _leading(self, rule: str, cut: frozenset[str]) -> dict[str, None]:
        """The named terminals that may stand in a rule before one of those that are `cut`."""
        if cut not in self._passed:
            rules = self.linked.rules
            self._passed[cut] = self._uses.at_rest(
                first=False,
                step=lambda name, passed: _passes(rules[name].body, passed, cut),
                what=("passed", cut),
            )
        passed = self._passed[cut]
        found: dict[str, None] = {}
        entered: set[str] = set()
        pending: list[Expression] = [NameUse(rule, self.linked.rules[rule].span)]
        while pending:
            node = pending.pop()
            if isinstance(node, NameUse) and node.is_terminal:
                if node.name not in cut and not _is_glue(node) and not self._is_tag(node.name):
                    found[node.name] = None
            elif isinstance(node, NameUse):
                if node.name in self.linked.rules and node.name not in entered:
                    entered.add(node.name)
                    pending.append(self.linked.rules[node.name].body)
            elif isinstance(node, declarations.Expansion):
                stops = (n for n, i in enumerate(node.items) if not _passes(i, passed, cut))
                end = next(stops, len(node.items)) + 1
                pending.extend(reversed(node.items[:end]))
            elif not isinstance(node, Construct):
                pending.extend(reversed(declarations.parts_of(node)))
        return found

    # -- faults -----------------------------------------------------------------------------

    def _between(self, item: Expression, fork: Expression) -> None:
        self.linked.report(
            DiagnosticCode.BETWEEN_FORK_AND_JOIN,
            item.span,
            f"between `{_kind(fork)}` and its join only glue may stand",
            "put it into the branch, or into the element of the join; that something goes on while "
            "the branches run cannot be said",
            ((fork.span, "the branches begin here"),),
        )

    def _unpaired(self, code: DiagnosticCode, item: Expression) -> None:
        message, way = (text.format(_kind(item)) for text in _UNPAIRED[code])
        self.linked.report(code, item.span, message, way)


def _flat(node: Expression) -> Iterator[Expression]:
    """The items of a sequence, those of plain groups in it included."""
    if isinstance(node, declarations.Expansion):
        for item in node.items:
            yield from _flat(item)
    else:
        yield node


def _passes(node: Expression, passed: Mapping[str, bool], cut: frozenset[str]) -> bool:
    """Whether a way through `node` holds neither a terminal that is `cut` nor a block."""
    match node:
        case NameUse():
            return node.name not in cut if node.is_terminal else passed.get(node.name, True)
        case declarations.Expansion():
            return all(_passes(item, passed, cut) for item in node.items)
        case declarations.Alternatives():
            return any(_passes(option, passed, cut) for option in node.options)
        case declarations.Repetition():
            return node.low == 0 or _passes(node.node, passed, cut)
        case _:
            return not isinstance(node, Construct)


def _construct(item: Expression) -> Construct | None:
    """The construct that an item of a sequence is; `spawn` may be repeated."""
    inner = item.node if isinstance(item, declarations.Repetition) else item
    if isinstance(inner, Construct) and (inner is item or inner.kind is ConstructKind.SPAWN):
        return inner
    return None


def _kind(item: Expression) -> str:
    construct = _construct(item)
    assert construct is not None
    return construct.kind


def _is_glue(item: Expression) -> bool:
    inner = item.node if isinstance(item, declarations.Repetition) else item
    return isinstance(inner, NameUse) and inner.is_terminal and inner.name.startswith("_")


def _grammar(
    rules: Mapping[str, ir.Rule],
    linked: Linked,
    terminals: Terminals,
    types: Mapping[str, TerminalType],
    *,
    file: str,
    name: str,
) -> ir.Grammar:
    """What is reachable from the start rule, in the order in which a reader meets it."""
    if START not in rules:
        _no_start(rules, linked, file)
    reached: dict[str, ir.Rule] = {}
    tags: dict[str, None] = {}
    blocks: dict[ir.Block, None] = {}
    used: dict[str, ir.Terminal] = {}
    pending: list[ir.Node] = [ir.Ref(START, Span(file, 1, 1, 1, 1))]
    while pending:
        node = pending.pop()
        match node:
            case ir.Ref() if node.rule in rules and node.rule not in reached:
                reached[node.rule] = rules[node.rule]
                pending.append(rules[node.rule].node)
            case ir.Tag():
                tags[node.text] = None
            case ir.Field():
                used[node.terminal.name] = node.terminal
            case ir.MapNode() | ir.JoinNode() | ir.ForkNode():
                blocks[node.block] = None
        pending.extend(reversed(children(node)))
    return ir.Grammar(
        name,
        file,
        linked.sources[0].text,
        START,
        reached,
        used,
        tuple(tags),
        tuple(blocks),
        _digest(linked, types),
        dict(types),
        _imports(linked, Path(file).parent),
    )


def _imports(linked: Linked, folder: Path) -> dict[str, str]:
    """The texts of imported files beside the schema; those that ship with packages are left out."""
    paths = ((Path(source.file), source.text) for source in linked.sources[1:])
    return {p.relative_to(folder).as_posix(): t for p, t in paths if p.is_relative_to(folder)}


def _no_start(rules: Mapping[str, ir.Rule], linked: Linked, file: str) -> None:
    first = next(iter(rules.values()), None)
    span = first.span if first is not None else Span(file, 1, 1, 1, 1)
    way = did_you_mean(START, rules) or f"add a line `{START}: …`"
    message = f"a schema begins at the rule `{START}`, which is missing"
    linked.report(DiagnosticCode.NO_START, span, message, way)


def _digest(linked: Linked, types: Mapping[str, TerminalType]) -> str:
    digest = hashlib.sha256()
    for source in linked.sources:
        digest.update(source.text.encode() + b"\0")
    for name, given in sorted(types.items()):
        digest.update(f"{name}\0{given.pattern}\0{given.free_text}\0".encode())
    return digest.hexdigest()
