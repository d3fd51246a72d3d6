"""The execution graph of a trace: which runs were produced after what, in parallel to what.

A parser walks a trace and marks where forks, branches and joins begin, in linear order;
`build_graph` turns the marks into segments, forks and joins with positions and figures. Units are
tokens or characters; the module does not know which and never sees the text.

An *entry* is a unit as a model reads it. Entries and units are the same until a `reread` join:
there the units between fork and join are read a second time, as plain text, by the branch that
forked, so that a trace with `reread` joins has more entries than units.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum

from nprdsl.grammar import ir
from nprdsl.structure.events import EnterBranch, EnterFork, EnterJoin, StructureEvent
from nprdsl.structure.field_content import FieldValue

# The end of a block's last branch is where its join begins, that of another where the next begins.
GraphEvent = EnterFork | EnterBranch | EnterJoin


@dataclass(frozen=True, slots=True)
class LeaveOpen:
    """The innermost block ends here without a join, as all do that are open at the end of a trace:
    its branches are still being written, and so are others behind them."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A structural event, or a piece of a field's content, at its place in a trace: `at` is the
    index of the first unit that follows the event, or of the piece."""

    what: StructureEvent | FieldValue | LeaveOpen
    at: int


_NAMES = {EnterFork: "fork", EnterBranch: "branch", EnterJoin: "join", LeaveOpen: "end"}


def event_name(event: GraphEvent | LeaveOpen) -> str:
    """`fork`, `branch` or `join`; of a block without one, `end`."""
    return _NAMES[type(event)]


class Role(StrEnum):
    TRUNK = "trunk"  # from the beginning to the first fork
    BRANCH = "branch"  # the beginning of a branch
    JOIN = "join"  # what follows a join, on the branch that forked
    REREAD = "reread"  # the branches' units, read again by the branch that forked


Path = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Segment:
    """A maximal run of entries on one branch without a fork or join inside; it may be empty.

    start, end: entries; source_start, source_end: the same run in units (of a copy: its original).
    position: of the first entry, the length of the longest path to it. step: how many units had to
    be produced one after another before it. They differ after a `reread` join only, where copies
    take positions but no steps. path: for every enclosing branch from the outermost in, (number of
    the block on its parent branch, index of the branch), both from 0.
    """

    index: int
    start: int
    end: int
    parents: tuple[int, ...]
    path: Path
    role: Role
    rule: str
    label: str
    source_start: int
    source_end: int
    position: int
    step: int

    def __len__(self) -> int:
        return self.end - self.start

    @property
    def end_step(self) -> int:
        return self.step if self.role is Role.REREAD else self.step + self.end - self.start


@dataclass(frozen=True, slots=True)
class Fork:
    """The beginning of block instance `index`: the segment before it, the first one of each branch,
    and `stop`, the index of the first segment behind all its branches."""

    index: int
    block: ir.Block
    at: int
    before: int
    after: tuple[int, ...]
    stop: int


@dataclass(frozen=True, slots=True)
class Join:
    """The end of block instance `index`: the last segment of each branch, and what follows."""

    index: int
    block: ir.Block
    at: int
    before: tuple[int, ...]
    after: int


@dataclass(frozen=True, slots=True)
class ExecutionGraph:
    """The graph of one trace. Segments stand in linear order, so parents come before children;
    forks in the order of their beginning; joins in the order of their end (a trace that was cut
    short has fewer joins than forks). `length` counts units, prompt included; `entries` counts
    copies too."""

    segments: tuple[Segment, ...]
    forks: tuple[Fork, ...]
    joins: tuple[Join, ...]
    unit: str
    length: int
    prompt: int
    max_width: int  # branches that can be live at once

    @property
    def entries(self) -> int:
        return self.segments[-1].end

    @property
    def tokens(self) -> int:
        """Units of the trace, without the prompt and without copies."""
        return self.length - self.prompt

    @property
    def critical_path(self) -> int:
        """Units of the trace that had to be produced one after another. What a `reread` join reads
        again is there already and is read at once, so it does not count."""
        return max(segment.end_step for segment in self.segments) - self.prompt

    @property
    def degree(self) -> float:
        """Degree of parallelism: units of the trace for each unit of its critical path."""
        return self.tokens / self.critical_path if self.critical_path else 1.0

    @property
    def depth(self) -> int:
        """How many branches the deepest segment lies in."""
        return max(len(segment.path) for segment in self.segments)

    def to_dict(self) -> dict[str, object]:
        """The graph as JSON values."""
        return {
            "unit": self.unit,
            "length": self.length,
            "prompt": self.prompt,
            "tokens": self.tokens,
            "critical_path": self.critical_path,
            "degree": round(self.degree, 4),
            "depth": self.depth,
            "max_width": self.max_width,
            "segments": [_segment_dict(segment) for segment in self.segments],
            "forks": [
                {**_block_dict(f), "before": f.before, "after": list(f.after)} for f in self.forks
            ],
            "joins": [
                {**_block_dict(j), "before": list(j.before), "after": j.after} for j in self.joins
            ],
        }


def build_graph(
    marks: Iterable[Mark], *, length: int, prompt: int = 0, unit: str = "tokens"
) -> ExecutionGraph:
    """The execution graph of `length` units of which the first `prompt` are prompt.

    Of the marks those of forks, branches and joins count. Blocks that are open at the end stay
    without a join: their branches end with the trace. ValueError if the marks are not those of
    nested blocks in linear order behind the prompt.
    """
    builder = _GraphBuilder(prompt)
    for mark in marks:
        if isinstance(mark.what, (EnterFork, EnterBranch, EnterJoin, LeaveOpen)):
            builder.add(mark.what, mark.at)
    return builder.finish(length, unit)


@dataclass(slots=True)
class _OpenBranch:
    """A branch that is being read; the trunk is one too."""

    path: Path
    rule: str
    blocks: int = 0
    width: int = 1


@dataclass(slots=True)
class _OpenInstance:
    """A block that is open. Its branches begin at `position` and `step`; the farthest so far ends
    at `end_position` and `end_step`."""

    index: int
    block: ir.Block
    at: int
    number: int
    before: int
    position: int
    step: int
    end_position: int
    end_step: int
    width: int = 0
    firsts: list[int] = field(default_factory=list)
    lasts: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _OpenSegment:
    """A segment whose end is not known yet."""

    at: int
    parents: tuple[int, ...]
    role: Role
    rule: str
    label: str
    position: int
    step: int


class _GraphBuilder:
    """Reads marks. The stacks alternate: trunk, block, its branch, a block on that, …; a
    segment is open except between a fork and its first branch."""

    def __init__(self, prompt: int) -> None:
        self._prompt = prompt
        self._at = prompt
        self._entries = 0
        self._segments: list[Segment] = []
        self._forks: list[Fork] = []
        self._joins: list[Join] = []
        self._blocks: list[_OpenInstance] = []
        self._branches = [_OpenBranch((), "")]
        self._open: _OpenSegment | None = _OpenSegment(0, (), Role.TRUNK, "", "", 0, 0)
        self._count = 0

    def add(self, event: GraphEvent | LeaveOpen, at: int) -> None:
        if at < self._at:
            raise ValueError(f"the {event_name(event)} at {at} comes after a mark at {self._at}")
        self._at = at
        if isinstance(event, EnterFork):
            self._fork(event.block, at)
        elif isinstance(event, EnterBranch):
            self._branch(event, at)
        elif isinstance(event, EnterJoin):
            self._join(event, at)
        else:
            self._leave_open(at)

    def _fork(self, block: ir.Block, at: int) -> None:
        if self._open is None:
            raise ValueError(f"the fork at {at} stands where a branch must begin")
        before, size = self._close(self._open, at), at - self._open.at
        position, step = self._open.position + size, self._open.step + size
        self._open = None
        parent = self._branches[-1]
        ends = (position, step, position, step)
        self._blocks.append(_OpenInstance(self._count, block, at, parent.blocks, before, *ends))
        self._count += 1
        parent.blocks += 1

    def _branch(self, event: EnterBranch, at: int) -> None:
        block = self._open_block(event, at)
        if self._in_branch:
            self._end_branch(at)
        elif at != block.at:
            raise ValueError(f"the first branch begins at {at}, its fork at {block.at}")
        if event.index != len(block.firsts):
            raise ValueError(f"branch {event.index} at {at} is number {len(block.firsts)}")
        path = (*self._branches[-1].path, (block.number, event.index))
        rule, label = event.block.branch, event.labels[0] if event.labels else str(event.index + 1)
        self._branches.append(_OpenBranch(path, rule))
        block.firsts.append(len(self._segments))
        parents, place = (block.before,), (block.position, block.step)
        self._open = _OpenSegment(at, parents, Role.BRANCH, rule, label, *place)

    def _join(self, event: EnterJoin, at: int) -> None:
        block = self._open_block(event, at)
        if self._in_branch:
            self._end_branch(at)
        elif at != block.at:
            raise ValueError(f"no branch begins at {block.at}, where the block forks")
        self._end_block()
        joined = tuple(block.lasts)
        self._joins.append(Join(block.index, event.block, at, joined, after=len(self._segments)))
        rule, step = self._branches[-1].rule, block.end_step
        parents, position = joined or (block.before,), block.end_position
        if event.block.join is ir.JoinKind.REREAD:
            before, begin = (block.before,), block.position
            copy = _OpenSegment(block.at, before, Role.REREAD, rule, "", begin, step)
            parents, position = (self._close(copy, at),), begin + at - block.at
        self._open = _OpenSegment(at, parents, Role.JOIN, rule, "", position, step)

    @property
    def _in_branch(self) -> bool:
        """Whether the innermost block has a branch."""
        return len(self._branches) > len(self._blocks)

    def _open_block(self, event: EnterBranch | EnterJoin, at: int) -> _OpenInstance:
        if not self._blocks:
            raise ValueError(f"the {event_name(event)} at {at} stands outside any block")
        if self._blocks[-1].block is not event.block:
            raise ValueError(f"the {event_name(event)} at {at} is of another block than its fork")
        return self._blocks[-1]

    def _close(self, segment: _OpenSegment, at: int) -> int:
        """Append the segment that ends at `at`; its index."""
        index, start, size = len(self._segments), self._entries, at - segment.at
        self._entries += size
        self._segments.append(
            Segment(
                index,
                start,
                start + size,
                segment.parents,
                self._branches[-1].path,
                segment.role,
                segment.rule,
                segment.label,
                source_start=segment.at,
                source_end=at,
                position=segment.position,
                step=segment.step,
            )
        )
        return index

    def _end_branch(self, at: int) -> None:
        block = self._blocks[-1]
        if self._open is not None:
            size = at - self._open.at
            block.lasts.append(self._close(self._open, at))
            block.end_position = max(block.end_position, self._open.position + size)
            block.end_step = max(block.end_step, self._open.step + size)
            self._open = None
        block.width += self._branches.pop().width

    def _end_block(self) -> None:
        block = self._blocks.pop()
        branch = self._branches[-1]
        branch.width = max(branch.width, block.width)
        firsts, stop = tuple(block.firsts), len(self._segments)
        self._forks.append(Fork(block.index, block.block, block.at, block.before, firsts, stop))

    def _leave_open(self, at: int) -> None:
        if not self._blocks:
            raise ValueError(f"the end at {at} stands outside any block")
        if self._in_branch:
            self._end_branch(at)
        self._end_block()

    def finish(self, length: int, unit: str) -> ExecutionGraph:
        if length < self._at:
            raise ValueError(f"{length} {unit} are too few for a mark at {self._at}")
        if self._open is None and length != self._at:
            raise ValueError(f"no branch begins at {self._at}, where the last block forks")
        if self._open is not None and not self._blocks:
            self._close(self._open, length)
        while self._blocks:
            self._leave_open(length)
        return ExecutionGraph(
            segments=tuple(self._segments),
            forks=tuple(sorted(self._forks, key=lambda fork: fork.index)),
            joins=tuple(self._joins),
            unit=unit,
            length=length,
            prompt=self._prompt,
            max_width=self._branches[0].width,
        )


def _segment_dict(segment: Segment) -> dict[str, object]:
    return {
        **asdict(segment),
        "parents": list(segment.parents),
        "path": [list(pair) for pair in segment.path],
        "role": str(segment.role),
    }


def _block_dict(place: Fork | Join) -> dict[str, object]:
    block = place.block
    return {
        "index": place.index,
        "rule": block.rule,
        "branch": block.branch,
        "join": str(block.join),
        "at": place.at,
    }
