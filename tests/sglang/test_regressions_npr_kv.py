"""Faults of the public NPR engine in KV and memory that this server must not share.

Each test says what was wrong there. All run on the server of the session, whose own checks of
memory end it if a slot is lost. Other faults are in `test_regressions_npr_engine`.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

from sglang.srt.managers.io_struct import ContinueGenerationReqInput, PauseGenerationReqInput

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine
from tests.sglang.cases import (
    NESTED,
    Case,
    agree,
    all_agree,
    forks,
    ids_of,
    nesting,
    npr,
    own_schema,
    plain,
    results_of,
    spawning,
)
from tests.sglang.server import POOL, Answer, Server


def test_a_request_that_may_not_fork_any_more_keeps_its_slots(
    server: Server, local: LocalEngine
) -> None:
    """There one beyond the greatest depth was freed and went on decoding in the freed row."""
    multiverse = nprdsl.load("multiverse")
    bounds = [(depth, f"Nest {i}") for depth in range(3) for i in (2, 3, 6)]
    cases = [Case(multiverse, prompt, replace(NESTED, depth=depth)) for depth, prompt in bounds]
    results = all_agree(server, local, cases)
    assert [max(map(nesting, results[i : i + 3])) for i in (0, 3, 6)] == [0, 1, 2]


async def beside(server: Server, work: Any, size: int) -> Any:
    """Some work while plain prompts come and go, so that the cache has to drop prefixes."""
    task = asyncio.ensure_future(work)
    for number in range(200):
        prompt = [(number * 7 + i * 3) % 200 for i in range(size)]
        await server.send(prompt, plain(2))
        if task.done():
            break
    return await task


def test_branches_that_wait_for_a_sibling_are_never_dropped(
    server: Server, local: LocalEngine
) -> None:
    """There a finished branch could be evicted, and the join took whatever the cache had left."""
    source = spawning("", 2).schema.grammar.source.replace("/[a-z]{24}/", "/[a-z]|[a-z]{120}/")
    limits = Limits(max_tokens=2 * 122 + 30, spawn=2)
    cases = [Case(own_schema(source, "uneven"), f"Wait {i}", limits) for i in range(3)]
    results = results_of(local, cases)
    sends = [server.send(r.prompt_ids, c.request) for c, r in zip(cases, results, strict=True)]

    async def together() -> list[Answer]:
        return list(await asyncio.gather(*sends))

    for answer, result in zip(
        server.run(beside(server, together(), POOL // 8)), results, strict=True
    ):
        agree(answer, result)


def test_a_join_owns_every_branch_and_frees_it_once(server: Server, local: LocalEngine) -> None:
    """There only the last branch was locked, and shared slots were inserted, and freed, twice."""
    source = spawning("", 2).schema.grammar.source
    block = "spawn{path}~1..12 reduce{end}"
    schema = own_schema(source.replace(block, f"{block} {block}"), "twice")
    cases = [Case(schema, f"Twice {i}", Limits(max_tokens=200, spawn=3)) for i in range(4)]
    results = results_of(local, cases)
    assert all(forks(result) == 2 for result in results)

    async def together() -> list[Answer]:
        pairs = zip(cases, results, strict=True)
        return list(await asyncio.gather(*(server.send(r.prompt_ids, c.request) for c, r in pairs)))

    for answer, result in zip(
        server.run(beside(server, together(), POOL // 8)), results, strict=True
    ):
        agree(answer, result)
    server.settle()


def test_joined_kv_is_no_prefix_of_a_plain_request(server: Server, local: LocalEngine) -> None:
    """There the tree held merged branches under their flat text, for any causal request to use."""
    result = all_agree(server, local, [npr("Flat")])[0]
    assert nesting(result)
    text = [*result.prompt_ids, *result.token_ids]
    warm = server.generate([text], [plain(8)])[0]
    fork = text.index(local.vocabulary.special["</guideline>"])
    assert len(result.prompt_ids) - 1 <= warm.meta["cached_tokens"] < fork
    server.settle()
    assert server.generate([text], [plain(8)])[0].ids == warm.ids


def test_positions_do_not_depend_on_what_was_cached(server: Server, local: LocalEngine) -> None:
    """There the position was set once, and wrong after another prefix hit or a retraction."""
    case = spawning("The same beginning, " * 8 + "then an end", 3, length=16, tokens=80)
    longer = replace(case, prompt="The same beginning, " * 8 + "then another end")
    server.settle()
    for again in (case, case, longer):
        all_agree(server, local, [again])
    result = case.result(local)

    async def put_back() -> Answer:
        manager = server.engine.tokenizer_manager
        followed = server.follow(result.prompt_ids, case.request)
        for part in range(1, 5):
            least = part * len(result.token_ids) // 6
            await followed.until(lambda chunk, least=least: chunk.written >= least)
            await manager.pause_generation(PauseGenerationReqInput(mode="retract"))
            await manager.continue_generation(ContinueGenerationReqInput())
        return await followed.last()

    agree(server.run(put_back()), result)


def test_no_company_and_no_memory_are_no_reason_to_die(server: Server, local: LocalEngine) -> None:
    """There an empty batch of branches, or no batch for want of memory, ended the scheduler."""
    request = npr("Big", Limits(max_tokens=1500, branches=4)).request
    ended: list[str] = []

    async def burst() -> None:
        for turn in range(3):
            names = [f"burst-{turn}-{i}" for i in range(12)]
            tasks = [
                asyncio.ensure_future(server.send(ids_of(local, name), request, rid=name))
                for name in names
            ]
            await asyncio.sleep(0.05 * turn)
            for name in names:
                server.abort(name)
            ended.extend(one.finish["type"] for one in await asyncio.gather(*tasks))

    server.run(burst())
    assert len(ended) == 36 and {"abort"} <= set(ended) <= {"abort", "stop", "length"}
    server.settle()
    all_agree(server, local, [npr("Alive")])
