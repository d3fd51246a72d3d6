"""What every stage begins with: schema, model, folder, data, session.

A stage's configuration goes in. Everything that can be refused is refused here, before the first
step: a folder of another run, an unknown model or schema, data of which no row can be used.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import nprdsl
from nprdsl.journal import write_json_lines
from nprdsl.runtime.prompts import PromptEncoder, PromptError
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trainers.config.stages import DataSection, ReinforcementConfig, TrainingConfig
from nprdsl.trainers.data.problems import Problem, TraceExample, read_problems, read_traces
from nprdsl.trainers.data.sources import RejectedRow
from nprdsl.trainers.run.directory import RunDirectory
from nprdsl.trainers.run.session import Notify, Session, Watch, load

REJECTED: Final = "rejected.jsonl"
_SOURCE_OPTIONS: Final = {"split", "subset", "prompt_field", "id_field"}
_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What a stage has before its session: everything but the optimizer."""

    config: TrainingConfig
    accelerator: Accelerator
    directory: RunDirectory
    schema: Schema
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    encoder: PromptEncoder

    def encode(self, prompt: str) -> tuple[int, ...]:
        """The ids of a prompt. Raises PromptError."""
        section = self.config.prompt
        return self.encoder.read(
            self.schema, prompt, chat=section.chat, instructions=section.instructions
        )

    def session(self, total: int, updates: int, watch: Watch) -> Session:
        """The session of a stage of `total` steps and `updates` optimizer steps in all."""
        return Session(
            self.accelerator,
            self.model,
            self.tokenizer,
            self.directory,
            self.config,
            total=total,
            updates=updates,
            watch=watch,
        )

    def reject(self, rows: Sequence[RejectedRow]) -> int:
        """Lists what is not trained on in the run's folder; gives how many rows that are."""
        records = [
            {"where": row.where, "reason": row.reason}
            | ({"excerpt": row.excerpt} if row.excerpt else {})
            for row in rows
        ]
        if self.accelerator.is_main_process:
            write_json_lines(self.directory.path / REJECTED, records)
        return len(records)


def prepare(config: TrainingConfig, *, restart: bool) -> Setup:
    """Opens the run's folder and loads schema and model.

    Raises RunError, ModelNotFoundError, SchemaNotFoundError, SchemaError, ValueError.
    """
    schema, run = nprdsl.load(config.language), config.run
    # Without a GPU, processes find each other only if this says so.
    accelerator = Accelerator(
        mixed_precision=run.precision, cpu=not torch.accelerator.is_available()
    )
    settings = config.model_dump(mode="json", by_alias=True)
    del settings["run"]["output"]  # a folder may be moved
    if accelerator.is_main_process:
        RunDirectory.open(Path(run.output), settings, restart=restart)
    accelerator.wait_for_everyone()
    directory = RunDirectory.open(Path(run.output), settings)
    model, tokenizer = load(config.model, schema)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    return Setup(
        config=config,
        accelerator=accelerator,
        directory=directory,
        schema=schema,
        model=model,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        encoder=PromptEncoder(tokenizer, vocabulary),
    )


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
    if count := setup.reject([*rejected, *unspellable]):
        notify(f"rows that are no problems: {count}; {setup.directory.path / REJECTED}")
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


def own_share(items: Sequence[_Item], accelerator: Accelerator) -> list[_Item]:
    """This process's part of what all have."""
    return list(items[accelerator.process_index :: accelerator.num_processes])
