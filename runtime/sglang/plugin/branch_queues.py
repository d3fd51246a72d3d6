"""The branches of one request as work for a server: what each must feed next, and in which order.

A machine's actions are queued on the branch that they concern and done when all before them is
done: tokens are fed by forwards; a fork waits until its parent's tokens are in the KV cache, since
a child sees nothing that is computed beside it; a join waits for all that its children have to
feed. Positions continue through forks and joins as in the layout. All actions are kept, so that a
request whose KV is lost can be replayed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from nprdsl.machine.actions import (
    ROOT,
    Action,
    DropAction,
    EndAction,
    FeedAction,
    ForkAction,
    JoinAction,
)

Structure = ForkAction | JoinAction | DropAction


@dataclass(slots=True)
class Pending:
    """Tokens that are written but not in the KV cache yet."""

    tokens: deque[int]


class Branch:
    """One branch: its `position` is that of the next token to feed.

    `started`: its prefix is in the KV cache. `over`: it was joined or dropped.
    """

    __slots__ = ("name", "over", "parent", "position", "queue", "started")

    def __init__(self, name: int, parent: Branch | None, position: int, *, started: bool) -> None:
        self.name = name
        self.parent = parent
        self.position = position
        self.started = started
        self.over = False
        self.queue: deque[Pending | Structure] = deque()

    @property
    def waiting(self) -> deque[int]:
        """The tokens to feed next; empty where structure, or nothing, comes first."""
        head = self.queue[0] if self.queue else None
        return head.tokens if self.started and isinstance(head, Pending) else deque()

    @property
    def drained(self) -> bool:
        """All that was written on it is in the KV cache."""
        return self.started and not self.queue

    def last_after(self, count: int) -> bool:
        """Nothing is left to feed, and no fork or join waits, once `count` tokens are fed."""
        if not self.started or len(self.waiting) != count:
            return False
        return len(self.queue) == (1 if count else 0)

    def fed(self, count: int) -> None:
        """The first `count` waiting tokens are in the KV cache."""
        if not count:
            return
        tokens = self.waiting
        for _ in range(count):
            tokens.popleft()
        if not tokens:
            self.queue.popleft()
        self.position += count


@dataclass(frozen=True, slots=True)
class Started:
    """The children begin behind what their parent has in the KV cache."""

    parent: Branch
    children: tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Merged:
    """The parent takes the KV of its children, in order."""

    parent: Branch
    children: tuple[Branch, ...]


@dataclass(frozen=True, slots=True)
class Released:
    """The KV of these branches, and of all below them, is not needed any more; the parent goes on
    from where they forked."""

    parent: Branch
    branches: tuple[Branch, ...]


Effect = Started | Merged | Released


class Forest:
    """All branches of a request whose prompt has `prompt` tokens."""

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt
        self.log: list[Action] = []
        self.branches: dict[int, Branch] = {}
        self._clear()

    def _clear(self) -> None:
        self.branches = {ROOT: Branch(ROOT, None, self.prompt, started=False)}

    @property
    def root(self) -> Branch:
        return self.branches[ROOT]

    def apply(self, actions: Iterable[Action]) -> None:
        """Queue what the machine asks for."""
        for action in actions:
            self.log.append(action)
            self._queue(action)

    def replay(self) -> None:
        """Begin again: all tokens so far have to be fed once more."""
        self._clear()
        for action in self.log:
            self._queue(action)

    def settle(self) -> list[Effect]:
        """Do all forks and joins that wait for nothing; gives what they do to the KV cache."""
        effects: list[Effect] = []
        progress = True
        while progress:
            progress = False
            for branch in list(self.branches.values()):
                effect = self._structure(branch)
                if effect is not None:
                    effects.append(effect)
                    progress = True
        return effects

    def alive(self) -> Iterator[Branch]:
        """All branches that are neither joined nor dropped."""
        return iter(self.branches.values())

    def _queue(self, action: Action) -> None:
        match action:
            case FeedAction(name, tokens):
                self._feed(self.branches[name], tokens)
            case ForkAction(parent, children):
                origin = self.branches[parent]
                for child in children:
                    self.branches[child] = Branch(child, origin, 0, started=False)
                origin.queue.append(action)
            case JoinAction(parent, _) | DropAction(parent, _):
                self.branches[parent].queue.append(action)
            case EndAction():
                pass

    def _feed(self, branch: Branch, tokens: tuple[int, ...]) -> None:
        last = branch.queue[-1] if branch.queue else None
        if isinstance(last, Pending):
            last.tokens.extend(tokens)
        elif tokens:
            branch.queue.append(Pending(deque(tokens)))

    def _structure(self, branch: Branch) -> Effect | None:
        head = branch.queue[0] if branch.started and branch.queue and not branch.over else None
        match head:
            case ForkAction(_, names):
                children = tuple(self.branches[name] for name in names)
                for child in children:
                    child.started, child.position = True, branch.position
                branch.queue.popleft()
                return Started(branch, children)
            case JoinAction(_, names):
                children = tuple(self.branches[name] for name in names)
                if not all(child.drained for child in children):
                    return None
                branch.position = max(branch.position, *(child.position for child in children))
                branch.queue.popleft()
                self._forget(children)
                return Merged(branch, children)
            case DropAction(_, names):
                children = tuple(self._below(names))
                branch.queue.popleft()
                self._forget(children)
                return Released(branch, children)
        return None

    def _forget(self, branches: Iterable[Branch]) -> None:
        for branch in branches:
            branch.over = True
            del self.branches[branch.name]

    def _below(self, names: Iterable[int]) -> Iterator[Branch]:
        """The branches of these names and their children, nearest first."""
        for name in names:
            branch = self.branches[name]
            yield branch
            yield from self._below([b.name for b in self.branches.values() if b.parent is branch])
