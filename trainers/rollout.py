"""Rollouts: traces that an engine wrote, as rows to train on, token in, token out.

Nothing is decoded and encoded again: a row is made of the very ids that were sampled, and the
log-probabilities of the rollout come with it. What the trainer then finds for the same tokens is
compared at every step; where the two differ by more than rounding, training is not what it says.
Non-goals: rewards, losses, the loop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from nprdsl.events import EndReason
from nprdsl.ledger import DEFAULT_LIMITS, Limits
from nprdsl.runtime.engine import Engine
from nprdsl.runtime.prompts import Prompt
from nprdsl.runtime.results import Result
from nprdsl.runtime.sampling import DEFAULT, PER_RULE, Sampling
from nprdsl.schema import Schema
from nprdsl.trainers.rows import Row, row

Floats = NDArray[np.float64]


class OffPolicyError(ValueError):
    """Sampling settings under which the tokens do not come from the model's own distribution."""


class MismatchError(RuntimeError):
    """Rollout and trainer give the same tokens different log-probabilities."""


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """One trace. `group` numbers its prompt; `logprobs` float64 [N] are those of the sampled
    entries of `row`, in order."""

    group: int
    result: Result
    row: Row
    logprobs: Floats


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
    sampling: Sampling = DEFAULT,
    limits: Limits = DEFAULT_LIMITS,
    seed: int = 0,
    chat: bool = False,
    instructions: bool = False,
) -> list[Rollout]:
    """`samples` traces of every prompt, all at once; equal seeds give equal traces.

    Requests that failed or were stopped are left out: compare the length with what was asked.
    Raises OffPolicyError for settings other than temperature 1 without truncation or penalties.
    """
    check_on_policy(sampling)
    asked = [(group, number) for group in range(len(prompts)) for number in range(samples)]
    results = engine.generate(
        schema,
        [prompts[group] for group, _ in asked],
        sampling=[_seeded(sampling, seed, group, number) for group, number in asked],
        limits=limits,
        chat=chat,
        instructions=instructions,
    )
    pairs = zip(asked, results, strict=True)
    return [rollout(group, result) for (group, _), result in pairs if _whole(result)]


def rollout(group: int, result: Result) -> Rollout:
    """The rollout of a result that has a trace."""
    assert result.layout is not None, "a failed request has no layout"
    drawn = [value for value in result.logprobs if value is not None]
    made = row([*result.prompt_ids, *result.token_ids], result.layout)
    if int(made.sampled.sum()) != len(drawn):
        raise ValueError(
            f"request {result.request_id} has {len(drawn)} log-probabilities for "
            f"{int(made.sampled.sum())} sampled tokens"
        )
    return Rollout(group, result, made, np.asarray(drawn, np.float64))


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


def _seeded(sampling: Sampling, seed: int, group: int, number: int) -> Sampling:
    drawn = np.random.SeedSequence((seed, group, number)).generate_state(1)[0]
    return replace(sampling, seed=int(drawn))


def _whole(result: Result) -> bool:
    return result.finish in (EndReason.COMPLETED, EndReason.BUDGET)
