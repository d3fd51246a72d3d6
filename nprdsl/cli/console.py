"""What a command shows: text and JSON on stdout, progress on stderr.

A terminal gets colours and progress bars; a pipe gets no control codes.
"""

from __future__ import annotations

import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, TextIO

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

# all control characters but newline and tab: what a model writes must not move a cursor
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

WatchStep = Callable[[int, int, Mapping[str, float]], None]


def is_terminal(stream: TextIO | None) -> bool:
    """Whether `stream` is a terminal that can move its cursor; None is one that is closed."""
    return stream is not None and stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "")


def console(stream: TextIO | None = None) -> Console:
    """A console on `stream` (stdout), with colours and cursor only on a terminal."""
    stream = stream or sys.stdout
    return Console(
        file=stream,
        force_terminal=is_terminal(stream),
        force_interactive=is_terminal(stream),
        markup=False,
        highlight=False,
        emoji=False,
    )


def clean(text: str) -> str:
    """`text` without control characters, newline and tab apart."""
    return _CONTROL.sub("\ufffd", text)


def tolerate() -> None:
    """Characters that stdout and stderr cannot encode are written as `?`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def print_json(value: object) -> None:
    """One line of JSON on stdout."""
    click.echo(json.dumps(value, ensure_ascii=False))


def borderless_table(*, below: int = 0) -> Table:
    """A table without lines; `below` is how many empty lines follow a row."""
    return Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, below, 0))


def aligned(rows: Sequence[tuple[str, str]]) -> list[str]:
    """Lines of names and values, the values in one column."""
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


# progress


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says on stderr, where that is a terminal, what takes a while; nothing is left of it."""
    if is_terminal(sys.stderr):
        with console(sys.stderr).status(Text(what, style="dim")):
            yield
    else:
        yield


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[], None]]:
    """A bar on stderr; gives a function that advances it by one."""
    with _bar(what, total=total, completed=done) as update:
        yield lambda: update(advance=1)


@contextmanager
def training_progress(what: str, shown: Sequence[str]) -> Iterator[WatchStep]:
    """A bar on stderr; gives a function that takes the number of a step, the number of all steps
    and the step's figures. The latest figures of those names that are `shown` stand beside it."""
    latest: dict[str, float] = {}
    with _bar(what, TextColumn("{task.fields[figures]}"), total=None, figures="") as update:

        def watch(step: int, total: int, figures: Mapping[str, float]) -> None:
            latest.update({name: figures[name] for name in shown if name in figures})
            line = "  ".join(f"{name.split('/')[-1]} {value:.4g}" for name, value in latest.items())
            update(completed=step, total=total, figures=line)

        yield watch


@contextmanager
def _bar(what: str, *more: TextColumn, **task: Any) -> Iterator[Callable[..., None]]:
    """A bar of which nothing is left in the end, and none where stderr is no terminal."""
    if not is_terminal(sys.stderr):
        yield lambda **_: None
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        *more,
    )
    with Progress(*columns, console=console(sys.stderr), transient=True) as bar:
        number = bar.add_task(what, **task)
        yield lambda **changes: bar.update(number, **changes)


def tell_progress(
    what: str, total: int, before: int, done: int, failed: int = 0, *, resumable: bool
) -> None:
    """What a run came to, on stderr; `before` were done by earlier runs."""
    parts = [f"{done} of {total} {what} done"]
    if before:
        parts.append(f"{before} were done before")
    if failed:
        parts.append(f"{failed} failed")
    if before + done < total and resumable:
        parts.append("the same command again does the rest")
    click.echo("; ".join(parts), err=True)
