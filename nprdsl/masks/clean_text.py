"""Free text without half a tag: for models that meet spelled tags for the first time.

A text may hold anything that is no tag, so a model that wants a tag where none may stand writes one
that is nearly right, `</step-one>`, and goes on from there. Under this mask a text has a `<` only
on the way to a tag that may come next. Where none may come any more, a text ends with its
paragraph: such a model begins a new line there for a tag, and then for line after line. It takes a
mask and gives a narrower one, or the same where nothing would be left.
"""

from __future__ import annotations

import numpy as np

from nprdsl.masks.automaton import Automaton, TokenState
from nprdsl.regular.aho_corasick import ROOT
from nprdsl.structure.tag_machine import END
from nprdsl.tokens.bitmask import Mask, clear_bit, set_bit

_OPEN = b"<"
_Key = tuple[frozenset[str], int, int]


class CleanText:
    """The masks of one automaton. Equal arguments give the same array."""

    def __init__(self, automaton: Automaton) -> None:
        self._automaton = automaton
        vocabulary = automaton.vocabulary
        tokens = ((t, vocabulary.bytes_of(t)) for t in range(vocabulary.size))
        spelled = {token: data for token, data in tokens if data}
        self._opening = {t: data for t, data in spelled.items() if _OPEN in data}
        self._applies = any(map(self._is_spelled, automaton.grammar.tags))
        self._lines = [token for token, data in spelled.items() if b"\n" in data]
        self._by_bytes = {data: token for token, data in spelled.items()}
        self._known: dict[_Key, tuple[Mask, Mask]] = {}

    def mask(self, state: TokenState, mask: Mask) -> Mask:
        """int32 [ceil(V/32)]: what `mask` allows in free text, half tags left out."""
        if state.field.text_state is None or not self._applies:
            return mask
        tags = state.start.tags - {END}
        key = (tags, state.field.node, id(mask))
        known = self._known.get(key)
        if known is None:  # the mask is kept, so that its address stands for it
            known = self._known[key] = mask, self._clean(tags, state.field.node, mask)
        return known[1]

    def _clean(self, tags: frozenset[str], node: int, mask: Mask) -> Mask:
        spelled = frozenset(tag for tag in tags if self._is_spelled(tag))
        begun = self._begun(spelled, node)
        clean = self._on_the_way(begun, mask) if begun else self._before(spelled, mask)
        for token in () if tags or begun else self._lines:
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
