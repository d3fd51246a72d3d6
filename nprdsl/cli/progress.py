"""How far a long piece of work is: a bar on a terminal, nothing in a pipe.

Non-goals: what the work is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nprdsl.cli.console import console, is_terminal


@contextmanager
def progress(what: str, total: int, done: int) -> Iterator[Callable[[], None]]:
    """A progress bar on stderr, where that is a terminal; gives what advances it by one."""
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
