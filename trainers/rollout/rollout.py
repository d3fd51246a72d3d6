"""Rollouts: what an engine wrote behind prompts, as training rows of the very tokens it sampled.

Nothing is decoded and encoded again: a row is made of the ids that were sampled, and their
log-probabilities come with it, to be compared with what the trainer finds (`mismatch`). In the mode
`parallel` the engine forks and joins, and all traces are legal; in the mode `free` the model writes
alone and may break the schema's rules: what it broke is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np

from nprdsl.machine.budget import DEFAULT_LIMITS, Limits
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.engine import Engine
from nprdsl.runtime.prompts import Prompt
from nprdsl.runtime.results import Completion, Result
from nprdsl.runtime.sampling import DEFAULT, PER_RULE, Sampling
from nprdsl.schema import Schema
from nprdsl.structure.events import EndReason
from nprdsl.structure.violations import Violation, ViolationCode
from nprdsl.trace.graph import ExecutionGraph
from nprdsl.trace.trace import TokenTrace, Trace
from nprdsl.trainers.batch.training_rows import TrainingRow, causal_row, training_row
from nprdsl.trainers.evaluate.samples import Mode

_ENDED: Final = (EndReason.COMPLETED, EndReason.BUDGET)


class Purpose(StrEnum):
    """What rollouts are for: to reinforce the model that wrote them, which holds only for its own
    distribution, or to choose some and imitate them."""

    REINFORCE = "reinforce"
    IMITATE = "imitate"


class OffPolicyError(ValueError):
    """Sampling settings under which the tokens do not come from the model's own distribution."""


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """What was written behind one prompt, whose number is `group`.

    `row` is the training row, with the log-probabilities of the engine. `graph` is None where this
    is no legal trace, because of the `violations` or because it did not come to its end. A token
    that runs across a fork is no violation here: as text the trace is legal, and its graph then
    counts characters. `answer` is what the schema marks as the answer of a legal trace, "" without
    one.
    """

    group: int
    text: str
    token_ids: tuple[int, ...]
    row: TrainingRow
    graph: ExecutionGraph | None
    violations: tuple[Violation, ...]
    finish: EndReason
    answer: str


def rollouts(
    engine: Engine,
    schema: Schema,
    prompts: Sequence[Prompt],
    samples: int,
    *,
    mode: Mode = Mode.PARALLEL,
    seeds: Sequence[int] = (),
    sampling: Sampling = DEFAULT,
    purpose: Purpose = Purpose.REINFORCE,
    limits: Limits = DEFAULT_LIMITS,
    chat: bool = False,
    instructions: bool = False,
) -> list[Rollout]:
    """`samples` rollouts of every prompt, all at once; equal `seeds`, one for each prompt (its
    number by default), give equal rollouts. In the mode `free` only `limits.max_tokens` counts.

    Requests that failed or were stopped are left out: compare the length with what was asked.
    Raises OffPolicyError for settings other than temperature 1 without truncation or penalties,
    unless the purpose is to imitate.
    """
    if purpose is Purpose.REINFORCE:
        check_on_policy(sampling)
    own = list(seeds) or list(range(len(prompts)))
    if len(own) != len(prompts):
        raise ValueError(f"there are {len(prompts)} prompts, but {len(own)} seeds")
    groups = [group for group in range(len(prompts)) for _ in range(samples)]
    repeated = [prompts[group] for group in groups]
    each = [_seeded(sampling, seed, number) for seed in own for number in range(samples)]
    if mode is Mode.FREE:
        completions = engine.complete(
            schema, repeated, max_tokens=limits.max_tokens, sampling=each, chat=chat,
            instructions=instructions,
        )  # fmt: skip
        bound = engine.bind(schema)
        return [
            of_completion(group, completion, schema, bound)
            for group, completion in zip(groups, completions, strict=True)
            if completion.finish in _ENDED
        ]
    results = engine.generate(
        schema, repeated, sampling=each, limits=limits, chat=chat, instructions=instructions
    )
    pairs = zip(groups, results, strict=True)
    return [of_result(group, result) for group, result in pairs if result.finish in _ENDED]


def of_result(group: int, result: Result) -> Rollout:
    """The rollout of a result that has a trace."""
    assert result.layout is not None and result.trace is not None, "a failed request has no layout"
    row = training_row([*result.prompt_ids, *result.token_ids], result.layout)
    return Rollout(
        group=group,
        text=result.text,
        token_ids=result.token_ids,
        row=row.with_logprobs([value for value in result.logprobs if value is not None]),
        graph=result.trace.graph,
        violations=(),
        finish=result.finish,
        answer=result.answer,
    )


def of_completion(
    group: int, completion: Completion, schema: Schema, bound: BoundSchema
) -> Rollout:
    """The rollout of what the model wrote freely."""
    prompt, ids = completion.prompt_ids, completion.token_ids
    violations = bound.check((*prompt, *ids), prompt=len(prompt))
    broken = tuple(v for v in violations if v.code is not ViolationCode.TOKEN_BOUNDARY)
    trace: Trace | TokenTrace | None = None
    if not broken and completion.finish is EndReason.COMPLETED:
        if violations:
            trace = schema.parse(completion.text)
        else:
            trace = bound.parse((*prompt, *ids), prompt=len(prompt))
    return Rollout(
        group=group,
        text=completion.text,
        token_ids=ids,
        row=causal_row(prompt, ids).with_logprobs(completion.logprobs),
        graph=None if trace is None else trace.graph,
        violations=broken,
        finish=completion.finish,
        answer="" if trace is None else trace.answer,
    )


def check_on_policy(sampling: Sampling) -> None:
    """Raises OffPolicyError if a setting, of any rule, bends the model's distribution."""
    if sampling.avoid:
        raise OffPolicyError(
            "avoid holds texts: what would copy them is not drawn, so that what is sampled is not "
            "the policy that is trained; leave it empty"
        )
    rules = [(f" for the rule `{rule}`", sampling.for_rule(rule)) for rule in sampling.rules]
    for where, settings in [("", sampling), *rules]:
        for setting in PER_RULE:
            value, neutral = getattr(settings, setting), getattr(DEFAULT, setting)
            if value != neutral:
                raise OffPolicyError(
                    f"{setting} is {value}{where}: what is sampled is then not the policy that is "
                    f"trained; leave it at {neutral}"
                )


def _seeded(sampling: Sampling, seed: int, number: int) -> Sampling:
    drawn = np.random.SeedSequence((seed, number)).generate_state(1)[0]
    return replace(sampling, seed=int(drawn))
