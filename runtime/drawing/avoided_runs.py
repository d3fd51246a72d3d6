"""Which tokens would go on copying a text that a model is not to copy, such as a worked example.

A small model that is shown an example repeats whole sentences of it. Where a branch has just
written the first tokens of a run that stands in such a text, the token that would complete the run
is not drawn. Runs end at tags, so only what a branch writes freely is compared. Texts of
`Sampling.avoid` go in, with what happens to branches; token ids come out.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Final

from nprdsl.machine.actions import Action, DropAction, FeedAction, ForkAction, JoinAction
from nprdsl.tokens.vocabulary import UnspellableError, Vocabulary

RUN: Final = 5  # tokens on end
_MOST = 64  # lists of texts whose runs are kept

Ids = tuple[int, ...]


class AvoidedRuns:
    """All runs of `RUN` tokens that stand in some texts."""

    def __init__(self, vocabulary: Vocabulary, texts: Iterable[str]) -> None:
        ends: dict[Ids, set[int]] = {}
        for text in texts:
            try:
                ids = vocabulary.encode(text)
            except UnspellableError:
                continue  # nor can it be copied
            for end in range(RUN - 1, len(ids)):
                ends.setdefault(ids[end - RUN + 1 : end], set()).add(ids[end])
        self._ends = {begun: tuple(sorted(tokens)) for begun, tokens in ends.items()}

    def completing(self, written: Ids) -> Ids:
        """The tokens that would complete a run of which these are the tokens before the last."""
        return self._ends.get(written, ())


class AvoidedTexts:
    """The runs of what requests over one vocabulary avoid, kept, as many are shown the same
    examples."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._kept = lru_cache(_MOST)(partial(AvoidedRuns, vocabulary))

    def runs(self, texts: tuple[str, ...]) -> AvoidedRuns | None:
        """Those of `Sampling.avoid`; None where nothing is to be avoided."""
        return self._kept(texts) if texts else None


class LastTokens:
    """The last `RUN` - 1 tokens of each live branch of a request; what its parent wrote is not the
    branch's own."""

    def __init__(self) -> None:
        self._of: dict[int, Ids] = {0: ()}

    def of(self, branch: int) -> Ids:
        return self._of[branch]

    def apply(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case FeedAction(branch, tokens):
                    self._of[branch] = (self._of[branch] + tokens)[1 - RUN :]
                case ForkAction(_, children):
                    self._of |= dict.fromkeys(children, ())
                case JoinAction(parent, children):
                    self._of[parent] = ()
                    self._forget(children)
                case DropAction(_, children):
                    self._forget(children)

    def _forget(self, branches: Iterable[int]) -> None:
        for branch in branches:
            del self._of[branch]
