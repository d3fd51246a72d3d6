"""What every stage begins with: its schema, its rows, its folder, its session.

Everything that can be refused is refused here, before the first step.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import torch
from accelerate import Accelerator
from transformers import PreTrainedModel, PreTrainedTokenizerFast

import nprdsl
from nprdsl.runtime.prompts import PromptEncoder, PromptError
from nprdsl.schema import Schema
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trainers.config.sections import (
    DataSection,
    ModelSection,
    OptimizerSection,
    PromptSection,
    RolloutSection,
    RunSection,
    Section,
)
from nprdsl.trainers.data.problems import Problem, TraceExample, read_problems, read_traces
from nprdsl.trainers.data.sources import AUTO, Rejected
from nprdsl.trainers.run.directory import RunDirectory
from nprdsl.trainers.run.session import Session, Watch, load

REJECTED: Final = "rejected.jsonl"
_Row = TypeVar("_Row")


@dataclass(frozen=True, slots=True, eq=False)
class Setup:
    """What a stage has before its session: everything but the optimizer."""

    accelerator: Accelerator
    directory: RunDirectory
    schema: Schema
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    vocabulary: Vocabulary
    prompts: PromptEncoder


def begin(
    config: Section, model: ModelSection, run: RunSection, language: str, *, restart: bool
) -> Setup:
    """Raises RunError, ModelNotFoundError, SchemaNotFoundError, SchemaError, ValueError."""
    schema = nprdsl.load(language)
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
    made, tokenizer = load(model, schema)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    return Setup(
        accelerator=accelerator,
        directory=directory,
        schema=schema,
        model=made,
        tokenizer=tokenizer,
        vocabulary=vocabulary,
        prompts=PromptEncoder(tokenizer, vocabulary),
    )


def session(
    setup: Setup,
    model: ModelSection,
    run: RunSection,
    optimizer: OptimizerSection,
    *,
    total: int,
    updates: int,
    watch: Watch,
) -> Session:
    """The session of a stage of `total` steps and `updates` optimizer steps in all."""
    return Session(
        setup.accelerator,
        setup.model,
        setup.tokenizer,
        setup.directory,
        run=run,
        optimizer=optimizer,
        attention=model.attention,
        total=total,
        updates=updates,
        watch=watch,
    )


def problems(section: DataSection) -> tuple[list[Problem], tuple[Rejected, ...]]:
    """The problems of a section, and the rows that are none. Raises SourceError."""
    found = read_problems(
        section.source,
        split=section.split or AUTO,
        subset=section.subset or AUTO,
        prompt_field=section.prompt_field or AUTO,
        answer_field=section.answer_field or AUTO,
        id_field=section.id_field or AUTO,
    )
    return list(found.problems[: section.limit]), found.rejected


def asked(
    setup: Setup,
    section: DataSection,
    prompt: PromptSection,
    rollout: RolloutSection,
    room: int,
    tell: Told,
) -> list[Problem]:
    """The problems to roll out; rows that are none, or whose prompt the vocabulary cannot spell,
    are listed in the run's folder.

    Raises SourceError, and ValueError where a trace of `rollout.max_tokens` might not fit `room`.
    """
    found, bad = problems(section)
    kept, longest, refused = list[Problem](), 0, list[tuple[str, str]]()
    for problem in found:
        try:
            ids = setup.prompts.read(
                setup.schema, problem.prompt, chat=prompt.chat, instructions=prompt.instructions
            )
        except PromptError as error:
            refused.append((problem.id, str(error)))
            continue
        kept.append(problem)
        longest = max(longest, len(ids))
    if count := write_rejected(setup, bad, refused):
        tell(f"rows that are no problems: {count}; {setup.directory.path / REJECTED}")
    if not kept:
        raise ValueError(f"no row of `{section.source}` is a problem; {refused[0][1]}")
    if longest + rollout.max_tokens > room:
        raise ValueError(
            f"`rollout.max_tokens` is {rollout.max_tokens} and the longest prompt has {longest} "
            f"tokens, but a packed row holds `run.room` = {room} entries: give room for "
            f"{longest + rollout.max_tokens}, or fewer tokens"
        )
    return kept


def traces(section: DataSection) -> tuple[list[TraceExample], tuple[Rejected, ...]]:
    """The traces of a section, and the rows that are none. Raises SourceError."""
    found = read_traces(
        section.source,
        split=section.split or AUTO,
        subset=section.subset or AUTO,
        prompt_field=section.prompt_field or AUTO,
        trace_field=section.trace_field or AUTO,
        id_field=section.id_field or AUTO,
    )
    return list(found.traces[: section.limit]), found.rejected


def write_rejected(
    setup: Setup, rows: Sequence[Rejected], more: Sequence[tuple[str, str]] = ()
) -> int:
    """Lists what is not trained on, with places and reasons, in the run's folder; gives how
    many."""
    listed: list[dict[str, Any]] = [
        {"where": row.where, "reason": row.reason, "excerpt": row.excerpt} for row in rows
    ]
    listed += [{"where": name, "reason": reason} for name, reason in more]
    if setup.accelerator.is_main_process:
        text = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in listed)
        (setup.directory.path / REJECTED).write_text(text, encoding="utf-8")
    return len(listed)


def share(items: Sequence[_Row], accelerator: Accelerator) -> list[_Row]:
    """This process's part of what all have."""
    return list(items[accelerator.process_index :: accelerator.num_processes])


Told = Callable[[str], None]


def silent(message: str) -> None:
    """Nobody is told."""
