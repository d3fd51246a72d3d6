"""The fork/join machine: legal whatever the model, the budget, the schedule and the join.

Random models on random schemas; a cache of plain lists executes the actions and must agree with the
layout of the trace (train = inference, without tensors).
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from nprdsl.actions import ALL, FIRST, Drop, End, Feed, Fork, Join, JoinPolicy
from nprdsl.bound import BoundSchema
from nprdsl.diagnostics import SchemaError
from nprdsl.events import (
    BranchEndEvent,
    BranchReason,
    EndEvent,
    EndReason,
    ForkEvent,
    JoinEvent,
    TokenEvent,
)
from nprdsl.graph import Role
from nprdsl.ir import JoinKind
from nprdsl.ledger import LimitError, Limits
from nprdsl.machine import Machine
from nprdsl.matcher import IllegalTokenError
from nprdsl.schema import Schema, load
from nprdsl.structure import Bounds
from nprdsl.testing import byte_vocabulary, schemas
from nprdsl.trace import TokenTrace
from nprdsl.violations import TraceError
from tests.runs import Run, first, last, linear, run, seeded, shuffled, talkative
from tests.walks import GOAL, allowed, schema_of, vocabulary

QUICK = settings(max_examples=20, deadline=None, suppress_health_check=tuple(HealthCheck))
NAMES = ("npr", "multiverse", "threadweaver", "parallel_r1", "arith", "goal", "nested")
SCHEMAS = pytest.mark.parametrize("name", NAMES)
MODES = pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
PROMPT = tuple(b"Q: ")
DEAREST = 160  # tokens of the shortest trace: beyond it a random schema takes too long

NESTED = """
%import .parallel (map, process, spawn, reduce, reread)
start: TEXT (block TEXT)*
block: map{list} process{item, branch} reduce{join}
list: "<l>" item~1..4 "</l>"
item: "<i>" LABEL ":" TEXT "</i>"
branch: "<b>" LABEL ":" TEXT (inner TEXT)* "</b>"
join: "<j>" TEXT "</j>"
inner: "<p>" spawn{path}~2..3 reread{close}
path: "<q>" TEXT (block TEXT)* "</q>"
close: "</p>"
LABEL: /[1-9]/
%declare TEXT
"""

VALUES = r"""
%import .parallel (map, process, reduce)
start: map{list} process{item, branch} reduce{join}
list: "<l>" item~1..4 "</l>"
item: "<i>" LABEL ": (" KIND ")" "</i>"
branch: "<b>" LABEL ": " VERDICT "</b>"
join: "<j>" TEXT "</j>"
LABEL: /[1-9]/
KIND: /alpha|beta|betas/
VERDICT: /{"sure": (true|false), "why": "[a-z]{2,9}"}/
%declare TEXT
"""


@cache
def schema(name: str) -> Schema:
    own = {"goal": GOAL, "nested": NESTED, "values": VALUES}
    return schema_of(own[name]) if name in own else load(name)


@cache
def byte_bound(name: str, special: bool = True) -> BoundSchema:
    made = schema(name)
    return made.bind(byte_vocabulary(special=made.tags if special else ()))


@cache
def awkward_bound(name: str, special: bool) -> BoundSchema:
    return schema(name).bind(vocabulary(schema(name), special=special, seed=4))


# -- what holds of every run


def verify(made: Run, limits: Limits) -> TokenTrace:
    machine, ids = made.machine, made.ids
    assert len(ids) <= limits.max_tokens
    assert made.log.ended == End(machine.ended)
    trace = machine.trace()  # raises if it is not legal
    assert trace.ids == (*machine.prompt, *ids)
    _verify_sampled(made, trace)
    _verify_events(made)
    _verify_forks(made, trace)
    _verify_cache(made, trace)
    _verify_bounds(made, trace, limits)
    return trace


def _verify_sampled(made: Run, trace: TokenTrace) -> None:
    """Sampled tokens are flagged, have their log-probs, and stand in order on their branch."""
    written, start = made.machine.written, len(made.machine.prompt)
    assert trace.sampled[start:].tolist() == [w.sampled for w in written]
    assert not trace.sampled[:start].any()
    assert made.machine.logprobs == [w.logprob for w in written]
    given_out = [-2.0 - n for n in range(len(made.sampled))]  # as `run` numbers them
    by_logprob = {w.logprob: w.token for w in written if w.sampled}
    assert by_logprob == {
        logprob: token for logprob, (_, token) in zip(given_out, made.sampled, strict=True)
    }
    assert all(w.logprob is None for w in written if not w.sampled)


def _verify_events(made: Run) -> None:
    """Events tell the same story as actions and tokens."""
    text = made.machine.bound.vocabulary.text
    tokens = [e for e in made.events if isinstance(e, TokenEvent)]
    assert sorted(t for e in tokens for t in e.tokens) == sorted(made.ids)
    assert all(e.text == text(e.tokens) for e in tokens)
    sampled = [(e.branch, *e.tokens) for e in tokens if not e.forced]
    assert sampled == made.sampled
    forks = [(a.parent, a.children) for a in made.actions if isinstance(a, Fork)]
    events = [e for e in made.events if isinstance(e, ForkEvent)]
    assert [(e.parent, e.children) for e in events] == forks
    assert all(len(e.labels) == len(e.children) for e in events)
    joins = [(a.parent, a.children) for a in made.actions if isinstance(a, (Join, Drop))]
    assert [(e.parent, e.children) for e in made.events if isinstance(e, JoinEvent)] == joins
    ended = [e.branch for e in made.events if isinstance(e, BranchEndEvent)]
    assert sorted(ended) == sorted(c for _, children in forks for c in children)
    assert made.events[-1] == EndEvent(made.machine.ended or EndReason.FAILED)


def _verify_forks(made: Run, trace: TokenTrace) -> None:
    """Forks name rules and labels as the graph does."""
    forks = [e for e in made.events if isinstance(e, ForkEvent)]
    told = sorted((e.rule, label) for e in forks for label in e.labels)
    segments = trace.graph.segments
    assert told == sorted((s.rule, s.label) for s in segments if s.role is Role.BRANCH)


def _verify_cache(made: Run, trace: TokenTrace) -> None:
    """Every token saw what the layout says, at the layout's position: train = inference."""
    layout, entries = trace.layout, made.log.entries
    end = made.machine.bound.vocabulary.eos_id
    count = len(layout) - (trace.ids[-1] == end)  # the end token is not fed
    order = linear(made)
    assert len(order) == count == len(entries)
    place = {number: n for n, number in enumerate(order)}
    visible = layout.visible()[:count, :count]
    for n, number in enumerate(order):
        entry = entries[number]
        assert entry.token == trace.ids[layout.token[n]]
        assert entry.position == layout.position[n]
        seen = np.zeros(count, bool)
        seen[[place[k] for k in entry.seen]] = True
        assert (seen == visible[n]).all()


