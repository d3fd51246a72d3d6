"""A machine that follows a written plan, so that the engine is tested without schema and automaton.

A plan is a list of steps: `Sample(n)` draws n tokens, `Force(tokens)` appends tokens, `Split` runs
plans on branches of their own. It records every token that was fed, and what each may see, for the
oracle.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from nprdsl.machine.actions import Action, DropAction, EndAction, FeedAction, ForkAction, JoinAction
from nprdsl.machine.transcript import Alternatives
from nprdsl.structure.events import EndReason
from nprdsl.tokens.bitmask import Mask


@dataclass(frozen=True)
class Sample:
    count: int


@dataclass(frozen=True)
class Force:
    tokens: tuple[int, ...]


@dataclass(frozen=True)
class Split:
    branches: tuple[tuple[Step, ...], ...]
    reread: bool = False


Step = Sample | Force | Split
Plan = tuple[Step, ...]


@dataclass
class Fed:
    """One token as the oracle sees it: its position, what it sees, its log-probability if drawn."""

    token: int
    position: int
    sees: frozenset[int]
    logprob: float | None
    branch: int


@dataclass
class Lane:
    """One branch: the plan's rest, the tokens it sees (indices into `fed`), its next position."""

    path: tuple[int, ...]
    steps: list[Step]
    sees: frozenset[int]
    position: int
    parent: int | None = None
    length: int = 0
    blocks: int = 0
    left: int = 0
    open: set[int] = field(default_factory=set)
    children: tuple[int, ...] = ()
    reread: bool = False
    own: list[int] = field(default_factory=list)


class ScriptedMachine:
    """Follows `plan` behind `prompt` over a vocabulary of `width` tokens."""

    def __init__(
        self, plan: Plan, prompt: Sequence[int], width: int, masks: Sequence[Mask] = ()
    ) -> None:
        self.fed: list[Fed] = []
        self.ended: EndReason | None = None
        self.lanes = {0: Lane((), list(plan), frozenset(), 0)}
        self._prompt = tuple(prompt)
        self._masks = masks or [pack(range(width), width)]
        self._actions: list[Action] = []

    @property
    def live(self) -> tuple[int, ...]:
        return tuple(sorted(b for b, lane in self.lanes.items() if lane.left > 0))

    def start(self) -> list[Action]:
        self._feed(0, self._prompt)
        self._actions.clear()  # the engine feeds the prompt
        self.lanes[0].length = 0
        self._go_on(0)
        return self._drain()

    def advance(
        self,
        branch: int,
        token: int,
        logprob: float | None = None,
        alternatives: Alternatives = (),
    ) -> list[Action]:
        lane = self.lanes[branch]
        assert lane.left > 0 and allowed(self.mask(branch), token)
        lane.left -= 1
        self._feed(branch, (token,), logprob)
        if lane.left == 0:
            self._go_on(branch)
        return self._drain()

    def abort(self) -> list[Action]:
        self.ended = EndReason.ABORTED
        self.lanes = {}
        return [EndAction(EndReason.ABORTED)]

    def fail(self) -> list[Action]:
        self.ended = EndReason.FAILED
        self.lanes = {}
        return [EndAction(EndReason.FAILED)]

    def mask(self, branch: int) -> Mask:
        lane = self.lanes[branch]
        return self._masks[(sum(lane.path) + lane.length) % len(self._masks)]

    def rule(self, branch: int) -> str:
        return "step" if self.lanes[branch].path else "start"

    def path(self, branch: int) -> tuple[int, ...]:
        return self.lanes[branch].path

    def position_in_branch(self, branch: int) -> int:
        return self.lanes[branch].length

    # -- the script --------------------------------------------------------------------------------

    def _drain(self) -> list[Action]:
        actions, self._actions = self._actions, []
        merged: list[Action] = []
        for action in actions:
            last = merged[-1] if merged else None
            if (
                isinstance(action, FeedAction)
                and isinstance(last, FeedAction)
                and last.branch == action.branch
            ):
                merged[-1] = FeedAction(action.branch, last.tokens + action.tokens)
            else:
                merged.append(action)
        return merged

    def _feed(self, branch: int, tokens: Sequence[int], logprob: float | None = None) -> None:
        lane = self.lanes[branch]
        for token in tokens:
            index = len(self.fed)
            lane.sees |= {index}
            self.fed.append(Fed(token, lane.position, lane.sees, logprob, branch))
            lane.own.append(index)
            lane.position += 1
            lane.length += 1
        if tokens:
            self._actions.append(FeedAction(branch, tuple(tokens)))

    def _go_on(self, branch: int) -> None:
        lane = self.lanes[branch]
        while lane.steps:
            step = lane.steps.pop(0)
            if isinstance(step, Sample):
                lane.left = step.count
                return
            if isinstance(step, Force):
                self._feed(branch, step.tokens)
            else:
                self._fork(branch, lane, step)
                return
        if lane.parent is None:
            self.ended = EndReason.COMPLETED
            self._actions.append(EndAction(EndReason.COMPLETED))
        else:
            self._branch_done(branch, lane.parent)

    def _fork(self, branch: int, lane: Lane, split: Split) -> None:
        first = max(self.lanes) + 1 + 100 * (lane.blocks == -1)
        lane.children = tuple(range(first, first + len(split.branches)))
        lane.open, lane.reread = set(lane.children), split.reread
        self._actions.append(ForkAction(branch, lane.children))
        for i, (child, plan) in enumerate(zip(lane.children, split.branches, strict=True)):
            path = (*lane.path, lane.blocks, i)
            self.lanes[child] = Lane(path, list(plan), lane.sees, lane.position, parent=branch)
        lane.blocks += 1
        for child in lane.children:
            self._go_on(child)

    def _branch_done(self, branch: int, parent: int) -> None:
        lane = self.lanes[parent]
        lane.open.discard(branch)
        if lane.open:
            return
        children = [self.lanes[c] for c in lane.children]
        if lane.reread:
            self._actions.append(DropAction(parent, lane.children))
            copies = [self.fed[i].token for child in children for i in child.own]
            self._feed(parent, copies)
        else:
            lane.sees = lane.sees.union(*(child.sees for child in children))
            lane.position = max(child.position for child in children)
            self._actions.append(JoinAction(parent, lane.children))
        for child in lane.children:
            del self.lanes[child]
        self._go_on(parent)


