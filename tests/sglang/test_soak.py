"""140 requests at once, of every kind, on a pool a quarter of what they want or less.
Where memory ends some give theirs back, and write the same when they are computed again.

Schemas, budgets, joins, settings, prompts and aborts are drawn at random, from fixed seeds. Each
request ends legally, or is refused or aborted as it must; none hangs; what was used comes back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from random import Random
from typing import Any

import nprdsl
from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.machine.actions import ALL, FIRST, JoinPolicy
from nprdsl.machine.budget import Limits
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.kv_reservation import most_fed
from nprdsl.runtime.sglang.protocol import ForkRequest
from nprdsl.schema import Schema
from nprdsl.structure.events import EndReason
from nprdsl.structure.stack import Bounds
from nprdsl.testing.schemas import random_schema
from tests.machines import spawned
from tests.sglang.cases import TOLERANCE, all_agree, ids_of, own_schema, plain, spawning
from tests.sglang.models import SCHEMAS
from tests.sglang.server import POOL, Answer, Server

REQUESTS = 140
PLAIN = 14
DRAWN = 20  # schemas
DEAREST = 150  # tokens of a shortest trace
SECONDS = 240  # the watchdog
BOUNDS = (Bounds(2, 3, 2), Bounds(1, 4, None), Bounds(3, 2, 1))


@dataclass(frozen=True)
class Job:
    """One request: whether its client gives up, once how many others have ended, and whether its
    budget is impossible."""

    prompt: list[int]
    request: ForkRequest
    bound: BoundSchema
    bounds: Bounds
    abort_after: int | None
    streamed: bool
    refused: bool

    @property
    def wanted(self) -> int:
        limits = self.request.limits.limits()
        return most_fed(self.bound.grammar, limits, len(self.prompt))


@cache
def drawn_schemas() -> tuple[Schema, ...]:
    """Random schemas, the same in every run, and those that ship."""
    made: list[Schema] = []
    for number in count():
        drawn = random_schema(number)
        with suppress(SchemaError):
            if not drawn.types:
                made.append(own_schema(drawn.source, f"drawn{number}"))
        if len(made) == DRAWN:
            return (*made, *(nprdsl.load(name) for name in SCHEMAS))
    raise AssertionError


def least(bound: BoundSchema, bounds: Bounds) -> int | None:
    try:
        return bound.under(bounds).minimum
    except SchemaError:
        return None


def jobs(local: LocalEngine) -> Iterator[Job]:
    random = Random(20)
    bound = [local.bind(schema) for schema in drawn_schemas()]
    pairs = [(b, bounds, least(b, bounds)) for b in bound for bounds in BOUNDS]
    possible = [(b, bounds, n) for b, bounds, n in pairs if n is not None and n <= DEAREST]
    assert len({id(b) for b, _, _ in possible}) > DRAWN // 2
    for number in range(REQUESTS):
        chosen, bounds, minimum = random.choice(possible)
        refused = random.random() < 0.03 and minimum > 1
        extra = random.choice((0, 1, 5, 30, 60, 120))
        limits = Limits(
            max_tokens=minimum - 1 if refused else max(minimum + extra, 1),
            branch_tokens=random.choice((None, None, 12)),
            depth=bounds.depth,
            branches=bounds.branches,
            blocks=bounds.blocks,
            spawn=spawned(chosen, random.choice((None, 1, 2, 3))),
        )
        request = ForkRequest.of(
            Schema(chosen.grammar),
            limits=limits,
            join=random.choice((ALL, ALL, FIRST, JoinPolicy(2))),
            sampling=drawn_sampling(random),
            parallel=random.random() < 0.9,
            events=random.random() < 0.5,
        )
        text = f"Question {number}: " + "and so on, " * random.choice((0, 0, 2, 12))
        abort = random.randrange(2 * REQUESTS // 3) if random.random() < 0.15 else None
        streamed = random.random() < 0.3
        yield Job(ids_of(local, text), request, chosen, bounds, abort, streamed, refused)


def drawn_sampling(random: Random) -> Sampling:
    return random.choice(
        (
            Sampling(temperature=0.0),
            Sampling(temperature=1.0, seed=random.randrange(99)),
            Sampling(temperature=0.7, top_p=0.9, top_k=30, repetition_penalty=1.1),
        )
    )


class Ended:
    """How many requests have ended, for those that wait until so many have."""

    def __init__(self) -> None:
        self._count = 0
        self._moved = asyncio.Condition()

    async def count(self) -> None:
        async with self._moved:
            self._count += 1
            self._moved.notify_all()

    async def reach(self, wanted: int) -> None:
        async with self._moved:
            await self._moved.wait_for(lambda: self._count >= wanted)


async def ask(server: Server, number: int, job: Job, ended: Ended) -> Answer | str:
    """The answer, or why there is none."""
    rid = f"soak-{number:03}"  # SGLang aborts all whose names begin so

    async def answered() -> Answer:
        if not job.streamed:
            return await server.send(job.prompt, job.request, rid=rid)
        last = None
        async for chunk in server.stream(job.prompt, job.request, rid=rid):
            assert last is None or chunk.ids[: len(last.ids)] == last.ids
            last = chunk
        assert last is not None
        return last

    task = asyncio.ensure_future(answered())
    if job.abort_after is not None:
        await ended.reach(job.abort_after)
        server.abort(rid)
    try:
        return await task
    except ValueError as error:  # what SGLang's engine makes of a refusal
        return str(error)
    finally:
        await ended.count()


def judge(job: Job, end: Answer | str) -> str:
    """How it ended; fails where it may not."""
    if isinstance(end, str) or end.finish["type"] == "abort":
        message = end if isinstance(end, str) else end.finish["message"]
        if job.refused:
            assert "allow at least" in message
            return "refused"
        assert job.abort_after is not None, message
        return "aborted"
    final = end.final
    assert final.error == ""
    assert not job.refused
    assert final.finish in (EndReason.COMPLETED, EndReason.BUDGET)
    assert end.ids == final.ids
    assert len(final.ids) == len(final.logprobs) == len(final.sampled)
    assert len(final.ids) <= job.request.limits.max_tokens
    bound = job.bound.under(job.bounds)
    assert bound.check([*job.prompt, *final.ids], prompt=len(job.prompt)) == []
    return str(final.finish)


def given_back(answer: Answer) -> bool:
    """Whether the trace was computed again because its memory was needed."""
    return bool(answer.meta["num_retractions"])


def same_but_for_ties(answer: Answer, alone: Answer) -> bool:
    """Whether they are equal up to a token for which the two likeliest lie within rounding: on some
    processors a row's sums depend on the rows beside it."""
    differ = (n for n, (a, b) in enumerate(zip(answer.ids, alone.ids, strict=True)) if a != b)
    if (first := next(differ, None)) is None:
        return True
    (best, _, _), (second, other, _) = alone.meta["output_top_logprobs"][first]
    return answer.ids[first] == other and best - second < TOLERANCE


