"""Files that are whole or not there: a kill leaves the old one, or none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_whole(file: Path, content: str | bytes) -> None:
    """Writes the content, text as UTF-8, in place of what was there. Raises OSError."""
    made = file.with_name(f".{file.name}.tmp")
    made.write_bytes(content.encode() if isinstance(content, str) else content)
    os.replace(made, file)


def write_rows(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes rows as JSON lines."""
    write_whole(file, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
