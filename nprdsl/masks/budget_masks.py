"""Masks near the end of a budget: only tokens after which the trace can still be finished.

For a state of cost c and slack s the mask keeps the tokens that lead to a cost of at most c + s -
1. With no slack that is closing and nothing else. Where a single text is bounded, the same is asked
of what ends its field, whatever comes behind: a short text may be followed by a long block. In free
text tokens are judged by class (where they leave the UTF-8 automaton, whether they are blank), the
few that touch a tag one by one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


class _Judge:
    """The cost of a place, and the most that a token may lead to. `closings` are what tags cost
    behind the field."""

    def __init__(
        self, automaton: Automaton, state: TokenState, closings: Mapping[str, int], slack: int
    ) -> None:
        self.automaton = automaton
        self.state = state
        self.closings = closings
        self.ends_field = closings is not state.start.closings
        costs = automaton.fields.costs(state.field).items()
        cost = min((c + closings[t] for t, c in costs if t in closings), default=NEVER)
        self.limit = cost + slack - 1

    def behind(self, entered: TokenState) -> int:
        """The cost where a token has gone on into the next field."""
        return 0 if self.ends_field else self.automaton.cost(entered)


def tight_mask(automaton: Automaton, state: TokenState, slack: int) -> Mask:
    """int32 [ceil(V/32)]: the tokens after which the cost is at most what it is here, plus `slack`,
    minus 1."""
    mask = state.tight.get(slack)
    if mask is None:
        judge = _Judge(automaton, state, state.start.closings, slack)
        mask = state.tight[slack] = automaton.table.intern(_tight_mask(judge))
    return mask


def text_mask(
    automaton: Automaton, state: TokenState, mask: Mask, slack: int, tags: frozenset[str]
) -> Mask:
    """What `mask` allows of the tokens after which the field can be ended by one of `tags` (any,
    where there are none) with `slack` tokens more than here, minus 1; all of it where none is
    left."""
    key = slack, id(mask), tags
    known = state.of_text.get(key)
    if known is None:  # the mask is kept, so that its address stands for it
        judge = _Judge(automaton, state, dict.fromkeys(tags or state.start.tags, 0), slack)
        both = mask & _tight_mask(judge)
        kept = automaton.table.intern(both) if both.any() else mask
        known = state.of_text[key] = mask, kept
    return known[1]


def _tight_mask(judge: _Judge) -> Mask:
    automaton, state = judge.automaton, judge.state
    text = state.field.text_state
    if text is not None:
        return _in_text(judge, text)
    legal = automaton.mask(state)
    mask = np.zeros_like(legal)
    tokens = np.flatnonzero(unpack(legal, automaton.vocabulary.size))
    if len(tokens) > _MANY:
        tokens = _by_table(judge, tokens)
    for token in tokens.tolist():
        if _cost_after(judge, token) <= judge.limit:
            set_bit(mask, token)
    return mask


def _cost_after(judge: _Judge, token: int) -> int:
    """The cost behind a token, tokens owed for a repeated text included; NEVER if it is illegal."""
    automaton, state = judge.automaton, judge.state
    tag = automaton.tag_of(state, token)
    if tag is not None:
        return _cost_behind(judge, tag, state.field)
    data, fields = automaton.vocabulary.bytes_of(token), automaton.fields
    after = fields.walk(state.field, data) if data else None
    if not isinstance(after, Completed):
        return NEVER if after is None else _cost_within(judge, after)
    if after.rest:
        entered = automaton.complete(state, after.tag, NO_TOKENS, b"", after.rest)
        return NEVER if entered is None else judge.behind(entered)
    last = state.field
    for byte in data[:-1]:
        moved = fields.step(last, byte)
        assert isinstance(moved, FieldState), "no tag ends here"
        last = moved
    return _cost_behind(judge, after.tag, last)


def _cost_within(judge: _Judge, field: FieldState) -> int:
    """The cost in another state of the same field."""
    costs = judge.automaton.fields.costs(field).items()
    closings = judge.closings
    cost = min((c + closings[t] for t, c in costs if t in closings), default=NEVER)
    return cost + 1 if judge.state.field.is_counted else cost


def _cost_behind(judge: _Judge, tag: str, last: FieldState) -> int:
    """The cost behind a tag that is completed from `last`."""
    automaton = judge.automaton
    if tag not in judge.closings or not automaton.may_complete(judge.state, tag):
        return NEVER
    return judge.closings[tag] + automaton.fields.owed(last, tag)


def _in_text(judge: _Judge, start: int) -> Mask:
    automaton, state = judge.automaton, judge.state
    table, vocabulary = automaton.table, automaton.vocabulary
    mask = _by_class(judge, start)
    candidates = table.text_candidates(state.field)
    candidates.update(_closing_tokens(automaton, state.field))
    candidates.update(table.tag_tokens(state.field))
    candidates.update(_value_tokens(judge))
    if vocabulary.eos_id is not None:
        candidates.add(vocabulary.eos_id)
    for token in candidates:
        if _cost_after(judge, token) <= judge.limit:
            set_bit(mask, token)
        else:
            clear_bit(mask, token)
    return mask


def _by_class(judge: _Judge, start: int) -> Mask:
    """The tokens that stay in free text and touch no tag."""
    automaton, state = judge.automaton, judge.state
    text, field = automaton.table.text, state.field
    ends, blank = text.ends(start), text.blank
    allowed = np.zeros(len(ends), bool)
    for end in np.unique(ends).tolist():
        if not end:
            continue
        for is_blank in (False, True) if end == U8_START else (False,):
            after = automaton.fields.behind_text(field, end, filled=not is_blank)
            if _cost_within(judge, after) <= judge.limit:
                allowed |= (ends == end) & (blank if is_blank else ~blank)
    if not automaton.fields.is_even(field):
        _judge_begun_tags(judge, allowed)
    return pack(allowed, automaton.table.width)


def _judge_begun_tags(judge: _Judge, allowed: NDArray[np.bool_]) -> None:
    """Judge the tokens that end within a tag begun by where they do, as that makes a difference."""
    automaton, state = judge.automaton, judge.state
    text, field = automaton.table.text, state.field
    nodes = automaton.table.scan_ends(field.node)
    begun = np.flatnonzero(nodes > ROOT + 1)
    ends, blank = text.ends(field.text_state or 0)[begun], text.blank[begun]
    within: dict[tuple[int, bool, int], bool] = {}
    places = zip(ends.tolist(), blank.tolist(), nodes[begun].tolist(), strict=True)
    for token, place in zip(begun, places, strict=True):
        if place not in within:
            end, is_blank, node = place
            after = automaton.fields.behind_text(field, end, filled=not is_blank, node=node - 1)
            within[place] = bool(end) and _cost_within(judge, after) <= judge.limit
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


def _value_tokens(judge: _Judge) -> Iterator[int]:
    """The tokens that may be cheap as those of a value that may stand in place of the text."""
    automaton, state = judge.automaton, judge.state
    fields, size = automaton.fields, automaton.vocabulary.size
    for rest, progress in state.field.cursors:
        if rest.part.value(progress, fields.rests) is not None:
            alone = fields.only(state.field, (rest, progress))
            tokens = np.flatnonzero(unpack(automaton.table.row(alone).bits, size))
            if len(tokens) > _MANY:
                tokens = tokens[_cheap_in_value(judge, (rest, progress))[tokens]]
            yield from tokens.tolist()


def _by_table(judge: _Judge, tokens: NDArray[np.intp]) -> NDArray[np.intp]:
    """Of many legal tokens, those that may be cheap enough by how short the value's ending is."""
    automaton, state = judge.automaton, judge.state
    keep = np.zeros(automaton.vocabulary.size, bool)
    for rest, progress in state.field.cursors:
        if rest.part.value(progress, automaton.fields.rests) is not None:
            keep |= _cheap_in_value(judge, (rest, progress))
    return tokens[keep[tokens]]


def _cheap_in_value(judge: _Judge, cursor: Cursor) -> NDArray[np.bool_]:
    """bool [V]: the tokens behind which a value may be cheap to finish, and those that leave it."""
    automaton = judge.automaton
    spelling, (rest, progress) = automaton.spelling, cursor
    value = rest.part.value(progress, automaton.fields.rests)
    assert value is not None
    dfa, at = value
    closing = min(judge.closings.values(), default=NEVER)
    behind = rest.rest.cost if rest.rest is not None else 0
    ends = automaton.vocabulary.walk(dfa.table, at)
    costs = np.full(len(dfa.table), NEVER)
    for end in np.unique(ends).tolist():
        ending = spelling.completion(dfa, end) if end else None
        if ending is not None:
            costs[end] = spelling.tokens(ending) + behind + closing
    cheap: NDArray[np.bool_] = (costs[ends] <= judge.limit) | (ends == 0)
    return cheap
