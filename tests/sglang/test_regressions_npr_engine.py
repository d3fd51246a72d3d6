"""Faults that this server must not share with the public engine of Native Parallel Reasoner (arXiv
2512.07461) and the engine that it is derived from (arXiv 2506.09991).

Each test says what was wrong there. Faults of KV and memory are in `test_regressions_npr_kv`.
"""

from __future__ import annotations

from array import array
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import nprdsl
from nprdsl.machine.actions import FIRST
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine, Result, Sampling
from nprdsl.runtime.http.packed_grammar import pack
from nprdsl.runtime.sglang.plugin.trace_run import TraceRun
from nprdsl.runtime.sglang.preparation import SchemaLibrary
from nprdsl.runtime.sglang.protocol import read_reports
from nprdsl.structure.events import BranchEndEvent, BranchReason, EndReason, ForkEvent, TokenEvent
from tests.sglang.cases import (
    GREEDY,
    NESTED,
    NPR,
    Case,
    agree,
    all_agree,
    both,
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


def test_constraints_hold_in_branches_and_behind_joins(server: Server, local: LocalEngine) -> None:
    """There children lost grammar and end tokens: constrained decoding and forks excluded each
    other."""
    source = """
%import .parallel (map, process, reduce)
start: map{plans} process{plan, step} reduce{end} ANSWER
plans: "<guideline>" plan~2..3 "</guideline>"
plan:  "<plan>" LABEL ":" TEXT "</plan>"
step:  "<step>" LABEL ":" DIGITS "</step>"
end:   "<takeaway>" DIGITS "</takeaway>"
LABEL: /[1-9]/
DIGITS: /[0-9]{3,6}/
ANSWER: /yes|no/
%declare TEXT
"""
    schema = own_schema(source, "digits")
    limits = Limits(max_tokens=160, rule_tokens={"plan": 12})
    warm = Sampling(temperature=1.5, seed=1)
    cases = [Case(schema, f"Digits {i}", limits, warm) for i in range(6)]
    results = all_agree(server, local, cases)
    for result in results:
        assert result.finish is EndReason.COMPLETED, "the end token is still one"
        assert result.trace is not None
        assert schema.check(result.text) == []


def test_an_abort_takes_the_branches_along_and_a_won_join_ends_siblings(
    server: Server, local: LocalEngine
) -> None:
    """There children had names of their own, so an abort of their parent missed them."""
    case = spawning("Abort", 4, length=200)

    async def aborted() -> Answer:
        last = None
        async for chunk in server.stream(ids_of(local, case.prompt), case.request, rid="parent"):
            last = chunk
            if any(isinstance(e, TokenEvent) and e.branch for e in chunk.events):
                server.abort("parent")
        assert last is not None
        return last

    answer = server.run(aborted())
    assert answer.finish["type"] == "abort"
    assert len(answer.ids) < 4 * 200
    server.settle()
    uneven = own_schema(case.schema.grammar.source.replace("{200}", "{1,90}"), "uneven")
    won = Case(uneven, "Won", Limits(max_tokens=400, spawn=4), Sampling(seed=2), {"join": FIRST})
    answer = server.generate([ids_of(local, won.prompt)], [won.request])[0]
    cut = [e for e in answer.events if isinstance(e, BranchEndEvent)]
    assert any(e.reason is BranchReason.CUT for e in cut)


def test_the_number_of_plans_is_kept_and_every_end_has_a_name(
    server: Server, local: LocalEngine
) -> None:
    """There more than five plans, or any fault, ended as `stop`, like an end token."""
    cases = [npr(f"Plans {i}", Limits(max_tokens=90 + 40 * i, branches=2)) for i in range(5)]
    answers = [answer for _, answer in both(server, local, cases)]
    stock = {EndReason.COMPLETED: "stop", EndReason.BUDGET: "length"}
    for answer in answers:
        assert answer.final.finish is not None
        assert answer.finish["type"] == stock[answer.final.finish]
    made = [e for answer in answers for e in answer.events if isinstance(e, ForkEvent)]
    assert max(len(fork.children) for fork in made) == 2


def test_a_branch_out_of_budget_is_closed_by_its_own_tag(
    server: Server, local: LocalEngine
) -> None:
    """There a branch cut by length was merged as it was, and `<takeaway>` forced behind it."""
    schema = nprdsl.load("npr")
    cases = [npr(f"Short {i}", replace(NPR, branch_tokens=8 + i)) for i in range(6)]
    results, answers = zip(*both(server, local, cases), strict=True)
    ends = [e for a in answers for e in a.events if isinstance(e, BranchEndEvent)]
    assert any(e.reason is BranchReason.BUDGET for e in ends)
    assert any(map(nesting, results))
    assert all(schema.check(result.text) == [] for result in results)


def test_labels_differ_and_every_plan_is_executed(server: Server, local: LocalEngine) -> None:
    """There labels were not checked: plans could share one, or have none and not be executed."""
    source = """
%import .parallel (map, process, reduce)
start: map{plans} process{plan, step} reduce{end} WORD
plans: "<guideline>" plan~3..4 "</guideline>"
plan:  "<plan>" LABEL ":" WORD "</plan>"
step:  "<step>" LABEL ":" WORD "</step>"
end:   "<takeaway>" WORD "</takeaway>"
LABEL: /[1-5]/
WORD: /[a-z]{3}/
"""
    warm = Sampling(temperature=1.3, seed=8)
    few = own_schema(source, "few")
    cases = [Case(few, f"Labels {i}", Limits(max_tokens=100), warm) for i in range(8)]
    made = [e for _, a in both(server, local, cases) for e in a.events if isinstance(e, ForkEvent)]
    assert {label for fork in made for label in fork.labels} == {*"12345"}
    assert all(len(fork.labels) > 2 for fork in made)
    for fork in made:
        assert len(set(fork.labels)) == len(fork.labels) == len(fork.children)


def test_nested_branches_count(server: Server, local: LocalEngine) -> None:
    """There the budget knew the innermost number of branches only."""
    multiverse = nprdsl.load("multiverse")
    deepest = {60: 1, 110: 1, 190: 1, 260: 2}
    prompts = [f"Nest {i}" for i in (2, 3, 6)]
    limits = [replace(NESTED, max_tokens=tokens) for tokens in deepest]
    cases = [Case(multiverse, prompt, each) for each in limits for prompt in prompts]
    made: dict[int, list[Result]] = {}
    for case, result in zip(cases, all_agree(server, local, cases), strict=True):
        made.setdefault(case.limits.max_tokens, []).append(result)
        assert len(result.token_ids) <= case.limits.max_tokens
    assert {tokens: max(map(nesting, results)) for tokens, results in made.items()} == deepest


def test_settings_belong_to_one_request(server: Server, local: LocalEngine) -> None:
    """There one object was shared and changed, and the user's own penalty overwritten."""
    penalised = replace(GREEDY, repetition_penalty=1.3)
    per_rule = replace(GREEDY, rules={"step": {"repetition_penalty": 1.6}})
    stock = plain(40, repetition_penalty=1.4)
    prompt = ids_of(local, "penalties")
    unpenalised = server.generate([prompt], [plain(40)])[0]
    alone = server.generate([prompt], [stock])[0]
    cases = [npr("settings", sampling=s) for s in (penalised, per_rule, GREEDY, penalised)]
    results = results_of(local, cases)
    assert all(map(nesting, results))
    ids = [prompt, *(r.prompt_ids for r in results), prompt]
    answers = server.generate(ids, [stock, *(case.request for case in cases), stock])
    for answer, result in zip(answers[1:-1], results, strict=True):
        agree(answer, result)
    assert answers[0].ids == answers[-1].ids == alone.ids != unpenalised.ids
    assert len({tuple(answer.final.ids) for answer in answers[1:4]}) > 1


def test_tags_one_after_another_lose_no_fork(server: Server, local: LocalEngine) -> None:
    """There a second stop token behind one that triggers a fork replaced it, and a branch cost two
    more tokens."""
    source = """
%import .parallel (spawn, reduce)
start: "<guideline>" outer "</guideline>" spawn{step}~2 reduce{end} WORD
outer: "<Goal>" spawn{path}~2 reduce{close} "</Goal>"
path:  "<Path>" inner "</Path>"
inner: "<plan>" spawn{step}~2 reduce{close}
step:  "<step>" LETTER "</step>"
close: "</plan>"
end:   "</takeaway>"
LETTER: /[a-z]/
WORD: /[a-z]{3}/
"""
    schema = own_schema(source, "dense")
    cases = [Case(schema, f"Dense {i}", Limits(max_tokens=60)) for i in range(4)]
    results = all_agree(server, local, cases)
    assert [forks(result) for result in results] == [4] * 4


def test_no_text_is_made_or_read_while_tokens_are_drawn_and_told(local: LocalEngine) -> None:
    """There the tokenizer ran three times for every token, a text was cut to its first character,
    and traces were decoded, cut and encoded again."""

    class Forbidden:
        def __getattr__(self, name: str) -> Any:
            raise AssertionError(f"the tokenizer's {name} is used")

    trace: Any = SimpleNamespace(
        rid="one",
        queued_s=0.0,
        sample=0,
        tokenizer=Forbidden(),
        stream=True,
        output_ids=array("q"),
        wants_logprobs=False,
        customized_info=None,
    )
    case = spawning("Text", 3)
    library = SchemaLibrary(local.vocabulary, len(local.tokenizer or ()))
    prompt = ids_of(local, case.prompt)
    packed = pack(case.schema.grammar)
    prepared = library.prepare(case.request, packed, prompt, positions=2048, capacity=POOL)
    run = TraceRun(trace, prepared)
    run.begin()
    drawn = 0
    while run.finish is None:
        for branch in run.machine.live:
            if branch in run.machine.live:
                mask = run.draws.of(branch).mask
                run.advance(branch, first_of(mask), -1.0)
                drawn += 1
        run.report()
    assert drawn > 3 * 24
    (final,) = [r for r in read_reports(trace.customized_info) if r.final]
    assert final.ids == trace.output_ids.tolist() == list(run.machine.trace().ids)[len(prompt) :]


def first_of(mask: Any) -> int:
    """The lowest token that a mask allows."""
    for word, bits in enumerate(mask.tolist()):
        if bits:
            return 32 * word + ((bits & -bits).bit_length() - 1)
    raise AssertionError("no token is allowed")


def test_token_ids_are_never_decoded_and_encoded_again(server: Server, local: LocalEngine) -> None:
    """There prompts and traces were decoded and encoded again: a tag that a prompt spells became
    one, and split the prompt."""
    result = all_agree(server, local, [npr("Über 漢字 🙂 <step> as text")])[0]
    assert nesting(result)
    assert (
        local.bind(nprdsl.load("npr")).check(
            [*result.prompt_ids, *result.token_ids], prompt=len(result.prompt_ids)
        )
        == []
    )


def test_what_is_written_is_streamed(server: Server, local: LocalEngine) -> None:
    """There partial output was commented out: a client waited for the whole trace."""
    case = spawning("Stream", 4, length=40)
    result = case.result(local)

    async def chunks() -> list[Answer]:
        return [chunk async for chunk in server.stream(result.prompt_ids, case.request)]

    seen = server.run(chunks())
    assert len(seen) > 40
    for before, after in pairwise(seen):
        assert after.ids[: len(before.ids)] == before.ids
    assert len(seen[1].ids) < len(result.token_ids) // 2
    written: dict[int, list[int]] = {}
    for event in seen[-1].events:
        if isinstance(event, TokenEvent):
            written.setdefault(event.branch, []).extend(event.tokens)
    assert sorted(map(len, written.values()))[-4:] == [42] * 4
    agree(seen[-1], result)
