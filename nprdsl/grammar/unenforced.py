"""What a schema seems to mean and does not: formats that hold less than their authors think.

A grammar that loads goes in; sentences come out, each with its place, what cannot be said in the
language, and the way out. They are warnings: the schema means what the documentation says, but
names and shapes suggest something else. Names are guessed from words in tags, so a list of what is
found is no proof that nothing else is missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce
from itertools import pairwise
from operator import or_
from typing import Final, NamedTuple

from nprdsl.grammar.diagnostics import Span
from nprdsl.grammar.ir import (
    Alt,
    Block,
    Field,
    Grammar,
    Node,
    Ref,
    Repeat,
    Tag,
    TerminalKind,
    children,
    nodes,
)
from nprdsl.grammar.item_counts import listing_of, may_list_more
from nprdsl.grammar.label_values import scarce_labels
from nprdsl.grammar.walk import Bodies, Uses, bodies, reachable, references

_NUMBER: Final = re.compile(r"\d+")
_WORD: Final = re.compile(r"[a-z]+")
_CALLS: Final = frozenset(
    ("action", "call", "execute", "function", "invoke", "query", "search", "tool")
)
_ANSWERS: Final = frozenset(
    ("documents", "information", "obs", "observation", "output", "response", "result", "results")
)
_RESULTS: Final = frozenset(("output", "result", "results", "return", "returns"))


def unenforced(grammar: Grammar) -> list[str]:
    """A sentence for each thing found, in the order of the blocks and rules."""
    rules = bodies(grammar.rules)
    found: dict[str, None] = {}
    for block in grammar.blocks:
        found.update(dict.fromkeys(_numbered(block, rules)))
        found.update(dict.fromkeys(_written_on(block, rules)))
        found.update(dict.fromkeys(_result_only(block, rules)))
        if block.item is not None:
            item, branch = rules[block.item], rules[block.branch]
            found.update(dict.fromkeys(_from_outside([*_leaves(item), *_leaves(branch)])))
    for body in rules.values():
        found.update(dict.fromkeys(_from_outside(_leaves(body))))
    for block, name, count in scarce_labels(grammar):
        if may_list_more(block, rules, count):
            found[_scarce(block, name, count)] = None
    return list(found)


def _at(span: Span, sentence: str) -> str:
    return f"{span.file}:{span.line}:{span.column}: {sentence}"


def _scarce(block: Block, name: str, count: int) -> str:
    return _at(
        block.span,
        f"this list may end after {count:,} item{'s' * (count != 1)}: only so many values of "
        f"`{name}` spell no tag in every place where `{block.item}` may write one, and these alone "
        "are counted; put a literal beside it that breaks the tag",
    )


# -- the k-th branch has the k-th tag -------------------------------------------------------------


def _numbered(block: Block, rules: Bodies) -> Iterator[str]:
    body = rules[block.branch]
    options = body.options if isinstance(body, Alt) else ()
    series: dict[str, list[Tag]] = {}
    for tag in map(_first_leaf, options):
        if isinstance(tag, Tag) and _NUMBER.search(tag.text):
            series.setdefault(_NUMBER.sub("#", tag.text), []).append(tag)
    for same in series.values():
        if len({tag.text for tag in same}) > 1:
            yield _at(
                same[0].span,
                f"any branch of `{block.rule}` may open with `{same[0].text}`, and two may: "
                "branches that know their number cannot be said; list items, whose labels differ "
                "(`map{…}`), or check the order where the trace is read",
            )


def _first_leaf(node: Node) -> Node:
    while inner := children(node):
        node = inner[0]
    return node


# -- branches that run while the list is written ---------------------------------------------------


class _Met(NamedTuple):
    """What a part of a list holds: an item, free text, and text behind, before, between items."""

    item: bool = False
    text: bool = False
    behind: bool = False
    before: bool = False
    between: bool = False

    def then(self, other: _Met) -> _Met:
        return _Met(
            self.item or other.item,
            self.text or other.text,
            self.behind or other.behind or (self.item and other.text),
            self.before or other.before or (self.text and other.item),
            self.between
            or other.between
            or (self.behind and other.item)
            or (self.item and other.before),
        )

    def either(self, other: _Met) -> _Met:
        return _Met(*map(or_, self, other))


def _written_on(block: Block, rules: Bodies) -> Iterator[str]:
    listing = listing_of(block, rules)
    if listing is None or block.item is None:
        return
    names = reachable(references(listing), rules) - {block.item}
    inner = {name: rules[name] for name in names}
    met = Uses.of(inner).at_rest(_Met(), lambda name, found: _met(inner[name], block.item, found))
    if _met(listing.node, block.item, met).between:
        yield _at(
            listing.span,
            f"the branches of `{block.rule}` begin where its list has ended: what is written "
            f"between two `{block.item}` is written before any of them runs; branches that run "
            "while their list is written cannot be said",
        )


def _met(node: Node, item: str | None, rules: Mapping[str, _Met]) -> _Met:
    match node:
        case Field(terminal=terminal):
            return _Met(text=terminal.kind is TerminalKind.TEXT)
        case Ref(rule=rule):
            return _Met(item=True) if rule == item else rules.get(rule, _Met())
        case Alt(options=options):
            return reduce(_Met.either, (_met(option, item, rules) for option in options), _Met())
        case Repeat(node=inner, high=high):
            turn = _met(inner, item, rules)
            return turn if high == 1 else turn.then(turn)
        case _:
            return reduce(_Met.then, (_met(part, item, rules) for part in children(node)), _Met())


# -- a part of a branch alone is seen, or comes from elsewhere ------------------------------------


def _result_only(block: Block, rules: Bodies) -> Iterator[str]:
    thought = False  # whether free text stands before it
    for leaf in _leaves(rules[block.branch]):
        if isinstance(leaf, Field):
            thought = True
        elif thought and _opens(leaf, _RESULTS):
            yield _at(
                leaf.span,
                f"behind the join all of a `{block.branch}` is seen, not only its `{leaf.text}`: a "
                "join that sees a part of each branch cannot be said; let the branch hold that "
                "part alone",
            )
            return
        elif _opens(leaf, _CALLS):
            return  # what follows is what it gives


def _from_outside(leaves: list[Tag | Field]) -> Iterator[str]:
    """A call, and behind it the answer that only its receiver can give."""
    call: Tag | None = None
    for leaf, behind in pairwise(leaves):
        if not isinstance(leaf, Tag):
            continue
        if call is not None and _opens(leaf, _ANSWERS) and isinstance(behind, Field):
            yield _at(
                leaf.span,
                f"the model itself writes what stands behind `{leaf.text}`: text from outside, "
                f"such as the answer to `{call.text}`, cannot be said; let the trace end with the "
                "call, and put the answer into the next prompt",
            )
            return
        if _opens(leaf, _CALLS):
            call = leaf


def _leaves(body: Node) -> list[Tag | Field]:
    """The tags and free texts of a rule, in order."""
    found = (node for node in nodes(body) if isinstance(node, Tag | Field))
    return [n for n in found if isinstance(n, Tag) or n.terminal.kind is TerminalKind.TEXT]


def _opens(tag: Tag, words: Iterable[str]) -> bool:
    return "/" not in tag.text and not set(words).isdisjoint(_WORD.findall(tag.text.lower()))
