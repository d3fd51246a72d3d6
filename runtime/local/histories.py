"""The token ids that each branch of a request has in its own visible trace, for repetition
penalties.

Kept only for requests that have a penalty. Non-goals: the penalty itself (see `sampler`).
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from nprdsl.actions import Action, Drop, Feed, Fork, Join

Ids = NDArray[np.int64]


class History:
    """Distinct ids, in order of first appearance."""

    __slots__ = ("_count", "_ids", "_known")

    def __init__(self) -> None:
        self._ids: Ids = np.empty(64, dtype=np.int64)
        self._count = 0
        self._known: set[int] = set()

    @property
    def ids(self) -> Ids:
        return self._ids[: self._count]

    def add(self, tokens: Iterable[int]) -> None:
        for token in tokens:
            if token not in self._known:
                self._known.add(token)
                if self._count == len(self._ids):
                    self._ids = np.concatenate([self._ids, np.empty_like(self._ids)])
                self._ids[self._count] = token
                self._count += 1

    def copy(self) -> History:
        twin = History()
        twin._ids, twin._count, twin._known = self._ids.copy(), self._count, set(self._known)
        return twin


class Histories:
    """Of all live branches of one request."""

    def __init__(self) -> None:
        self._of = {0: History()}

    def ids(self, branch: int) -> Ids:
        return self._of[branch].ids

    def apply(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case Feed(branch, tokens):
                    self._of[branch].add(tokens)
                case Fork(parent, children):
                    for child in children:
                        self._of[child] = self._of[parent].copy()
                case Join(parent, children):
                    for child in children:
                        self._of[parent].add(self._of.pop(child).ids.tolist())
                case Drop(_, children):
                    for child in children:
                        del self._of[child]
