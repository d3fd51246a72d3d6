"""Budgets of single rules and branches."""

from __future__ import annotations

import pytest

from nprdsl.machine.budget import LimitError, Limits
from nprdsl.machine.machine import Machine
from nprdsl.trace.trace import TokenTrace
from tests.machines import (
    byte_bound,
    schema,
    verify,
    write,
)
from tests.runs import run, seeded, talkative
from tests.walks import allowed


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
    bound = byte_bound("sums")
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
        Machine(byte_bound("sums"), limits=Limits(rule_tokens=rules))


def test_the_cap_of_a_rule_without_a_place_has_no_effect() -> None:
    """A rule that other limits leave no room for is still one."""
    bound = byte_bound("multiverse")
    limits = Limits(max_tokens=60, depth=0)
    capped = Limits(max_tokens=60, depth=0, rule_tokens={"outline": 9})
    assert run(bound, capped, seeded(1, 0.1)).ids == run(bound, limits, seeded(1, 0.1)).ids


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