def test_many_requests_at_once(server: Server, local: LocalEngine) -> None:
    work = list(jobs(local))
    assert sum(job.wanted for job in work) >= 4 * POOL
    ordinary = [ids_of(local, f"ordinary {n}") for n in range(PLAIN)]

    async def by_themselves() -> list[Answer]:
        best = {"return_logprob": True, "top_logprobs_num": 2}
        return list(
            await asyncio.gather(*(server.send(prompt, plain(40), **best) for prompt in ordinary))
        )

    alone = server.run(by_themselves())

    async def together() -> tuple[list[Answer | str], list[Answer]]:
        for job in work:  # so that all come together, however busy the machine is
            await server.read_schema(job.request)
        ended = Ended()
        tasks = [asyncio.ensure_future(ask(server, n, job, ended)) for n, job in enumerate(work)]
        beside: list[Any] = []
        for number, prompt in enumerate(ordinary):
            await ended.reach(number * REQUESTS // (2 * PLAIN))
            beside.append(asyncio.ensure_future(server.send(prompt, plain(40))))
        return list(await asyncio.gather(*tasks)), list(await asyncio.gather(*beside))

    watched = asyncio.wait_for(together(), SECONDS)
    ends, beside = server.engine.loop.run_until_complete(watched)
    counts = Counter(judge(job, end) for job, end in zip(work, ends, strict=True))
    assert counts["refused"] == sum(job.refused for job in work) > 0
    assert 0 < counts["aborted"] <= sum(job.abort_after is not None for job in work)
    assert counts["completed"] + counts["budget"] > REQUESTS // 2
    assert all(same_but_for_ties(a, b) for a, b in zip(beside, alone, strict=True))
    assert sum(a.ids == b.ids for a, b in zip(beside, alone, strict=True)) > PLAIN // 2
    server.settle()
    again = [  # how many is a matter of time; `test_pressure` has one that must
        (job, end)
        for job, end in zip(work, ends, strict=True)
        if isinstance(end, Answer) and end.finish["type"] != "abort" and given_back(end)
        if job.request.quorum is None  # others end when the first branches do: a matter of time
    ]
    other = server.generate([job.prompt for job, _ in again], [job.request for job, _ in again])
    assert [answer.ids for answer in other] == [end.ids for _, end in again]
    server.settle()
    all_agree(server, local, [spawning(f"After {n}", 6, length=60) for n in range(8)])
