"""A radix tree over token ids that keeps what a model has computed of prompts, for those that begin
alike.

Prompts go in with what was computed of them, piece by piece; out comes, for another prompt, all
that is kept of its beginning. What is computed right now is claimed, so that who needs it too can
wait instead of computing it again. At most `bound` tokens are kept: what was not used for longest
goes first, from the ends of prompts inwards. It knows nothing of torch or of an engine: what is
kept are `PrefixPiece`s, which can be cut.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, Self, TypeVar

Ids = tuple[int, ...]


class PrefixPiece(Protocol):
    """What is kept of adjacent tokens."""

    def cut(self, at: int) -> tuple[Self, Self]:
        """What belongs to the first `at` tokens, and the rest; neither holds the other's memory."""


PieceT = TypeVar("PieceT", bound=PrefixPiece)


@dataclass(slots=True, eq=False)
class _Node(Generic[PieceT]):
    """An edge of the tree: `tokens` behind those of `parent`; `claim` is who computes them."""

    tokens: Ids
    parent: _Node[PieceT] | None
    claim: int = 0
    piece: PieceT | None = None
    children: dict[int, _Node[PieceT]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Match(Generic[PieceT]):
    """What is kept of a prompt's first `length` tokens, in order; `coming` tokens behind them are
    claimed by `claim`."""

    length: int
    pieces: tuple[PieceT, ...]
    coming: int
    claim: int


class PrefixTree(Generic[PieceT]):
    """Keeps at most `bound` tokens; claims are not counted."""

    def __init__(self, bound: int) -> None:
        self.bound = bound
        self.kept = 0  # tokens
        self._root: _Node[PieceT] = _Node((), None)
        self._kept: OrderedDict[_Node[PieceT], None] = OrderedDict()  # the next to go first

    def match(self, ids: Ids, most: int) -> Match[PieceT]:
        """What is kept, and then claimed, of the first `most` of `ids`; counts as a use."""
        path = self._path(ids[: min(most, self.bound)])
        known = 0
        while known < len(path) and path[known].piece is not None:
            known += 1
        self._touch(path[:known])
        pieces = tuple(node.piece for node in path[:known] if node.piece is not None)
        length = sum(len(node.tokens) for node in path[:known])
        claim = path[known].claim if known < len(path) else 0
        coming = 0
        for node in path[known:]:
            if node.claim != claim or node.piece is not None:
                break
            coming += len(node.tokens)
        return Match(length, pieces, coming if claim else 0, claim)

    def claim(self, ids: Ids, owner: int) -> None:
        """`owner`, a number above 0, computes what nobody has computed of `ids`, nor does now."""
        for node in self._spelled(ids):
            if node.piece is None and not node.claim:
                node.claim = owner

    def keep(self, ids: Ids, compute: Callable[[int, int], PieceT]) -> None:
        """All of `ids` is computed: what is not kept is asked for, from one place up to another."""
        path, begin = self._spelled(ids), 0
        for node in path:
            end = begin + len(node.tokens)
            if node.piece is None:
                node.piece, node.claim = compute(begin, end), 0
                self.kept += end - begin
                self._kept[node] = None
            begin = end
        self._touch(path)
        self._shrink()

    def let_go(self, ids: Ids, owner: int) -> None:
        """`owner` no longer computes `ids`."""
        path = self._path(ids[: self.bound])
        for node in path:
            if node.claim == owner:
                node.claim = 0
        if path:
            self._prune(path[-1])

    def clear(self) -> None:
        """Forgets everything, claims too."""
        self.kept = 0
        self._root = _Node((), None)
        self._kept.clear()

    def check(self, owners: Collection[int]) -> None:
        """What must always hold; `owners` are those that may claim."""
        nodes = list(_below(self._root))
        kept = [node for node in nodes if node.piece is not None]
        assert set(kept) == self._kept.keys()
        assert self.kept == sum(len(node.tokens) for node in kept) <= self.bound
        for node in nodes:
            assert node.tokens and node.parent is not None
            assert node.parent.children[node.tokens[0]] is node
            assert node.piece is None or not node.claim, "what is kept is not computed again"
            assert not node.claim or node.claim in owners
            assert node.piece is not None or node.claim or node.children, "it stands for nothing"

    # -- parts -------------------------------------------------------------------------------------

    def _spelled(self, ids: Ids) -> list[_Node[PieceT]]:
        """The nodes that spell `ids`, up to the bound; the last one may be new."""
        ids = ids[: self.bound]
        path = self._path(ids)
        begin = sum(len(node.tokens) for node in path)
        if begin < len(ids):
            parent = path[-1] if path else self._root
            path.append(_Node(ids[begin:], parent))
            parent.children[ids[begin]] = path[-1]
        return path

    def _path(self, ids: Ids) -> list[_Node[PieceT]]:
        """The nodes that spell the longest known beginning of `ids`; the last is cut to fit."""
        path: list[_Node[PieceT]] = []
        node, begin = self._root, 0
        while begin < len(ids):
            child = node.children.get(ids[begin])
            if child is None:
                break
            same = _alike(child.tokens, ids[begin : begin + len(child.tokens)])
            path.append(child if same == len(child.tokens) else self._cut(child, same))
            if path[-1] is not child:
                break
            node, begin = child, begin + same
        return path

    def _cut(self, node: _Node[PieceT], at: int) -> _Node[PieceT]:
        """Cuts an edge in two; gives the first one."""
        parent = node.parent
        assert parent is not None
        head: _Node[PieceT] = _Node(node.tokens[:at], parent, node.claim)
        parent.children[head.tokens[0]] = head
        node.tokens, node.parent = node.tokens[at:], head
        head.children[node.tokens[0]] = node
        if node.piece is not None:
            head.piece, node.piece = node.piece.cut(at)
            self._kept[head] = None
            self._touch(self._line(node))
        return head

    def _line(self, node: _Node[PieceT]) -> list[_Node[PieceT]]:
        """The nodes from the root down to this one."""
        line, at = [node], node.parent
        while at is not None and at.parent is not None:
            line.append(at)
            at = at.parent
        return line[::-1]

    def _touch(self, path: Sequence[_Node[PieceT]]) -> None:
        """A node is never older than those below it, so that the oldest is at an end."""
        for node in reversed(path):
            if node in self._kept:
                self._kept.move_to_end(node)

    def _shrink(self) -> None:
        while self.kept > self.bound:
            node = next(iter(self._kept))
            left = len(node.tokens) - (self.kept - self.bound)
            if left > 0 and not node.children:
                self._kept.move_to_end(self._cut(node, left), last=False)
            del self._kept[node]
            self.kept -= len(node.tokens)
            node.piece = None
            self._prune(node)

    def _prune(self, node: _Node[PieceT]) -> None:
        """Takes nodes away, from this one up, that hold nothing and lead nowhere."""
        while node.parent and node.piece is None and not node.claim and not node.children:
            del node.parent.children[node.tokens[0]]
            node = node.parent


def _alike(a: Ids, b: Ids) -> int:
    """How many tokens are the same from the beginning on."""
    if a == b:
        return len(a)
    return next(
        (i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b))
    )


def _below(node: _Node[PieceT]) -> Iterator[_Node[PieceT]]:
    nodes = list(node.children.values())
    while nodes:
        node = nodes.pop()
        yield node
        nodes += node.children.values()
