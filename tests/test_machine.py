"""The fork/join machine: legal whatever the model, the budget and the schedule.

Random models on random schemas.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.machine.actions import ALL, FIRST, EndAction, JoinPolicy
from nprdsl.machine.budget import LimitError, Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.matcher import IllegalTokenError
from nprdsl.structure.events import (
    BranchEndEvent,
    BranchReason,
    EndEvent,
    EndReason,
    ForkEvent,
    TokenEvent,
)
from nprdsl.structure.tag_machine import Bounds
from nprdsl.structure.violations import TraceError
from nprdsl.testing import byte_vocabulary, schemas
from nprdsl.trace.encoding import spell_text
from tests.machines import (
    DEAREST,
    MODES,
    NAMES,
    PROMPT,
    QUICK,
    SCHEMAS,
    awkward_bound,
    byte_bound,
    end_of,
    limits_of,
    minimum,
    positions,
    spawned,
    verify,
    write,
)
from tests.runs import first, last, run, seeded, shuffled, talkative
from tests.walks import allowed, schema_of, vocabulary


@SCHEMAS
@MODES
def test_every_budget_from_the_minimum_up_ends_legally(name: str, special: bool) -> None:
    bounds = Bounds(depth=2, branches=3)
    for bound in (byte_bound(name, special), awkward_bound(name, special)):
        least = minimum(bound, bounds)
        for budget in (*range(least, least + 41), least + 150):
            limits = limits_of(bounds, budget, spawn=spawned(bound, budget % 4 or None))
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
    source = data.draw(schemas(first=20))
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
    limits = limits_of(
        bounds, least + extra, spawned(bound, data.draw(st.sampled_from([None, 1, 2, 3])))
    )
    if data.draw(st.booleans()):
        further = data.draw(st.integers(0, 60))
        limits = replace(limits, max_tokens=least + 300, max_positions=least + further)
    join = data.draw(st.sampled_from([ALL, FIRST, JoinPolicy(2)]))
    prompt = data.draw(st.sampled_from([(), PROMPT]))
    model = seeded(data.draw(st.integers(0, 999)))
    verify(run(bound, limits, model, join=join, prompt=prompt), limits)


@SCHEMAS
@MODES
def test_positions_are_bounded_as_tokens_are(name: str, special: bool) -> None:
    bounds = Bounds(depth=2, branches=3)
    bound = byte_bound(name, special)
    least = minimum(bound, bounds)
    with pytest.raises(LimitError, match=f"max_positions .*at least {least}"):
        Machine(bound, limits=replace(limits_of(bounds, 900), max_positions=least - 1))
    for extra in (0, 1, 7, 40):
        limits = replace(limits_of(bounds, 900, spawned(bound, 3)), max_positions=least + extra)
        for model in (talkative, seeded(extra)):
            verify(run(bound, limits, model), limits)


def test_branches_that_are_merged_share_positions() -> None:
    bound = byte_bound("npr")
    limits = Limits(max_tokens=2000, blocks=1, max_positions=260)
    listed = "<guideline>\n" + "".join(f"<plan>{n}:p</plan>\n" for n in (1, 2, 3)) + "</guideline>"
    ids = spell_text(bound.vocabulary, listed, bound.grammar.tags)

    def lists_three(machine: Machine, branch: int) -> int:
        written = machine.position_in_branch(branch)
        if branch == 0 and written < len(ids):
            return int(ids[written])
        return talkative(machine, branch)

    trace = verify(run(bound, limits, lists_three), limits)
    assert len(trace.ids) > 2 * positions(trace, 0)
    assert positions(trace, 0) == 260
    steps = [len(step.text) for step in trace.find("step")]
    assert len(steps) == 3 and max(steps) - min(steps) <= 1


def test_branches_that_are_read_again_take_positions_of_their_own() -> None:
    bound = byte_bound("threadweaver")
    limits = Limits(max_tokens=2000, blocks=1, branches=3, max_positions=300)
    trace = verify(run(bound, limits, talkative), limits)
    assert len(trace.ids) == positions(trace, 0) == 300


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
        limits = limits_of(bounds, minimum(bound, bounds) + extra, spawn=spawned(bound, 3))
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


def test_an_abort_ends_at_once() -> None:
    bound = byte_bound("npr")
    machine = Machine(bound, prompt=PROMPT)
    machine.start()
    write(machine, 0, "1:a</plan>")
    assert machine.abort() == [EndAction(EndReason.ABORTED)]
    assert machine.live == () and machine.ended is EndReason.ABORTED
    assert machine.abort() == []
    assert machine.drain_events()[-1] == EndEvent(EndReason.ABORTED)
    assert bound.vocabulary.text(w.token for w in machine.written).endswith("1:a</plan>\n")
    with pytest.raises(TraceError):
        machine.trace()


def test_a_failure_ends_all_branches() -> None:
    bound = byte_bound("sums")
    machine = Machine(bound)
    machine.start()
    write(machine, 0, "1a</plan><plan>2b</plan></guideline>")
    assert machine.fail() == [EndAction(EndReason.FAILED)]
    assert machine.live == () and machine.abort() == []


def test_a_token_that_is_not_allowed_is_refused_and_changes_nothing() -> None:
    machine = Machine(byte_bound("sums"))
    machine.start()
    mask = machine.mask(0)
    with pytest.raises(IllegalTokenError):
        machine.advance(0, ord("x"))
    assert machine.live == (0,) and machine.mask(0) is mask


def test_reasons_tell_the_model_from_the_budget() -> None:
    bound = byte_bound("sums")
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
