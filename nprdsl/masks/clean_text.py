"""Free text without half a tag: for models that meet spelled tags for the first time.

A text may hold anything that is no tag, so a model that wants a tag where none may stand writes one
that is nearly right, `</step-one>`, and goes on from there. Under this mask a text has a `<` only
on the way to a tag that may come next, and that the budget has room for. Where none may come any
more, a text ends with its paragraph: such a model begins a new line there for a tag, and then for
line after line, so the token that would begin one ends the trace and is not written. It takes a
mask and gives a narrower one, or the same where nothing would be left.
"""

from __future__ import annotations

from weakref import WeakKeyDictionary

import numpy as np

from nprdsl.masks.automaton import NO_TOKENS, Automaton, TokenState
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.bitmask import Mask, clear_bit, set_bit

_OPEN = b"<"
_Key = tuple[frozenset[str], int, int, frozenset[int] | None]


class CleanText:
    """The masks of one automaton. Equal arguments give the same array."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        vocabulary = automaton.vocabulary
        tokens = ((t, vocabulary.bytes_of(t)) for t in range(vocabulary.size))
        spelled = {token: data for token, data in tokens if data}
        self._opening = {t: data for t, data in spelled.items() if _OPEN in data}
        self._applies = any(map(self._is_spelled, automaton.grammar.tags))
        self._lines = {token: data.isspace() for token, data in spelled.items() if b"\n" in data}
        self._by_bytes = {data: token for token, data in spelled.items()}
        self._known: dict[_Key, tuple[Mask, Mask]] = {}
        self._blank: WeakKeyDictionary[TokenState, frozenset[int]] = WeakKeyDictionary()

    def mask(self, state: TokenState, mask: Mask, tags: frozenset[str]) -> Mask:
        """int32 [ceil(V/32)]: what `mask` allows in free text, where `tags` may come next: half
        tags are left out, and those of other tags."""
        if state.field.text_state is None or not self._applies:
            return mask
        rests = (rest for rest, _ in state.field.cursors if rest.is_tag)
        here = frozenset(rest.tag for rest in rests if rest.tag in tags)
        lines = None if tags else self._blank_lines(state)
        key = here, state.field.node, id(mask), lines
        known = self._known.get(key)
        if known is None:  # the mask is kept, so that its address stands for it
            known = self._known[key] = mask, self._clean(here, state.field.node, mask, lines)
        return known[1]

    def ends(self, state: TokenState, token: int, slack: int) -> bool:
        """Whether the token, which begins a line, ends the trace in its place."""
        if not self._lines.get(token) or state.field.text_state is None or not self._applies:
            return False
        return self._automaton.may_end(state) and not self.tags(state, slack)

    def breaks(self, state: TokenState, token: int) -> bool:
        """Whether the token begins a line behind what a text has, or with it."""
        if token not in self._lines or state.field.text_state is None or not self._applies:
            return False
        return state.field.is_filled or not self._lines[token]

    def tags(self, state: TokenState, slack: int) -> frozenset[str]:
        """The tags that may come next, as far as what they lead to costs no more than `slack`
        tokens beyond the cheapest end."""
        closings, most = state.start.closings, self._automaton.cost(state) + slack
        costs = self._automaton.fields.costs(state.field).items()
        return frozenset(t for t, cost in costs if t != END and cost + closings[t] <= most)

    def _blank_lines(self, state: TokenState) -> frozenset[int]:
        """The tokens that begin a line where only the end may follow, and that are legal: all that
        hold nothing else once there is a text, before it those that are glue."""
        known = self._blank.get(state)
        if known is None:
            blank = [token for token, is_blank in self._lines.items() if is_blank]
            if not self._automaton.may_end(state):
                blank = [token for token in blank if self._is_glue(state, token)]
            known = self._blank[state] = frozenset(blank)
        return known

    def _is_glue(self, state: TokenState, token: int) -> bool:
        after = self._automaton.follow(state, token, NO_TOKENS)
        return after is not None and self._automaton.may_end(after)

    def _clean(
        self, here: frozenset[str], node: int, mask: Mask, lines: frozenset[int] | None
    ) -> Mask:
        """`here` are the tags that may begin, or go on, at this place; `lines` the tokens of new
        lines that a last text may have, None where the text is not the last."""
        spelled = frozenset(tag for tag in here if self._is_spelled(tag))
        begun = self._begun(spelled, node)
        clean = self._on_the_way(begun, mask) if begun else self._before(spelled, mask)
        for token in () if lines is None else self._lines.keys() - lines:
            clear_bit(clean, token)
        return self._automaton.table.intern(clean) if clean.any() else mask

    def _is_spelled(self, tag: str) -> bool:
        return tag.startswith("<") and tag not in self._automaton.tag_tokens

    def _begun(self, tags: frozenset[str], node: int) -> list[bytes]:
        """What the tags begun there still lack."""
        if node == ROOT:
            return []
        scan, found = self._automaton.fields.scan, []
        for tag in tags:
            data = tag.encode()
            found += [data[n:] for n in range(1, len(data)) if scan.through(ROOT, data[:n]) == node]
        return found

    def _on_the_way(self, rests: list[bytes], mask: Mask) -> Mask:
        """Only tokens that go on with a tag."""
        clean = np.zeros_like(mask)
        for rest in rests:
            for n in range(1, len(rest) + 1):
                token = self._by_bytes.get(rest[:n])
                if token is not None and _has(mask, token):
                    set_bit(clean, token)
        return clean

    def _before(self, tags: frozenset[str], mask: Mask) -> Mask:
        """All tokens but those that begin no tag that may come next."""
        clean = mask.copy()
        for token, data in self._opening.items():
            tail = data[data.rindex(_OPEN) :]
            inside = data.count(_OPEN) == 1 and any(t.encode().startswith(tail) for t in tags)
            if not inside and _has(mask, token) and not self._closes(tags, data):
                clear_bit(clean, token)
        return clean

    def _closes(self, tags: frozenset[str], data: bytes) -> bool:
        """Whether a token spells a whole tag and what follows it."""
        return any(tag.encode() in data for tag in tags)


def _has(mask: Mask, token: int) -> bool:
    return bool(mask[token >> 5] >> (token & 31) & 1)
