"""The tree of prompts against a plain list of them; what is kept, claimed and forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from nprdsl.runtime.prefix_tree import PrefixTree


@dataclass(frozen=True)
class Spelled:
    """A piece that is the tokens themselves, with those before them."""

    whole: tuple[int, ...]
    begin: int

    def cut(self, at: int) -> tuple[Spelled, Spelled]:
        assert 0 < at < len(self.whole) - self.begin
        return Spelled(self.whole[: self.begin + at], self.begin), Spelled(
            self.whole, self.begin + at
        )


def keep(tree: PrefixTree[Spelled], ids: tuple[int, ...]) -> int:
    """Keeps a prompt; gives the number of tokens that had to be computed."""
    computed = []

    def compute(begin: int, end: int) -> Spelled:
        computed.append(end - begin)
        return Spelled(ids[:end], begin)

    tree.keep(ids, compute)
    return sum(computed)


def known(tree: PrefixTree[Spelled], ids: tuple[int, ...]) -> int:
    match = tree.match(ids, len(ids))
    spelled: tuple[int, ...] = ()
    for piece in match.pieces:
        assert piece.begin == len(spelled) and piece.whole[: piece.begin] == spelled
        spelled = piece.whole
    assert spelled == ids[: match.length]
    return match.length


def test_what_begins_alike_is_kept_once() -> None:
    tree = PrefixTree[Spelled](100)
    assert keep(tree, (1, 2, 3, 4)) == 4
    assert keep(tree, (1, 2, 5)) == 1
    assert keep(tree, (1, 2)) == 0
    assert tree.kept == 5
    assert known(tree, (1, 2, 5, 9)) == 3
    assert known(tree, (1, 2, 3)) == 3
    assert known(tree, (2, 2)) == 0


def test_the_least_recently_used_goes_first_from_its_end() -> None:
    tree = PrefixTree[Spelled](6)
    keep(tree, (1, 2, 3, 4))
    keep(tree, (5, 6))
    known(tree, (1, 2, 3, 4))
    keep(tree, (7,))
    assert known(tree, (5, 6)) == 1
    assert known(tree, (1, 2, 3, 4)) == 4
    keep(tree, (8, 9, 10, 11, 12, 13, 14, 15))
    assert known(tree, (8, 9, 10, 11, 12, 13, 14)) == 6 == tree.kept
    tree.check([])


def test_what_another_computes_is_told_until_it_lets_go() -> None:
    tree = PrefixTree[Spelled](100)
    tree.claim((1, 2, 3, 4), 7)
    match = tree.match((1, 2, 9), 3)
    assert (match.length, match.coming, match.claim) == (0, 2, 7)
    keep(tree, (1,))
    match = tree.match((1, 2, 9), 3)
    assert (match.length, match.coming, match.claim) == (1, 1, 7)
    tree.let_go((1, 2, 3, 4), 7)
    match = tree.match((1, 2, 9), 3)
    assert (match.length, match.coming) == (1, 0)
    tree.check([])


PROMPTS = st.lists(st.integers(0, 2), min_size=1, max_size=9).map(tuple)


class TreeMachine(RuleBasedStateMachine):
    """Any order of claims, pieces and matches; the bound holds and pieces spell their prompts."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = PrefixTree[Spelled](25)
        self.open: dict[int, tuple[tuple[int, ...], int]] = {}
        self.number = 0

    @rule(ids=PROMPTS)
    def come(self, ids: tuple[int, ...]) -> None:
        self.number += 1
        length = known(self.tree, ids)
        self.tree.claim(ids, self.number)
        self.open[self.number] = (ids, length)

    @rule(choice=st.integers(0, 99), more=st.integers(1, 9))
    def compute(self, choice: int, more: int) -> None:
        if self.open:
            number = sorted(self.open)[choice % len(self.open)]
            ids, done = self.open[number]
            done = min(len(ids), done + more)
            keep(self.tree, ids[:done])
            assert known(self.tree, ids[:done]) == done
            self.open[number] = ids, done

    @rule(choice=st.integers(0, 99))
    def go(self, choice: int) -> None:
        if self.open:
            number = sorted(self.open)[choice % len(self.open)]
            self.tree.let_go(self.open.pop(number)[0], number)

    @rule()
    def forget(self) -> None:
        self.tree.clear()

    @rule(ids=PROMPTS, most=st.integers(0, 9))
    def match(self, ids: tuple[int, ...], most: int) -> None:
        match = self.tree.match(ids, most)
        assert match.length + match.coming <= min(most, len(ids))
        assert not match.coming or match.claim in self.open

    @invariant()
    def holds(self) -> None:
        self.tree.check(self.open)


TestTree = TreeMachine.TestCase
TestTree.settings = settings(max_examples=80, stateful_step_count=30, deadline=None)
