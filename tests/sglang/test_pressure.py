"""Little memory and few rows: traces wait, share and are put back, and end as with memory for all.

Right answers are the local engine's. `test_interruptions` has what interferes while branches run.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine
from tests.sglang.cases import (
    Case,
    agree,
    all_agree,
    ids_of,
    nesting,
    own_schema,
    paths,
    plain,
    results_of,
    spawning,
)
from tests.sglang.server import Answer, Server
from tests.sglang.test_same_answers import LIMITS
from tests.sglang.tight import CHUNK, POOL, QUEUE, ROWS
from tests.sglang.tight import all_is_back as all_is_back


def test_six_forks_of_four_where_a_few_fit(server: Server, local: LocalEngine) -> None:
    """With rows for more branches than slots: what is not reserved runs out in the middle."""
    cases = [spawning(f"What is {i}?", 4, length=170) for i in range(6)]
    assert 1.3 * server.pool < cases[0].limits.max_tokens * (server.rows // 4)
    results = all_agree(server, local, cases)
    assert all(len(r.trace.graph.forks) == 1 for r in results if r.trace is not None)


@pytest.mark.parametrize("name", ["npr", "multiverse", "parallel_r1", "threadweaver"])
def test_more_requests_than_memory(tight: Server, local: LocalEngine, name: str) -> None:
    schema = nprdsl.load(name)
    limits = [replace(LIMITS[name], max_tokens=n) for n in (200, 90, 220, 236, 210, 225)]
    cases = [Case(schema, f"Sum {i}?", each) for i, each in enumerate(limits)]
    results = all_agree(tight, local, cases)
    assert any(map(nesting, results))
    most = sorted((len(r.prompt_ids) + len(r.token_ids) for r in results), reverse=True)
    assert sum(most[:ROWS]) > POOL, "all that have a row fit together"


def test_more_branches_than_rows(tight: Server, local: LocalEngine) -> None:
    cases = [spawning("Go", 12, length=20), spawning("On", 7, length=20)]
    assert all(case.limits.spawn is not None and case.limits.spawn > ROWS for case in cases)
    all_agree(tight, local, cases)


def test_branches_that_wait_for_rows_of_plain_requests(tight: Server, local: LocalEngine) -> None:
    case = spawning("Rows", 6, length=16)
    result = case.result(local)
    prompts = [ids_of(local, f"row {i}") for i in range(ROWS - 1)]
    answers = tight.generate(
        [*prompts, result.prompt_ids], [*[plain(50)] * len(prompts), case.request]
    )
    agree(answers[-1], result)
    assert all(len(answer.ids) == 50 for answer in answers[:-1])


def without_traces(tight: Server, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    """What plain requests write that fit together."""
    answers = tight.generate(prompts, [plain(tokens)] * len(prompts))
    assert [answer.meta["num_retractions"] for answer in answers] == [0] * len(prompts)
    return [answer.ids for answer in answers]


def check_beside_plain(
    tight: Server, local: LocalEngine, case: Case, names: list[str], tokens: int, least: int
) -> None:
    """The case comes when plain requests have written `least` tokens. All answers are right, and
    plain requests were retracted for it."""
    result = case.result(local)
    prompts = [ids_of(local, name) for name in names]
    alone = without_traces(tight, prompts, tokens)

    async def together() -> tuple[Answer, list[Answer]]:
        await tight.read_schema(case.request)
        running = [tight.follow(prompt, plain(tokens)) for prompt in prompts]
        for one in running:
            await one.until(lambda chunk: len(chunk.ids) > least)
        answer = await tight.send(result.prompt_ids, case.request)
        return answer, [await one.last() for one in running]

    answer, others = tight.run(together())
    agree(answer, result)
    assert [other.ids for other in others] == alone
    assert sum(other.meta["num_retractions"] for other in others) > 0


def test_plain_requests_that_may_not_go_on_give_up_a_row(tight: Server, local: LocalEngine) -> None:
    """They hold all rows and wait for memory that is promised to one that waits for a row."""
    case = spawning("Row", 8, length=34, exactly=True)
    assert case.limits.max_tokens > POOL // 2
    check_beside_plain(tight, local, case, [f"all rows {i}" for i in range(ROWS)], 54, 2)


def test_what_can_never_fit_is_refused_at_once(tight: Server, local: LocalEngine) -> None:
    case = Case(nprdsl.load("npr"), "Too much", Limits(max_tokens=POOL))
    with pytest.raises(ValueError, match=r"may feed .* tokens .* keeps .* lower max_tokens"):
        tight.run(tight.send(ids_of(local, case.prompt), case.request))


def test_more_requests_than_the_queue_takes(tight: Server, local: LocalEngine) -> None:
    """Those that wait for memory count. Who was taken in is answered, who was not is told so."""
    case = spawning("Queue", 4, length=10, tokens=8)
    result = case.result(local)

    async def many() -> list[Answer | BaseException]:
        work = [tight.send(result.prompt_ids, case.request) for _ in range(QUEUE + 20)]
        return list(await asyncio.gather(*work, return_exceptions=True))

    ended = tight.run(many())
    refused = [one for one in ended if not isinstance(one, Answer)]
    assert 0 < len(refused) <= 20
    assert all("503: The request queue is full" in str(one) for one in refused)
    for one in ended:
        if isinstance(one, Answer):
            agree(one, result)


def test_plain_requests_are_put_back_before_a_branch_misses_a_slot(
    tight: Server, local: LocalEngine
) -> None:
    """They ask for less than they write, as SGLang guesses, so they grow into what is reserved."""
    prompts = [ids_of(local, f"plain {i}") for i in range(3)]  # SGLang lets these in together
    alone = without_traces(tight, prompts, 120)
    cases = [spawning(f"Fork {i}", 4, length=41, exactly=True) for i in range(2)]
    results = results_of(local, cases)
    promised = sum(len(r.prompt_ids) + len(r.token_ids) for r in results)
    assert POOL - 100 < promised < POOL - sum(map(len, prompts))

    async def both() -> list[Answer]:
        await tight.read_schema(cases[0].request)
        first = [tight.follow(p, plain(120)) for p in prompts]
        for begun in first:
            await begun.until(lambda chunk: len(chunk.ids) > 1)
        forking = [
            asyncio.ensure_future(tight.send(r.prompt_ids, c.request))
            for c, r in zip(cases, results, strict=True)
        ]
        ended = await asyncio.gather(*(begun.last() for begun in first), *forking)
        return list(ended)

    answers = tight.run(both())
    for answer, result in zip(answers[3:], results, strict=True):
        agree(answer, result)
    assert [answer.ids for answer in answers[:3]] == alone
    assert sum(answer.meta["num_retractions"] for answer in answers[:3]) > 0


def late(prompt: str) -> Case:
    """The trunk writes 50 letters, then forks into three with long headers, which take their slots
    at once."""
    header = "read this before you begin: " * 2
    source = paths(8, header).grammar.source
    forked = '"<guideline>" LONG "</guideline>" spawn{path}~3'
    source = source.replace("spawn{path}~1..12", forked)
    source = source.replace("BODY:", "LONG: /[a-z]{50}/\nBODY:")
    limits = Limits(max_tokens=90 + 3 * (len(header) + 10), spawn=3)
    return Case(own_schema(source, "late"), prompt, limits)


def test_what_is_promised_is_there_when_it_is_taken_at_once(
    tight: Server, local: LocalEngine
) -> None:
    """Plain requests that run while the trunk is written do not grow into it: they are put back."""
    names = [f"grow {i}" for i in range(3)]  # SGLang lets these in together
    check_beside_plain(tight, local, late("Headers"), names, 145, 12)


def test_plain_prompts_wait_for_what_is_promised(tight: Server, local: LocalEngine) -> None:
    """Rather than be let in, and put back at the next step."""
    case = late("Promise")
    result = case.result(local)
    prompt = ids_of(local, "a long one " * 26)
    assert POOL - case.limits.max_tokens < len(prompt) < POOL - 100

    async def together() -> tuple[Answer, Answer]:
        trace = tight.follow(result.prompt_ids, case.request)
        await trace.until(lambda chunk: len(chunk.ids) > 5)
        waiting = await tight.send(prompt, plain(8))
        return await trace.last(), waiting

    answer, waiting = tight.run(together())
    agree(answer, result)
    assert waiting.meta["num_retractions"] == 0
    assert len(waiting.ids) == 8


def test_forks_among_plain_requests_that_want_everything(tight: Server, local: LocalEngine) -> None:
    """Both kinds get on: neither starves, neither is aborted for want of memory."""
    cases = [spawning(f"Turn {i}", 3, length=16) for i in range(8)]
    results = results_of(local, cases)
    prompts = [ids_of(local, f"much {i} " * 6) for i in range(8)]
    requests = [request for c in cases for request in (c.request, plain(50))]
    ids = [i for r, p in zip(results, prompts, strict=True) for i in (list(r.prompt_ids), p)]
    answers = tight.generate(ids, requests)
    for answer, result in zip(answers[::2], results, strict=True):
        agree(answer, result)
    assert [len(answer.ids) for answer in answers[1::2]] == [50] * 8


def test_headers_longer_than_a_chunk(tight: Server, local: LocalEngine) -> None:
    """What is forced at the head of a branch is fed by extends, in pieces of a chunk."""
    header = "read this before you begin: " * 3
    assert len(header) > 2 * CHUNK
    schema = paths(24, header)
    limits = Limits(max_tokens=2 * (len(header) + 26) + 40, spawn=2)
    prompt = "a prompt of several chunks " * 4
    all_agree(tight, local, [Case(schema, prompt, limits)])


def test_a_request_that_wants_the_whole_pool(tight: Server, local: LocalEngine) -> None:
    prompt = "a prompt of several chunks " * 4
    schema = nprdsl.load("npr")
    case = Case(schema, prompt, Limits(max_tokens=POOL - len(prompt), blocks=3))
    small = [spawning(f"Small {i}", 2, length=8) for i in range(4)]
    all_agree(tight, local, [small[0], case, *small[1:]])


@pytest.mark.parametrize("exactly", [True, False])
def test_plain_traffic_starves_no_fork(tight: Server, local: LocalEngine, *, exactly: bool) -> None:
    """A fork that wants the whole pool gets it, from the start or as it grows, however many plain
    requests keep coming."""
    case = spawning("Patience", 8, length=50, exactly=exactly)
    result = case.result(local)
    assert 0.9 * POOL < case.limits.max_tokens + len(result.prompt_ids) <= POOL
    prompts = [ids_of(local, f"traffic {i}") for i in range(ROWS + 1)]

    begun, stop = asyncio.Semaphore(0), asyncio.Event()

    async def traffic(number: int) -> int:
        """Requests of unlike lengths, so that at no time all of them are between two."""
        count = 0
        while count == 0 or not stop.is_set():
            tokens = 45 + (37 * number + 53 * count) % 55
            followed = tight.follow(prompts[number], plain(tokens))
            await followed.until(lambda chunk: len(chunk.ids) > 10)
            begun.release()
            await followed.last()
            count += 1
        return count

    async def patience() -> tuple[Answer, list[int]]:
        await tight.read_schema(case.request)
        others = [asyncio.ensure_future(traffic(number)) for number in range(len(prompts))]
        for _ in range(ROWS):
            await begun.acquire()
        try:
            answer = await tight.send(result.prompt_ids, case.request)
        finally:
            stop.set()
        return answer, list(await asyncio.gather(*others))

    answer, counts = tight.run(patience())
    agree(answer, result)
    assert all(counts)


@pytest.mark.parametrize("length", [20, 90])
def test_traces_that_may_want_all_and_take_little(
    tight: Server, local: LocalEngine, length: int
) -> None:
    """None has a budget. They run at once; where that was too many, the youngest give back, are
    computed again, and write the same."""
    source = paths(length).grammar.source.replace("} TEXT", "}").replace("%declare TEXT", "")
    limits = Limits(max_tokens=POOL - 30, spawn=2)
    cases = [Case(own_schema(source, "short"), f"Little {i}", limits) for i in range(8)]
    results = results_of(local, cases)
    assert all(len(result.token_ids) < 2 * length + 30 for result in results)
    begun: list[int] = []
    over: list[int] = []

    async def one(number: int) -> Answer:
        last = None
        async for chunk in tight.stream(results[number].prompt_ids, cases[number].request):
            if last is None:
                begun.append(number)
                at_once.append(len(begun) - len(over))
            last = chunk
        over.append(number)
        assert last is not None
        return last

    async def together() -> list[Answer]:
        return list(await asyncio.gather(*map(one, range(len(cases)))))

    at_once: list[int] = []
    answers = tight.run(together())
    for answer, result in zip(answers, results, strict=True):
        agree(answer, result)
    assert max(at_once) > 1, "as many as the most that each may take lets run"
    given_back = [answer.meta["num_retractions"] for answer in answers]
    assert given_back[0] == 0, "the oldest"
    assert length == 20 or sum(given_back) > 0, "two and a half do not fit, and three have a row"


def test_traces_starve_no_plain_request(tight: Server, local: LocalEngine) -> None:
    """A plain request is let in next, however many traces wait for memory and for its rows; each
    of them wants more than half of the pool, so that one runs at a time."""
    cases = [spawning(f"Crowd {i}", 8, length=26, exactly=True) for i in range(4)]
    results = results_of(local, cases)
    assert all(POOL // 2 < case.limits.max_tokens < POOL for case in cases)
    prompt = ids_of(local, "and I?")
    ended, stop, begun = [0], asyncio.Event(), asyncio.Semaphore(0)

    async def crowd(number: int) -> None:
        while not stop.is_set():
            followed = tight.follow(results[number].prompt_ids, cases[number].request)
            await followed.until(lambda chunk: chunk.branches_run)
            begun.release()
            agree(await followed.last(), results[number])
            ended[0] += 1

    async def patience() -> tuple[int, Answer]:
        others = [asyncio.ensure_future(crowd(number)) for number in range(len(cases))]
        await begun.acquire()
        before = ended[0]
        answer = await tight.send(prompt, plain(30))
        after = ended[0]
        stop.set()
        await asyncio.gather(*others)
        return after - before, answer

    meanwhile, answer = tight.run(patience())
    assert len(answer.ids) == 30 and answer.meta["num_retractions"] == 0
    assert meanwhile <= 2, "that which ran, and one that was let in beside the plain one"
