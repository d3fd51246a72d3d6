"""Requests with a schema beside plain ones: those are answered as if they were alone."""

from __future__ import annotations

import asyncio
import itertools

import pytest
import torch
from torch.nn import functional

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.sglang.protocol import ForkRequest
from nprdsl.structure.events import (
    BranchEndEvent,
    BranchReason,
    EndEvent,
    Event,
    ForkEvent,
    JoinEvent,
    TokenEvent,
)
from tests.sglang.cases import Case, all_agree, nesting, own_schema, same_tokens
from tests.sglang.server import POOL, Answer, Server
from tests.sglang.test_same_answers import FORKING, GREEDY, LIMITS, PROMPTS

NPR = nprdsl.load("npr")
REQUEST = ForkRequest.of(NPR, limits=LIMITS["npr"], sampling=GREEDY)
PLAIN = {"temperature": 0, "max_new_tokens": 60, "ignore_eos": True}
PROMPT = list(range(202, 214))  # a trace behind it has several branches


def plain_prompts() -> list[list[int]]:
    return [list(range(10 + 3 * i, 40 + 5 * i)) for i in range(4)]


def test_plain_requests_are_unchanged(server: Server, local: LocalEngine) -> None:
    results = local.generate(NPR, PROMPTS[:6], limits=LIMITS["npr"], sampling=GREEDY)
    alone = [server.generate([p], [PLAIN])[0] for p in plain_prompts()]
    server.settle()
    prompts = [*plain_prompts(), *(list(r.prompt_ids) for r in results)]
    both = server.generate(prompts, [PLAIN] * 4 + [REQUEST] * 6)
    assert [a.ids for a in both[:4]] == [a.ids for a in alone]
    assert all("nprdsl" not in a.meta for a in both[:4])
    for answer, result in zip(both[4:], results, strict=True):
        same_tokens(answer, result)


def rows_round_alike() -> bool:
    """Whether MKL_CBWR works here: products of a row do not depend on the rows beside it."""
    made = torch.Generator().manual_seed(0)
    rows, weight = torch.randn(64, 128, generator=made), torch.randn(96, 128, generator=made)
    alone = functional.linear(rows[:1], weight)[0]
    return all(functional.linear(rows[:n], weight)[0].equal(alone) for n in range(2, 65))


@pytest.mark.skipif(not rows_round_alike(), reason="a row's sums depend on the rows beside it")
def test_plain_logprobs_are_unchanged_bit_for_bit(server: Server) -> None:
    """Beside traces as beside nothing: with prefixes from the cache or without, with a penalty."""
    requests = [PLAIN, PLAIN | {"repetition_penalty": 1.2}, PLAIN | {"frequency_penalty": 0.3}]
    prompts = [list(range(100 + 20 * i, 112 + 20 * i)) for i in range(3)]  # fit into one chunk

    async def plain() -> list[list[tuple[float, int]]]:
        pairs = zip(prompts, requests, strict=True)
        sent = (server.send(p, r, return_logprob=True) for p, r in pairs)
        told = [a.meta["output_token_logprobs"] for a in await asyncio.gather(*sent)]
        return [[(logprob, token) for logprob, token, _ in entries] for entries in told]

    async def beside() -> list[list[tuple[float, int]]]:
        others = [server.send(PROMPT[i:], REQUEST) for i in range(6)]
        return (await asyncio.gather(plain(), *others))[0]

    before = server.run(plain())
    assert server.run(beside()) == before
    server.settle()
    assert server.run(beside()) == before


def test_joined_rows_are_never_reused(server: Server) -> None:
    """A plain request whose text is that of a finished trace computes all behind the prompt."""
    trace = server.generate([PROMPT], [REQUEST])[0]
    longer = [*PROMPT, *trace.ids]
    cold = {**PLAIN, "max_new_tokens": 8}
    reused = server.generate([longer], [cold])[0]
    forced = next(i for i, sampled in enumerate(trace.final.sampled) if sampled)
    assert reused.meta["cached_tokens"] <= len(PROMPT) + forced
    server.settle()
    assert server.generate([longer], [cold])[0].ids == reused.ids


