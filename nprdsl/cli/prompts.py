"""Many prompts from a file or stdin: a line each, or a JSON object in each line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from nprdsl.cli.failures import Failure
from nprdsl.cli.files import STDIN, read_text

Prompt = str | list[dict[str, str]]


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt. `index` counts prompts from 0, `place` is where it stands, for messages."""

    index: int
    place: str
    prompt: Prompt


def read_prompts(file: str, field: str) -> list[Row]:
    """All prompts of a file; blank lines are none.

    A `.jsonl` file holds objects whose `field` is a text or a list of chat messages; so does stdin
    if it begins with `{`.
    """
    text = read_text(file)
    name = "stdin" if file == STDIN else file
    as_json = file.endswith(".jsonl") or (file == STDIN and text.lstrip().startswith("{"))
    rows: list[Row] = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{name}:{number}"
            prompt = _field(place, line, field) if as_json else line.strip()
            rows.append(Row(len(rows), place, prompt))
    if not rows:
        raise Failure(f"{name} holds no prompt")
    return rows


def _field(place: str, line: str, field: str) -> Prompt:
    try:
        values = json.loads(line)
    except ValueError as error:
        raise Failure(f"{place}: the row is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise Failure(f"{place}: the row is not a JSON object")
    if field not in values:
        raise Failure(
            f"{place}: the field `{field}` is not among {', '.join(values)}; name it with --field"
        )
    value = values[field]
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, list) and value and all(map(_is_message, value)):
        return value
    raise Failure(
        f"{place}: the field `{field}` is neither a text nor chat messages "
        '[{"role": …, "content": …}]'
    )


def _is_message(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("content"), str)
    )
