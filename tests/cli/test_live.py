"""The live display, without a model: its branches, its linear text, what is on the screen."""

from __future__ import annotations

import io
import re
import time
from collections.abc import Callable, Iterator

import pytest
from rich.console import Console

from nprdsl.cli.live import LiveTrace, Screen
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

TAGS = ("<step>", "</step>")
PATTERN = re.compile("|".join(TAGS))


def write(branch: int, text: str, *, forced: bool = False) -> Iterator[Event]:
    """An event for every letter and tag of `text`; a letter has a token for each byte."""
    for piece in re.split(f"({PATTERN.pattern})", text):
        for shown in (piece,) if piece in TAGS else piece:
            tokens = 1 if shown in TAGS else len(shown.encode())
            yield TokenEvent(branch, (), (0,) * tokens, shown, forced)


def fork(parent: int, *children: int) -> ForkEvent:
    return ForkEvent(parent, children, tuple(str(child) for child in children), "step")


def done(branch: int, reason: BranchReason = BranchReason.COMPLETED) -> BranchEndEvent:
    return BranchEndEvent(branch, reason)


def flat(words: int = 8) -> list[Event]:
    """A trunk, three branches in turns, a trunk."""
    events = [*write(0, "the plan\n"), fork(0, 1, 2, 3)]
    for branch in (1, 2, 3):
        events += write(branch, "\n<step>", forced=True)
    for word in range(words):
        for branch in (1, 2, 3):
            events += write(branch, f"{word}é{branch} ")
    for branch in (3, 1, 2):
        events += [*write(branch, "</step>"), done(branch)]
    events += [JoinEvent(0, (1, 2, 3)), *write(0, "the answer")]
    return [*events, EndEvent(EndReason.COMPLETED)]


def nested() -> list[Event]:
    """A fork inside the second of two branches."""
    events = [fork(0, 1, 2), *write(1, "one "), *write(2, "two "), fork(2, 3, 4)]
    events += [*write(3, "deep "), *write(4, "deeper "), done(4), *write(1, "more "), done(3)]
    events += [JoinEvent(2, (3, 4)), *write(2, "back"), done(2), *write(1, "last"), done(1)]
    return [*events, JoinEvent(0, (1, 2)), *write(0, " end"), EndEvent(EndReason.COMPLETED)]


@pytest.mark.parametrize(
    ("events", "text"),
    [
        (
            flat(2),
            "the plan\n\n<step>0é1 1é1 </step>\n<step>0é2 1é2 </step>\n<step>0é3 1é3 </step>"
            "the answer",
        ),
        (nested(), "one more lasttwo deep deeper back end"),
    ],
)
def test_the_linear_text_comes_in_order_and_whole(events: list[Event], text: str) -> None:
    trace = LiveTrace()
    taken = ""
    for event in events:
        trace.follow(event)
        taken += trace.settled()
        assert text.startswith(taken)
    assert taken == text


def test_the_first_branch_streams_and_the_others_wait() -> None:
    trace = LiveTrace()
    for event in [fork(0, 1, 2), *write(2, "second"), *write(1, "fi")]:
        trace.follow(event)
    assert trace.settled() == "fi"
    for event in [*write(1, "rst"), done(1)]:
        trace.follow(event)
    assert trace.settled() == "rstsecond"


def test_how_many_branches_are_written_at_once() -> None:
    trace = LiveTrace()
    live = []
    for event in nested():
        trace.follow(event)
        live.append(trace.live)
    assert (max(live), live[-1]) == (3, 0)


def screen(events: list[Event], width: int, height: int, every: int = 1) -> tuple[str, list[str]]:
    """What is left on a terminal of that size, and frames on the way, one for `every` events."""
    file = io.StringIO()
    console = Console(
        file=file, width=width, height=height, color_system=None, legacy_windows=False
    )
    frames = []
    with Screen(console, LiveTrace(), PATTERN) as shown:
        for number, event in enumerate(events):
            shown.follow(event)
            if number % every and number < len(events) - 1:
                continue
            frame = io.StringIO()
            again = Console(file=frame, width=width, height=height, color_system=None)
            again.print(shown.frame())
            frames.append(frame.getvalue())
    return file.getvalue(), frames


def test_branches_stand_side_by_side(golden: Callable[[str, str], None]) -> None:
    left, _ = screen(flat(), 100, 30)
    golden("cli/live_wide.txt", left)


def test_a_narrow_terminal_has_them_below_each_other(golden: Callable[[str, str], None]) -> None:
    left, _ = screen(flat(), 40, 30)
    golden("cli/live_narrow.txt", left)


def test_branches_inside_branches(golden: Callable[[str, str], None]) -> None:
    left, _ = screen(nested(), 100, 30)
    golden("cli/live_nested.txt", left)


@pytest.mark.parametrize(("width", "height"), [(100, 30), (40, 24), (12, 10), (100, 5), (1, 1)])
def test_a_frame_fits_the_terminal(width: int, height: int) -> None:
    _, frames = screen(flat(40), width, height, every=5)
    lines = [frame.rstrip("\n").split("\n") for frame in frames]
    assert all(len(line) <= width for frame in lines for line in frame)
    if width >= 40 and height >= 24:
        assert max(len(frame) for frame in lines) <= height


def test_running_panels_show_the_end_of_a_long_branch() -> None:
    events = [fork(0, 1, 2), *write(1, "begin " + "x " * 2000 + "now"), *write(2, "short")]
    _, frames = screen(events, 80, 20, every=500)
    assert "now" in frames[-1] and "begin" not in frames[-1] and "short" in frames[-1]
    assert "2 branches at once" in frames[-1]


def test_what_ended_a_branch_is_marked() -> None:
    events = [fork(0, 1, 2, 3)]
    for branch, reason in zip((1, 2, 3), BranchReason, strict=True):
        events += [*write(branch, "x"), done(branch, reason)]
    _, frames = screen(events, 120, 20)
    marks = ("step 1 ✓", "step 2 ✓ at its budget", "step 3 ✂ not waited for")
    assert all(mark in frames[-1] for mark in marks)


def test_control_characters_of_a_model_do_not_reach_the_terminal() -> None:
    left, frames = screen([*write(0, "a\x1b[2Jb\x07\x9bc"), EndEvent(EndReason.ABORTED)], 80, 20)
    assert "\x1b[2J" not in left + "".join(frames)
    assert "a\ufffd[2Jb\ufffd\ufffdc" in left


def test_an_interrupt_leaves_what_was_written() -> None:
    file = io.StringIO()
    console = Console(file=file, width=80, height=20, color_system=None)
    with pytest.raises(KeyboardInterrupt), Screen(console, LiveTrace(), PATTERN) as shown:
        for event in [*write(0, "begun "), fork(0, 1, 2), *write(1, "half a branch")]:
            shown.follow(event)
        raise KeyboardInterrupt
    assert "begun" in file.getvalue() and "half a branch" in file.getvalue()


def test_a_frame_of_a_long_branch_costs_no_more_than_of_a_short_one() -> None:
    console = Console(file=io.StringIO(), width=80, height=20, color_system=None)
    with Screen(console, LiveTrace(), PATTERN) as shown:
        for event in [fork(0, 1, 2), *write(1, "x " * 20_000)]:
            shown.follow(event)
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            console.print(shown.frame())
            seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.2
