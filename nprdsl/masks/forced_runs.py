"""Runs without a choice: the tokens that must come next, to be emitted without asking the model.

A run ends where there is a choice, where branches begin, and where a branch or the trace is
complete. It is spelled as the model's tokenizer would, as long as that takes no more tokens than
were reserved for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nprdsl.masks.automaton import Automaton
from nprdsl.masks.fields import Local
from nprdsl.masks.mask_rows import walk
from nprdsl.masks.parts import (
    AnyGluePart,
    FreshPart,
    LiteralPart,
    RegularPart,
    TagPart,
    TextPart,
)
from nprdsl.masks.states import State
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.spelling import Spelling
from nprdsl.trace.lexemes import TagMode


def forced_run(automaton: Automaton, state: State) -> tuple[int, ...]:
    """The forced tokens from `state`, possibly none. A field that captures values is never forced
    past its tag: the values are read when they are complete."""
    if state.forced is None:
        state.forced = _forced_run(automaton, state)
    return state.forced


def _forced_run(automaton: Automaton, state: State) -> tuple[int, ...]:
    tokens: list[int] = []
    while state.structure.fork is None and not state.structure.finished:
        run, local = _forced_bytes(automaton, state)
        found = _only_tag(automaton, local)
        if found is None:
            tokens += _affordable(automaton, state, run)
            break
        tag, rest = found
        tokens += _spell_tag(automaton, run, tag, rest)
        if state.structure.arcs[tag].captures:
            break
        state = automaton.enter(state.structure.after(tag))
    return tuple(tokens)


@dataclass(frozen=True, slots=True)
class _Run:
    """Forced bytes: `tokens`, which stand for `head`, and `tail`, which may still be spelled."""

    head: bytes
    tokens: tuple[int, ...]
    tail: bytes


def _forced_bytes(automaton: Automaton, state: State) -> tuple[_Run, Local]:
    """What must come next before a tag or a choice, and the state behind it."""
    head, tail, local = b"", bytearray(), state.local
    tokens: tuple[int, ...] = ()
    while not _in_tag(local):
        repeated = _repeated(local)
        if repeated is not None:
            tokens += (*_shortest(automaton, bytes(tail)), *repeated.tokens)
            head, tail = head + tail + repeated.data, bytearray()
            local = _behind(automaton, local, repeated.data)
            continue
        viable = _viable(automaton, local)
        if viable is None or len(viable) != 1 or automaton.rows.tag_tokens(local):
            break
        (byte,) = viable
        moved = automaton.fields.step(local, byte)
        if not isinstance(moved, Local) or _in_tag(moved):
            break
        tail.append(byte)
        local = moved
    return _Run(head, tokens, bytes(tail)), local


def _repeated(local: Local) -> LiteralPart | None:
    """The text that alone may come next, token by token."""
    if len(local.places) != 1:
        return None
    ((chain, progress),) = local.places
    part = chain.part
    return part if isinstance(part, LiteralPart) and part.tokens and not progress else None


def _behind(automaton: Automaton, local: Local, data: bytes) -> Local:
    led = walk(automaton.fields, local, data)
    assert isinstance(led, Local), "no tag is in what must stand here"
    return led


def _viable(automaton: Automaton, local: Local) -> set[int] | None:
    """The bytes that may come next; None if free text, or the end of a value, may."""
    found: set[int] = set()
    for chain, progress in local.places:
        part = chain.part
        if isinstance(part, (TextPart, AnyGluePart)):
            return None
        if isinstance(part, LiteralPart) and isinstance(progress, int):
            found.add(part.data[progress])
        elif isinstance(part, TagPart) and part.data and isinstance(progress, int):
            if automaton.mode is TagMode.TEXT:
                found.add(part.data[progress])
        elif isinstance(part, (RegularPart, FreshPart)):
            found |= _usable(automaton.spelling, part, progress)
    return found


def _usable(spelling: Spelling, part: RegularPart | FreshPart, progress: int | bytes) -> set[int]:
    at = spelling.state(part.dfa, progress) if isinstance(progress, bytes) else progress
    row = part.dfa.table[at]
    return {
        b
        for b in np.flatnonzero(row).tolist()
        if spelling.completion(part.dfa, int(row[b])) is not None
    }


def _in_tag(local: Local) -> bool:
    return any(isinstance(c.part, TagPart) and p for c, p in local.places)


def _only_tag(automaton: Automaton, local: Local) -> tuple[str, bytes] | None:
    """The tag that alone may come next here, and what is missing of its spelling."""
    found = set()
    for chain, progress in local.places:
        part = chain.part
        if isinstance(part, (RegularPart, FreshPart)) and not _usable(
            automaton.spelling, part, progress
        ):
            continue  # a whole value that cannot go on
        if not isinstance(part, TagPart) or not isinstance(progress, int):
            return None
        found.add((part.tag, part.data[progress:]))
    (tag, rest) = found.pop() if len(found) == 1 else (END, b"")
    return (tag, rest) if tag != END else None


def _spell_tag(automaton: Automaton, run: _Run, tag: str, rest: bytes) -> tuple[int, ...]:
    cost = automaton.spelling.tokens
    if automaton.mode is TagMode.TEXT:
        spelled = _encoded(automaton, run.tail + rest, cost(run.tail) + cost(rest))
        return (*run.tokens, *spelled)
    spelled = _encoded(automaton, run.tail, cost(run.tail))
    return (*run.tokens, *spelled, automaton.vocabulary.special[tag])


def _affordable(automaton: Automaton, state: State, run: _Run) -> tuple[int, ...]:
    """The longest part of a run before a choice that leaves enough tokens for every way to end: a
    value may be cheaper to spell whole than in two parts."""
    fields, before = automaton.fields, automaton.fields.costs(state.local)
    for length in range(len(run.tail), -1, -1):
        spelled = automaton.vocabulary.spell(run.tail[:length])
        behind = walk(fields, state.local, run.head + run.tail[:length])
        if spelled is None or not isinstance(behind, Local):
            continue
        after, count = fields.costs(behind), len(run.tokens) + len(spelled)
        if all(cost + count <= before[tag] for tag, cost in after.items()):
            return (*run.tokens, *_encoded(automaton, run.tail[:length], len(spelled)))
    return ()


def _shortest(automaton: Automaton, data: bytes) -> tuple[int, ...]:
    return _encoded(automaton, data, automaton.spelling.tokens(data))


def _encoded(automaton: Automaton, run: bytes, reserved: int) -> tuple[int, ...]:
    """The tokenizer's own spelling if it needs no more tokens than are reserved, else the
    shortest."""
    if not run:
        return ()
    try:
        own = automaton.vocabulary.encode(run.decode())
    except UnicodeDecodeError:  # a token has spelled the beginning of a character
        own = None
    if own is not None and len(own) <= reserved:
        return own
    spelled = automaton.vocabulary.spell(run)
    assert spelled is not None, "checked when the schema was bound"
    return spelled
