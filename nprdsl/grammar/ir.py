"""The grammar of a schema, as everything after the reader uses it: a tree of nodes for each rule.

`nprdsl.grammar.resolve` makes it; parser, automaton, machine, prompts, exports and the fuzzer read
it. The leaves of a rule are tags, literals and fields; above them stand sequences, choices,
repetitions, references to rules, and the parallel constructs: maps, forks and joins, three of which
(or two, where branches are counted) form a block. Nodes compare by identity, so that a parser's
stack can be hashed cheaply.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property, wraps
from typing import Concatenate, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from nprdsl.grammar.diagnostics import Span
from nprdsl.grammar.terminal_types import TerminalType

_Known = TypeVar("_Known")
_More = ParamSpec("_More")


class TerminalKind(StrEnum):
    GLUE = "glue"  # `_NL`: emitted as `literal`; any white space, or none, is accepted
    TEXT = "text"  # free text without tags, at least one character that is not blank
    REGULAR = "regular"  # a definition in the schema: `pattern`
    TYPED = "typed"  # declared in the schema, typed at load: `pattern` and `convert`


@dataclass(frozen=True, eq=False, slots=True)
class Terminal:
    """What may stand in a field: free text, glue, or a text that a regular expression matches.

    `pattern` is that expression in the syntax of Python's `re`, read with `re.ASCII` alone: `\\d`,
    `\\w` and `\\s` are ASCII classes, `.` excludes the newline. It is empty for free text.
    `literal` is the text that is written for glue, `convert` makes a typed terminal's text its
    value, and `description` is a phrase for prompts.
    """

    name: str
    kind: TerminalKind
    span: Span
    pattern: str = ""
    literal: str = ""
    convert: Callable[[str], object] | None = None
    description: str = ""


@dataclass(frozen=True, eq=False, slots=True)
class Tag:
    """A structural literal such as `<step>`."""

    text: str
    span: Span


@dataclass(frozen=True, eq=False, slots=True)
class Literal:
    """A literal that is not a tag, such as `":"`."""

    text: str
    span: Span


@dataclass(frozen=True, eq=False, slots=True)
class Field:
    """One occurrence of a terminal."""

    terminal: Terminal
    span: Span


@dataclass(frozen=True, eq=False, slots=True)
class Ref:
    """One use of a rule."""

    rule: str
    span: Span


@dataclass(frozen=True, eq=False, slots=True)
class Seq:
    """Items one after another, perhaps none."""

    items: tuple[Node, ...]
    span: Span


@dataclass(frozen=True, eq=False, slots=True)
class Alt:
    """A choice; an option may be an empty `Seq`."""

    options: tuple[Node, ...]
    span: Span


@dataclass(frozen=True, eq=False, slots=True)
class Repeat:
    """`node` from `low` to `high` times; `high` None is without limit."""

    node: Node
    low: int
    high: int | None
    span: Span


class JoinKind(StrEnum):
    REDUCE = "reduce"  # merge the branches' KV
    REREAD = "reread"  # read the branches again as sequential text


@dataclass(frozen=True, eq=False, slots=True)
class Block:
    """A map, process and join (or spawn and join) that stand in one sequence of one rule.

    `item` is the rule that the map lists, None for `spawn`. `bound` names the terminals whose value
    in the item is forced in its branch, in order. `low`, `high` bound the number of branches; for a
    map they follow from the list's own repetition (1, None) and are not enforced twice.
    """

    index: int
    rule: str
    item: str | None
    branch: str
    bound: tuple[str, ...]
    low: int
    high: int | None
    join: JoinKind
    span: Span


@dataclass(frozen=True, eq=False, slots=True)
class MapNode:
    """`map{list}`: lists the items of `block`."""

    block: Block
    node: Node
    span: Span


@dataclass(frozen=True, eq=False, slots=True)
class ForkNode:
    """`process{item, branch}` or `spawn{branch}~m..n`."""

    block: Block
    branch: Ref
    span: Span


@dataclass(frozen=True, eq=False, slots=True)
class JoinNode:
    """`reduce{element}` or `reread{element}`."""

    block: Block
    node: Node
    span: Span


Node = Tag | Literal | Field | Ref | Seq | Alt | Repeat | MapNode | ForkNode | JoinNode


_LEAVES = (Tag, Literal, Field, Ref)  # most nodes are


def children(node: Node) -> tuple[Node, ...]:
    """The nodes directly inside `node`; of a reference, none."""
    if isinstance(node, _LEAVES):
        return ()
    match node:
        case Seq():
            return node.items
        case Alt():
            return node.options
        case Repeat() | MapNode() | JoinNode():
            return (node.node,)
        case ForkNode():
            return (node.branch,)
        case _:
            return ()


def nodes(node: Node) -> list[Node]:
    """`node` and all inside it, in the order of the text; rules that it refers to are left out."""
    found, pending = [], [node]
    while pending:
        node = pending.pop()
        found.append(node)
        if not isinstance(node, _LEAVES):
            pending.extend(children(node)[::-1])
    return found


@dataclass(frozen=True, eq=False)
class Rule:
    name: str
    node: Node
    span: Span

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The body and all inside it: every check goes through them."""
        return tuple(nodes(self.node))

    @cached_property
    def references(self) -> tuple[str, ...]:
        """The rules that it uses, each once, in the order of the text."""
        return tuple(dict.fromkeys(node.rule for node in self.nodes if isinstance(node, Ref)))

    def __reduce__(self) -> tuple[object, ...]:
        """Without what was worked out of it, for other processes."""
        return Rule, (self.name, self.node, self.span)


@dataclass(frozen=True, eq=False)
class Grammar:
    """A whole schema. `rules` holds every rule reachable from `start`; `tags` in order of
    appearance. `types` and `imports` are what it was read with: the types of declared terminals,
    and the text of every imported file beside the schema by its path from there, so that the
    schema can be sent to another process."""

    name: str
    file: str
    source: str
    start: str
    rules: dict[str, Rule]
    terminals: dict[str, Terminal]
    tags: tuple[str, ...]
    blocks: tuple[Block, ...]
    digest: str = ""  # hash of the source, its imports and the types
    types: Mapping[str, TerminalType] = field(default_factory=dict)
    imports: Mapping[str, str] = field(default_factory=dict)

    @property
    def spawns(self) -> bool:
        """Whether branches of some fork are counted, not listed."""
        return any(block.item is None for block in self.blocks)

    def label_of(self, block: Block) -> str | None:
        """The first bound regular terminal of a block: what must differ between the items of one
        list."""
        kinds = ((name, self.terminals[name].kind) for name in block.bound)
        return next((name for name, kind in kinds if kind is TerminalKind.REGULAR), None)


def once_for_grammar(
    work: Callable[Concatenate[Grammar, _More], _Known],
) -> Callable[Concatenate[Grammar, _More], _Known]:
    """`work`, done once for each grammar; what it returns is kept as long as the grammar. What else
    it is given may not change that."""
    known: WeakKeyDictionary[Grammar, _Known] = WeakKeyDictionary()

    @wraps(work)
    def asked(grammar: Grammar, /, *more: _More.args, **named: _More.kwargs) -> _Known:
        if grammar not in known:
            known[grammar] = work(grammar, *more, **named)
        return known[grammar]

    return asked
