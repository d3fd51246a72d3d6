"""Without masks, forks and joins follow the tags that a model writes by itself."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from nprdsl.machine.actions import FIRST, ROOT
from nprdsl.machine.budget import LimitError, Limits, TextTokens
from nprdsl.machine.machine import Machine
from nprdsl.machine.native import NativeMachine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.schema import load
from nprdsl.structure.events import EndEvent, EndReason, TokenEvent
from nprdsl.testing import byte_vocabulary
from nprdsl.tokens.bitmask import unpack

SCHEMAS = pytest.mark.parametrize(
    "name", ["npr", "multiverse", "threadweaver", "parallel_r1", "arith"]
)
SHAPE = {"branches": 3, "blocks": 2, "depth": 2}
LIST = "<guideline><plan>1:a</plan><plan>2:b</plan></guideline>"


def bound(name: str, *, special: bool = True) -> BoundSchema:
    schema = load(name)
    return schema.bind(byte_vocabulary(schema.tags if special else ()))


def masked(name: str, seed: int, *, special: bool = True) -> tuple[BoundSchema, Machine]:
    """A trace that a random model wrote under masks."""
    one, random = bound(name, special=special), Random(seed)
    machine = Machine(one, limits=Limits(max_tokens=400, **SHAPE))
    machine.start()
    while machine.ended is None:
        branch = random.choice(machine.live)
        allowed = np.flatnonzero(unpack(machine.mask(branch), one.vocabulary.size))
        machine.advance(branch, int(random.choice(list(allowed))))
    return one, machine


def lines(machine: Machine) -> dict[int, list[int]]:
    """The tokens of each branch."""
    written: dict[int, list[int]] = {}
    for token, (branch, _) in zip(machine.written, machine.transcript.order(), strict=True):
        written.setdefault(branch, []).append(token.token)
    return written


def spelled(one: BoundSchema, text: str) -> list[int]:
    """Ids of a text that need not be a trace."""
    ids: list[int] = []
    while text:
        tag = next((t for t in one.vocabulary.special if text.startswith(t)), None)
        ids += [one.vocabulary.special[tag]] if tag else list(text[0].encode())
        text = text[len(tag or text[0]) :]
    return ids


def follow(machine: NativeMachine, text: str) -> list[int]:
    """Write a text on the trunk until the machine waits there no more; what was left over."""
    left = spelled(machine.bound, text)
    while left and machine.live == (ROOT,):
        machine.advance(ROOT, left.pop(0))
    return left


@SCHEMAS
@pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
@pytest.mark.parametrize("seed", range(12))
def test_what_masks_let_a_model_write_it_may_write_natively(
    name: str, special: bool, seed: int
) -> None:
    one, before = masked(name, seed, special=special)
    told, random, end = lines(before), Random(seed), one.vocabulary.eos_id
    machine = NativeMachine(one, limits=Limits(max_tokens=4000, **SHAPE))
    machine.start()
    while machine.ended is None:
        branch = random.choice(machine.live)
        assert unpack(machine.mask(branch), one.vocabulary.size).all()
        at = machine.transcript.count(branch)
        machine.advance(branch, [*told.get(branch, []), end][at])
    assert machine.ended is EndReason.COMPLETED
    ids = [token.token for token in before.written]
    found = [token.token for token in machine.written]
    assert found in (ids, [*ids, end])
    assert machine.trace().graph.forks == before.trace().graph.forks


def test_only_headers_are_supplied() -> None:
    machine = NativeMachine(bound("npr"))
    machine.start()
    assert machine.live == (ROOT,)  # nothing was written yet
    assert follow(machine, LIST.replace("><", ">\n<")) == []
    supplied = [machine.bound.vocabulary.text([t.token]) for t in machine.written if not t.sampled]
    assert "".join(supplied) == "\n<step>\n1:\n<step>\n2:"
    assert len(machine.live) == 2


@pytest.mark.parametrize(
    "listed",
    [
        "<guideline><plan>1:a</plan><plan>2:b</plan></guideline>",
        "<guideline> <plan>1:a</plan>\n\n\t<plan>2:b</plan>\r\n</guideline>",
    ],
    ids=["none", "other"],
)
@pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
def test_white_space_between_elements_is_free_as_where_traces_are_checked(
    listed: str, special: bool
) -> None:
    machine = NativeMachine(bound("npr", special=special))
    machine.start()
    assert follow(machine, listed) == []
    for branch in machine.live:
        for token in spelled(machine.bound, "x</step>"):
            machine.advance(branch, token)
    follow(machine, "so</takeaway> \n\n the answer")
    machine.advance(ROOT, machine.bound.vocabulary.eos_id or 0)
    assert machine.ended is EndReason.COMPLETED
    assert machine.trace().text.startswith(f"{listed}\n<step>\n1:x</step>\n<step>\n2:x")


def test_what_is_illegal_ends_the_trace() -> None:
    machine = NativeMachine(bound("arith"))
    machine.start()
    follow(machine, "<guideline><plan>1:a</plan></step>")
    assert machine.ended is EndReason.ILLEGAL
    ids = [token.token for token in machine.written]
    assert machine.bound.vocabulary.text(ids).endswith("</plan></step>")
    assert machine.bound.check(ids)[0].code == "unclosed"  # `guideline`
    *_, told, end = machine.drain_events()
    assert isinstance(told, TokenEvent) and (told.text, told.rule) == ("</step>", "guideline")
    assert end == EndEvent(EndReason.ILLEGAL)


def test_a_branch_that_is_illegal_ends_the_others() -> None:
    machine = NativeMachine(bound("arith"))
    machine.start()
    follow(machine, LIST)
    first, second = machine.live
    machine.advance(second, ord("7"))
    machine.advance(first, machine.bound.vocabulary.special["<plan>"])
    assert machine.ended is EndReason.ILLEGAL and machine.live == ()
    machine.abort()
    assert machine.ended is EndReason.ILLEGAL


def test_an_end_that_comes_too_early_is_illegal() -> None:
    machine = NativeMachine(bound("arith"))
    machine.start()
    follow(machine, "<guideline>")
    end = machine.bound.vocabulary.eos_id
    assert end is not None
    machine.advance(ROOT, end)
    assert machine.ended is EndReason.ILLEGAL


@SCHEMAS
@pytest.mark.parametrize("seed", range(6))
def test_no_budget_is_exceeded(name: str, seed: int) -> None:
    one, before = masked(name, seed)
    told, end = lines(before), one.vocabulary.eos_id
    whole = len(before.written)
    for most in range(machine_minimum(one), whole + 2, 7):
        machine = NativeMachine(one, limits=Limits(max_tokens=most, **SHAPE))
        machine.start()
        while machine.ended is None:
            branch = machine.live[-1]
            at = machine.transcript.count(branch)
            machine.advance(branch, [*told.get(branch, []), end][at])
        assert machine.ended in (EndReason.BUDGET, EndReason.COMPLETED)
        assert len(machine.written) <= most


def machine_minimum(one: BoundSchema) -> int:
    return one.under(Limits(**SHAPE).bounds).minimum


@pytest.mark.parametrize(
    "given",
    [
        {"limits": Limits(rule_tokens={"step": 90})},
        {"limits": Limits(text_tokens=TextTokens(9, 9, 9))},
        {"join": FIRST},
    ],
)
def test_what_takes_masks_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(LimitError, match="nothing is masked"):
        NativeMachine(bound("npr"), **given)  # type: ignore[arg-type]
