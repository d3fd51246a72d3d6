"""Progress bars on stderr, where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nprdsl.cli.console import console, is_terminal


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """Gives what advances the bar by one; nothing is left of it in the end."""
    if not is_terminal(sys.stderr):
        yield lambda: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=done)
        yield lambda: bar.advance(task)


Steps = Callable[[int, int, Mapping[str, float]], None]


@contextmanager
def steps(what: str, shown: Sequence[str]) -> Iterator[Steps]:
    """Gives what is told of every step: its number, the number of all, and its figures, of which
    those that are `shown` stand beside the bar."""
    if not is_terminal(sys.stderr):
        yield lambda step, total, figures: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[figures]}"),
    )
    with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        task = bar.add_task(what, total=None, figures="")
        known: dict[str, float] = {}

        def told(step: int, total: int, figures: Mapping[str, float]) -> None:
            known.update({name: figures[name] for name in shown if name in figures})
            line = "  ".join(f"{name.split('/')[-1]} {value:.4g}" for name, value in known.items())
            bar.update(task, completed=step, total=total, figures=line)

        yield told
