"""Naming the fault behind an unexpected tag, and the state that its author most likely meant.

Tried in order: a count that differs from the list's, a limit exceeded, elements that are missing, a
tag out of place. Runs only after a fault, so it may replay the trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice

from nprdsl.grammar.first_follow import FirstFollow, by_tag
from nprdsl.grammar.ir import ForkNode, Grammar, Node, Repeat, Rule, children
from nprdsl.grammar.walk import all_nodes, bodies, rebuilt
from nprdsl.structure.events import EnterBranch, LeaveBranch
from nprdsl.structure.stack import UNBOUNDED, BranchEnd, BranchFrame, PendingBranch, PendingBranches
from nprdsl.structure.tag_machine import END, ForkMode, TagMachine, TagState
from nprdsl.structure.violations import ViolationCode
from nprdsl.trace.lexemes import Lexeme

MAX_MISSING = 4  # tags in a row that may be supplied
MOST_EXPECTED = 20  # tags that a message names


@dataclass(frozen=True, slots=True)
class Repair:
    """`state` is None where the tag is best skipped."""

    code: ViolationCode
    message: str
    state: TagState | None
    suggestion: str = ""
    rule: str = ""


class Looser:
    """The same language with fewer limits, to tell what is too much from what is out of place; kept
    between traces."""

    def __init__(self, grammar: Grammar) -> None:
        self.unbounded = TagMachine(grammar, ForkMode.LINEAR)
        self.relaxed = TagMachine(_relaxed(grammar), ForkMode.LINEAR)


class Replay:
    """One trace, read once more by a looser machine, contents unjudged: no further than somebody
    asks, and nothing twice."""

    def __init__(self, machine: TagMachine, text: str, lexemes: Sequence[Lexeme]) -> None:
        self._state: TagState | None = machine.initial
        self._text = text
        self._lexemes = lexemes
        self._read = 0

    def before(self, number: int) -> TagState | None:
        """The state before lexeme `number`, no earlier one than that of the last call; None where
        the order itself is wrong."""
        while self._state is not None and self._read < number:
            lexeme = self._lexemes[self._read]
            arc = self._state.arcs.get(lexeme.tag)
            if arc is not None:
                captured = arc.content.captured(self._text[lexeme.start : lexeme.end])
                self._state = self._state.after(lexeme.tag, captured)
            else:
                self._state = None
            self._read += 1
        return self._state


class Repairs:
    """The repairs of one trace, in the order of its faults."""

    def __init__(
        self, machine: TagMachine, looser: Looser, text: str, lexemes: Sequence[Lexeme]
    ) -> None:
        self._machine = machine
        self._lexemes = lexemes
        self._relaxed = Replay(looser.relaxed, text, lexemes)
        self._unbounded: Replay | None = None
        if machine.bounds != UNBOUNDED:
            self._unbounded = Replay(looser.unbounded, text, lexemes)

    def repair(self, number: int, state: TagState) -> Repair:
        """The fault of lexeme `number`, whose tag has no arc from `state`."""
        tag = self._lexemes[number].tag
        return (
            _too_few(state, self._machine, tag)
            or _surplus(state, self._machine, tag)
            or self._limit(number, tag)
            or _missing(state, tag)
            or _misplaced(state, tag)
        )

    def _limit(self, number: int, tag: str) -> Repair | None:
        """A tag that would be legal without the upper bounds of repetitions and of run-time
        limits."""
        if tag == END:
            return None
        state = self._unbounded.before(number) if self._unbounded is not None else None
        if state is not None and tag in state.arcs:
            depth = self._machine.bounds.depth
            if depth is not None and _depth(state.after_any(tag)) > depth:
                message = f"blocks are nested more than {depth} deep"
                return Repair(ViolationCode.TOO_DEEP, message, state, rule=state.rule)
            message = f"`{tag}` is one more than the limits allow here"
            return Repair(ViolationCode.TOO_MANY, message, state, rule=state.rule)
        state = self._relaxed.before(number)
        if state is not None and tag in state.arcs:
            message = f"`{tag}` is one more than the schema allows here"
            return Repair(ViolationCode.TOO_MANY, message, state, rule=state.rule)
        return None


# counts


def _too_few(state: TagState, machine: TagMachine, tag: str) -> Repair | None:
    """Branches that were never begun, though the list has items for them."""
    if not any(isinstance(e, EnterBranch) for e in state.events):
        return None
    cell, frame = state.cell, state.frame
    while cell is not None and not isinstance(cell.entry, BranchEnd):
        cell = cell.below
    if cell is None or not isinstance(frame, BranchFrame) or cell.below is None:
        return None
    end, rest, outer = cell.entry, cell.below.entry, frame.below
    assert isinstance(end, BranchEnd)
    if not isinstance(rest, PendingBranches) or outer is None:
        return None
    after = machine.settle(cell.below.below, outer)
    if tag not in after.arcs:
        return None
    if rest.items is None:
        need = f"at least {rest.block.low} are needed"
        return Repair(
            ViolationCode.COUNT_MISMATCH,
            f"only {end.index} `{rest.block.branch}` were written; {need}",
            after,
        )
    return Repair(
        ViolationCode.COUNT_MISMATCH,
        f"{len(rest.items)} `{rest.block.item}` were listed but only {end.index} "
        f"`{rest.block.branch}` follow",
        after,
        f"write one `{rest.block.branch}` for every `{rest.block.item}`, in order",
    )


def _surplus(state: TagState, machine: TagMachine, tag: str) -> Repair | None:
    """A branch for which the list has no item."""
    left = [e for e in state.events if isinstance(e, LeaveBranch)]
    if not left:
        return None
    block, count = left[-1].block, left[-1].index + 1
    fork = _fork_of(machine.grammar, block.index)
    cell = machine.push(PendingBranch(block, fork.branch, count, ()), state.cell)
    again = machine.settle(cell, state.frame)
    if tag not in again.arcs:
        return None
    if block.item is None:
        message = f"more than {count} `{block.branch}` in one block"
        return Repair(ViolationCode.TOO_MANY, message, again)
    return Repair(
        ViolationCode.COUNT_MISMATCH,
        f"{count} `{block.item}` were listed but more `{block.branch}` follow",
        again,
        f"write one `{block.branch}` for every `{block.item}`, in order",
    )


def _fork_of(grammar: Grammar, index: int) -> ForkNode:
    for node in all_nodes(grammar.rules):
        if isinstance(node, ForkNode) and node.block.index == index:
            return node
    raise AssertionError(f"no fork {index}")


# limits


def _depth(state: TagState) -> int:
    """Forks that are open, or whose map is open, in this state."""
    frame, depth = state.frame, 0
    while frame is not None and not isinstance(frame, BranchFrame):
        frame, depth = frame.below, depth + 1
    return depth + (frame.depth if frame is not None else 0)


def _relaxed(grammar: Grammar) -> Grammar:
    """The grammar without upper bounds on the repetition of what always holds a tag: other turns
    could follow one another without end. A bound stays where another turn would begin as what
    follows does, as in lists by recursion."""
    sets = FirstFollow(bodies(grammar.rules), grammar.start, by_tag)
    bounds: dict[Node, int | None] = {}

    def unlimited(node: Node) -> Node:
        if isinstance(node, Repeat) and not sets.first(node.node).passes:
            relaxed = replace(node, node=unlimited(node.node), high=None)
            bounds[relaxed] = node.high
            return relaxed
        return rebuilt(node, map(unlimited, children(node)))

    rules = {n: Rule(n, unlimited(r.node), r.span) for n, r in grammar.rules.items()}
    loose = FirstFollow(bodies(rules), grammar.start, by_tag)

    def decided(node: Node) -> Node:
        if isinstance(node, Repeat) and loose.first(node.node).any & loose.after(node).any:
            return replace(node, node=decided(node.node), high=bounds.get(node, node.high))
        return rebuilt(node, map(decided, children(node)))

    rules = {n: Rule(n, decided(r.node), r.span) for n, r in rules.items()}
    return replace(grammar, rules=rules)


# missing and misplaced tags


def _missing(state: TagState, tag: str) -> Repair | None:
    """The fewest tags that, supplied before `tag`, make it legal."""
    reached: list[tuple[TagState, tuple[str, ...]]] = [(state, ())]
    for _ in range(MAX_MISSING):
        ways = []
        for here, supplied in reached:
            for expected in here.arcs:
                if expected == END:
                    continue
                after, way = here.after_any(expected), (*supplied, expected)
                if tag in after.arcs:
                    return _supplied(state, after, way, tag)
                ways.append((after, way))
        reached = ways[:200]
    return None


def _supplied(state: TagState, after: TagState, way: tuple[str, ...], tag: str) -> Repair:
    before = f"before `{tag}`" if tag != END else "before the end"
    if closes(way[0]):
        message = f"`{way[0]}` is missing {before}"
        return Repair(ViolationCode.UNCLOSED, message, after, f"close `{state.rule}` first")
    names = " ".join(f"`{t}`" for t in way)
    return Repair(ViolationCode.MISSING_ELEMENT, f"{names} missing {before}", after)


def _misplaced(state: TagState, tag: str) -> Repair:
    tags = [f"`{t}`" if t != END else "the end" for t in islice(state.arcs, MOST_EXPECTED)]
    more = len(state.arcs) - len(tags)
    expected = ", ".join(tags) + (f" and {more} more" if more else "") if tags else "nothing"
    if tag == END:
        code = (
            ViolationCode.UNCLOSED
            if any(map(closes, state.arcs))
            else (ViolationCode.MISSING_ELEMENT)
        )
        return Repair(code, f"the trace ends inside `{state.rule}`; expected {expected}", None)
    return Repair(
        ViolationCode.TAG_OUT_OF_PLACE,
        f"`{tag}` may not stand here; expected {expected}",
        None,
    )


def closes(tag: str) -> bool:
    """Whether a tag looks like a closing one: `</x>`, `[/x]`, `<x_end>`."""
    inner = tag[1:-1].lower()
    return inner.startswith("/") or inner.endswith(("_end", "/end")) or inner.startswith("end")
