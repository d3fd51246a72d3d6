"""Where the author of a field had no choice: the stretches that a generation would have forced.

Headers, glue and repeated values are forced; so is what stands behind a value that cannot go on,
and what a value must spell. Characters count; non-goals: fields that may be written in several ways
(see `nprdsl.trace.parser`), which tokens lie in a stretch (see `nprdsl.masks.bound_schema`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache

import numpy as np

from nprdsl.grammar.ir import Field, Literal
from nprdsl.regular.dfa import Dfa, compile_regex
from nprdsl.structure.field_content import BLANKS, Piece, field_of, is_glue, is_text
from nprdsl.structure.stack import Bound, Symbol

Span = tuple[int, int]


def forced_spans(content: str, pieces: Sequence[Piece], end: int) -> list[Span]:
    """The stretches of a field that may be written in one way only, from its start to the `end` of
    the tag behind it."""
    return _joined(_spans(content, pieces, end))


def shared_symbols(ways: Sequence[Sequence[Symbol]]) -> Sequence[Symbol]:
    """What all ways to write a field begin with."""
    first, *others = ways
    count = 0
    for symbols in zip(first, *others, strict=False):
        if any(_kind(symbol) != _kind(symbols[0]) for symbol in symbols):
            break
        count += 1
    return first[:count]


def shared_spans(content: str, pieces: Sequence[Piece], shared: Sequence[Symbol]) -> list[Span]:
    """The stretches of a field that has several ways, as far as they are the same."""
    named = [number for number, symbol in enumerate(shared) if _is_named(symbol)]
    common = pieces[: len(named)]
    end = common[-1].end if common else 0
    for symbol in shared[named[-1] + 1 if named else 0 :]:
        if isinstance(symbol, Literal):
            end += len(symbol.text)
        else:
            rest = content[end:]
            end += len(rest) - len(rest.lstrip(BLANKS))
    return forced_spans(content, common, end)


def _is_named(symbol: Symbol) -> bool:
    """Whether it is a piece of its own."""
    return not isinstance(symbol, Literal) and not is_glue(symbol)


def _kind(symbol: Symbol) -> tuple[str, object]:
    """Equal for symbols that are written alike, wherever they stand in the schema."""
    if isinstance(symbol, Literal):
        return "literal", symbol.text
    if is_glue(symbol):
        return "glue", field_of(symbol).terminal.literal
    return type(symbol).__name__, field_of(symbol).terminal


def decided_at(tag: str, tags: Iterable[str]) -> int:
    """How many characters of a tag must stand before it is no other one of `tags`."""
    others = [other for other in tags if other != tag]
    undecided = (n for n in range(len(tag) + 1) if any(o.startswith(tag[:n]) for o in others))
    return 1 + max(undecided, default=-1)


def _spans(content: str, pieces: Sequence[Piece], end: int) -> Iterator[Span]:
    at, choice = 0, False  # choice: a value may go on where the next stretch begins
    for piece in pieces:
        if piece.start > at:
            yield at + choice, piece.start
            choice = False
        if is_text(piece.symbol) and not isinstance(piece.symbol, Bound):
            return  # a text may always go on, and its tag follows
        if isinstance(piece.symbol, Bound) or _is_glue(piece):
            if piece.end > piece.start:
                yield piece.start + choice, piece.end
                choice = False
        else:
            pattern = field_of(piece.symbol).terminal.pattern
            value = content[piece.start : piece.end]
            for start, stop in _value_spans(pattern, value, choice):
                yield piece.start + start, piece.start + stop
            choice = _goes_on(pattern, value)
        at = piece.end
    yield at + choice, end


def _is_glue(piece: Piece) -> bool:
    return isinstance(piece.symbol, Field) and is_glue(piece.symbol)


def _value_spans(pattern: str, value: str, choice: bool) -> Iterator[Span]:
    """The characters of a value that it must have where they stand."""
    dfa, single = compile_regex(pattern), _single(pattern)
    state = int(dfa.start)
    for number, character in enumerate(value):
        forced = not (choice and not number)
        for byte in character.encode():
            forced = forced and bool(single[state])
            state = int(dfa.table[state, byte])
        if forced:
            yield number, number + 1


def _goes_on(pattern: str, value: str) -> bool:
    """Whether more could follow behind a whole value."""
    dfa = compile_regex(pattern)
    state = int(dfa.start)
    for byte in value.encode():
        state = int(dfa.table[state, byte])
    return bool(dfa.table[state].any())


@cache
def _single(pattern: str) -> list[bool]:
    """For every state: exactly one byte leads on, and the value cannot end there."""
    dfa: Dfa = compile_regex(pattern)
    ways = np.count_nonzero(dfa.table, axis=1)
    found: list[bool] = ((ways == 1) & ~dfa.accepting).tolist()
    return found


def _joined(spans: Iterator[Span]) -> list[Span]:
    """The spans with neighbours joined and empty ones left out."""
    found: list[Span] = []
    for start, end in spans:
        if end <= start:
            continue
        if found and found[-1][1] == start:
            found[-1] = (found[-1][0], end)
        else:
            found.append((start, end))
    return found
