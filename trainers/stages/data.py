"""The data of a stage: its rows as problems or traces, what is refused of them, and their order.

What cannot be used is refused before the first step, and listed with its place and the reason in
the folder of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, TypeVar

import numpy as np
from accelerate import Accelerator
from accelerate.utils import gather_object

from nprdsl.runtime.prompts import PromptError
from nprdsl.trace.journal import write_json_lines
from nprdsl.trainers.config.stages import DataSection, ReinforcementConfig
from nprdsl.trainers.data.problems import Problem, TraceExample, read_problems, read_traces
from nprdsl.trainers.data.sources import RejectedRow
from nprdsl.trainers.run.session import Notify, Setup

REJECTED: Final = "rejected.jsonl"
_SOURCE_OPTIONS: Final = {"split", "subset", "prompt_field", "id_field"}
_Item = TypeVar("_Item")


def section_problems(section: DataSection) -> tuple[list[Problem], tuple[RejectedRow, ...]]:
    """The problems of a section, and the rows that are none. Raises SourceError."""
    options = section.model_dump(include=_SOURCE_OPTIONS | {"answer_field"}, exclude_none=True)
    loaded = read_problems(section.source, **options)
    return list(loaded.problems[: section.limit]), loaded.rejected


def section_traces(section: DataSection) -> tuple[list[TraceExample], tuple[RejectedRow, ...]]:
    """The traces of a section, and the rows that are none. Raises SourceError."""
    options = section.model_dump(include=_SOURCE_OPTIONS | {"trace_field"}, exclude_none=True)
    loaded = read_traces(section.source, **options)
    return list(loaded.traces[: section.limit]), loaded.rejected


def rollout_problems(setup: Setup, config: ReinforcementConfig, notify: Notify) -> list[Problem]:
    """The problems to roll out. Rows that are none, or whose prompt the vocabulary cannot spell,
    are listed in the run's folder.

    Raises SourceError, and ValueError where a trace of `rollout.max_tokens` might not fit a packed
    row.
    """
    problems, rejected = section_problems(config.data)
    kept, longest, unspellable = list[Problem](), 0, list[RejectedRow]()
    for problem in problems:
        try:
            longest = max(longest, len(setup.encode(problem.prompt)))
            kept.append(problem)
        except PromptError as error:
            unspellable.append(RejectedRow(problem.id, str(error)))
    list_rejected(setup, [*rejected, *unspellable], "rows that are no problems", notify)
    if not kept:
        reason = unspellable[0].reason
        raise ValueError(f"no row of `{config.data.source}` is a problem; {reason}")
    room, tokens = config.run.room, config.rollout.max_tokens
    if longest + tokens > room:
        raise ValueError(
            f"`rollout.max_tokens` is {tokens} and the longest prompt has {longest} tokens, but a "
            f"packed row holds `run.room` = {room} entries: give room for {longest + tokens}, or "
            "fewer tokens"
        )
    return kept


def list_rejected(setup: Setup, rows: Sequence[RejectedRow], what: str, notify: Notify) -> None:
    """Lists rows that are not trained on in the run's folder, and tells how many; `what` names
    them."""
    records = [
        {"where": row.where, "reason": row.reason}
        | ({"excerpt": row.excerpt} if row.excerpt else {})
        for row in rows
    ]
    file = setup.directory.path / REJECTED
    if setup.accelerator.is_main_process:
        write_json_lines(file, records)
    if rows:
        notify(f"{what}: {len(rows)}; {file}")


def own_share(items: Sequence[_Item], accelerator: Accelerator) -> list[_Item]:
    """This process's part of what all have."""
    return list(items[accelerator.process_index :: accelerator.num_processes])


def of_all(value: _Item, accelerator: Accelerator) -> list[_Item]:
    """A value of every process, in their order."""
    values: list[_Item] = gather_object([value]) if accelerator.num_processes > 1 else [value]
    return values


@dataclass(frozen=True, slots=True)
class Order:
    """Passes over `rows` rows, each shuffled by the seed, cut into batches of `size`; `shuffled`
    False keeps them in their own order. What a batch holds follows from its number alone, so that a
    run goes on anywhere."""

    rows: int
    size: int
    seed: int
    shuffled: bool = True

    def __post_init__(self) -> None:
        if self.rows < 1 or self.size < 1:
            raise ValueError(f"{self.rows} rows in batches of {self.size} cannot be ordered")

    def batches(self, passes: float) -> int:
        """Batches of so many passes over all rows, one at least."""
        return max(1, round(passes * self.rows / self.size))

    def batch(self, number: int) -> list[int]:
        """The rows of batch `number`."""
        return self.span(number * self.size, self.size)

    def span(self, begin: int, count: int) -> list[int]:
        """`count` rows from place `begin` of all passes on."""
        places = range(begin, begin + count)
        if not self.shuffled:
            return [at % self.rows for at in places]
        return [_shuffled(self.rows, self.seed, at // self.rows)[at % self.rows] for at in places]


@lru_cache(maxsize=4)
def _shuffled(rows: int, seed: int, number: int) -> tuple[int, ...]:
    return tuple(np.random.default_rng((seed, number)).permutation(rows).tolist())