def test_prompts_are_reused(server: Server) -> None:
    server.generate([PROMPT], [REQUEST])
    again = server.generate([PROMPT], [REQUEST])[0]
    assert again.meta["cached_tokens"] >= len(PROMPT) - 1


def test_long_prompts_are_computed_in_pieces(server: Server, local: LocalEngine) -> None:
    """A prompt of several chunks, beside others, and headers of more tokens than a chunk."""
    prompts = ["a sea " * n for n in (60, 33, 12)]
    results = local.generate(NPR, prompts, limits=LIMITS["npr"], sampling=GREEDY)
    answers = server.generate([r.prompt_ids for r in results], [REQUEST] * 3)
    for answer, result in zip(answers, results, strict=True):
        same_tokens(answer, result)


def test_branches_that_are_forced_from_end_to_end(server: Server, local: LocalEngine) -> None:
    """The trunk goes on when its fork and its join are done, not where it had come to before."""
    source = """
%import .parallel (spawn, reduce)
start: "<guideline>" WORD "</guideline>" spawn{step}~2..3 reduce{end} WORD
step:  "<step>" "as before" "</step>"
end:   "<takeaway>"
WORD:  /[a-z]{4}/
"""
    schema = own_schema(source, "forced")
    cases = [Case(schema, f"Forced {i}", Limits(max_tokens=80, spawn=3)) for i in range(4)]
    assert all(map(nesting, all_agree(server, local, cases)))


def test_logprobs_of_a_whole_trace(server: Server) -> None:
    """`return_logprob`: every token of the trace once, None where it was forced."""

    async def ask() -> Answer:
        return await server.send(PROMPT, REQUEST, return_logprob=True)

    answer = server.run(ask())
    told = answer.meta["output_token_logprobs"]
    assert [entry[1] for entry in told] == answer.ids
    assert [entry[0] for entry in told] == answer.final.logprobs
    assert [entry[0] is not None for entry in told] == answer.final.sampled


def test_penalties_by_rule(server: Server, local: LocalEngine) -> None:
    sampling = Sampling(
        temperature=0.0,
        seed=1,
        repetition_penalty=1.3,
        frequency_penalty=0.2,
        rules={
            "step": {"repetition_penalty": 1.6, "presence_penalty": 0.4},
            "plan": {"temperature": 0.7, "top_k": 20},
        },
    )
    options = {"limits": LIMITS["npr"], "sampling": sampling}
    results = local.generate(NPR, PROMPTS[:4], **options)
    assert sum(map(nesting, results)) == 2
    request = ForkRequest.of(NPR, **options)
    for answer, result in zip(
        server.generate([r.prompt_ids for r in results], [request] * 4), results, strict=True
    ):
        same_tokens(answer, result)


def test_one_branch_after_another(server: Server, local: LocalEngine) -> None:
    options = {"limits": LIMITS["npr"], "sampling": GREEDY, "parallel": False}
    result = local.generate(NPR, FORKING, **options)
    assert nesting(result)
    request = ForkRequest.of(NPR, **options)
    answer = server.generate([result.prompt_ids], [request])[0]
    same_tokens(answer, result)
    together = server.generate([result.prompt_ids], [REQUEST])[0]
    assert answer.final.ids == together.final.ids
    assert answer.final.forwards > together.final.forwards


def test_selective_joins(server: Server) -> None:
    """The join waits for one branch; the others are closed legally."""
    join = nprdsl.JoinPolicy(1)
    request = ForkRequest.of(NPR, limits=LIMITS["npr"], sampling=GREEDY, join=join, events=True)
    answers = server.generate([PROMPT[i:] for i in range(8)], [request] * 8)
    for answer in answers:
        text = server.text(answer.ids)
        assert NPR.check(text) == [], text
        assert len(answer.ids) <= LIMITS["npr"].max_tokens
    ends = [e for a in answers for e in a.events if isinstance(e, BranchEndEvent)]
    assert BranchReason.CUT in {end.reason for end in ends}


