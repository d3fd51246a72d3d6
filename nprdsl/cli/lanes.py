"""The branches of a running generation, from its events: what each has written, in which order.

`Board` follows the events; `Linear` reads the trace from it in linear order, as far as it is
settled.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field

from nprdsl.structure.events import (
    BranchEndEvent,
    BranchReason,
    EndEvent,
    EndReason,
    Event,
    ForkEvent,
    JoinEvent,
    TokenEvent,
)
from nprdsl.tokens.vocabulary import Vocabulary

ROOT = 0


@dataclass(frozen=True, slots=True)
class Piece:
    text: str
    forced: bool


@dataclass(slots=True)
class Block:
    """The place where a branch forked. `joined` is set when it goes on."""

    children: tuple[Lane, ...]
    joined: bool = False


@dataclass(slots=True)
class Lane:
    """One branch: its pieces and blocks in order. `title` names its rule and its item; `ended` says
    why, None while it runs."""

    number: int
    title: str
    items: list[Piece | Block] = field(default_factory=list)
    tokens: int = 0
    ended: BranchReason | EndReason | None = None
    decoder: codecs.IncrementalDecoder = field(
        default_factory=lambda: codecs.getincrementaldecoder("utf-8")("replace")
    )


class Board:
    """All lanes of one generation."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self.root = Lane(ROOT, "")
        self._lanes = {ROOT: self.root}
        self._blocks: dict[int, Block] = {}

    @property
    def live(self) -> int:
        """How many branches are being written."""
        waiting = sum(not block.joined for block in self._blocks.values())
        return sum(lane.ended is None for lane in self._lanes.values()) - waiting

    @property
    def tokens(self) -> int:
        """How many tokens were written so far, on all branches."""
        return sum(lane.tokens for lane in self._lanes.values())

    def follow(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case TokenEvent():
                self._write(self._lanes[event.branch], event)
            case ForkEvent():
                self._fork(event)
            case JoinEvent():
                self._blocks[event.parent].joined = True
            case BranchEndEvent():
                self._lanes[event.branch].ended = event.reason
            case EndEvent():
                self.root.ended = event.reason

    def _write(self, lane: Lane, event: TokenEvent) -> None:
        lane.tokens += len(event.tokens)
        text = "".join(self._spelled(lane, token) for token in event.tokens)
        if text:
            lane.items.append(Piece(text, event.forced))

    def _spelled(self, lane: Lane, token: int) -> str:
        """The text that `token` completes: a character may be spelled over several tokens."""
        vocabulary = self._vocabulary
        if token == vocabulary.eos_id:
            return ""
        special = vocabulary.special_text.get(token)
        return lane.decoder.decode(vocabulary.bytes_of(token)) if special is None else special

    def _fork(self, event: ForkEvent) -> None:
        lanes = [
            Lane(number, f"{event.rule} {label}")
            for number, label in zip(event.children, event.labels, strict=True)
        ]
        self._lanes.update({lane.number: lane for lane in lanes})
        self._blocks[event.parent] = block = Block(tuple(lanes))
        self._lanes[event.parent].items.append(block)


class Linear:
    """The trace in linear order, as far as no branch before is still being written."""

    def __init__(self, board: Board) -> None:
        self._open: list[tuple[Lane, int]] = [(board.root, 0)]

    def take(self) -> str:
        """The text that has become settled since the last call."""
        parts: list[str] = []
        while self._open:
            lane, at = self._open.pop()
            if at < len(lane.items):
                self._open.append((lane, at + 1))
                item = lane.items[at]
                if isinstance(item, Piece):
                    parts.append(item.text)
                else:
                    self._open += [(child, 0) for child in reversed(item.children)]
            elif lane.ended is None:
                self._open.append((lane, at))
                break
        return "".join(parts)
