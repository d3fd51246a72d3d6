"""The KV slots that are promised to traces, of a pool that SGLang's plain requests use too.

By the same policy as in the local engine (`nprdsl.runtime.admission`) a trace is let in with what
its kind is likely to take, grows while it runs, and gives all back where nothing is left. What is
promised stays free until it is used: SGLang's admission of plain requests does not see it, and
plain requests that have grown into it are retracted by SGLang, and computed again later, before a
branch would miss a slot. A trace grows at the expense of younger ones; the oldest, once none of
them can give, at that of plain requests. So the oldest always goes on, and nothing can deadlock.

This module decides, in numbers of slots; who gives back, and how, is told by its caller.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from nprdsl.runtime.admission import LikelyLengths, at_start, giving_back, grown


class Pool(Protocol):
    """The memory of all requests."""

    @property
    def free_slots(self) -> int:
        """Slots that are free, or hold cached prefixes that no request uses."""


class Holder(Protocol):
    """A request for a trace. `number` grows with the order of arrival; requests of one `kind` are
    likely to take equally many slots; `prompt` are those of its prompt, `least` and `slots` the
    fewest behind it and the most that it can ever need. `promised` and `peak`, the most that it
    needed so far, are kept here."""

    number: int
    kind: Hashable
    least: int
    slots: int
    promised: int
    peak: int

    @property
    def prompt(self) -> int: ...

    @property
    def needed(self) -> int:
        """Slots for all that is in the KV cache by now, or waits to be fed."""

    @property
    def held_slots(self) -> int:
        """Slots in use, those included that it shares with SGLang's tree."""

    @property
    def shared_slots(self) -> int:
        """Of these, those in SGLang's tree, which others may hold too."""

    @property
    def in_prompt(self) -> bool:
        """Whether SGLang has its prompt, in its queue or half computed."""


HolderT = TypeVar("HolderT", bound=Holder)


class KVReservations(Generic[HolderT]):
    """What is promised to the traces that were let in."""

    def __init__(self, pool: Pool) -> None:
        self.admitted: list[HolderT] = []
        self._pool = pool
        self._lengths = LikelyLengths()

    @property
    def outstanding(self) -> int:
        """Slots that are promised and not in use yet."""
        return sum(max(0, run.promised - run.held_slots) for run in self.admitted)

    @property
    def hidden(self) -> int:
        """Slots that SGLang's admission must not count on: those outstanding, except for prompts
        that it will admit itself, and those that a trace waits for which could not grow."""
        in_prompt = [run for run in self.admitted if run.in_prompt]
        prompts = sum(max(0, run.prompt - run.held_slots) for run in in_prompt)
        return max(0, self.outstanding - prompts) + self._missing

    @property
    def _missing(self) -> int:
        return sum(max(0, run.needed - run.promised) for run in self.admitted)

    def at_start(self, run: HolderT) -> int:
        """The slots that are promised to a request that is let in now."""
        likely = self._lengths.likely(run.kind, run.least)
        return at_start(likely, run.needed, run.prompt, run.slots)

    def fits(self, slots: int, plain: int) -> bool:
        """Whether a request of so many slots can start now, if plain prompts that are being
        computed need `plain` slots more."""
        return self._free(plain) - self._missing >= slots

    def may_decode(self, plain: int) -> bool:
        """Whether a decode step in which plain requests take so many slots leaves all that is
        promised; branches only take what is theirs."""
        return not plain or self._free(plain) >= 0

    def let_in(self, run: HolderT) -> int:
        """Promises its slots to a request that fits; gives their number."""
        run.promised = self.at_start(run)
        self.admitted.append(run)
        return run.promised

    def grow(
        self, plain: int, give_back: Callable[[HolderT], None], retract: Callable[[], bool]
    ) -> int:
        """Promises more to traces that have more to feed than slots, the oldest first; gives how
        many slots. A trace that has still too few afterwards must not feed anything.

        `plain`: as in `fits`. `give_back` makes a trace wait again, and takes it from those
        admitted; `retract` frees what one plain request has, if it can.
        """
        for run in self.admitted:
            run.peak = max(run.peak, run.needed)
        short = [run for run in self.admitted if run.needed > run.promised]
        added, free = 0, self._free(plain) if short else 0
        for run in sorted(short, key=lambda run: run.number):
            if run not in self.admitted:
                continue  # an older one has needed its slots
            more = run.needed - run.promised
            if free < more:
                for youngest in self._giving_back(run, more, free):
                    if free < more:
                        give_back(youngest)
                        free = self._free(plain)
                while free < more and run is self._oldest and retract():
                    free = self._free(plain)
            if free >= more and run in self.admitted:
                step = min(grown(run.needed, run.prompt, run.slots) - run.promised, free)
                run.promised += step
                added += step
                free -= step
        return added

    def ended(self, run: HolderT) -> None:
        """A trace has ended by itself, or at its budget."""
        self._lengths.saw(run.kind, max(run.peak, run.needed) - run.prompt)

    @property
    def _oldest(self) -> HolderT:
        return min(self.admitted, key=lambda run: run.number)

    def _giving_back(self, asker: HolderT, more: int, free: int) -> list[HolderT]:
        """Who gives back for the asker, the youngest first. What the tree may keep of them is not
        counted on; a prompt that is half computed stays."""
        able = {r.number: r for r in self.admitted if not (r.in_prompt and r.held_slots)}
        giving = dict.fromkeys((run.number for run in self.admitted), 0)
        giving |= {n: max(0, run.promised - run.shared_slots) for n, run in able.items()}
        chosen = giving_back(giving, free, asker.number, more)
        return [able[number] for number in chosen if number in able]

    def _free(self, plain: int) -> int:
        """Slots that are promised to nobody."""
        return self._pool.free_slots - self.outstanding - plain
