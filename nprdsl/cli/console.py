"""Where output goes: a terminal, or a pipe that gets no control codes."""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, TextIO

from rich.console import Console
from rich.text import Text

# all control characters but newline and tab: what a model writes must not move a cursor
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def is_terminal(stream: TextIO) -> bool:
    """Whether `stream` is a terminal that can move its cursor."""
    return stream.isatty() and os.environ.get("TERM", "") not in ("dumb", "")


def console(stream: TextIO | None = None) -> Console:
    """A console on `stream` (stdout), with colours and cursor only on a terminal."""
    stream = sys.stdout if stream is None else stream
    return Console(
        file=stream,
        force_terminal=is_terminal(stream),
        force_interactive=is_terminal(stream),
        markup=False,
        highlight=False,
        emoji=False,
    )


@contextmanager
def working(what: str) -> Iterator[None]:
    """Says on stderr, where that is a terminal, what takes a while; nothing is left of it."""
    if is_terminal(sys.stderr):
        with console(sys.stderr).status(Text(what, style="dim")):
            yield
    else:
        yield


def clean(text: str) -> str:
    """`text` without control characters, newline and tab apart."""
    return _CONTROL.sub("\ufffd", text)


def tolerate() -> None:
    """Characters that stdout and stderr cannot encode are written as `?`."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
