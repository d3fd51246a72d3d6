"""A JSONL file of results that can be continued after any end of the process, a kill included.

A row is one line with the prompt's `index` and `key`, a digest of the prompt and of all settings.
A last line without its newline was cut by a kill and is taken away; anything else that is no row of
the same run is left alone, and refused. Non-goals: what else a row holds.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from nprdsl.cli.failures import Failure, told
from nprdsl.cli.prompts import Row


class ResultFile:
    """The results of `rows` in the file `name`, whose keys are `keys`, in the same order."""

    def __init__(self, name: str, rows: list[Row], keys: list[str]) -> None:
        self._path = Path(name)
        self._keys = keys
        with told(OSError, about=f"cannot write `{name}`"):
            self._file = self._path.open("a+b")
        with told(OSError, about=f"cannot read `{name}`"):
            self._repair()
        self.done = self._read()
        self.todo = [row for row in rows if row.index not in self.done]

    def write(self, record: dict[str, Any]) -> None:
        """Append a row; it is there, whole, when this returns."""
        line = json.dumps(record, ensure_ascii=False) + "\n"
        with told(OSError, about=f"cannot write `{self._path}`"):
            self._file.write(line.encode("utf-8", "replace"))
            self._file.flush()

    def _repair(self) -> None:
        """Take away a line that was cut while it was written."""
        self._file.seek(0)
        data = self._file.read()
        kept = data.rfind(b"\n") + 1
        torn = data[kept:]
        if not torn:
            return
        if not torn.startswith(_BEGINNING[: len(torn)]):
            raise Failure(f"`{self._path}` is no file of results; give another --out")
        os.truncate(self._path, kept)

    def _read(self) -> set[int]:
        self._file.seek(0)
        done: set[int] = set()
        for number, line in enumerate(self._file.read().split(b"\n"), 1):
            if line.strip():
                done.add(self._index(number, line))
        return done

    def _index(self, number: int, line: bytes) -> int:
        place = f"{self._path}:{number}"
        try:
            record = json.loads(line)
        except ValueError as error:
            raise Failure(f"{place}: the row is no result; give another --out") from error
        index = record.get("index") if isinstance(record, dict) else None
        if not isinstance(index, int):
            raise Failure(f"{place}: the row is no result; give another --out")
        if not 0 <= index < len(self._keys) or record.get("key") != self._keys[index]:
            raise Failure(
                f"{place}: the result is of another prompt, model or setting; give another --out, "
                "or the same prompts and options as before"
            )
        return index


_BEGINNING = b'{"index": '
