"""What each branch of a request draws its next token from, the same in both engines: mask,
settings, what penalties count, what would copy an avoided text, and a uniform number.

The number comes from (seed, branch path, position in the branch) alone, by SplitMix64 (Steele, Lea
and Flood, OOPSLA 2014) used as a counter-based generator. No state is carried from draw to draw, so
neither the batch nor the order of branches nor what else runs can change what a branch draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Protocol

from nprdsl.machine.actions import Action
from nprdsl.machine.transcript import Alternatives
from nprdsl.runtime.drawing.avoided_runs import AvoidedRuns, LastTokens
from nprdsl.runtime.drawing.penalty_counts import Histories
from nprdsl.runtime.drawing.sampler import Draw
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from nprdsl.tokens.bitmask import Mask

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


class Driver(Protocol):
    """What an engine asks of a `nprdsl.machine.machine.Machine`."""

    @property
    def live(self) -> tuple[int, ...]: ...
    @property
    def ended(self) -> EndReason | None: ...
    def start(self) -> Sequence[Action]: ...
    def advance(
        self,
        branch: int,
        token: int,
        logprob: float | None = None,
        alternatives: Alternatives = (),
    ) -> Sequence[Action]: ...
    def abort(self) -> Sequence[Action]: ...
    def fail(self) -> Sequence[Action]: ...
    def mask(self, branch: int) -> Mask: ...
    def rule(self, branch: int) -> str: ...
    def path(self, branch: int) -> tuple[int, ...]: ...
    def position_in_branch(self, branch: int) -> int: ...


class BranchDraws:
    """The draws of one request. `seed` is that of `sampling` plus the number of the sample;
    `avoided` are the runs of its `avoid`, if it has some."""

    def __init__(
        self, machine: Driver, sampling: Sampling, seed: int, avoided: AvoidedRuns | None = None
    ) -> None:
        self._histories = Histories() if sampling.penalises else None
        self._avoided = avoided
        self._last = LastTokens() if avoided is not None else None
        self._machine = machine
        self._sampling = sampling
        self._seed = seed
        self._keys: dict[tuple[int, ...], int] = {}  # by path: numbers may come again

    def saw(self, actions: Sequence[Action]) -> None:
        """Counts what happened; every action of the machine is told, in order."""
        if self._histories is not None:
            self._histories.apply(actions)
        if self._last is not None:
            self._last.apply(actions)

    def of(self, branch: int) -> Draw:
        """What a live branch draws its next token from."""
        machine, settings = self._machine, self._sampling
        path = machine.path(branch)
        key = self._keys.get(path)
        if key is None:
            key = self._keys[path] = branch_key(self._seed, path)
        if settings.rules:
            settings = settings.for_rule(machine.rule(branch))
        number = uniform(key, machine.position_in_branch(branch))
        history = None if self._histories is None else self._histories.seen(branch)
        banned: tuple[int, ...] = ()
        if self._avoided is not None and self._last is not None:
            banned = self._avoided.completing(self._last.of(branch))
        return Draw(machine.mask(branch), settings, number, history, banned)


def branch_key(seed: int, path: tuple[int, ...]) -> int:
    """64 bits that stand for one branch of one request."""
    text = f"{seed}:{','.join(map(str, path))}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little")


def uniform(key: int, position: int) -> float:
    """In [0, 1), a multiple of 2**-48: times a total in float64 it stays below the total."""
    z = (key + (position + 1) * _GOLDEN) & _WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _WORD
    return ((z ^ (z >> 31)) >> 16) * 2.0**-48
