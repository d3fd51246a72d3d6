"""Rollouts: what an engine wrote, as rows to train on, token in, token out.

Nothing is decoded and encoded again: a row is made of the very ids that were sampled, and the
log-probabilities of the rollout come with it. What the trainer then finds for the same tokens is
compared at every step; where the two differ by more than rounding, training is not what it says.
Traces come from the engine with forks and joins; free rollouts from the model alone, which may
break the schema's rules: what it broke is listed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

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
from nprdsl.trainers.batch.packed_rows import Row, row, sequence

Floats = NDArray[np.float64]


class Purpose(StrEnum):
    """What rollouts are for: to reinforce the model that wrote them, which holds only for its own
    distribution, or to choose some and imitate them."""

    REINFORCE = "reinforce"
    IMITATE = "imitate"


class OffPolicyError(ValueError):
    """Sampling settings under which the tokens do not come from the model's own distribution."""


class MismatchError(RuntimeError):
    """Rollout and trainer give the same tokens different log-probabilities."""


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """What was written behind one prompt. `group` numbers the prompt; `logprobs` float64 [N] are
    those of the sampled entries of `row`, in order. `graph` is None where it is no legal trace,
    because of the `violations`, or of its end. A token that runs across a fork is none here: as
    text the trace is legal, and its graph then counts characters."""

    group: int
    text: str
    token_ids: tuple[int, ...]
    row: Row
    logprobs: Floats
    graph: ExecutionGraph | None
    violations: tuple[Violation, ...]
    finish: EndReason


@dataclass(frozen=True, slots=True)
class Mismatch:
    """Differences between the log-probabilities of rollout and trainer, over `tokens` tokens."""

    largest: float
    mean: float
    tokens: int


def rollouts(
    engine: Engine,
    schema: Schema,
    prompts: Sequence[Prompt],
    samples: int,
    *,
    seeds: Sequence[int] = (),
    sampling: Sampling = DEFAULT,
    purpose: Purpose = Purpose.REINFORCE,
    limits: Limits = DEFAULT_LIMITS,
    chat: bool = False,
    instructions: bool = False,
) -> list[Rollout]:
    """`samples` traces of every prompt, all at once; equal `seeds`, one for each prompt (its number
    by default), give equal traces.

    Requests that failed or were stopped are left out: compare the length with what was asked.
    Raises OffPolicyError for settings other than temperature 1 without truncation or penalties,
    unless the purpose is to imitate.
    """
    groups, each = _asked(len(prompts), samples, seeds, sampling, purpose)
    results = engine.generate(
        schema,
        [prompts[group] for group in groups],
        sampling=each,
        limits=limits,
        chat=chat,
        instructions=instructions,
    )
    pairs = zip(groups, results, strict=True)
    return [rollout(group, result) for group, result in pairs if result.finish in _WHOLE]


def free_rollouts(
    engine: Engine,
    schema: Schema,
    prompts: Sequence[Prompt],
    samples: int,
    *,
    max_tokens: int,
    seeds: Sequence[int] = (),
    sampling: Sampling = DEFAULT,
    purpose: Purpose = Purpose.REINFORCE,
    chat: bool = False,
    instructions: bool = False,
) -> list[Rollout]:
    """`samples` texts of every prompt that the model writes of itself, one token after another,
    read as traces of the schema. Seeds, settings and failures as in `rollouts`."""
    groups, each = _asked(len(prompts), samples, seeds, sampling, purpose)
    found = engine.complete(
        schema,
        [prompts[group] for group in groups],
        max_tokens=max_tokens,
        sampling=each,
        chat=chat,
        instructions=instructions,
    )
    bound = engine.bind(schema)
    pairs = zip(groups, found, strict=True)
    return [_read(group, one, schema, bound) for group, one in pairs if one.finish in _WHOLE]


