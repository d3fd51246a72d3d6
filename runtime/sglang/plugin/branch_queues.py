"""What each branch of a request still has to do on the server, in order.

In go the actions of the request's machine. Each is queued on the branch that it concerns, and done
when everything before it is done: a forward pass feeds tokens to the model; a fork waits until its
parent's tokens are in the KV cache, since a child sees nothing that is computed in the same pass; a
join waits for all that its children have to feed. Out come the tokens that each branch may feed
next, with their position ids (those of `Layout`), and the changes of KV ownership that forks and
joins bring. All actions are kept, so that a request that lost its KV can be computed again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from nprdsl.machine.actions import (
    ROOT,
    Action,
    DropAction,
    EndAction,
    FeedAction,
    ForkAction,
    JoinAction,
)


class QueuedBranch:
    """One branch. `position` is the position id of the next token to feed; `started` says that
    what the branch sees of its parents is in the KV cache; `slots` are those of its own tokens, of
    which some are there and others wait. The queue holds runs of tokens that are to be fed, and
    forks and joins between them."""

    __slots__ = ("number", "parent", "position", "queue", "slots", "started")

    def __init__(
        self, number: int, parent: QueuedBranch | None, position: int, *, started: bool
    ) -> None:
        self.number = number
        self.parent = parent
        self.position = position
        self.started = started
        self.slots = 0
        self.queue: deque[deque[int] | ForkAction | JoinAction | DropAction] = deque()

    @property
    def waiting(self) -> deque[int]:
        """The tokens to feed next; empty if a fork or join comes first, or nothing at all."""
        head = self.queue[0] if self.queue else None
        return head if self.started and isinstance(head, deque) else deque()

    @property
    def drained(self) -> bool:
        """All tokens of the branch are in the KV cache."""
        return self.started and not self.queue

    def fed(self, count: int) -> None:
        """The first `count` waiting tokens are in the KV cache now."""
        if not count:
            return
        tokens = self.waiting
        for _ in range(count):
            tokens.popleft()
        if not tokens:
            self.queue.popleft()
        self.position += count


class KVChangeKind(StrEnum):
    """What happens to the KV of a branch and its children."""

    SHARE = "share"  # the children begin behind what their parent has in the KV cache
    MERGE = "merge"  # the parent takes the KV of its children, in order
    RELEASE = "release"  # the KV of the children, and of all below them, is not needed any more


@dataclass(frozen=True, slots=True)
class KVChange:
    """The effect of one fork (SHARE), `reduce` join (MERGE) or `reread` join (RELEASE)."""

    kind: KVChangeKind
    parent: QueuedBranch
    children: tuple[QueuedBranch, ...]


class BranchQueues:
    """The branches of a request whose prompt has `prompt` tokens. `branches` has those that are
    neither joined nor dropped, by number. `needed` are the KV slots for the prompt, and for all
    that is fed or waits to be."""

    def __init__(self, prompt: int) -> None:
        self.prompt = prompt
        self.actions: list[Action] = []
        self.branches: dict[int, QueuedBranch] = {}
        self._clear()

    def _clear(self) -> None:
        self.needed = self.prompt
        self.branches = {ROOT: QueuedBranch(ROOT, None, self.prompt, started=False)}

    @property
    def root(self) -> QueuedBranch:
        return self.branches[ROOT]

    def apply(self, actions: Iterable[Action]) -> None:
        """Queues what the machine asks for."""
        for action in actions:
            self.actions.append(action)
            self._queue(action)

    def replay(self) -> None:
        """Begins again: all tokens so far have to be fed once more."""
        self._clear()
        for action in self.actions:
            self._queue(action)

    def idle_after(self, branch: QueuedBranch, count: int) -> Iterator[QueuedBranch]:
        """The branches with nothing left to do once `count` tokens of this one are fed: itself, or
        those that draw behind it, as it forks them, or is the last of a join, and nothing is fed
        before they draw."""
        if branch.started and len(branch.waiting) == count:
            left = list(branch.queue)
            yield from self._idle(branch, left[1:] if count else left)

    def _idle(self, branch: QueuedBranch, left: Sequence[object]) -> Iterator[QueuedBranch]:
        match left:
            case []:
                yield branch
                if branch.parent is not None:
                    match list(branch.parent.queue):
                        case [JoinAction(_, numbers), *rest] if numbers[-1] == branch.number:
                            yield from self._idle(branch.parent, rest)
            case [ForkAction(_, numbers)]:
                for child in (self.branches[number] for number in numbers):
                    yield from self._idle(child, list(child.queue))
            case _:
                pass

    def settle(self) -> list[KVChange]:
        """Does all forks and joins that wait for nothing; gives what they do to the KV cache."""
        changes: list[KVChange] = []
        progress = True
        while progress:
            progress = False
            for branch in list(self.branches.values()):
                change = self._fork_or_join(branch)
                if change is not None:
                    changes.append(change)
                    progress = True
        return changes

    def _queue(self, action: Action) -> None:
        match action:
            case FeedAction(number, tokens):
                self._take(self.branches[number], len(tokens))
                queue = self.branches[number].queue
                if queue and isinstance(queue[-1], deque):
                    queue[-1].extend(tokens)
                elif tokens:
                    queue.append(deque(tokens))
            case ForkAction(parent, children):
                branch = self.branches[parent]
                for child in children:
                    self.branches[child] = QueuedBranch(child, branch, 0, started=False)
                branch.queue.append(action)
            case JoinAction(parent, _):
                self.branches[parent].queue.append(action)
            case DropAction(parent, numbers):
                for dropped in self._subtrees(numbers):  # they need not feed what is left
                    runs = [part for part in dropped.queue if isinstance(part, deque)]
                    self._take(dropped, -sum(map(len, runs)))
                    dropped.queue.clear()
                self.branches[parent].queue.append(action)
            case EndAction():
                pass

    def _take(self, branch: QueuedBranch, slots: int) -> None:
        branch.slots += slots
        self.needed += slots

    def _fork_or_join(self, branch: QueuedBranch) -> KVChange | None:
        """The change that the head of the branch's queue brings, if it waits for nothing."""
        is_gone = branch.number not in self.branches
        if is_gone or not branch.started or not branch.queue:
            return None
        match branch.queue[0]:
            case ForkAction(_, numbers):
                kind, children = KVChangeKind.SHARE, tuple(self.branches[n] for n in numbers)
                for child in children:
                    child.started, child.position = True, branch.position
            case JoinAction(_, numbers):
                kind, children = KVChangeKind.MERGE, tuple(self.branches[n] for n in numbers)
                if not all(child.drained for child in children):
                    return None
                branch.position = max(branch.position, *(child.position for child in children))
                branch.slots += sum(child.slots for child in children)
                self._remove(children)
            case DropAction(_, numbers):
                kind, children = KVChangeKind.RELEASE, tuple(self._subtrees(numbers))
                self.needed -= sum(child.slots for child in children)
                self._remove(children)
            case _:
                return None
        branch.queue.popleft()
        return KVChange(kind, branch, children)

    def _remove(self, branches: Iterable[QueuedBranch]) -> None:
        for branch in branches:
            del self.branches[branch.number]

    def _subtrees(self, numbers: Iterable[int]) -> Iterator[QueuedBranch]:
        """The branches of these numbers and all below them, parents first."""
        for number in numbers:
            branch = self.branches[number]
            yield branch
            children = [b.number for b in self.branches.values() if b.parent is branch]
            yield from self._subtrees(children)
