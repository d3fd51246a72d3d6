"""Chains of thought from a JSONL file: an object in each line, its fields named by options."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nprdsl.cli.failures import Failure
from nprdsl.cli.files import STDIN, read_text

if TYPE_CHECKING:
    from nprdsl.trainers.curate import Chain


@dataclass(frozen=True, slots=True)
class Fields:
    """The names of the fields; a row without `id` is called by its line."""

    prompt: str
    thought: str
    id: str


def read_chains(file: str, fields: Fields) -> list[Chain]:
    """All chains of a file; blank lines are none."""
    from nprdsl.trainers.curate import Chain

    name = "stdin" if file == STDIN else file
    chains, seen = [], dict[str, int]()
    for number, line in enumerate(read_text(file).split("\n"), 1):
        if not line.strip():
            continue
        place = f"{name}:{number}"
        row = _object(place, line)
        key = str(row.get(fields.id, f"line {number}"))
        if key in seen:
            raise Failure(
                f"{place}: line {seen[key]} has the `{fields.id}` `{key}` too; name another "
                "field with --id-field"
            )
        seen[key] = number
        prompt, thought = (_text(place, row, n) for n in (fields.prompt, fields.thought))
        own = (fields.id, fields.prompt, fields.thought)
        extra = {name: value for name, value in row.items() if name not in own}
        chains.append(Chain(key, prompt, thought, extra))
    if not chains:
        raise Failure(f"{name} holds no chain of thought")
    return chains


def _object(place: str, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Failure(f"{place}: the row is not JSON: {error}") from error
    if not isinstance(row, dict):
        raise Failure(f"{place}: the row is not a JSON object")
    return row


def _text(place: str, row: dict[str, Any], field: str) -> str:
    value = row.get(field)
    if value is None:
        raise Failure(
            f"{place}: the field `{field}` is not among {', '.join(row) or 'none'}; name the "
            "fields with --prompt-field and --thought-field"
        )
    if not isinstance(value, str) or not value.strip():
        raise Failure(f"{place}: the field `{field}` is no text, or empty")
    return value