def test_samples_of_one_prompt(server: Server) -> None:
    """`n`: as many traces, each with a seed of its own."""
    request = ForkRequest.of(NPR, limits=LIMITS["npr"], sampling=Sampling(seed=3))
    settings = {**request.sampling_params(), "n": 3}

    async def ask() -> list[dict[str, object]]:
        return list(await server.engine.async_generate(input_ids=PROMPT, sampling_params=settings))

    outputs = server.run(ask())
    texts = {server.text(list(output["output_ids"])) for output in outputs}  # type: ignore[call-overload]
    assert len(outputs) == 3 and len(texts) == 3
    assert all(NPR.check(text) == [] for text in texts)


# -- streaming -------------------------------------------------------------------------------------


def test_streams_of_tokens_and_events(server: Server, local: LocalEngine) -> None:
    result = local.generate(NPR, FORKING, limits=LIMITS["npr"], sampling=GREEDY)
    assert nesting(result)
    request = ForkRequest.of(NPR, limits=LIMITS["npr"], sampling=GREEDY, events=True)

    async def read() -> list[Answer]:
        return [chunk async for chunk in server.stream(result.prompt_ids, request)]

    chunks = server.run(read())
    assert len(chunks) > 20
    for before, after in itertools.pairwise(chunks):
        assert list(result.token_ids[: len(before.ids)]) == before.ids
        assert len(after.ids) >= len(before.ids)
    same_tokens(chunks[-1], result)
    events = [event for report in chunks[-1].reports for event in report.read_events()]
    check_events(events, list(result.token_ids))
    early = [event for report in chunks[len(chunks) // 2].reports for event in report.read_events()]
    assert 0 < len(early) < len(events)


def check_events(events: list[Event], ids: list[int]) -> None:
    tokens = [t for event in events if isinstance(event, TokenEvent) for t in event.tokens]
    assert sorted(tokens) == sorted(ids)
    assert isinstance(events[-1], EndEvent)
    open_branches = {0}
    for event in events:
        match event:
            case ForkEvent(parent, children):
                assert parent in open_branches
                open_branches |= set(children)
            case TokenEvent(branch):
                assert branch in open_branches
            case BranchEndEvent(branch):
                open_branches.remove(branch)
            case JoinEvent(_, children):
                assert not open_branches & set(children)


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"custom_params": {"nprdsl": {"language": {"name": "nrp"}}}}, "did you mean `npr`?"),
        ({"custom_params": {"nprdsl": {"language": {"name": "npr"}, "x": 1}}}, "malformed"),
        (
            {
                "custom_params": {
                    "nprdsl": {"language": {"name": "npr"}, "limits": {"max_tokens": 3}}
                }
            },
            "the shortest legal trace",
        ),
        (
            {"custom_params": {"nprdsl": {"language": {"name": "npr"}, "sampling": {"top_q": 1}}}},
            "did you mean `top_p`?",
        ),
        ({"stop": ["x"]}, "sampling parameter `stop`"),
        ({"regex": "a+"}, "sampling parameter `regex`"),
    ],
)
def test_bad_requests_are_refused_at_once(
    server: Server, change: dict[str, object], words: str
) -> None:
    settings = {**REQUEST.sampling_params(), **change}
    with pytest.raises(ValueError, match=words.replace("?", r"\?")):
        server.generate([PROMPT], [settings])


def test_budgets_beyond_the_pool_are_refused(server: Server) -> None:
    """The copies of a `reread` join count too."""
    request = ForkRequest.of(nprdsl.load("threadweaver"), limits=Limits(max_tokens=1900))
    with pytest.raises(ValueError, match=f"keeps {POOL:,} at most.*raise --max-total-tokens"):
        server.generate([PROMPT], [request])