def rollout(group: int, result: Result) -> Rollout:
    """The rollout of a result that has a trace."""
    assert result.layout is not None and result.trace is not None, "a failed request has no layout"
    drawn = [value for value in result.logprobs if value is not None]
    made = row([*result.prompt_ids, *result.token_ids], result.layout)
    if int(made.sampled.sum()) != len(drawn):
        raise ValueError(
            f"request {result.request_id} has {len(drawn)} log-probabilities for "
            f"{int(made.sampled.sum())} sampled tokens"
        )
    return Rollout(
        group=group,
        text=result.text,
        token_ids=result.token_ids,
        row=made,
        logprobs=np.asarray(drawn, np.float64),
        graph=result.trace.graph,
        violations=(),
        finish=result.finish,
    )


def _read(group: int, written: Completion, schema: Schema, bound: BoundSchema) -> Rollout:
    """Free text as a rollout."""
    prompt, ids = written.prompt_ids, written.token_ids
    found = bound.check((*prompt, *ids), prompt=len(prompt))
    broken = tuple(v for v in found if v.code is not ViolationCode.TOKEN_BOUNDARY)
    graph: ExecutionGraph | None = None
    if not broken and written.finish is EndReason.COMPLETED:
        if found:
            graph = schema.parse(written.text).graph
        else:
            graph = bound.parse((*prompt, *ids), prompt=len(prompt)).graph
    return Rollout(
        group=group,
        text=written.text,
        token_ids=ids,
        row=sequence((*prompt, *ids), [False] * len(prompt) + [True] * len(ids)),
        logprobs=np.asarray(written.logprobs, np.float64),
        graph=graph,
        violations=broken,
        finish=written.finish,
    )


def check_on_policy(sampling: Sampling) -> None:
    """Raises OffPolicyError if a setting, of any rule, bends the model's distribution."""
    for name, settings in [("", sampling), *_per_rule(sampling)]:
        for setting in PER_RULE:
            given, neutral = getattr(settings, setting), getattr(DEFAULT, setting)
            if given != neutral:
                where = f" for the rule `{name}`" if name else ""
                raise OffPolicyError(
                    f"{setting} is {given}{where}: what is sampled is then not the policy that is "
                    f"trained; leave it at {neutral}"
                )


def mismatch(found: Sequence[Rollout], trained: Sequence[Floats], limit: float) -> Mismatch:
    """Compares; raises MismatchError where a token differs by more than `limit`."""
    gaps = [np.abs(one.logprobs - new) for one, new in zip(found, trained, strict=True)]
    every = np.concatenate(gaps) if gaps else np.zeros(0)
    measured = Mismatch(float(every.max(initial=0.0)), float(every.mean()) if len(every) else 0.0,
                        len(every))  # fmt: skip
    if not measured.largest <= limit:
        worst = int(np.argmax([gap.max(initial=0.0) for gap in gaps]))
        place = int(np.argmax(gaps[worst]))
        raise MismatchError(
            f"rollout and trainer differ by {measured.largest:.3g} in a log-probability (trace "
            f"{worst}, sampled token {place}; mean {measured.mean:.3g}), allowed are {limit:g}: "
            "are the weights, the dtype and the mask of both the same?"
        )
    return measured


def _per_rule(sampling: Sampling) -> list[tuple[str, Sampling]]:
    return [(rule, sampling.for_rule(rule)) for rule in sampling.rules]


def _asked(
    prompts: int, samples: int, seeds: Sequence[int], sampling: Sampling, purpose: Purpose
) -> tuple[list[int], list[Sampling]]:
    """The prompt of every sample, and its settings. Raises OffPolicyError."""
    if purpose is Purpose.REINFORCE:
        check_on_policy(sampling)
    own = list(seeds) or list(range(prompts))
    if len(own) != prompts:
        raise ValueError(f"there are {prompts} prompts, but {len(own)} seeds")
    asked = [(group, number) for group in range(prompts) for number in range(samples)]
    each = [_seeded(sampling, own[group], number) for group, number in asked]
    return [group for group, _ in asked], each


def _seeded(sampling: Sampling, seed: int, number: int) -> Sampling:
    drawn = np.random.SeedSequence((seed, number)).generate_state(1)[0]
    return replace(sampling, seed=int(drawn))


_WHOLE: Final = (EndReason.COMPLETED, EndReason.BUDGET)
