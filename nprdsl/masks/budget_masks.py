"""Masks near the end of a budget: only tokens after which the trace can still be finished.

For a state of cost c and slack s the mask keeps the tokens that lead to a cost of at most c + s -
1. With no slack that is closing and nothing else. In free text tokens are judged by class (where
they leave the UTF-8 automaton, whether they are blank), the few that touch a tag one by one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from nprdsl.masks.automaton import Automaton
from nprdsl.masks.fields import U8_START, Local, counts, text_of
from nprdsl.masks.mask_rows import Completed, walk
from nprdsl.masks.parts import Chain, FreshPart, LiteralPart, RegularPart, TagPart
from nprdsl.masks.states import State
from nprdsl.tokens.bitmask import Mask, clear_bit, pack, set_bit, unpack
from nprdsl.tokens.spelling import NEVER
from nprdsl.trace.lexemes import TagMode

_MANY = 4096  # tokens: where more are legal, values are judged by table


def tight_row(automaton: Automaton, state: State, slack: int) -> Mask:
    """int32 [ceil(V/32)]: the tokens after which the cost is at most what it is here, plus `slack`,
    minus 1."""
    row = state.tight.get(slack)
    if row is None:
        row = state.tight[slack] = automaton.rows.intern(_tight_row(automaton, state, slack))
    return row


def _tight_row(automaton: Automaton, state: State, slack: int) -> Mask:
    limit = automaton.cost(state) + slack - 1
    text = text_of(state.local)
    if text is not None:
        return _text_row(automaton, state, text[1], limit)
    legal = automaton.row(state)
    row = np.zeros_like(legal)
    tokens = np.flatnonzero(unpack(legal, automaton.vocabulary.size))
    if len(tokens) > _MANY:
        tokens = _by_table(automaton, state, tokens, limit)
    for token in tokens.tolist():
        if cost_after(automaton, state, token) <= limit:
            set_bit(row, token)
    return row


def cost_after(automaton: Automaton, state: State, token: int) -> int:
    """The cost behind a token, tokens owed for a repeated text included; NEVER if it is illegal."""
    tag = automaton.tag_of(token)
    if tag is not None:
        return _cost_behind(automaton, state, tag, state.local)
    data = automaton.vocabulary.bytes_of(token)
    led = walk(automaton.fields, state.local, data) if data else None
    if isinstance(led, Completed) and led.rest:
        after = automaton.complete_uncaptured(state, led.tag, led.rest)
        return NEVER if after is None else automaton.cost(after)
    if isinstance(led, Completed):
        return _cost_behind(automaton, state, led.tag, _inside(automaton, state.local, data[:-1]))
    return NEVER if led is None else _local_cost(automaton, state, led)


def _local_cost(automaton: Automaton, state: State, local: Local) -> int:
    costs = automaton.fields.costs(local).items()
    cost = min((c + state.closings[t] for t, c in costs), default=NEVER)
    return cost + 1 if counts(state.local) else cost


def _cost_behind(automaton: Automaton, state: State, tag: str, last: Local) -> int:
    """The cost behind a tag that is completed from `last`."""
    if tag not in state.closings or not automaton.may_complete(state, tag):
        return NEVER
    return state.closings[tag] + automaton.fields.owed(last, tag)


def _inside(automaton: Automaton, local: Local, data: bytes) -> Local:
    """The state behind a part of a token."""
    for byte in data:
        moved = automaton.fields.step(local, byte)
        assert isinstance(moved, Local), "no tag ends here"
        local = moved
    return local


def _text_row(automaton: Automaton, state: State, start: int, limit: int) -> Mask:
    local, vocabulary = state.local, automaton.vocabulary
    row = _by_class(automaton, state, start, limit)
    special = [] if automaton.mode is TagMode.TEXT else automaton.rows.tag_tokens(local)
    ends = [] if vocabulary.eos_id is None else [vocabulary.eos_id]
    for token in {
        *automaton.rows.text_candidates(local),
        *_closers(automaton, local),
        *special,
        *ends,
    }:
        if cost_after(automaton, state, token) <= limit:
            set_bit(row, token)
        else:
            clear_bit(row, token)
    return row


def _by_class(automaton: Automaton, state: State, start: int, limit: int) -> Mask:
    """The tokens that stay in free text and touch no tag."""
    text, local = automaton.rows.text, state.local
    filled = automaton.fields.is_filled(local)
    ends, blank = text.ends(start), text.blank
    allowed = np.zeros(len(ends), bool)
    for end in np.unique(ends).tolist():
        if not end:
            continue
        for is_blank in (False, True):
            if is_blank and end != U8_START:
                continue
            hub = automaton.fields.text_hub(local, end, filled=filled or not is_blank)
            if _local_cost(automaton, state, hub) <= limit:
                allowed |= (ends == end) & (blank if is_blank else ~blank)
    return pack(allowed, automaton.rows.width)


def _closers(automaton: Automaton, local: Local) -> list[int]:
    """The tokens that spell the beginning of what closes a text: glue, a closing tag."""
    found = []
    for chain, progress in local.places:
        if isinstance(chain.part, (LiteralPart, TagPart)) and isinstance(progress, int):
            rest = _spelled(automaton, chain)[progress:]
            spelled = (automaton.vocabulary.spell(rest[:n]) for n in range(1, len(rest) + 1))
            found += [s[0] for s in spelled if s is not None and len(s) == 1]
    return found


def _spelled(automaton: Automaton, chain: Chain | None) -> bytes:
    """The bytes that a chain must begin with."""
    data = b""
    while chain is not None and isinstance(chain.part, (LiteralPart, TagPart)):
        if isinstance(chain.part, LiteralPart) or automaton.mode is TagMode.TEXT:
            data += chain.part.data
        chain = chain.rest
    return data


def _by_table(
    automaton: Automaton, state: State, tokens: NDArray[np.intp], limit: int
) -> NDArray[np.intp]:
    """Of many legal tokens, those that may be cheap enough by how short the value's ending is."""
    keep = np.zeros(automaton.vocabulary.size, bool)
    closing = min(state.closings.values(), default=NEVER)
    for chain, progress in state.local.places:
        if not isinstance(chain.part, (RegularPart, FreshPart)):
            continue
        dfa, rest = chain.part.dfa, chain.rest.cost if chain.rest is not None else 0
        spelling = automaton.spelling
        at = spelling.state(dfa, progress) if isinstance(progress, bytes) else progress
        ends = automaton.vocabulary.walk(dfa.table, at)
        costs = np.full(len(dfa.table), NEVER)
        for end in np.unique(ends).tolist():
            ending = spelling.completion(dfa, end) if end else None
            if ending is not None:
                costs[end] = spelling.tokens(ending) + rest + closing
        keep |= costs[ends] <= limit
        keep |= (ends == 0) & unpack(automaton.row(state), automaton.vocabulary.size)
    kept = np.flatnonzero(keep[tokens])
    return tokens[kept]
