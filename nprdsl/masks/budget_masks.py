"""Masks near the end of a budget: only tokens after which the trace can still be finished.

For a state of cost c and slack s the mask keeps the tokens that lead to a cost of at most c + s -
1. With no slack that is closing and nothing else. In free text tokens are judged by class (where
they leave the UTF-8 automaton, whether they are blank), the few that touch a tag one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
from numpy.typing import NDArray

from nprdsl.masks.automaton import NO_TOKENS, Automaton, TokenState
from nprdsl.masks.field_rests import Cursor
from nprdsl.masks.fields import Completed, FieldState
from nprdsl.masks.parts import U8_START
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.tokens.bitmask import Mask, clear_bit, pack, set_bit, unpack
from nprdsl.tokens.spelling import NEVER

_MANY: Final = 4096  # tokens: where more are legal, values are judged by table


def tight_mask(automaton: Automaton, state: TokenState, slack: int) -> Mask:
    """int32 [ceil(V/32)]: the tokens after which the cost is at most what it is here, plus `slack`,
    minus 1."""
    mask = state.tight.get(slack)
    if mask is None:
        mask = state.tight[slack] = automaton.table.intern(_tight_mask(automaton, state, slack))
    return mask


def _tight_mask(automaton: Automaton, state: TokenState, slack: int) -> Mask:
    limit = automaton.cost(state) + slack - 1
    text = state.field.text_state
    if text is not None:
        return _in_text(automaton, state, text, limit)
    legal = automaton.mask(state)
    mask = np.zeros_like(legal)
    tokens = np.flatnonzero(unpack(legal, automaton.vocabulary.size))
    if len(tokens) > _MANY:
        tokens = _by_table(automaton, state, tokens, limit)
    for token in tokens.tolist():
        if _cost_after(automaton, state, token) <= limit:
            set_bit(mask, token)
    return mask


def _cost_after(automaton: Automaton, state: TokenState, token: int) -> int:
    """The cost behind a token, tokens owed for a repeated text included; NEVER if it is illegal."""
    tag = automaton.tag_of(state, token)
    if tag is not None:
        return _cost_behind(automaton, state, tag, state.field)
    data, fields = automaton.vocabulary.bytes_of(token), automaton.fields
    after = fields.walk(state.field, data) if data else None
    if not isinstance(after, Completed):
        return NEVER if after is None else _cost_within(automaton, state, after)
    if after.rest:
        entered = automaton.complete(state, after.tag, NO_TOKENS, b"", after.rest)
        return NEVER if entered is None else automaton.cost(entered)
    last = state.field
    for byte in data[:-1]:
        moved = fields.step(last, byte)
        assert isinstance(moved, FieldState), "no tag ends here"
        last = moved
    return _cost_behind(automaton, state, after.tag, last)


def _cost_within(automaton: Automaton, state: TokenState, field: FieldState) -> int:
    """The cost in another state of the same field."""
    costs = automaton.fields.costs(field).items()
    cost = min((c + state.start.closings[t] for t, c in costs), default=NEVER)
    return cost + 1 if state.field.is_counted else cost


def _cost_behind(automaton: Automaton, state: TokenState, tag: str, last: FieldState) -> int:
    """The cost behind a tag that is completed from `last`."""
    if tag not in state.start.closings or not automaton.may_complete(state, tag):
        return NEVER
    return state.start.closings[tag] + automaton.fields.owed(last, tag)


def _in_text(automaton: Automaton, state: TokenState, start: int, limit: int) -> Mask:
    table, vocabulary = automaton.table, automaton.vocabulary
    mask = _by_class(automaton, state, start, limit)
    candidates = table.text_candidates(state.field)
    candidates.update(_closing_tokens(automaton, state.field))
    candidates.update(table.tag_tokens(state.field))
    candidates.update(_value_tokens(automaton, state, limit))
    if vocabulary.eos_id is not None:
        candidates.add(vocabulary.eos_id)
    for token in candidates:
        if _cost_after(automaton, state, token) <= limit:
            set_bit(mask, token)
        else:
            clear_bit(mask, token)
    return mask


def _by_class(automaton: Automaton, state: TokenState, start: int, limit: int) -> Mask:
    """The tokens that stay in free text and touch no tag."""
    text, field, is_filled = automaton.table.text, state.field, state.field.is_filled
    ends, blank = text.ends(start), text.blank
    allowed = np.zeros(len(ends), bool)
    for end in np.unique(ends).tolist():
        if not end:
            continue
        for is_blank in (False, True) if end == U8_START else (False,):
            filled = is_filled or not is_blank
            after = automaton.fields.behind_text(field, end, filled=filled)
            if _cost_within(automaton, state, after) <= limit:
                allowed |= (ends == end) & (blank if is_blank else ~blank)
    if not automaton.fields.is_even(field):
        _judge_begun_tags(automaton, state, allowed, limit)
    return pack(allowed, automaton.table.width)


def _judge_begun_tags(
    automaton: Automaton, state: TokenState, allowed: NDArray[np.bool_], limit: int
) -> None:
    """Judge the tokens that end within a tag begun by where they do, as that makes a difference."""
    text, field = automaton.table.text, state.field
    nodes = automaton.table.scan_ends(field.node)
    begun = np.flatnonzero(nodes > ROOT + 1)
    ends, blank = text.ends(field.text_state or 0)[begun], text.blank[begun]
    within: dict[tuple[int, bool, int], bool] = {}
    places = zip(ends.tolist(), blank.tolist(), nodes[begun].tolist(), strict=True)
    for token, place in zip(begun, places, strict=True):
        if place not in within:
            end, is_blank, node = place
            filled = field.is_filled or not is_blank
            after = automaton.fields.behind_text(field, end, filled=filled, node=node - 1)
            within[place] = bool(end) and _cost_within(automaton, state, after) <= limit
        allowed[token] = within[place]


def _closing_tokens(automaton: Automaton, field: FieldState) -> list[int]:
    """The tokens that spell the beginning of what closes a text: glue, a closing tag."""
    tokens = []
    for rest, progress in field.cursors:
        opening = rest.opening()
        if opening:
            missing = opening[progress:]
            spelled = (automaton.vocabulary.spell(missing[:n]) for n in range(1, len(missing) + 1))
            tokens += [s[0] for s in spelled if s is not None and len(s) == 1]
    return tokens


def _value_tokens(automaton: Automaton, state: TokenState, limit: int) -> Iterator[int]:
    """The tokens that may be cheap as those of a value that may stand in place of the text."""
    fields, size = automaton.fields, automaton.vocabulary.size
    for rest, progress in state.field.cursors:
        if rest.part.value(progress, fields.rests) is not None:
            alone = fields.only(state.field, (rest, progress))
            tokens = np.flatnonzero(unpack(automaton.table.row(alone).bits, size))
            if len(tokens) > _MANY:
                tokens = tokens[_cheap_in_value(automaton, state, (rest, progress), limit)[tokens]]
            yield from tokens.tolist()


def _by_table(
    automaton: Automaton, state: TokenState, tokens: NDArray[np.intp], limit: int
) -> NDArray[np.intp]:
    """Of many legal tokens, those that may be cheap enough by how short the value's ending is."""
    keep = np.zeros(automaton.vocabulary.size, bool)
    for rest, progress in state.field.cursors:
        if rest.part.value(progress, automaton.fields.rests) is not None:
            keep |= _cheap_in_value(automaton, state, (rest, progress), limit)
    return tokens[keep[tokens]]


def _cheap_in_value(
    automaton: Automaton, state: TokenState, cursor: Cursor, limit: int
) -> NDArray[np.bool_]:
    """bool [V]: the tokens behind which a value may be cheap to finish, and those that leave it."""
    spelling, (rest, progress) = automaton.spelling, cursor
    value = rest.part.value(progress, automaton.fields.rests)
    assert value is not None
    dfa, at = value
    closing = min(state.start.closings.values(), default=NEVER)
    behind = rest.rest.cost if rest.rest is not None else 0
    ends = automaton.vocabulary.walk(dfa.table, at)
    costs = np.full(len(dfa.table), NEVER)
    for end in np.unique(ends).tolist():
        ending = spelling.completion(dfa, end) if end else None
        if ending is not None:
            costs[end] = spelling.tokens(ending) + behind + closing
    cheap: NDArray[np.bool_] = (costs[ends] <= limit) | (ends == 0)
    return cheap
