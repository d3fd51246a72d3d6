"""Writes one trace as one stream, for programs that know no branches.

A machine forks and asks for tokens on several branches. Here it is driven in turn: the first branch
until it ends, then the second, then what follows the join. Tokens come one by one, in the order in
which the trace is read; those that the machine forces are `due` until they have come too.
"""

from __future__ import annotations

from collections import deque

from nprdsl.machine.machine import Machine
from nprdsl.masks.matcher import IllegalTokenError
from nprdsl.tokens.bitmask import Mask, allows


class LinearWriter:
    """A machine that has not begun, driven in turn. `due`: the tokens that must come next; where it
    is empty there is a choice, or the trace has `ended`."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        machine.start()
        self.due = deque(self._settled())

    @property
    def ended(self) -> bool:
        """Whether the whole trace was written; its end token need not follow."""
        return self.machine.ended is not None and not self.due

    def mask(self) -> Mask:
        """The tokens that may be chosen, where nothing is due and the trace has not ended."""
        return self.machine.mask(self.machine.live[0])

    def take(self, token: int) -> None:
        """The token that was written next. Raises IllegalTokenError, and stays, if it may not be.
        Behind the end anything may follow."""
        if self.ended:
            return
        if self.due:
            if token != self.due[0]:
                raise IllegalTokenError(f"token {token} was written where {self.due[0]} must be")
            self.due.popleft()
            return
        if not allows(self.mask(), token):
            raise IllegalTokenError(f"token {token} was written where its mask forbids it")
        self.machine.advance(self.machine.live[0], token)
        self.due.extend(self._settled()[1:])  # the first is the token itself

    def _settled(self) -> list[int]:
        return [written.token for written in self.machine.transcript.settled()]
