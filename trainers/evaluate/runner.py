"""Puts problems to a model: several samples each, many requests at once, graded as they end.

Problems and settings go in, samples and their figures come out. Where the figures are to have a
baseline, requests are cut into blocks, and each block runs in both modes, first and second in turn,
on the same engine with the same seeds, behind one request of each mode that is not counted: so
neither mode has the quieter machine or warmer caches. Samples of an earlier run can be given back,
and each new one is handed out at once: a run can be interrupted at any time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nprdsl.machine.actions import ALL, JoinPolicy
from nprdsl.machine.budget import DEFAULT_LIMITS, Limits
from nprdsl.runtime.engine import REFUSALS, Engine
from nprdsl.runtime.sampling import Sampling
from nprdsl.schema import Schema
from nprdsl.trainers.data.problems import Problem
from nprdsl.trainers.evaluate.figures import Figures, figures
from nprdsl.trainers.evaluate.samples import Mode, Sample, judged, judged_freely, seeded, unanswered
from nprdsl.trainers.grading.answers import Fallback

PUBLISHED: Final = Sampling(temperature=1.0, top_p=0.7)  # arXiv:2512.07461, section 3.2
CONCURRENCY: Final = 64
_MODES: Final = (*((mode,) for mode in Mode), (Mode.PARALLEL, Mode.IN_TURN))
_BLOCK: Final = 4  # times the concurrency: the most requests before the other way has its turn
_BLOCKS: Final = 4  # as many at least, where there are requests enough to keep the concurrency

Keep = Callable[[Sample], None]


class EvaluationError(ValueError):
    """Settings or problems that make no sense."""


class NoSampleError(EvaluationError):
    """Every one of `samples` failed."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        super().__init__(f"no sample could be run, of {len(samples)}: {samples[0].error}")
        self.samples = tuple(samples)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All samples, in the order of the problems, and what they come to."""

    samples: tuple[Sample, ...]
    figures: Figures


@dataclass(frozen=True, slots=True)
class _Request:
    """Sample `number` of a problem, to be made."""

    problem: Problem
    number: int

    def key(self, mode: Mode) -> tuple[str, int, Mode]:
        return self.problem.id, self.number, mode


@dataclass(frozen=True, slots=True)
class _Runner:
    """How requests are made."""

    engine: Engine
    schema: Schema
    sampling: Sampling
    limits: Limits
    join: JoinPolicy
    seed: int
    prompting: Mapping[str, bool]  # `chat` and `instructions`
    fallback: Fallback
    concurrency: int

    def run(self, requests: Sequence[_Request], mode: Mode) -> Iterator[Sample]:
        """The samples, in order; `concurrency` requests are open at once."""
        if mode is not Mode.FREE:
            yield from self._constrained(requests, mode)
            return
        for begin in range(0, len(requests), self.concurrency):
            yield from self._free(requests[begin : begin + self.concurrency])

    def _free(self, requests: Sequence[_Request]) -> Iterator[Sample]:
        """Completions run together to the end of the last; that is the time of each."""
        started = time.perf_counter()
        try:
            completions = self.engine.complete(
                self.schema,
                [one.problem.prompt for one in requests],
                max_tokens=self.limits.max_tokens,
                sampling=[self._seeded(one) for one in requests],
                **self.prompting,
            )
        except REFUSALS as error:
            if len(requests) == 1:
                yield unanswered(requests[0].problem, requests[0].number, Mode.FREE, str(error))
                return
            for one in requests:
                yield from self._free([one])
            return
        elapsed = time.perf_counter() - started
        bound = self.engine.bind(self.schema)
        for one, completion in zip(requests, completions, strict=True):
            yield judged_freely(
                one.problem,
                bound,
                completion,
                number=one.number,
                time_s=elapsed,
                wall_s=elapsed / len(requests),
                fallback=self.fallback,
            )

    def _constrained(self, requests: Sequence[_Request], mode: Mode) -> Iterator[Sample]:
        results = self.engine.in_order(
            self.schema,
            ((one.problem.prompt, self._seeded(one)) for one in requests),
            ahead=self.concurrency,
            limits=self.limits,
            join=self.join,
            parallel=mode is not Mode.IN_TURN,
            native=mode is Mode.NATIVE,
            chat=self.prompting["chat"],
            instructions=self.prompting["instructions"],
        )
        last = time.perf_counter()
        for one, result in zip(requests, results, strict=True):
            if isinstance(result, str):
                yield unanswered(one.problem, one.number, mode, result)
                continue
            now = time.perf_counter()
            yield judged(
                one.problem,
                result,
                number=one.number,
                mode=mode,
                wall_s=now - last,
                fallback=self.fallback,
            )
            last = now

    def _seeded(self, request: _Request) -> Sampling:
        return seeded(self.sampling, self.seed, request.problem, request.number)


def evaluate(
    engine: Engine,
    schema: Schema,
    problems: Sequence[Problem],
    *,
    samples: int = 1,
    sampling: Sampling = PUBLISHED,
    limits: Limits = DEFAULT_LIMITS,
    join: JoinPolicy = ALL,
    seed: int = 0,
    chat: bool = False,
    instructions: bool = False,
    fallback: Fallback = Fallback.LAST_NUMBER,
    modes: Sequence[Mode] = (Mode.PARALLEL,),
    concurrency: int = CONCURRENCY,
    done: Sequence[Sample] = (),
    keep: Keep = lambda sample: None,
) -> Evaluation:
    """`samples` traces of every problem, graded, and their figures.

    Equal seeds give equal traces, whatever other problems there are. `fallback` is what counts as
    the answer where nothing is boxed. The first of `modes` is what the figures are of; with
    `Mode.IN_TURN` behind `Mode.PARALLEL` they have a baseline. `Mode.NATIVE` and `Mode.FREE` let
    the model write without masks, with forks and without. `concurrency` requests are open at once;
    times to an answer are those under this load. `keep` is given every new sample; `done` are
    samples of an earlier run with the same settings: those that failed are run again. Raises
    EvaluationError for settings that make no sense, and NoSampleError where every sample failed.
    """
    _check_problems(problems)
    _check_counts(samples, seed, concurrency)
    _check_modes(modes, sampling, limits, join)
    _check_varied(samples, sampling)
    runner = _Runner(
        engine=engine,
        schema=schema,
        sampling=sampling,
        limits=limits,
        join=join,
        seed=seed,
        prompting={"chat": chat, "instructions": instructions},
        fallback=fallback,
        concurrency=concurrency,
    )
    engine.bind(schema)  # so that no sample pays for it
    requests = [_Request(problem, number) for problem in problems for number in range(samples)]
    known = {sample.key: sample for sample in done if not sample.failed}
    if len(modes) > 1 and len(known) < len(requests) * len(modes):
        for mode in modes:
            list(runner.run(requests[:1], mode))
    for block, mode in _turns(requests, modes, concurrency):
        todo = [one for one in block if one.key(mode) not in known]
        for sample in runner.run(todo, mode):
            known[sample.key] = sample
            keep(sample)
    every = tuple(known[one.key(mode)] for mode in modes for one in requests)
    if all(sample.failed for sample in every):
        raise NoSampleError(every)
    return Evaluation(every, figures(every, modes[0]))


def _turns(
    requests: Sequence[_Request], modes: Sequence[Mode], concurrency: int
) -> Iterator[tuple[Sequence[_Request], Mode]]:
    """Blocks of requests, each in every mode; the modes take turns in being first."""
    if len(modes) == 1:
        yield requests, modes[0]
        return
    size = max(concurrency, min(concurrency * _BLOCK, -(-len(requests) // _BLOCKS)))
    for number, begin in enumerate(range(0, len(requests), size)):
        for mode in modes if number % 2 == 0 else reversed(modes):
            yield requests[begin : begin + size], mode


def _check_problems(problems: Sequence[Problem]) -> None:
    if not problems:
        raise EvaluationError("there are no problems to evaluate")
    seen: set[str] = set()
    for problem in problems:
        if problem.id in seen:
            raise EvaluationError(f"two problems have the id `{problem.id}`; ids must differ")
        seen.add(problem.id)


def _check_counts(samples: int, seed: int, concurrency: int) -> None:
    counts = (("samples", samples, 1), ("concurrency", concurrency, 1), ("seed", seed, 0))
    for name, value, least in counts:
        if value < least:
            raise EvaluationError(f"{name} must be at least {least}, not {value}")


def _check_modes(
    modes: Sequence[Mode], sampling: Sampling, limits: Limits, join: JoinPolicy
) -> None:
    if tuple(modes) not in _MODES:
        raise EvaluationError(
            "modes must be parallel, in_turn, parallel with in_turn behind it, native, or free"
        )
    if Mode.FREE in modes and (join != ALL or limits != Limits(max_tokens=limits.max_tokens)):
        raise EvaluationError("what is written freely has no limit but `max_tokens`, and no joins")
    if Mode.FREE in modes and sampling.rules:
        raise EvaluationError("what is written freely has no rules that sampling could be set for")


def _check_varied(samples: int, sampling: Sampling) -> None:
    settings = [sampling, *(sampling.for_rule(rule) for rule in sampling.rules)]
    if samples > 1 and all(one.temperature == 0 for one in settings):
        raise EvaluationError(
            f"at temperature 0 all {samples} samples of a problem are the same; take 1 sample, or "
            "a temperature above 0"
        )
