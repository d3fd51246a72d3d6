"""Counts, for penalties, how often each token stands in the part of the trace that a branch sees.

A fork copies the parent's counts, a join adds what the branches have seen since. Kept only for
requests that have a penalty.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from nprdsl.machine.actions import Action, DropAction, FeedAction, ForkAction, JoinAction

Numbers = NDArray[np.int64]


class Seen(NamedTuple):
    """Distinct ids int64 [N], and how often each was seen, int64 [N]."""

    ids: Numbers
    counts: Numbers


class History:
    """What one branch has seen; ids in order of first appearance."""

    __slots__ = ("_counts", "_ids", "_index")

    def __init__(self) -> None:
        self._ids: Numbers = np.empty(64, dtype=np.int64)
        self._counts: Numbers = np.empty(64, dtype=np.int64)
        self._index: dict[int, int] = {}

    @property
    def seen(self) -> Seen:
        count = len(self._index)
        return Seen(self._ids[:count], self._counts[:count])

    def add(self, token: int, times: int = 1) -> None:
        index = self._index.get(token)
        if index is None:
            index = self._index[token] = len(self._index)
            if index == len(self._ids):
                self._ids = np.concatenate([self._ids, np.empty_like(self._ids)])
                self._counts = np.concatenate([self._counts, np.empty_like(self._counts)])
            self._ids[index] = token
            self._counts[index] = 0
        self._counts[index] += times

    def copy(self) -> History:
        twin = History()
        twin._ids, twin._counts = self._ids.copy(), self._counts.copy()
        twin._index = dict(self._index)
        return twin

    def merge(self, branches: Iterable[History]) -> None:
        """Adds what every branch has seen since it was copied from this one."""
        before = self.seen.counts.copy()
        for branch in branches:
            ids, counts = branch.seen
            since = counts.copy()
            since[: len(before)] -= before
            for token, times in zip(ids.tolist(), since.tolist(), strict=True):
                if times:
                    self.add(token, times)


class Histories:
    """Of all live branches of one request."""

    def __init__(self) -> None:
        self._of = {0: History()}

    def seen(self, branch: int) -> Seen:
        return self._of[branch].seen

    def apply(self, actions: Iterable[Action]) -> None:
        for action in actions:
            match action:
                case FeedAction(branch, tokens):
                    for token in tokens:
                        self._of[branch].add(token)
                case ForkAction(parent, children):
                    for child in children:
                        self._of[child] = self._of[parent].copy()
                case JoinAction(parent, children):
                    self._of[parent].merge([self._of.pop(child) for child in children])
                case DropAction(_, children):
                    for child in children:
                        del self._of[child]
