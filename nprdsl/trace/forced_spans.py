"""Which stretches of a text its author could not have written otherwise.

A generation emits such stretches without asking the model, so they are no training targets, and a
token ends on both sides of each. Given the content of a field and the values found in it, this
module finds the spans (first character, character behind the last): literals, glue and repeated
values; the characters that a value must have where they stand (the `x` of `/[0-9]x/`); and the tag,
behind a value that cannot go on. It is the counterpart of `nprdsl.masks.forced_runs` for texts that
nobody may have generated: there bytes are found from a state of the automaton, with glue as the
runtime emits it; here any legal text is read, with whatever glue and tokens it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import cache

import numpy as np

from nprdsl.grammar.ir import Literal
from nprdsl.regular.dfa import compile_regex
from nprdsl.structure.field_content import FieldValue, field_of, is_glue, is_text
from nprdsl.structure.field_split import BLANKS
from nprdsl.structure.stack import BoundField, Symbol

Span = tuple[int, int]


def forced_spans(content: str, values: Sequence[FieldValue], end: int) -> list[Span]:
    """The forced stretches of a field, from its start to the `end` of the tag behind it, neighbours
    joined."""
    spans: list[Span] = []
    for start, stop in _spans(content, values, end):
        if stop > start and spans and spans[-1][1] == start:
            spans[-1] = (spans[-1][0], stop)
        elif stop > start:
            spans.append((start, stop))
    return spans


def shared_symbols(ways: Sequence[Sequence[Symbol]]) -> Sequence[Symbol]:
    """What all ways to write a field begin with."""
    first, *others = ways
    count = 0
    for symbols in zip(first, *others, strict=False):
        if any(_kind(symbol) != _kind(symbols[0]) for symbol in symbols):
            break
        count += 1
    return first[:count]


def shared_spans(
    content: str, values: Sequence[FieldValue], shared: Sequence[Symbol]
) -> list[Span]:
    """The forced stretches of a field that has several ways, as far as they are the same."""
    named = [
        number
        for number, symbol in enumerate(shared)
        if not isinstance(symbol, Literal) and not is_glue(symbol)
    ]
    common = values[: len(named)]
    end = common[-1].end if common else 0
    for symbol in shared[named[-1] + 1 if named else 0 :]:
        if isinstance(symbol, Literal):
            end += len(symbol.text)
        else:
            rest = content[end:]
            end += len(rest) - len(rest.lstrip(BLANKS))
    return forced_spans(content, common, end)


def _kind(symbol: Symbol) -> tuple[str, object]:
    """Equal for symbols that are written alike, wherever they stand in the schema."""
    if isinstance(symbol, Literal):
        return "literal", symbol.text
    if is_glue(symbol):
        return "glue", field_of(symbol).terminal.literal
    return type(symbol).__name__, field_of(symbol).terminal


def decided_at(tag: str, tags: Iterable[str], tokens: Collection[str]) -> int:
    """How many characters of a tag must stand before it is no other one of `tags`; those of
    `tokens` are told apart by their first token."""
    others = [other for other in tags if other != tag]
    spelled = [other for other in others if other not in tokens]
    undecided = (n for n in range(len(tag) + 1) if any(o.startswith(tag[:n]) for o in spelled))
    return 1 + max(undecided, default=0 if others else -1)


def _spans(content: str, values: Sequence[FieldValue], end: int) -> Iterator[Span]:
    at, choice = 0, False  # choice: a value may go on where the next stretch begins
    for value in values:
        if value.start > at:
            yield at + choice, value.start
            choice = False
        if isinstance(value.symbol, BoundField):
            if value.end > value.start:
                yield value.start + choice, value.end
                choice = False
        elif is_text(value.symbol):
            return  # a text may always go on, and its tag follows
        else:
            pattern, text = (
                field_of(value.symbol).terminal.pattern,
                content[value.start : value.end],
            )
            single, goes_on = _walk(pattern, text)
            for number in range(int(choice), len(text)):
                if single[number]:
                    yield value.start + number, value.start + number + 1
            choice = goes_on
        at = value.end
    yield at + choice, end


def _walk(pattern: str, text: str) -> tuple[list[bool], bool]:
    """Whether each character of a value is the only one that may stand there, and whether more
    could follow behind the whole value."""
    dfa, single = compile_regex(pattern), _single(pattern)
    state, forced = int(dfa.start), []
    for character in text:
        ways = []
        for byte in character.encode():
            ways.append(single[state])
            state = int(dfa.table[state, byte])
        forced.append(all(ways))
    return forced, bool(dfa.table[state].any())


@cache
def _single(pattern: str) -> list[bool]:
    """For every state: exactly one byte leads on, and the value cannot end there."""
    dfa = compile_regex(pattern)
    ways = np.count_nonzero(dfa.table, axis=1)
    single: list[bool] = ((ways == 1) & ~dfa.accepting).tolist()
    return single
