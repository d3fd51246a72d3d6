"""A JSONL file of results that can be continued after any end of the process, a kill included.

A row is one line with the prompt's `index` and `key`, a digest of the prompt and of all settings.
What is no row of the same run is left alone, and refused.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from nprdsl.cli.failures import Failure, told
from nprdsl.cli.prompts import Row
from nprdsl.journal import JournalError, JsonLines

_START: Final = b'{"index": '


class ResultFile:
    """The results of `rows` in the file `name`, whose keys are `keys`, in the same order."""

    def __init__(self, name: str, rows: list[Row], keys: list[str]) -> None:
        self._keys = keys
        other = "no file of results; give another --out"
        with told(JournalError), told(OSError, about=f"cannot write `{name}`"):
            self._file = JsonLines(Path(name), start=_START, other=other)
        self.done = {self._index(place, line) for place, line in self._file.lines()}
        self.todo = [row for row in rows if row.index not in self.done]

    def write(self, record: dict[str, Any]) -> None:
        """Append a row; it is there, whole, when this returns."""
        with told(OSError, about=f"cannot write `{self._file.path}`"):
            self._file.write(record)

    def _index(self, place: str, line: bytes) -> int:
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
