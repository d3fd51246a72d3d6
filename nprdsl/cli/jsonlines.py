"""A file of JSON lines that grows by one whole line at a time, and survives a kill at any moment.

A last line without its newline was cut by a kill and is taken away.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nprdsl.cli.failures import Failure, told


class JsonLines:
    """The file `name`, made if it is not there.

    Every line begins with `beginning`; a file whose last line does not, and lacks its newline, is
    another's and is left alone: a `Failure` that says `other`.
    """

    def __init__(self, name: str | Path, *, beginning: bytes, other: str) -> None:
        self.path = Path(name)
        with told(OSError, about=f"cannot write `{name}`"):
            self._file = self.path.open("a+b")
        with told(OSError, about=f"cannot read `{name}`"):
            self._repair(beginning, other)

    def lines(self) -> Iterator[tuple[str, bytes]]:
        """The lines that are there, blank ones left out, each with its place."""
        self._file.seek(0)
        for number, line in enumerate(self._file.read().split(b"\n"), 1):
            if line.strip():
                yield f"{self.path}:{number}", line

    def write(self, record: dict[str, Any]) -> None:
        """Append a line; it is there, whole, when this returns."""
        line = json.dumps(record, ensure_ascii=False) + "\n"
        with told(OSError, about=f"cannot write `{self.path}`"):
            self._file.write(line.encode("utf-8", "replace"))
            self._file.flush()

    def close(self) -> None:
        self._file.close()

    def _repair(self, beginning: bytes, other: str) -> None:
        """Take away a line that was cut while it was written."""
        self._file.seek(0)
        data = self._file.read()
        kept = data.rfind(b"\n") + 1
        torn = data[kept:]
        if not torn:
            return
        if not torn.startswith(beginning[: len(torn)]):
            raise Failure(f"`{self.path}` is {other}")
        os.truncate(self.path, kept)