def _verify_bounds(made: Run, trace: TokenTrace, limits: Limits) -> None:
    paths = {e.path for e in made.events if isinstance(e, TokenEvent)}
    depth = max((len(path) // 2 for path in paths), default=0)
    assert limits.depth is None or depth <= limits.depth
    forks = [e for e in made.events if isinstance(e, ForkEvent)]
    if limits.branches is not None:
        assert all(len(e.children) <= limits.branches for e in forks)
    if limits.blocks is not None:
        parents = [e.parent for e in forks]
        assert all(parents.count(parent) <= limits.blocks for parent in parents)
    bounded = made.machine.bound
    assert bounded.check(trace.ids, prompt=trace.prompt) == []


def minimum(bound: BoundSchema, bounds: Bounds) -> int:
    return bound.under(bounds).minimum


def limits_of(bounds: Bounds, tokens: int, spawn: int | None = None) -> Limits:
    return Limits(
        max_tokens=tokens,
        depth=bounds.depth,
        branches=bounds.branches,
        blocks=bounds.blocks,
        spawn=spawn,
    )


# -- budgets


@SCHEMAS
@MODES
def test_every_budget_from_the_minimum_up_ends_legally(name: str, special: bool) -> None:
    bounds = Bounds(depth=2, branches=3)
    for bound in (byte_bound(name, special), awkward_bound(name, special)):
        least = minimum(bound, bounds)
        for budget in (*range(least, least + 41), least + 150):
            limits = limits_of(bounds, budget, spawn=budget % 4 or None)
            verify(run(bound, limits, seeded(budget), prompt=PROMPT * (budget % 2)), limits)


@SCHEMAS
def test_a_talkative_model_spends_its_budget_and_is_closed(name: str) -> None:
    bounds = Bounds(depth=1, branches=3)
    bound = byte_bound(name)
    for extra in (0, 1, 7, 60):
        limits = limits_of(bounds, minimum(bound, bounds) + extra)
        made = run(bound, limits, talkative)
        verify(made, limits)
        assert made.machine.ended is EndReason.BUDGET
        assert len(made.ids) == limits.max_tokens or name == "multiverse"


@SCHEMAS
@MODES
def test_a_budget_below_the_minimum_is_refused_with_the_minimum(name: str, special: bool) -> None:
    bound = byte_bound(name, special)
    if bound.minimum == 1:
        pytest.skip("nothing is less than one token")
    with pytest.raises(LimitError, match=f"allow at least {bound.minimum}$"):
        Machine(bound, limits=Limits(max_tokens=bound.minimum - 1))
    Machine(bound, limits=Limits(max_tokens=bound.minimum))


@QUICK
@given(st.data())
def test_random_schemas_end_legally_at_any_budget(data: st.DataObject) -> None:
    source = data.draw(schemas())
    made = schema_of(source)
    bound = made.bind(vocabulary(made, special=data.draw(st.booleans()), seed=0))
    bounds = data.draw(st.sampled_from([Bounds(2, 3, 2), Bounds(3, None, 1), Bounds(2, 4, None)]))
    try:
        least = minimum(bound, bounds)
    except SchemaError:
        bounds = Bounds()
        least = bound.minimum
    assume(1 < least <= DEAREST)
    with pytest.raises(LimitError, match=f"allow at least {least}$"):
        Machine(bound, limits=limits_of(bounds, least - 1))
    extra = data.draw(st.integers(0, 40) | st.sampled_from([90, 300]))
    limits = limits_of(bounds, least + extra, data.draw(st.sampled_from([None, 1, 2, 3])))
    join = data.draw(st.sampled_from([ALL, FIRST, JoinPolicy(2)]))
    prompt = data.draw(st.sampled_from([(), PROMPT]))
    model = seeded(data.draw(st.integers(0, 999)))
    verify(run(bound, limits, model, join=join, prompt=prompt), limits)


def test_values_with_a_dear_way_out_fit_the_budget() -> None:
    made = schema_of('start: "<a>" V "</a>" TEXT\nV: /a|y{200}/\n%declare TEXT\n')
    bound = made.bind(byte_vocabulary(special=made.tags))

    def dear(machine: Machine, branch: int) -> int:
        tokens = allowed(machine.mask(branch), machine.bound.vocabulary.size)
        return ord("y") if ord("y") in tokens else tokens[-1]

    for budget in (100, 202, 203, 210, 400):
        limits = Limits(max_tokens=budget)
        trace = verify(run(bound, limits, dear), limits)
        assert (len(trace.find("v")[0].text) == 200) == (budget >= 203)


# -- schedules


@SCHEMAS
@MODES
def test_the_schedule_changes_nothing(name: str, special: bool) -> None:
    bounds = Bounds(depth=2, branches=4)
    bound = awkward_bound(name, special)
    for seed, extra in ((1, 25), (2, 160)):
        limits = limits_of(bounds, minimum(bound, bounds) + extra, spawn=3)
        traces = []
        for scheduler in (first, last, shuffled(seed)):
            made = run(bound, limits, seeded(seed), scheduler=scheduler)
            verify(made, limits)
            traces.append(made.ids)
        assert traces[0] == traces[1] == traces[2]


def test_paths_name_branches_and_positions_count_their_tokens() -> None:
    bound = byte_bound("nested")
    limits = limits_of(Bounds(depth=3, branches=3), 400, spawn=2)
    for seed in range(8):
        made = run(bound, limits, seeded(seed), scheduler=shuffled(seed))
        paths = {e.branch: e.path for e in made.events if isinstance(e, TokenEvent)}
        assert len(set(paths.values())) == len(paths)
        forks = [e for e in made.events if isinstance(e, ForkEvent)]
        for fork in forks:
            blocks = {paths[child][-2] for child in fork.children}
            assert len(blocks) == 1
            assert [paths[child][-1] for child in fork.children] == [*range(len(fork.children))]
            assert all(paths[c][:-2] == paths[fork.parent] for c in fork.children)


# -- forks and joins


def end_of(bound: BoundSchema) -> int:
    end = bound.vocabulary.eos_id
    assert end is not None
    return end


def write(machine: Machine, branch: int, text: str) -> list[object]:
    """Sample a text on a branch: bytes, and tags as special tokens; the actions of it all."""
    special = machine.bound.vocabulary.special
    actions: list[object] = []
    while text:
        tag = next((tag for tag in special if text.startswith(tag)), None)
        token = special[tag] if tag is not None else text.encode()[0]
        text = text[len(tag) if tag is not None else 1 :]
        actions += machine.advance(branch, token)
    return actions


def test_actions_of_a_map() -> None:
    bound = byte_bound("arith")
    special = bound.vocabulary.special
    machine = Machine(bound, prompt=PROMPT)
    assert machine.start() == [Feed(0, (special["<guideline>"], special["<plan>"]))]
    assert machine.live == (0,)
    write(machine, 0, "1a</plan><plan>2b</plan>")
    actions = write(machine, 0, "</guideline>")
    assert actions == [
        Feed(0, (special["</guideline>"],)),
        Fork(0, (1, 2)),
        Feed(1, (special["<step>"], *b"1: ")),
        Feed(2, (special["<step>"], *b"2: ")),
    ]
    assert machine.live == (1, 2)
    assert [machine.path(b) for b in machine.live] == [(0, 0), (0, 1)]
    assert [machine.rule(b) for b in machine.live] == ["step", "step"]
    assert [machine.position_in_branch(b) for b in machine.live] == [4, 4]
    assert write(machine, 2, "y</step>")[-1] == Feed(2, (special["</step>"],))
    assert machine.live == (1,)
    assert write(machine, 1, "xx</step>")[1:] == [
        Feed(1, (ord("x"),)),
        Feed(1, (special["</step>"],)),
        Join(0, (1, 2)),
        Feed(0, (special["<takeaway>"],)),
    ]
    assert machine.rule(0) == "takeaway"
    write(machine, 0, "t</takeaway>ans")
    assert machine.advance(0, end_of(bound)) == [End(EndReason.COMPLETED)]
    assert machine.ended is EndReason.COMPLETED
    trace = machine.trace()
    assert trace.text.startswith("<guideline><plan>1: a</plan><plan>2: b</plan></guideline>")
    assert "<step>1: xx</step><step>2: y</step><takeaway>t</takeaway>ans" in trace.text


def test_actions_of_a_reread_fork_by_count() -> None:
    bound = byte_bound("parallel_r1")
    special = bound.vocabulary.special
    machine = Machine(bound, limits=Limits(max_tokens=200, spawn=3))
    assert machine.start() == []
    actions = write(machine, 0, "q<Parallel>")
    assert actions[-4:] == [
        Fork(0, (1, 2, 3)),
        *(Feed(n, (10, special["<Path>"])) for n in (1, 2, 3)),
    ]
    write(machine, 1, "a</Path>")
    write(machine, 3, "c</Path>")
    actions = write(machine, 2, "b</Path>")
    path = [(10, special["<Path>"], ord(c), special["</Path>"]) for c in "abc"]
    assert actions[-3:] == [
        Drop(0, (1, 2, 3)),
        Feed(0, tuple(token for tokens in path for token in tokens)),
        Feed(0, (10, special["</Parallel>"], 10, special["<Summary>"])),
    ]
    write(machine, 0, "s</Summary>\n")
    machine.advance(0, end_of(bound))
    trace = machine.trace()
    assert trace.layout.drops and len(trace.layout) == len(trace.ids) + 12


@pytest.mark.parametrize(("asked", "branches", "got"), [(None, None, 2), (5, None, 5), (99, 4, 4)])
def test_the_number_of_branches_by_count(asked: int, branches: int, got: int) -> None:
    bound = byte_bound("parallel_r1")
    machine = Machine(bound, limits=Limits(max_tokens=400, spawn=asked, branches=branches))
    machine.start()
    fork = next(a for a in write(machine, 0, "q<Parallel>") if isinstance(a, Fork))
    assert len(fork.children) == got


def test_no_more_branches_than_the_budget_can_close() -> None:
    bound = byte_bound("parallel_r1")
    least = 2 + 2 * 4 + 6 + 1  # q<Parallel>, two paths, the summary, a gap
    for extra, count in ((0, 2), (3, 2), (4, 3), (8, 4), (100, 8)):
        limits = Limits(max_tokens=least + extra, spawn=8)
        machine = Machine(bound, limits=limits)
        machine.start()
        fork = next(a for a in write(machine, 0, "q<Parallel>") if isinstance(a, Fork))
        assert len(fork.children) == count


@pytest.mark.parametrize("lead", ["TEXT", "_GLUE", 'TEXT ("<x>" "</x>")~0..2'])
def test_a_fork_by_count_must_stand_behind_a_tag(lead: str) -> None:
    """Nothing that a model writes could say that the branches begin."""
    terminals = '_GLUE: " "\n' if lead == "_GLUE" else ""
    source = (
        f'%import .parallel (spawn, reduce)\nstart: "<a>" {lead} spawn{{branch}}~2 reduce{{join}}\n'
        'branch: "<b>" TEXT "</b>"\njoin: "<j>" TEXT "</j>"\n'
    )
    with pytest.raises(SchemaError):
        schema_of(source + terminals + "%declare TEXT\n")


@pytest.mark.parametrize("lead", ["TEXT", "_GLUE", '["<x>" "</x>"]'])
def test_a_fork_that_begins_a_rule_must_stand_behind_a_tag(lead: str) -> None:
    terminals = '_GLUE: " "\n' if lead == "_GLUE" else ""
    source = (
        f'%import .parallel (spawn, reduce)\nstart: "<a>" {lead} block\n'
        "block: spawn{branch}~2 reduce{join}\n"
        'branch: "<b>" TEXT "</b>"\njoin: "<j>" TEXT "</j>"\n'
    )
    with pytest.raises(SchemaError):
        schema_of(source + terminals + "%declare TEXT\n")


@pytest.mark.parametrize("quorum", [1, 2, 3, 9])
def test_a_join_waits_for_as_many_branches_as_asked(quorum: int) -> None:
    bound = byte_bound("arith")
    machine = Machine(bound, limits=Limits(max_tokens=300), join=JoinPolicy(quorum))
    machine.start()
    write(machine, 0, "1a</plan><plan>2b</plan><plan>3c</plan></guideline>")
    write(machine, 2, "some words")
    for done, branch in enumerate((3, 1, 2)):
        assert machine.live == tuple(b for b in (1, 2, 3) if b in (3, 1, 2)[done:])
        write(machine, branch, "x</step>")
        if done + 1 == min(quorum, 3):
            break
    assert machine.live == (0,) and machine.rule(0) == "takeaway"
    ended = {e.branch: e.reason for e in machine.drain_events() if isinstance(e, BranchEndEvent)}
    cut = {1, 2, 3} - {3, 1, 2} if quorum >= 3 else {1, 2} if quorum == 1 else {2}
    assert {b for b, reason in ended.items() if reason is BranchReason.CUT} == cut
    write(machine, 0, "t</takeaway>d")
    machine.advance(0, end_of(bound))
    steps = [step.text for step in machine.trace().find("step")]
    assert steps[2] == "<step>3: x</step>"
    assert steps[1] == ("<step>2: some words</step>" if 2 in cut else "<step>2: some wordsx</step>")
    assert steps[0] == ("<step>1: .</step>" if 1 in cut else "<step>1: x</step>")


def test_a_cut_closes_what_runs_inside() -> None:
    bound = byte_bound("nested")
    for seed in range(6):
        for quorum in (1, 2):
            limits = limits_of(Bounds(depth=3, branches=3), 350, spawn=3)
            scheduler = shuffled(seed)
            made = run(
                bound, limits, seeded(seed, 0.7), join=JoinPolicy(quorum), scheduler=scheduler
            )
            verify(made, limits)


def test_branches_without_a_choice_end_as_they_begin() -> None:
    made = schema_of(
        "%import .parallel (map, process, reduce)\n"
        "start: map{list} process{item, branch} reduce{join}\n"
        'list: "<l>" item~3 "</l>"\nitem: "<i>" LABEL ":" TEXT "</i>"\n'
        'branch: "<b>" LABEL "</b>"\njoin: "<j>" TEXT "</j>"\nLABEL: /[1-9]/\n%declare TEXT\n'
    )
    bound = made.bind(byte_vocabulary(special=made.tags))
    limits = Limits(max_tokens=60)
    for join in (ALL, FIRST, JoinPolicy(2)):
        done = run(bound, limits, seeded(1), join=join)
        trace = verify(done, limits)
        assert [len(b.text) for b in trace.find("branch")] == [8, 8, 8]
        assert [a for a in done.actions if isinstance(a, Join)] == [Join(0, (1, 2, 3))]


def test_the_joins_are_those_of_the_schema() -> None:
    bound = byte_bound("nested")
    kinds = set()
    for seed in range(12):
        limits = limits_of(Bounds(depth=3, branches=3), 300, spawn=2)
        made = run(bound, limits, seeded(seed, 0.7))
        trace = verify(made, limits)
        joins = [a for a in made.actions if isinstance(a, (Join, Drop))]
        dropped = sum(f.block.join is JoinKind.REREAD for f in trace.graph.forks)
        assert sum(isinstance(a, Drop) for a in joins) == dropped
        kinds |= {type(a) for a in joins}
    assert kinds == {Join, Drop}


def test_goals_are_repeated_by_their_own_tokens() -> None:
    made = schema("goal")
    bound = made.bind(byte_vocabulary(special=made.tags, merges=["ab", "abc"]))
    machine = Machine(bound)
    machine.start()
    write(machine, 0, "7:abcab</plan></g>")  # byte by byte, though it has shorter spellings
    header = machine.written[-len("\n7:abcab\n") - 1 :]
    assert [w.token for w in header][-6:] == [*b"abcab", 10]
    assert not any(w.sampled for w in header)


# -- caps


def spent(trace: TokenTrace, name: str) -> list[int]:
    """The tokens of each use of a rule on its own branch, in a trace of one-byte tokens."""
    counts = []
    inner = {block.branch for block in schema("npr").grammar.blocks}
    for element in trace.find(name):
        text = element.text.lstrip() if name == "plan" else element.text  # its glue is the list's
        for branch in element.walk():
            if branch.name in inner and branch is not element:
                text = text.replace(branch.text, "", 1)
        for tag in schema("npr").tags:
            text = text.replace(tag, "T")
        counts.append(len(text.encode()))
    return counts


@pytest.mark.parametrize("rule", ["plan", "step", "takeaway", "answer", "guideline"])
def test_a_rule_keeps_its_cap(rule: str) -> None:
    bound = byte_bound("npr")
    for cap in (12, 20):
        caps = {"plan": 40, "step": 40, "takeaway": 40, "answer": 40}
        limits = Limits(max_tokens=400, rule_tokens=caps | {rule: cap})
        for seed in range(2):
            trace = verify(run(bound, limits, seeded(seed, 0.1)), limits)
            longest = max(len(label.text) for label in trace.find("label"))
            assert max(spent(trace, rule)) <= max(cap, longest + 7)  # a label must be repeated
        trace = verify(run(bound, limits, talkative), limits)
        assert max(spent(trace, rule)) == cap


def test_the_cap_of_a_rule_is_for_each_use() -> None:
    bound = byte_bound("arith")
    limits = Limits(max_tokens=300, rule_tokens={"plan": 9})
    machine = Machine(bound, limits=limits)
    machine.start()
    for label in "123":
        write(machine, 0, f"{label}aaa")
        assert len(allowed(machine.mask(0), 256)) > 99
        write(machine, 0, "a")
        assert allowed(machine.mask(0), 999) == [bound.vocabulary.special["</plan>"]]
        write(machine, 0, "</plan><plan>")


@pytest.mark.parametrize(
    ("rules", "message"),
    [({"steps": 9}, "`steps`, which is no rule; rules: "), ({"step": 3}, "takes 6 tokens")],
)
def test_caps_that_make_no_sense_are_refused(rules: dict[str, int], message: str) -> None:
    with pytest.raises(LimitError, match=message):
        Machine(byte_bound("arith"), limits=Limits(rule_tokens=rules))


def test_a_branch_keeps_its_cap() -> None:
    bound = byte_bound("nested")
    for cap in (5, 12, 30):
        limits = Limits(max_tokens=400, branch_tokens=cap, depth=2, branches=3)
        for model in (seeded(cap), talkative):
            trace = verify(run(bound, limits, model), limits)
            for branch in trace.find("branch"):
                tokens = len(branch.text.encode()) - sum(
                    (len(tag) - 1) * branch.text.count(tag) for tag in schema("nested").tags
                )
                assert tokens <= max(cap, 5)


# -- ends


def test_an_abort_ends_at_once() -> None:
    bound = byte_bound("npr")
    machine = Machine(bound, prompt=PROMPT)
    machine.start()
    write(machine, 0, "1:a</plan>")
    assert machine.abort() == [End(EndReason.ABORTED)]
    assert machine.live == () and machine.ended is EndReason.ABORTED
    assert machine.abort() == []
    assert machine.drain_events()[-1] == EndEvent(EndReason.ABORTED)
    assert bound.vocabulary.text(w.token for w in machine.written).endswith("1:a</plan>\n")
    with pytest.raises(TraceError):
        machine.trace()


def test_a_failure_ends_all_branches() -> None:
    bound = byte_bound("arith")
    machine = Machine(bound)
    machine.start()
    write(machine, 0, "1a</plan><plan>2b</plan></guideline>")
    assert machine.fail() == [End(EndReason.FAILED)]
    assert machine.live == () and machine.abort() == []


def test_a_token_that_is_not_allowed_is_refused_and_changes_nothing() -> None:
    machine = Machine(byte_bound("arith"))
    machine.start()
    mask = machine.mask(0)
    with pytest.raises(IllegalTokenError):
        machine.advance(0, ord("x"))
    assert machine.live == (0,) and machine.mask(0) is mask


def test_reasons_tell_the_model_from_the_budget() -> None:
    bound = byte_bound("arith")
    machine = Machine(bound, limits=Limits(max_tokens=40))
    machine.start()
    write(machine, 0, "1a</plan></guideline>")
    write(machine, 1, "x</step>")
    write(machine, 0, "t</takeaway>d")
    machine.advance(0, end_of(bound))
    assert machine.ended is EndReason.COMPLETED
    reasons = [e.reason for e in machine.drain_events() if isinstance(e, BranchEndEvent)]
    assert reasons == [BranchReason.COMPLETED]
    made = run(bound, Limits(max_tokens=40), talkative)
    assert made.machine.ended is EndReason.BUDGET
    assert BranchReason.BUDGET in [e.reason for e in made.events if isinstance(e, BranchEndEvent)]


# -- the loss mask


@MODES
@pytest.mark.parametrize("name", [*NAMES, "values"])
def test_the_parser_finds_the_tokens_that_the_machine_sampled(name: str, special: bool) -> None:
    """Without pressure of a budget, and with tokens that do not straddle, they are the same."""
    bound = byte_bound(name, special)
    for seed in range(4):
        limits = limits_of(Bounds(depth=2), 1500)
        made = run(bound, limits, seeded(seed, 0.6))
        if made.machine.ended is EndReason.BUDGET:
            continue  # the budget, or a limit, had a say
        trace = verify(made, limits)
        parsed = bound.under(limits.bounds).parse(trace.ids)
        assert trace.sampled.tolist() == parsed.sampled.tolist()
