"""A running generation from its events: as text in the order of the trace, or on a terminal.

`LiveTrace` follows the events. `Screen` draws it with one panel for each branch, side by side: what
is settled on the trunk (text before a fork, a block that has joined) is printed once and scrolls;
below it the part that is being written is drawn again and again. Panels that do not fit show the
end of what their branch has written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment, SegmentLines
from rich.table import Table
from rich.text import Text

from nprdsl.cli.console import clean
from nprdsl.machine.actions import ROOT
from nprdsl.machine.transcript import Transcript
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

_NARROWEST: Final = 30  # columns of a panel
_FRAME_S: Final = 1 / 15
_BORDER: Final = 2  # lines, and columns on each side
_COLOURS: Final = ("cyan", "magenta", "green", "yellow", "blue", "red")
_MARKS: Final[dict[object, str]] = {
    None: "",
    BranchReason.COMPLETED: " ✓",
    BranchReason.BUDGET: " ✓ at its budget",
    BranchReason.CUT: " ✂ not waited for",
}


@dataclass(frozen=True, slots=True)
class TextPiece:
    text: str
    forced: bool


@dataclass(slots=True)
class ForkPoint:
    """Where a branch forked. `joined` is set when it goes on."""

    children: tuple[BranchText, ...]
    joined: bool = False


@dataclass(slots=True)
class BranchText:
    """What a branch has written, and where it forked, in order. `title` names its rule and its
    item; `ended` says why, None while it runs."""

    title: str
    items: list[TextPiece | ForkPoint] = field(default_factory=list)
    tokens: int = 0
    ended: BranchReason | EndReason | None = None


class LiveTrace:
    """The branches of one generation."""

    def __init__(self) -> None:
        self.root = BranchText("")
        self._branches = {ROOT: self.root}
        self._forks: dict[int, ForkPoint] = {}
        self._transcript: Transcript[str] = Transcript()

    @property
    def live(self) -> int:
        """How many branches are being written."""
        waiting = sum(not fork.joined for fork in self._forks.values())
        return sum(branch.ended is None for branch in self._branches.values()) - waiting

    @property
    def tokens(self) -> int:
        """How many tokens were written so far, on all branches."""
        return sum(branch.tokens for branch in self._branches.values())

    def settled(self) -> str:
        """What has been settled since the last call: no branch before it is being written."""
        return "".join(self._transcript.settled())

    def follow(self, event: Event) -> None:
        """Take the next event."""
        match event:
            case TokenEvent():
                self._write(event)
            case ForkEvent():
                self._fork(event)
            case JoinEvent():
                self._forks[event.parent].joined = True
            case BranchEndEvent():
                self._branches[event.branch].ended = event.reason
                self._transcript.end(event.branch)
            case EndEvent():
                self.root.ended = event.reason
                self._transcript.end(ROOT)

    def _write(self, event: TokenEvent) -> None:
        branch = self._branches[event.branch]
        branch.tokens += len(event.tokens)
        if event.text:
            branch.items.append(TextPiece(event.text, event.forced))
            self._transcript.write(event.branch, event.text)

    def _fork(self, event: ForkEvent) -> None:
        children = tuple(BranchText(f"{event.rule} {label}") for label in event.labels)
        self._branches.update(zip(event.children, children, strict=True))
        self._forks[event.parent] = fork = ForkPoint(children)
        self._branches[event.parent].items.append(fork)
        self._transcript.fork(event.parent, event.children)


class Screen:
    """Draws a trace; a context manager, so that the terminal is left in order."""

    def __init__(self, console: Console, trace: LiveTrace, tags: re.Pattern[str]) -> None:
        self._console = console
        self._trace = trace
        self._tags = tags
        self._printed = 0  # items of the trunk
        self._drawn_s = 0.0
        self._started_s = time.perf_counter()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Screen:
        self._live.start()
        self._live.update(self.frame(), refresh=True)
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        self._live.update(Text(""))
        self._print(len(self._trace.root.items))
        self._live.stop()

    def follow(self, event: Event) -> None:
        """Take an event; draws at most 15 times a second."""
        self._trace.follow(event)
        if isinstance(event, ForkEvent | JoinEvent) and event.parent == ROOT:
            self._print(self._unchanging())
        now = time.perf_counter()
        if now - self._drawn_s >= _FRAME_S:
            self._drawn_s = now
            self._live.update(self.frame(), refresh=True)

    def _unchanging(self) -> int:
        """How many items of the trunk change no more."""
        items = self._trace.root.items
        for at in range(len(items) - 1, self._printed - 1, -1):
            item = items[at]
            if isinstance(item, ForkPoint):
                return at + 1 if item.joined else at
        return self._printed

    def _print(self, until: int) -> None:
        items = self._trace.root.items[self._printed : until]
        if items:
            self._printed = until
            for part in body(items, self._tags):
                self._live.console.print(part)

    def frame(self) -> RenderableType:
        """What is being written now."""
        items = self._trace.root.items[self._printed :]
        height = max(3, self._console.height - 2)
        if items and isinstance(items[0], ForkPoint):
            running: RenderableType = Panels(items[0], self._tags, height)
        else:
            recent = _recent(items, height * self._console.width)
            running = Tail(Group(*body(recent, self._tags)), height)
        return Group(running, self._status())

    def _status(self) -> Text:
        tokens = self._trace.tokens
        if not tokens:
            return Text("reading the prompt", style="dim")
        seconds = time.perf_counter() - self._started_s
        live = "1 branch" if self._trace.live == 1 else f"{self._trace.live} branches"
        return Text(f"{live} at once, {tokens} tokens, {tokens / seconds:.0f}/s", style="dim")


def _recent(items: list[TextPiece | ForkPoint], enough: int) -> list[TextPiece | ForkPoint]:
    """The last `enough` items and some more, so that a long branch is not drawn from its beginning
    in every frame; where they begin moves in steps of `enough`, so that lines do not jump."""
    return items[max(0, len(items) // enough - 1) * enough :]


def body(items: Iterable[TextPiece | ForkPoint], tags: re.Pattern[str]) -> Iterator[RenderableType]:
    """Text and forks of a branch, in order."""
    text = Text()
    for item in items:
        if isinstance(item, TextPiece):
            text.append(clean(item.text), style="dim" if item.forced else "")
        else:
            yield from _without_blank_ends(text, tags)
            yield Panels(item, tags)
            text = Text()
    yield from _without_blank_ends(text, tags)


def _without_blank_ends(text: Text, tags: re.Pattern[str]) -> Iterator[Text]:
    first = len(text.plain) - len(text.plain.lstrip("\n"))
    text = text[first : len(text.plain.rstrip("\n"))] if text.plain.strip("\n") else Text()
    if text:
        text.highlight_regex(tags, "bold blue")
        yield text


class Tail:
    """The last `height` lines of something."""

    def __init__(self, whole: RenderableType, height: int) -> None:
        self._whole = whole
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._whole, options.update(height=None), pad=False)
        yield SegmentLines(lines[-self._height :], new_lines=True)


class Panels:
    """The branches of a fork: side by side, in rows where they do not fit beside each other.

    `height` is how many lines there are for all of them; None is without limit.
    """

    def __init__(self, fork: ForkPoint, tags: re.Pattern[str], height: int | None = None) -> None:
        self._fork = fork
        self._tags = tags
        self._height = height

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        branches = self._fork.children
        beside = max(1, min(len(branches), options.max_width // _NARROWEST))
        rows = -(-len(branches) // beside)
        beside = -(-len(branches) // rows)
        width = options.max_width // beside
        most = None if self._height is None else max(1, self._height // rows - _BORDER)
        inner = options.update(width=max(1, width - 2 * _BORDER), height=None)
        for first in range(0, len(branches), beside):
            grid = Table.grid()
            row = branches[first : first + beside]
            lines = [self._lines(console, inner, branch, most) for branch in row]
            height = max(map(len, lines))
            grid.add_row(
                *(
                    _panel(branch, own, width, height, _COLOURS[index % len(_COLOURS)])
                    for index, (branch, own) in enumerate(zip(row, lines, strict=True), first)
                )
            )
            yield grid

    def _lines(
        self, console: Console, options: ConsoleOptions, branch: BranchText, most: int | None
    ) -> list[list[Segment]]:
        items = branch.items if most is None else _recent(branch.items, most * options.max_width)
        lines = console.render_lines(Group(*body(items, self._tags)), options, pad=False)
        return lines if most is None else lines[-most:]


def _panel(
    branch: BranchText, lines: list[list[Segment]], width: int, height: int, colour: str
) -> RenderableType:
    tokens = "1 token" if branch.tokens == 1 else f"{branch.tokens} tokens"
    return Panel(
        SegmentLines(lines, new_lines=True),
        title=Text(f"{clean(branch.title)}{_MARKS[branch.ended]}", style="bold"),
        subtitle=Text(tokens, style="dim"),
        title_align="left",
        subtitle_align="right",
        width=width,
        height=height + _BORDER,
        border_style=colour,
    )