def pack(allowed_ids: Sequence[int], width: int) -> Mask:
    """A packed mask that allows these ids."""
    mask = np.zeros((width + 31) // 32, dtype=np.int32)
    for i in allowed_ids:
        mask[i // 32] |= np.int32(np.uint32(1 << (i % 32)).view(np.int32))
    return mask


def allowed(mask: Mask, token: int) -> bool:
    return bool((int(mask[token // 32]) >> (token % 32)) & 1)


def random_masks(rng: random.Random, width: int, count: int = 5) -> list[Mask]:
    """Masks of every kind: all, nearly all, some, few, one."""
    sizes = [width, width - 3, width // 2, 4, 1]
    return [pack(rng.sample(range(width), sizes[i % 5]), width) for i in range(count)]


def random_plan(rng: random.Random, width: int, depth: int = 2, reread: bool = False) -> Plan:
    """Forced and sampled pieces around blocks of two to four branches, nested to `depth`."""

    def pieces(level: int) -> Iterator[Step]:
        yield Force(tuple(rng.choices(range(width), k=rng.randint(1, 4))))
        yield Sample(rng.randint(1, 6))
        if level:
            for _ in range(rng.randint(1, 2)):
                branches = tuple(tuple(pieces(level - 1)) for _ in range(rng.randint(2, 4)))
                yield Split(branches, reread and rng.random() < 0.5)
                yield Force(tuple(rng.choices(range(width), k=rng.randint(1, 3))))
                yield Sample(rng.randint(1, 3))

    return tuple(pieces(depth))


def size(plan: Plan) -> int:
    """The most tokens that a plan feeds, reread copies included."""
    total = 0
    for step in plan:
        if isinstance(step, Sample):
            total += step.count
        elif isinstance(step, Force):
            total += len(step.tokens)
        else:
            total += sum(size(branch) for branch in step.branches) * (1 + step.reread)
    return total
