"""`nprdsl run --file`: many prompts together, one JSON row for each.

Prompts are submitted ahead, so that the engine is always full, and their results are taken in
order: the file is the same however often the run was interrupted, times apart. A prompt that fails
is told on stderr and left out, so that a later run tries it again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from nprdsl.cli.failures import ExitCode
from nprdsl.cli.figures import result_record
from nprdsl.cli.models import engine_errors, prompt_options
from nprdsl.cli.progress import progress
from nprdsl.cli.prompts import Row
from nprdsl.cli.resultfile import ResultFile
from nprdsl.cli.settings import Settings
from nprdsl.machine.budget import LimitError
from nprdsl.machine.machine import Machine
from nprdsl.structure.events import EndReason

if TYPE_CHECKING:
    from nprdsl.runtime.engine import Engine
    from nprdsl.runtime.results import Result
    from nprdsl.runtime.sampling import Sampling

_AHEAD = 256  # prompts submitted before the first result is taken


def run_many(
    engine: Engine, settings: Settings, rows: list[Row], *, model: str, out: str | None
) -> None:
    """Run all prompts that have no result yet; rows go to `out`, or to stdout."""
    with engine_errors():
        sampling = settings.resolved(engine.sampling_defaults)
        options = prompt_options(engine, settings)
        Machine(engine.bind(settings.schema), limits=settings.limits, join=settings.join)
    same = (model, settings.identity, sampling, sorted(options.items()))
    keys = [_key(row, same) for row in rows]
    file = None if out is None else ResultFile(out, rows, keys)
    todo = rows if file is None else file.todo
    write = _print if file is None else file.write
    done = failed = 0
    try:
        with progress("prompts", len(rows), len(rows) - len(todo)) as advance, engine_errors():
            for row, result in _results(engine, settings, todo, sampling, options):
                if isinstance(result, str):
                    failed += 1
                    click.echo(f"error: {row.place}: {result}", err=True)
                else:
                    write(_record(row, keys[row.index], result))
                    done += 1
                advance()
    finally:
        _tell(len(rows), len(rows) - len(todo), done, failed, out)
    if failed:
        sys.exit(ExitCode.BAD)


def _results(
    engine: Engine,
    settings: Settings,
    rows: list[Row],
    sampling: Sampling,
    options: dict[str, bool],
) -> Iterator[tuple[Row, Result | str]]:
    """Every row with its result, or with what went wrong, in order."""
    from nprdsl.runtime.errors import CapacityError, UnsupportedServerError
    from nprdsl.runtime.prompts import PromptError

    submitted: deque[tuple[Row, int | str]] = deque()

    def submit(row: Row) -> int | str:
        try:
            return engine.submit(
                settings.schema,
                row.prompt,
                sampling=sampling,
                limits=settings.limits,
                join=settings.join,
                parallel=settings.parallel,
                **options,
            )
        except (CapacityError, LimitError, PromptError, UnsupportedServerError) as error:
            return str(error)

    for row in rows:
        submitted.append((row, submit(row)))
        if len(submitted) == _AHEAD:
            yield _first(engine, submitted)
    while submitted:
        yield _first(engine, submitted)


def _first(engine: Engine, submitted: deque[tuple[Row, int | str]]) -> tuple[Row, Result | str]:
    row, number = submitted.popleft()
    if isinstance(number, str):
        return row, number
    result = engine.wait(number)
    return row, result.error if result.finish is EndReason.FAILED else result


def _key(row: Row, settings: tuple[object, ...]) -> str:
    """A digest of a prompt and of all that its result depends on."""
    told = json.dumps([row.prompt, repr(settings)])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def _record(row: Row, key: str, result: Result) -> dict[str, Any]:
    return {"index": row.index, "key": key, "prompt": row.prompt, **result_record(result)}


def _print(record: dict[str, Any]) -> None:
    click.echo(json.dumps(record, ensure_ascii=False))


def _tell(total: int, before: int, done: int, failed: int, out: str | None) -> None:
    """What the run came to, on stderr, if it was interrupted too."""
    parts = [f"{done} of {total} prompts done"]
    if before:
        parts.append(f"{before} were done before")
    if failed:
        parts.append(f"{failed} failed")
    left = total - before - done
    if left and out is not None:
        parts.append("the same command again does the rest")
    click.echo("; ".join(parts), err=True)
