"""Puts many random schemas to the proof: `make fuzz`, or `python -m nprdsl.testing.campaign`.

Schemas are numbered, and a number gives the same schema and the same traces every time. Each
outcome is a line of a file, so that a run that was stopped goes on where it was. At the end stands
how many hold, how many were refused and with which codes, and each failure with the smallest schema
that shows it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, Final

from nprdsl.testing.minimise import minimised
from nprdsl.testing.properties import FuzzFailure, judge
from nprdsl.testing.schemas import RandomSchema, random_schema

SECONDS: Final = 60  # of work on one schema; one that takes longer is a failure
SHRINKING: Final = 10  # seconds of one try to make a failing schema smaller


class _TooSlow(BaseException):
    """Time is over; no `except Exception` on the way may stop it."""


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raises _TooSlow inside when so much time of the processor is over, whatever else runs on the
    machine; in the main thread alone."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise _TooSlow

    before = signal.signal(signal.SIGPROF, stop)
    signal.setitimer(signal.ITIMER_PROF, seconds, 5.0)  # again, if a callback swallowed it
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def outcome(number: int) -> dict[str, Any]:
    """What became of a schema, as one line of the file."""
    drawn = random_schema(number)
    try:
        with within(SECONDS):
            verdict = judge(drawn, number)
    except _TooSlow:
        return {"number": number, "broken": "time", "source": drawn.source}
    if verdict.broken is None:
        return {"number": number, "refused": list(verdict.refused)}
    small = smallest(drawn, number, verdict.broken)
    failure = judge(small, number).broken or verdict.broken
    return {
        "number": number,
        "broken": failure.broken.value,
        "tokens": failure.tokens,
        "message": failure.message,
        "text": failure.text,
        "source": small.source,
        "end": small.end,
        "types": list(small.types),
    }


def smallest(drawn: RandomSchema, number: int, failure: FuzzFailure) -> RandomSchema:
    """The smallest schema found that fails as this one does."""

    def smaller(source: str) -> RandomSchema:
        types = {name: spec for name, spec in drawn.types.items() if name in source}
        return replace(drawn, source=source, types=types)

    def fails(source: str) -> bool:
        try:
            with within(SHRINKING):
                verdict = judge(smaller(source), number)
        except _TooSlow:
            return False
        return verdict.broken is not None and _kind(verdict.broken) == _kind(failure)

    return smaller(minimised(drawn.source, fails))


def _kind(failure: FuzzFailure) -> tuple[str, str, str | None]:
    """What failures of one cause have in common: no names, no numbers."""
    message = re.sub(r"`[^`]*`|'[^']*'|\"[^\"]*\"|\d+", "", failure.message)
    return failure.broken, message[:60], failure.tokens


def run(numbers: Iterable[int], processes: int, file: Path) -> list[dict[str, Any]]:
    """The outcomes of all these schemas; those that the file has are not judged again."""
    file.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    done = {line["number"]: line for line in known}
    numbers = list(numbers)
    waiting = [number for number in numbers if number not in done]
    with multiprocessing.Pool(processes, maxtasksperchild=500) as pool, file.open("a") as out:
        for index, line in enumerate(pool.imap_unordered(outcome, waiting, chunksize=4), 1):
            out.write(json.dumps(line, ensure_ascii=False) + "\n")
            out.flush()
            done[line["number"]] = line
            if sys.stderr.isatty() or index % 500 == 0:
                print(f"\r{index} of {len(waiting)}", end="", file=sys.stderr, flush=True)
    return [done[number] for number in numbers]


def summary(lines: list[dict[str, Any]]) -> str:
    """The counts, and every failure."""
    broken = [line for line in lines if "broken" in line]
    refused = [line["refused"] for line in lines if line.get("refused")]
    codes = Counter(code for found in refused for code in found)
    said = [f"{_failure(line)}\n" for line in sorted(broken, key=lambda line: line["number"])]
    said += [
        f"{len(lines)} schemas ({min(n['number'] for n in lines)} to "
        f"{max(n['number'] for n in lines)}): {len(lines) - len(broken) - len(refused)} hold, "
        f"{len(refused)} refused ({len(refused) / len(lines):.1%}), {len(broken)} fail",
        "refused: " + ", ".join(f"{code} {count}" for code, count in codes.most_common()),
    ]
    if broken:
        kinds = Counter(line["broken"] for line in broken)
        said.append("failed: " + ", ".join(f"{k} {count}" for k, count in kinds.most_common()))
    return "\n".join(said)


def _failure(line: dict[str, Any]) -> str:
    where = [f"{line['tokens']} tags special"] if line.get("tokens") else []
    where += [f"the tag {line['end']!r} ends"] if line.get("end") else []
    where += [f"types {line['types']}"] if line.get("types") else []
    head = f"-- schema {line['number']}: {line['broken']}"
    said = f"{line.get('message', '')}\n{line.get('text', '')!r}"
    return f"{head} {', '.join(where)}\n{line['source']}=> {said}"


def main() -> None:
    parser = argparse.ArgumentParser(description="put random schemas to the proof")
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="number of the first schema")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--file", type=Path, default=Path("build/fuzz.jsonl"))
    parser.add_argument("--fresh", action="store_true", help="forget what the file has")
    options = parser.parse_args()
    if options.fresh:
        options.file.unlink(missing_ok=True)
    numbers = range(options.first, options.first + options.count)
    lines = run(numbers, options.processes, options.file)
    print(summary(lines))
    sys.exit(any("broken" in line for line in lines))


if __name__ == "__main__":
    main()
