"""The running state of the automaton on one branch: mask, advance, fork.

A matcher is three references; `fork` copies them. Rolling back is keeping the fork.
"""

from __future__ import annotations

from nprdsl.masks.automaton import NO_TOKENS, Automaton, FieldTokens, TokenState
from nprdsl.masks.budget_masks import text_mask, tight_mask
from nprdsl.masks.clean_text import CleanText
from nprdsl.masks.forced_runs import forced_run
from nprdsl.structure.stack import Cell
from nprdsl.structure.tag_machine import TagState
from nprdsl.tokens.bitmask import Mask


class IllegalTokenError(ValueError):
    """A token that may not come next."""


class Matcher:
    """Where one branch stands. Its masks are int32 [ceil(V/32)], bit i%32 of word i//32 is token i,
    1 = allowed; equal masks are the same read-only array."""

    __slots__ = ("_automaton", "_carried", "_field", "_state")

    def __init__(
        self,
        automaton: Automaton,
        state: TokenState,
        field: FieldTokens = NO_TOKENS,
        carried: int = 0,
    ) -> None:
        self._automaton = automaton
        self._state = state
        self._field = field  # as far as its values are repeated by a branch
        self._carried = carried  # tokens so far that a branch will repeat

    def mask(self) -> Mask:
        """The tokens that may come next."""
        mask = self._state.mask
        return mask if mask is not None else self._automaton.mask(self._state)

    def advance(self, token: int) -> None:
        """Take one token; raises `IllegalTokenError` and stays put if it may not come next."""
        state = self._state
        after = state.next.get(token)
        if after is None and state.prose is not None and self._automaton.clean[token]:
            if state.capturing:  # prose, so the field goes on
                self._field = FieldTokens(self._field.head, (*self._field.tokens, token))
            self._state = state.prose
            return
        if after is None:
            after = self._automaton.follow(state, token, self._field)
            if after is None:
                raise IllegalTokenError(self._refusal(token))
        if state.capturing or after.capturing:
            self._begin(state, token)
        self._state = after

    def _begin(self, state: TokenState, token: int) -> None:
        """Keep the field whose values a branch repeats."""
        completed = self._automaton.last_tag(state, token)
        if completed is not None:
            rest = completed[1]
            self._field, self._carried = FieldTokens(rest) if rest else NO_TOKENS, 0
        else:
            self._field = FieldTokens(self._field.head, (*self._field.tokens, token))
            self._carried += state.counted

    def accepts(self, token: int) -> bool:
        """Whether the token may come next."""
        state = self._state
        return token in state.next or self._automaton.follow(state, token, self._field) is not None

    def fork(self) -> Matcher:
        """A matcher that stands at the same place and moves on its own."""
        return Matcher(self._automaton, self._state, self._field, self._carried)

    def forced(self) -> list[int]:
        """The tokens that must come next, up to the next choice; empty where there is a choice."""
        run = self._state.forced
        return list(forced_run(self._automaton, self._state) if run is None else run)

    @property
    def chooses(self) -> bool:
        """Whether a token has to be chosen here: nothing is forced, forks or is finished."""
        state = self._state
        if state.chooses is None:
            over = self.finished or state.structure.fork is not None
            state.chooses = not over and not forced_run(self._automaton, state)
        return state.chooses

    @property
    def cost(self) -> int:
        """The fewest tokens that finish the trace (or branch) legally from here."""
        known = self._state.cost
        return (self._automaton.cost(self._state) if known is None else known) + self._carried

    @property
    def next_tags(self) -> list[str]:
        """The tags (and the end) that may still come next."""
        return list(self._automaton.fields.costs(self._state.field))

    def completes(self, token: int) -> str | None:
        """The tag that a legal token completes; the last one, if it completes several."""
        completed = self._automaton.last_tag(self._state, token)
        return None if completed is None else completed[0]

    def cost_until(self, cell: Cell | None) -> int:
        """The fewest tokens written on this branch until `cell` is left, to the end of that field;
        None: until this field is left."""
        return self._automaton.cost_until(self._state, cell)

    def kept_back(self, tokens: int) -> int:
        """What the texts behind this field need beyond the fewest tokens, at `tokens` each."""
        return self._automaton.kept_back(self._state, tokens)

    @property
    def ample(self) -> int:
        """Slack from which on `tight` refuses nothing here."""
        known = self._state.start.ample
        return self._automaton.ample(self._state) if known is None else known

    def tight(self, slack: int) -> Mask:
        """The mask that keeps only tokens after which the trace can still be finished within
        `cost + slack` tokens, the next one included."""
        return tight_mask(self._automaton, self._state, slack)

    def within_text(self, mask: Mask, slack: int, tags: frozenset[str]) -> Mask:
        """What `mask` allows of the tokens after which one of `tags` (any, where there are none)
        can leave this field within `slack` tokens more than the fewest, the next one included; all
        of it where that is nothing."""
        return text_mask(self._automaton, self._state, mask, slack, tags)

    def breaks(self, token: int, clean: CleanText) -> bool:
        """Whether the token ends a first paragraph of the text in progress."""
        return clean.breaks(self._state, token)

    def affordable(self, clean: CleanText, slack: int) -> frozenset[str]:
        """The tags that may come next and cost no more than `slack` tokens beyond the cheapest
        end."""
        return clean.tags(self._state, slack)

    def clean(self, mask: Mask, clean: CleanText, tags: frozenset[str]) -> Mask:
        """What a mask of this place allows but half tags in free text, and all but `tags`."""
        return clean.mask(self._state, mask, tags)

    def ends_paragraph(self, token: int, clean: CleanText, slack: int) -> bool:
        """Whether the token would begin a line in a text that is one paragraph, and so ends it."""
        return clean.ends(self._state, token, slack)

    @property
    def structure(self) -> TagState:
        """The state of the tag machine: events, forks, the rule that is being read."""
        return self._state.structure

    @property
    def finished(self) -> bool:
        """Nothing is left to write: the branch is complete, or the trace ended with a tag."""
        return self._state.structure.finished

    @property
    def may_end(self) -> bool:
        """Whether the trace is legal if it ends here."""
        return self._automaton.may_end(self._state)

    def _refusal(self, token: int) -> str:
        vocabulary = self._automaton.vocabulary
        text = vocabulary.special_text.get(token) or vocabulary.bytes_of(token).decode(
            "utf-8", "backslashreplace"
        )
        return f"token {token} ({text!r}) may not come next in `{self._state.structure.rule}`"
