"""A running generation on a terminal: one panel for each branch, side by side.

What is settled on the trunk (text before a fork, a block that has joined) is printed once and
scrolls; below it the part that is being written is drawn again and again. Panels that do not fit
show the end of what their branch has written.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Final

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.live import Live
from rich.panel import Panel
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from nprdsl.cli.console import clean
from nprdsl.cli.lanes import ROOT, Block, Board, Lane, Piece
from nprdsl.structure.events import BranchReason, Event, ForkEvent, JoinEvent

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


class Screen:
    """Draws a board; a context manager, so that the terminal is left in order."""

    def __init__(self, console: Console, board: Board, tags: re.Pattern[str]) -> None:
        self._console = console
        self._board = board
        self._tags = tags
        self._printed = 0  # items of the trunk
        self._drawn_s = 0.0
        self._began_s = time.perf_counter()
        self._live = Live(console=console, auto_refresh=False, transient=True)

    def __enter__(self) -> Screen:
        self._live.start()
        self._live.update(self.frame(), refresh=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._live.update(Text(""))
        self._print(len(self._board.root.items))
        self._live.stop()

    def follow(self, event: Event) -> None:
        """Take an event; draws at most 15 times a second."""
        self._board.follow(event)
        if isinstance(event, ForkEvent | JoinEvent) and event.parent == ROOT:
            self._print(self._settled())
        now = time.perf_counter()
        if now - self._drawn_s >= _FRAME_S:
            self._drawn_s = now
            self._live.update(self.frame(), refresh=True)

    def _settled(self) -> int:
        """How many items of the trunk change no more."""
        items = self._board.root.items
        for at in range(len(items) - 1, self._printed - 1, -1):
            item = items[at]
            if isinstance(item, Block):
                return at + 1 if item.joined else at
        return self._printed

    def _print(self, until: int) -> None:
        items = self._board.root.items[self._printed : until]
        if items:
            self._printed = until
            for part in body(items, self._tags):
                self._live.console.print(part)

    def frame(self) -> RenderableType:
        """What is being written now."""
        items = self._board.root.items[self._printed :]
        room = max(3, self._console.height - 2)
        if items and isinstance(items[0], Block):
            running: RenderableType = Panels(items[0], self._tags, room)
        else:
            recent = _recent(items, room * self._console.width)
            running = Tail(Group(*body(recent, self._tags)), room)
        return Group(running, self._status())

    def _status(self) -> Text:
        tokens = self._board.tokens
        if not tokens:
            return Text("reading the prompt", style="dim")
        seconds = time.perf_counter() - self._began_s
        live = "1 branch" if self._board.live == 1 else f"{self._board.live} branches"
        return Text(f"{live} at once, {tokens} tokens, {tokens / seconds:.0f}/s", style="dim")


def _recent(items: list[Piece | Block], enough: int) -> list[Piece | Block]:
    """The last `enough` items and some more, so that a long branch is not drawn from its beginning
    in every frame; where they begin moves in steps of `enough`, so that lines do not jump."""
    return items[max(0, len(items) // enough - 1) * enough :]


def body(items: Iterable[Piece | Block], tags: re.Pattern[str]) -> Iterator[RenderableType]:
    """Text and blocks of a branch, in order."""
    text = Text()
    for item in items:
        if isinstance(item, Piece):
            text.append(clean(item.text), style="dim" if item.forced else "")
        else:
            yield from _finished(text, tags)
            yield Panels(item, tags)
            text = Text()
    yield from _finished(text, tags)


def _finished(text: Text, tags: re.Pattern[str]) -> Iterator[Text]:
    first = len(text.plain) - len(text.plain.lstrip("\n"))
    text = text[first : len(text.plain.rstrip("\n"))] if text.plain.strip("\n") else Text()
    if text:
        text.highlight_regex(tags, "bold blue")
        yield text


class Tail:
    """The last `room` lines of something."""

    def __init__(self, shown: RenderableType, room: int) -> None:
        self._shown = shown
        self._room = room

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lines = console.render_lines(self._shown, options.update(height=None), pad=False)
        yield from _segments(lines[-self._room :])


class Panels:
    """The branches of a block: side by side, in rows where they do not fit beside each other.

    `room` is how many lines there are for all of them; None is without limit.
    """

    def __init__(self, block: Block, tags: re.Pattern[str], room: int | None = None) -> None:
        self._block = block
        self._tags = tags
        self._room = room

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        lanes = self._block.children
        beside = max(1, min(len(lanes), options.max_width // _NARROWEST))
        rows = -(-len(lanes) // beside)
        beside = -(-len(lanes) // rows)
        width = options.max_width // beside
        room = None if self._room is None else max(1, self._room // rows - _BORDER)
        for row in range(rows):
            grid = Table.grid()
            first = row * beside
            shown = range(first, min(first + beside, len(lanes)))
            inner = options.update(width=max(1, width - 2 * _BORDER), height=None)
            written = [self._lines(console, inner, lanes[i], room) for i in shown]
            height = max(len(lines) for lines in written)
            panels = [
                _panel(lanes[i], lines, width, height, _COLOURS[i % len(_COLOURS)])
                for i, lines in zip(shown, written, strict=True)
            ]
            grid.add_row(*panels)
            yield grid

    def _lines(
        self, console: Console, options: ConsoleOptions, lane: Lane, room: int | None
    ) -> list[list[Segment]]:
        items = lane.items if room is None else _recent(lane.items, room * options.max_width)
        lines = console.render_lines(Group(*body(items, self._tags)), options, pad=False)
        return lines if room is None else lines[-room:]


def _panel(
    lane: Lane, lines: list[list[Segment]], width: int, height: int, colour: str
) -> RenderableType:
    tokens = "1 token" if lane.tokens == 1 else f"{lane.tokens} tokens"
    return Panel(
        _Lines(lines),
        title=Text(f"{clean(lane.title)}{_MARKS[lane.ended]}", style="bold"),
        subtitle=Text(tokens, style="dim"),
        title_align="left",
        subtitle_align="right",
        width=width,
        height=height + _BORDER,
        border_style=colour,
    )


class _Lines:
    """Lines that are rendered already."""

    def __init__(self, lines: list[list[Segment]]) -> None:
        self._lines = lines

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield from _segments(self._lines)


def _segments(lines: list[list[Segment]]) -> Iterator[Segment]:
    for line in lines:
        yield from line
        yield Segment.line()
