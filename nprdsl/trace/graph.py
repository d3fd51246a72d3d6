"""The execution graph of a trace: which runs were produced after what, in parallel to what.

A parser walks a trace and gives one `Mark` for every fork, branch and join, in linear order;
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


class MarkKind(StrEnum):
    FORK = "fork"
    BRANCH = "branch"
    JOIN = "join"


@dataclass(frozen=True, slots=True)
class Mark:
    """One structural event of a trace; `at` is the index of the first unit that follows it.

    FORK opens a block, BRANCH begins its branch number `branch` (the one before ends there), JOIN
    ends the last branch and joins as `block.join` says. `label` names a branch for people.
    """

    kind: MarkKind
    at: int
    block: ir.Block
    branch: int = 0
    label: str = ""


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
                {**_block_dict(f.index, f.block, f.at), "before": f.before, "after": list(f.after)}
                for f in self.forks
            ],
            "joins": [
                {**_block_dict(j.index, j.block, j.at), "before": list(j.before), "after": j.after}
                for j in self.joins
            ],
        }


def build_graph(
    marks: Iterable[Mark], *, length: int, prompt: int = 0, unit: str = "tokens"
) -> ExecutionGraph:
    """The execution graph of `length` units of which the first `prompt` are prompt.

    Blocks that are open at the end stay without a join: their branches end with the trace.
    ValueError if the marks are not those of nested blocks in linear order behind the prompt.
    """
    builder = _Builder(prompt)
    for mark in marks:
        builder.add(mark)
    return builder.finish(length, unit)


@dataclass(slots=True)
class _Branch:
    """A branch that is being read; the trunk is one too."""

    path: Path
    rule: str
    blocks: int = 0
    width: int = 1


@dataclass(slots=True)
class _Instance:
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
class _Opened:
    """A segment whose end is not known yet."""

    at: int
    parents: tuple[int, ...]
    role: Role
    rule: str
    label: str
    position: int
    step: int


class _Builder:
    """Reads marks. The stacks alternate: trunk, instance, its branch, an instance on that, …; a
    segment is open except between a fork and its first branch."""

    def __init__(self, prompt: int) -> None:
        self._prompt = prompt
        self._at = prompt
        self._entries = 0
        self._segments: list[Segment] = []
        self._forks: list[Fork] = []
        self._joins: list[Join] = []
        self._instances: list[_Instance] = []
        self._branches = [_Branch((), "")]
        self._opened: _Opened | None = _Opened(0, (), Role.TRUNK, "", "", 0, 0)
        self._begun = 0

    def add(self, mark: Mark) -> None:
        if mark.at < self._at:
            raise ValueError(f"the {mark.kind} at {mark.at} comes after a mark at {self._at}")
        self._at = mark.at
        if mark.kind is MarkKind.FORK:
            self._fork(mark)
        elif mark.kind is MarkKind.BRANCH:
            self._branch(mark)
        else:
            self._join(mark)

    def _fork(self, mark: Mark) -> None:
        if self._opened is None:
            raise ValueError(f"the fork at {mark.at} stands where a branch must begin")
        before = self._close(self._opened, mark.at)
        size = mark.at - self._opened.at
        position, step = self._opened.position + size, self._opened.step + size
        self._opened = None
        parent = self._branches[-1]
        ends = (position, step, position, step)
        self._instances.append(
            _Instance(self._begun, mark.block, mark.at, parent.blocks, before, *ends)
        )
        self._begun += 1
        parent.blocks += 1

    def _branch(self, mark: Mark) -> None:
        instance = self._instance(mark)
        if self._opened is not None:
            self._end_branch(mark.at)
        elif mark.at != instance.at:
            raise ValueError(f"the first branch begins at {mark.at}, its fork at {instance.at}")
        if mark.branch != len(instance.firsts):
            raise ValueError(f"branch {mark.branch} at {mark.at} is number {len(instance.firsts)}")
        path = (*self._branches[-1].path, (instance.number, mark.branch))
        rule, parents = mark.block.branch, (instance.before,)
        self._branches.append(_Branch(path, rule))
        instance.firsts.append(len(self._segments))
        place = (instance.position, instance.step)
        self._opened = _Opened(mark.at, parents, Role.BRANCH, rule, mark.label, *place)

    def _join(self, mark: Mark) -> None:
        instance = self._instance(mark)
        if self._opened is not None:
            self._end_branch(mark.at)
        elif mark.at != instance.at:
            raise ValueError(f"no branch begins at {instance.at}, where the block forks")
        self._end_block()
        joined = tuple(instance.lasts)
        self._joins.append(
            Join(instance.index, mark.block, mark.at, joined, after=len(self._segments))
        )
        rule, step = self._branches[-1].rule, instance.end_step
        parents, position = joined or (instance.before,), instance.end_position
        if mark.block.join is ir.JoinKind.REREAD:
            before, begin = (instance.before,), instance.position
            copy = _Opened(instance.at, before, Role.REREAD, rule, "", begin, step)
            parents, position = (self._close(copy, mark.at),), begin + mark.at - instance.at
        self._opened = _Opened(mark.at, parents, Role.JOIN, rule, mark.label, position, step)

    def _instance(self, mark: Mark) -> _Instance:
        if not self._instances:
            raise ValueError(f"the {mark.kind} at {mark.at} stands outside any block")
        instance = self._instances[-1]
        if instance.block is not mark.block:
            raise ValueError(f"the {mark.kind} at {mark.at} is of another block than its fork")
        return instance

    def _close(self, opened: _Opened, at: int) -> int:
        """Append the segment that ends at `at`; its index."""
        index, start = len(self._segments), self._entries
        self._entries += at - opened.at
        self._segments.append(
            Segment(
                index=index,
                start=start,
                end=self._entries,
                parents=opened.parents,
                path=self._branches[-1].path,
                role=opened.role,
                rule=opened.rule,
                label=opened.label,
                source_start=opened.at,
                source_end=at,
                position=opened.position,
                step=opened.step,
            )
        )
        return index

    def _end_branch(self, at: int) -> None:
        instance = self._instances[-1]
        opened = self._opened
        if opened is not None:
            size = at - opened.at
            instance.lasts.append(self._close(opened, at))
            instance.end_position = max(instance.end_position, opened.position + size)
            instance.end_step = max(instance.end_step, opened.step + size)
            self._opened = None
        instance.width += self._branches.pop().width

    def _end_block(self) -> None:
        instance = self._instances.pop()
        branch = self._branches[-1]
        branch.width = max(branch.width, instance.width)
        self._forks.append(
            Fork(
                index=instance.index,
                block=instance.block,
                at=instance.at,
                before=instance.before,
                after=tuple(instance.firsts),
                stop=len(self._segments),
            )
        )

    def finish(self, length: int, unit: str) -> ExecutionGraph:
        if length < self._at:
            raise ValueError(f"{length} {unit} are too few for a mark at {self._at}")
        if self._opened is None and length != self._at:
            raise ValueError(f"no branch begins at {self._at}, where the last block forks")
        if self._opened is not None and not self._instances:
            self._close(self._opened, length)
        while self._instances:
            if len(self._branches) > len(self._instances):
                self._end_branch(length)
            self._end_block()
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


def _block_dict(index: int, block: ir.Block, at: int) -> dict[str, object]:
    return {
        "index": index,
        "rule": block.rule,
        "branch": block.branch,
        "join": str(block.join),
        "at": at,
    }
