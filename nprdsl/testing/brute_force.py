"""All legal traces of a small schema up to a length, by search, to compare masks with.

The search writes every sequence of tokens over a small vocabulary that a loose reading of the rules
lets stand (it counts no branches, compares no labels), and asks the checker which of them are
legal. What a mask may allow at a place is then known: the tokens with
which a legal trace within the budget goes on. The mask's own automata take no part in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from random import Random
from typing import Final, NamedTuple

from nprdsl.grammar import ir
from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.walk import all_nodes
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.matcher import Matcher
from nprdsl.regular.dfa import WHITESPACE, Dfa, compile_regex
from nprdsl.schema import Schema
from nprdsl.testing.tokens import END_OF_SEQUENCE, bound_to
from nprdsl.tokens.bitmask import unpack
from nprdsl.tokens.vocabulary import Vocabulary

SLACK: Final = 2  # tokens beyond those of a shortest trace
LONGEST: Final = 24  # tokens of a trace
NODES: Final = 1500  # of the search
LETTERS: Final = 9
FAR: Final = 1 << 20

Found = tuple[str, str]  # what differs, and the text before it
Difference = Found | None


class _TooLarge(ValueError):
    """The search would take too long."""


def masks_differ(schema: Schema, random: Random) -> Difference:
    """The first place where a mask is not what the search says; None if there is none, or if the
    schema is too large to search."""
    if _repeats_text(schema.grammar):
        return None  # a legal branch may repeat a text with other blanks around it
    try:
        bound = bound_to(schema, _small_vocabulary(schema, random))
        search = _Search(bound)
        traces = search.legal_traces()
    except (SchemaError, _TooLarge):
        return None
    return _compare(bound, traces)


def _repeats_text(grammar: ir.Grammar) -> bool:
    names = [name for block in grammar.blocks for name in block.bound]
    return any(grammar.terminals[name].kind is ir.TerminalKind.TEXT for name in names)


def _small_vocabulary(schema: Schema, random: Random) -> Vocabulary:
    """The bytes that tags, literals, glue and a value of each terminal need, and a letter that is
    in no tag, as every vocabulary has some: costs count on it for free text."""
    special = [t for t in schema.tags if len(t) > 3 or random.random() < 0.5]
    texts = [tag for tag in schema.tags if tag not in special]
    for node in all_nodes(schema.grammar.rules):
        if isinstance(node, ir.Literal):
            texts.append(node.text)
        elif isinstance(node, ir.Field) and node.terminal.kind is ir.TerminalKind.GLUE:
            texts.append(node.terminal.literal)
    needed = set("".join(texts).encode())
    for terminal in schema.grammar.terminals.values():
        if terminal.kind in (ir.TerminalKind.REGULAR, ir.TerminalKind.TYPED):
            needed |= set(_some_value(compile_regex(terminal.pattern), random))
    if len(needed) > LETTERS:
        raise _TooLarge
    in_tags = set("".join(schema.tags).encode())
    needed |= {next(letter for letter in b"xqzjkw01" if letter not in in_tags)}  # for free text
    needed |= set(random.sample(b"xa1<b", 0 if len(needed) > 3 else 1))
    letters = sorted(needed)
    ids = {tag: len(letters) + n for n, tag in enumerate([*special, END_OF_SEQUENCE])}
    return Vocabulary({n: bytes([b]) for n, b in enumerate(letters)}, ids, END_OF_SEQUENCE)


def _some_value(dfa: Dfa, random: Random) -> bytes:
    """A short value, after a step or two at random."""
    state, value = dfa.start, b""
    for _ in range(random.randrange(3)):
        ways = [b for b in range(32, 127) if dfa.table[state, b]]
        if not ways:
            break
        value += bytes([random.choice(ways)])
        state = int(dfa.table[state, value[-1]])
    return value + dfa.completion(state)


def _compare(bound: BoundSchema, traces: frozenset[tuple[int, ...]]) -> Difference:
    """Walks the matcher along all prefixes of the traces."""
    most = max(map(len, traces))
    shortest: dict[tuple[int, ...], int] = {}
    for trace in traces:
        for length in range(len(trace) + 1):
            prefix = trace[:length]
            shortest[prefix] = min(shortest.get(prefix, FAR), len(trace) - length)
    matchers: dict[tuple[int, ...], Matcher] = {(): bound.matcher()}
    for prefix in sorted(shortest, key=len):
        text = bound.vocabulary.text(prefix)
        if prefix:
            before = matchers[prefix[:-1]]
            if not before.accepts(prefix[-1]):
                return f"token {prefix[-1]} of a legal trace is refused", text
            matchers[prefix] = before.fork()
            matchers[prefix].advance(prefix[-1])
        found = _differs(bound, matchers[prefix], prefix, traces, shortest, most - len(prefix))
        if found is not None:
            return found, text
    return None


def _differs(
    bound: BoundSchema,
    matcher: Matcher,
    prefix: tuple[int, ...],
    traces: frozenset[tuple[int, ...]],
    shortest: dict[tuple[int, ...], int],
    left: int,
) -> str | None:
    if matcher.cost != shortest[prefix]:
        return f"the cost is {matcher.cost}, a legal end takes {shortest[prefix]} tokens"
    if matcher.may_end != (prefix in traces):
        return f"the trace {'is' if prefix in traces else 'is not'} legal if it ends here"
    size = bound.vocabulary.size
    for slack in {0, 1, left - matcher.cost} if left > matcher.cost else {0}:
        row = unpack(matcher.tight(slack), size)
        row[bound.vocabulary.eos_id] = False
        allowed = set(row.nonzero()[0].tolist())
        budget = matcher.cost + slack - 1
        wanted = {t for t in range(size) if shortest.get((*prefix, t), FAR) <= budget}
        if allowed != wanted:
            more, fewer = sorted(allowed - wanted), sorted(wanted - allowed)
            named = [bound.vocabulary.text([t]) for t in (*more, *fewer)]
            what = f"{len(more)} more and {len(fewer)} fewer tokens than legal: {named}"
            return f"with {slack} tokens to spare the mask allows {what}"
    return None


# -- the search ---------------------------------------------------------------------------------


class _Bytes(NamedTuple):
    """A literal or a spelled tag, of which `data[at:]` is still to come."""

    data: bytes
    at: int
    is_tag: bool = False

    @property
    def ends_tag(self) -> bool:
        """Whether the next byte ends a tag."""
        return self.is_tag and self.at + 1 == len(self.data)


class _Text(NamedTuple):
    filled: bool


class _Value(NamedTuple):
    dfa: Dfa
    state: int


class _Turns(NamedTuple):
    """A repetition of which `done` turns are done."""

    node: ir.Node
    low: int
    high: int | None
    done: int


_Head = ir.Node | _Bytes | _Text | _Value | _Turns


class _Todo(NamedTuple):
    """What is still to be written: a head, and what comes behind it; `cost` is the fewest tokens of
    it all, as far as the rules say."""

    head: _Head
    rest: _Todo | None
    cost: int


class _Search:
    """Every legal sequence of tokens up to the length of a shortest one and `SLACK`."""

    def __init__(self, bound: BoundSchema) -> None:
        self._bound = bound
        self._rules = {name: rule.node for name, rule in bound.grammar.rules.items()}
        self._special = bound.vocabulary.special
        spelled_tags = [t.encode() for t in bound.grammar.tags if t not in bound.tag_tokens]
        self._tags = re.compile(b"|".join(map(re.escape, spelled_tags)) or b"(?!)")
        self._letters = {
            token: spelled[0]
            for token in range(bound.vocabulary.size)
            if (spelled := bound.vocabulary.bytes_of(token))  # none of special and unused ids
        }
        self._least = self._rule_costs()
        self._start = self._put(self._rules[bound.grammar.start], None)
        self._nodes = 0
        self._judged: dict[tuple[int, ...], bool] = {}

    def legal_traces(self) -> frozenset[tuple[int, ...]]:
        """Raises _TooLarge."""
        if self._start.cost > LONGEST:
            raise _TooLarge
        for most in range(self._start.cost, LONGEST + 1):
            if any(True for _ in self._written((), self._closed([self._start]), most)):
                break
        else:
            raise _TooLarge
        found = self._written((), self._closed([self._start]), most + SLACK)
        return frozenset(found)

    def _written(
        self, prefix: tuple[int, ...], todo: list[_Todo | None], most: int
    ) -> Iterator[tuple[int, ...]]:
        self._nodes += 1
        if self._nodes > NODES:
            raise _TooLarge
        if None in todo and self._legal(prefix):
            yield prefix
        if len(prefix) == most:
            return
        left = most - len(prefix) - 1
        for token, after in self._moves(prefix, todo):
            near = [t for t in after if t is None or t.cost <= left]
            if near:
                yield from self._written((*prefix, token), near, most)

    def _legal(self, ids: tuple[int, ...]) -> bool:
        known = self._judged.get(ids)
        if known is None:
            known = self._judged[ids] = not self._bound.check(ids)
        return known

    def _moves(
        self, prefix: tuple[int, ...], todo: list[_Todo | None]
    ) -> Iterator[tuple[int, list[_Todo | None]]]:
        heads = [t for t in todo if t is not None]
        for tag, token in self._special.items():
            after = [t.rest for t in heads if isinstance(t.head, ir.Tag) and t.head.text == tag]
            if after:
                yield token, self._closed(after)
        for token, byte in self._letters.items():
            ends = self._ends_tag((*prefix, token))
            here = (t for t in heads if ends == (isinstance(t.head, _Bytes) and t.head.ends_tag))
            moved = [m for t in here if (m := self._step(t, byte)) is not _STUCK]
            if moved:
                yield token, self._closed(moved)

    def _ends_tag(self, ids: tuple[int, ...]) -> bool:
        """Whether the last letter ends a spelled tag, as tags are found from the left: there and
        nowhere else a tag of the rules may end, or the glue of another reading would be missing."""
        letters = bytes(self._letters.get(token, 0) for token in ids)
        ends = [found.end() for found in self._tags.finditer(letters)]
        return ends[-1:] == [len(letters)]

    def _step(self, todo: _Todo, byte: int) -> _Todo | None:
        """What is left behind one byte; `_STUCK` where it does not fit."""
        match todo.head:
            case _Bytes(data=data, at=at) if data[at] == byte:
                if at + 1 == len(data):
                    return todo.rest
                return _Todo(todo.head._replace(at=at + 1), todo.rest, todo.cost - 1)
            case _Text(filled):
                return self._put(_Text(filled or byte not in WHITESPACE), todo.rest)
            case _Value(dfa, state) if dfa.table[state, byte]:
                return self._put(_Value(dfa, int(dfa.table[state, byte])), todo.rest)
            case _:
                return _STUCK

    def _closed(self, todo: Iterable[_Todo | None]) -> list[_Todo | None]:
        """The same with everything opened that takes no token itself."""
        pending, closed = list(todo), dict[_Todo | None, None]()
        seen = set(pending)
        while pending:
            one = pending.pop()
            if one is None:
                closed[one] = None
                continue
            opened, stays = self._opened(one)
            if stays:
                closed[one] = None
            for other in opened:
                if other not in seen:
                    seen.add(other)
                    pending.append(other)
        return list(closed)

    def _opened(self, todo: _Todo) -> tuple[list[_Todo | None], bool]:
        """What it may be replaced by, and whether it takes a token itself."""
        rest = todo.rest
        match todo.head:
            case _Bytes():
                return [], True
            case _Text(filled):
                return [rest] if filled else [], True
            case _Value(dfa, state):
                return [rest] if dfa.accepting[state] else [], True
            case _Turns(node, low, high, done):
                ways = [rest] if done >= low else []
                if high is None or done < high:
                    again = _Turns(node, low, high, done + 1 if high or done < low else low)
                    ways.append(self._put(node, self._put(again, rest)))
                return ways, False
            case ir.Tag(text=text) if text in self._special:
                return [], True
            case ir.Tag(text=text) | ir.Literal(text=text):
                spelled = _Bytes(text.encode(), 0, isinstance(todo.head, ir.Tag))
                return [self._put(spelled, rest)], False
            case ir.Field(terminal=terminal):
                return [self._put(_field(terminal), rest)], False
            case ir.Ref(rule=rule):
                return [self._put(self._rules[rule], rest)], False
            case ir.Seq(items=items):
                for item in reversed(items):
                    rest = self._put(item, rest)
                return [rest], False
            case ir.Alt(options=options):
                return [self._put(option, rest) for option in options], False
            case _:
                return [self._put(_turns(todo.head), rest)], False

    # -- the fewest tokens, as far as the rules say

    def _put(self, head: _Head, rest: _Todo | None) -> _Todo:
        return _Todo(head, rest, self._cost(head) + (rest.cost if rest is not None else 0))

    def _rule_costs(self) -> dict[str, int]:
        self._least = dict.fromkeys(self._rules, FAR)
        changed = True
        while changed:
            costs = {name: min(FAR, self._cost(node)) for name, node in self._rules.items()}
            changed = costs != self._least
            self._least = costs
        return self._least

    def _cost(self, head: _Head) -> int:
        match head:
            case _Bytes(data=data, at=at):
                return len(data) - at
            case _Text(filled):
                return 0 if filled else 1
            case _Value(dfa, state):
                return int(dfa.distance[state])
            case _Turns(node, low, _, done):
                return max(0, low - done) * self._cost(node)
            case ir.Tag(text=text):
                return 1 if text in self._special else len(text.encode())
            case ir.Literal(text=text):
                return len(text.encode())
            case ir.Field(terminal=terminal):
                return self._cost(_field(terminal))
            case ir.Ref(rule=rule):
                return self._least[rule]
            case ir.Seq(items=items):
                return sum(self._cost(item) for item in items)
            case ir.Alt(options=options):
                return min(self._cost(option) for option in options)
            case _:
                return self._cost(_turns(head))


def _field(terminal: ir.Terminal) -> _Head:
    match terminal.kind:
        case ir.TerminalKind.GLUE:
            return _Bytes(terminal.literal.encode(), 0)
        case ir.TerminalKind.TEXT:
            return _Text(False)
        case _:
            dfa = compile_regex(terminal.pattern)
            return _Value(dfa, dfa.start)


@cache
def _turns(node: ir.Node) -> _Turns:
    """A repetition, map, fork or join as turns; how many branches there are is left open."""
    match node:
        case ir.Repeat(node=inner, low=low, high=high):
            return _Turns(inner, low, high, 0)
        case ir.ForkNode(block=block, branch=branch):
            low = block.low if block.item is None else 0  # a list may be empty
            return _Turns(branch, low, block.high, 0)
        case ir.MapNode(node=inner) | ir.JoinNode(node=inner):
            return _Turns(inner, 1, 1, 0)
        case _:
            raise AssertionError(node)


_STUCK: Final = _Todo(_Bytes(b"", 0), None, FAR)
