"""Budgets: limits that make no sense are refused, slack is shared out, accounts add up."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nprdsl.machine.actions import FIRST, ForkAction, JoinPolicy
from nprdsl.machine.budget import LimitError, Limits, TextTokens, TokenAccount, share_out
from nprdsl.machine.machine import Machine
from nprdsl.schema import load
from nprdsl.structure.events import TokenEvent
from nprdsl.structure.tag_machine import Bounds
from nprdsl.testing import byte_vocabulary
from tests.machines import byte_bound, spawned
from tests.runs import run, seeded, shuffled
from tests.walks import schema_of

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=tuple(HealthCheck))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"max_tokens": 0}, "max_tokens must be at least 1, not 0"),
        ({"branch_tokens": 0}, "branch_tokens must be at least 1, not 0"),
        ({"branches": 0}, "branches must be at least 1, not 0"),
        ({"spawn": 0}, "spawn must be at least 1, not 0"),
        ({"rule_tokens": {"step": 0}}, r"rule_tokens\['step'\] must be at least 1, not 0"),
        ({"max_tokens": 60.5}, "max_tokens is 60.5, it must be an integer of at least 1"),
        ({"max_tokens": "60"}, "max_tokens is '60', it must be an integer"),
        ({"max_tokens": True}, "max_tokens is True, it must be an integer"),
        ({"max_tokens": None}, "max_tokens is None, it must be an integer"),
        ({"branches": 2.5}, "branches is 2.5, it must be an integer"),
        ({"depth": [1]}, r"depth is \[1\], it must be an integer of at least 0"),
        ({"blocks": float("nan")}, "blocks is nan, it must be an integer"),
        ({"rule_tokens": {"step": "9"}}, r"rule_tokens\['step'\] is '9', it must be an integer"),
        ({"rule_tokens": {"step": None}}, r"rule_tokens\['step'\] is None, it must be an integer"),
        ({"rule_tokens": {3: 9}}, "rule_tokens names 3, it must name a rule"),
        ({"rule_tokens": 9}, "rule_tokens is 9, it must map rules to numbers"),
        ({"depth": -1}, "depth must be at least 0, not -1"),
        ({"blocks": -1}, "blocks must be at least 0, not -1"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any], message: str) -> None:
    with pytest.raises(LimitError, match=message):
        Limits(**limits)


@pytest.mark.parametrize("quorum", [0, 1.5, True, "1"])
def test_a_quorum_that_makes_no_sense_is_refused(quorum: Any) -> None:
    with pytest.raises(LimitError, match="quorum"):
        JoinPolicy(quorum)


def test_limits_keep_what_they_were_made_with() -> None:
    rules = {"step": 9}
    limits = Limits(rule_tokens=rules)
    rules["step"] = 0
    assert limits.rule_tokens == {"step": 9}


def test_limits_come_back_from_json() -> None:
    limits = Limits(max_tokens=400, rule_tokens={"plan": 9}, text_tokens=TextTokens(3, 4, 5))
    assert Limits.from_dict(json.loads(json.dumps(asdict(limits)))) == limits
    assert Limits.from_dict({}) == Limits()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_token": 60}, "limits have no `max_token`; did you mean `max_tokens`"),
        ({"max_tokens": 60.0}, "max_tokens is 60.0, it must be an integer"),
        ({"text_tokens": {"item": 3}}, "text_tokens.branch is None, it must be an integer"),
        ({"text_tokens": {"items": 3}}, "text_tokens have no `items`; did you mean `item`"),
        ([60], r"limits are \[60\], they must be an object"),
    ],
)
def test_limits_from_json_say_what_is_wrong(values: Any, message: str) -> None:
    with pytest.raises(LimitError, match=message):
        Limits.from_dict(values)


def test_branches_by_count_are_refused_where_a_schema_has_none() -> None:
    bound = byte_bound("npr")
    with pytest.raises(LimitError, match=r"^spawn is 3, but `npr` has no fork by count"):
        Machine(bound, limits=Limits(spawn=3))


def test_limits_give_bounds_on_structure() -> None:
    assert Limits(depth=1, branches=2, blocks=3).bounds == Bounds(1, 2, 3)
    assert Limits().bounds == Bounds()


def test_an_account_never_goes_below_zero() -> None:
    account = TokenAccount(3)
    account.spend(2)
    assert (account.left, account.spent) == (1, 2)
    with pytest.raises(AssertionError, match="2 tokens spent of 1"):
        account.spend(2)


@QUICK
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=8),
    st.integers(0, 30),
    st.integers(0, 200),
    st.none() | st.integers(1, 60),
)
def test_shares_are_even_enough_and_leave_the_rest(
    costs: list[int], rest: int, slack: int, cap: int | None
) -> None:
    left = sum(costs) + rest + slack
    shares = share_out(left, costs, rest, cap)
    assert all(share >= cost for share, cost in zip(shares, costs, strict=True))
    extras = [share - cost for share, cost in zip(shares, costs, strict=True)]
    if cap is None:
        assert len(set(extras)) == 1
        kept = left - sum(shares) - rest
        assert extras[0] <= kept <= extras[0] + len(costs), "what follows the join has its share"
    else:
        assert all(share <= max(cap, cost) for share, cost in zip(shares, costs, strict=True))


def test_a_fork_that_is_not_reserved_is_a_fault_of_the_program() -> None:
    with pytest.raises(AssertionError, match="reserved before it begins"):
        share_out(9, [4, 4], 2, None)


@QUICK
@given(
    st.sampled_from(["npr", "multiverse", "parallel_r1"]), st.integers(0, 99), st.integers(0, 200)
)
def test_the_ledger_equals_the_tokens_counted(name: str, seed: int, extra: int) -> None:
    """At every moment: what the branches spent is what they wrote, and nothing is lost."""
    made = load(name)
    bound = made.bind(byte_vocabulary(special=made.tags))
    limits = Limits(max_tokens=bound.minimum + extra, depth=2, spawn=spawned(bound, 3))
    machine = Machine(bound, limits=limits)
    model, schedule = seeded(seed), shuffled(seed)
    machine.start()
    waiting: set[int] = set()
    while machine.live:
        events = machine.drain_events()
        waiting |= {e.branch for e in events if isinstance(e, TokenEvent)}
        written = len(machine.written)
        assert sum(machine.position_in_branch(b) for b in waiting | {0}) == written
        assert all(machine.left(b) >= 0 for b in waiting)
        assert sum(machine.left(b) for b in {0, *machine.live}) <= limits.max_tokens - written
        branch = schedule(machine.live)
        before = machine.left(branch), machine.position_in_branch(branch)
        actions = machine.advance(branch, model(machine, branch))
        if not any(isinstance(action, ForkAction) for action in actions) and branch in machine.live:
            spent = machine.position_in_branch(branch) - before[1]
            assert spent >= 1 and machine.left(branch) == before[0] - spent
    assert machine.left(0) == limits.max_tokens - len(machine.written)


def test_what_a_branch_leaves_returns_at_the_join() -> None:
    made = load("arith")
    bound = made.bind(byte_vocabulary(special=made.tags))
    limits = Limits(max_tokens=200)
    done = run(bound, limits, seeded(1), join=FIRST)
    assert done.machine.left(0) == 200 - len(done.ids)


def test_a_branch_does_not_depend_on_how_fast_its_siblings_are() -> None:
    made = schema_of(
        "%import .parallel (map, process, reduce)\n"
        "start: map{list} process{item, branch} reduce{join}\n"
        'list: "<l>" item~3 "</l>"\nitem: "<i>" TEXT "</i>"\nbranch: "<b>" TEXT "</b>"\n'
        'join: "<j>" TEXT "</j>"\n%declare TEXT\n'
    )
    bound = made.bind(byte_vocabulary(special=made.tags))
    limits = Limits(max_tokens=120)
    special = bound.vocabulary.special
    lengths = []
    for quick in (0, 1, 2):
        machine = Machine(bound, limits=limits)
        machine.start()
        for token in [ord("a"), special["</i>"]] * 3:
            machine.advance(0, token)
        first, *others = machine.live[quick:] + machine.live[:quick]
        machine.advance(first, ord("x"))
        machine.advance(first, special["</b>"])
        lengths.append({machine.left(branch) for branch in others})
    assert len(lengths[0]) == 1 and lengths[0] == lengths[1] == lengths[2]
