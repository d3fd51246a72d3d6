"""Files that users name: texts, prompts, chains of thought; or a refusal that says why.

Rows of a JSONL file are objects, whose fields the user may name.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from nprdsl.cli.failures import Failure, as_failure

if TYPE_CHECKING:
    from nprdsl.runtime.prompts import Prompt
    from nprdsl.trainers.curate import Chain

STDIN = "-"


def shown_name(file: str) -> str:
    """The name of a file in messages."""
    return "stdin" if file == STDIN else file


def read_text(name: str) -> str:
    """The UTF-8 text of a file, or of stdin for `-`; line ends as they are."""
    where = "stdin" if name == STDIN else f"`{name}`"
    with as_failure(OSError, about=f"cannot read {where}"):
        data = _stdin().read() if name == STDIN else Path(name).read_bytes()
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


def _stdin() -> BinaryIO:
    if sys.stdin is None:  # as `<&-` leaves it
        raise Failure("cannot read stdin: it is closed")
    return sys.stdin.buffer


def without_last_newline(text: str) -> str:
    """Without the newline that editors put at the end of a file."""
    return text.removesuffix("\n").removesuffix("\r")


def numbered_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, with their numbers from 1."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line


def json_object(line: str, place: str) -> dict[str, Any]:
    """The row of a JSONL file at that place."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:  # the latter of thousands of brackets
        raise Failure(f"{place}: the row is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise Failure(f"{place}: the row is not a JSON object")
    return row


# prompts


@dataclass(frozen=True, slots=True)
class NumberedPrompt:
    """One prompt of many: `index` counts from 0, `place` is where it stands, for messages."""

    index: int
    place: str
    prompt: Prompt


def read_prompts(file: str, field: str) -> list[NumberedPrompt]:
    """All prompts of a file, one in each line.

    Lines of a `.jsonl` file are objects whose `field` is a text or a list of chat messages; so are
    those of stdin if it begins with `{`.
    """
    text = read_text(file)
    name = shown_name(file)
    as_json = file.endswith(".jsonl") or (file == STDIN and text.lstrip().startswith("{"))
    prompts: list[NumberedPrompt] = []
    for number, line in numbered_lines(text):
        place = f"{name}:{number}"
        prompt = _prompt(json_object(line, place), field, place) if as_json else line.strip()
        prompts.append(NumberedPrompt(len(prompts), place, prompt))
    if not prompts:
        raise Failure(f"{name} holds no prompt")
    return prompts


def _prompt(row: dict[str, Any], field: str, place: str) -> Prompt:
    if field not in row:
        raise Failure(
            f"{place}: the field `{field}` is not among {', '.join(row)}; name it with --field"
        )
    value = row[field]
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list) and value and all(map(_is_message, value)):
        return value
    raise Failure(
        f"{place}: the field `{field}` is neither a text nor chat messages "
        '[{"role": …, "content": …}]'
    )


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(
        isinstance(value.get(name), str) for name in ("role", "content")
    )


# chains of thought


def read_chains(file: str, *, prompt: str, thought: str, id: str) -> list[Chain]:
    """All chains of a JSONL file, whose fields have these names.

    A row without an `id` is called by its line. All other fields of a row stay with its chain.
    """
    from nprdsl.trainers.curate import Chain

    name = shown_name(file)
    chains, lines = [], dict[str, int]()
    for number, line in numbered_lines(read_text(file)):
        place = f"{name}:{number}"
        row = json_object(line, place)
        key = str(row.get(id, f"line {number}"))
        if key in lines:
            raise Failure(
                f"{place}: line {lines[key]} has the `{id}` `{key}` too; name another field with "
                "--id-field"
            )
        lines[key] = number
        texts = (_text(row, prompt, place), _text(row, thought, place))
        extra = {k: value for k, value in row.items() if k not in (id, prompt, thought)}
        chains.append(Chain(key, *texts, extra))
    if not chains:
        raise Failure(f"{name} holds no chain of thought")
    return chains


def _text(row: dict[str, Any], field: str, place: str) -> str:
    value = row.get(field)
    if value is None:
        raise Failure(
            f"{place}: the field `{field}` is not among {', '.join(row) or 'none'}; name the "
            "fields with --prompt-field and --thought-field"
        )
    if not isinstance(value, str) or not value.strip():
        raise Failure(f"{place}: the field `{field}` is no text, or empty")
    return value
