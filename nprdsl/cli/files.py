"""Files that users name: read and written, or refused with the reason."""

from __future__ import annotations

import sys
from pathlib import Path

from nprdsl.cli.failures import Failure, told

STDIN = "-"


def read_text(name: str) -> str:
    """The UTF-8 text of a file, or of stdin for `-`; line ends as they are."""
    where = "stdin" if name == STDIN else f"`{name}`"
    with told(OSError, about=f"cannot read {where}"):
        data = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Failure(
            f"{where} is not a text: byte 0x{data[error.start]:02x} at offset {error.start} is not "
            "UTF-8"
        ) from error
    if "\0" in text:
        raise Failure(f"{where} is not a text: it has a NUL at offset {text.index(chr(0))}")
    return text


def write_text(name: str, text: str) -> None:
    """Write a whole file."""
    with told(OSError, about=f"cannot write `{name}`"):
        Path(name).write_text(text, encoding="utf-8")


def without_last_newline(text: str) -> str:
    """Without the newline that editors put at the end of a file."""
    return text.removesuffix("\n").removesuffix("\r")
