"""Files of traces, and of what is computed beside them, that survive a kill at any moment: replaced
as a whole, or grown by whole lines.

`replacing` and `write_whole` put a new file in the place of an old one, so that a reader meets one
or the other and never half of it. `JsonLines` appends records, one to a line; what a kill cut short
is the last line, which is taken away before more is written. Everything here raises OSError.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO


class JournalError(ValueError):
    """A file to be continued that holds something else."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file that takes the place of `path` when the block ends, and is removed if it fails.

    Several processes may do so at the same time: the last one wins.
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with unfinished.open("xb") as file:
            yield file
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes) -> None:
    """Puts the content, text as UTF-8, in the place of what was there."""
    with replacing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def json_line(record: Mapping[str, Any]) -> bytes:
    """The record as a line of UTF-8; lone surrogates, which UTF-8 lacks, become question marks."""
    return (json.dumps(record, ensure_ascii=False) + "\n").encode("utf-8", "replace")


def write_json_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Puts a file of all records in the place of what was there."""
    with replacing(path) as file:
        file.writelines(map(json_line, records))


def append_json_line(path: Path, record: Mapping[str, Any]) -> None:
    """Appends a record; it is there, whole, on return."""
    with path.open("ab") as file:
        file.write(json_line(record))


def whole_lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """The lines that end in a newline, blank ones left out, each with its place, `path:number`."""
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        if line.strip():
            yield f"{path}:{number}", line


class JsonLines:
    """The file `path`, made if it is missing, to be continued.

    Every line of it begins with `start`. A cut last line that does not is another's: JournalError,
    with `other` for what the file is then.
    """

    def __init__(self, path: Path, *, start: bytes, other: str) -> None:
        self.path = path
        with path.open("a+b") as file:
            file.seek(0)
            data = file.read()
            whole = data.rfind(b"\n") + 1
            cut = data[whole:]
            if not cut.startswith(start[: len(cut)]):
                raise JournalError(f"`{path}` is {other}")
            if cut:
                file.truncate(whole)

    def lines(self) -> Iterator[tuple[str, bytes]]:
        return whole_lines(self.path)

    def write(self, record: Mapping[str, Any]) -> None:
        append_json_line(self.path, record)
