"""The task of the curriculum: right, legal, as parallel as it is meant to be."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nprdsl
from nprdsl import TokenTrace, Vocabulary
from nprdsl.trainers.curriculum.arithmetic import (
    LARGEST,
    TRAINED,
    Flaw,
    Question,
    dependent,
    flat,
    held_out,
    longer,
    multiple,
    nested,
    problems,
    product,
    question,
    totals,
)
from nprdsl.trainers.curriculum.small_model import character_tokenizer

SCHEMA = nprdsl.load("arith")
VOCABULARY = Vocabulary.from_tokenizer(character_tokenizer(SCHEMA.tags))
BOUND = SCHEMA.bind(VOCABULARY)
seeds = st.integers(0, 10**6)


def value(prompt: str) -> int:
    """What Python finds."""
    first, _, second = prompt.removesuffix("?").rpartition(";")
    x = eval(first.removeprefix("x=")) if first else 0
    found = eval(second, {"x": x})
    assert isinstance(found, int)
    return found


def trace(asked: Question) -> TokenTrace:
    """As the model of the curriculum writes it, with its end token."""
    return BOUND.parse((*BOUND.encode(asked.trace()), VOCABULARY.eos_id))


def degree(parts: int) -> float:
    """Tokens over critical path of many questions."""
    rng = random.Random(parts)
    traces = [trace(flat(rng, parts)) for _ in range(30)]
    return sum(len(t.ids) for t in traces) / sum(t.graph.critical_path for t in traces)


@given(seeds)
def test_answers_are_right_and_traces_legal(seed: int) -> None:
    asked = question(random.Random(seed))
    assert int(asked.answer) == value(asked.prompt) <= LARGEST
    assert len(trace(asked).graph.forks[0].after) == asked.parts


@given(seeds, st.sampled_from(list(Flaw)))
def test_a_flaw_makes_a_trace_illegal(seed: int, flaw: Flaw) -> None:
    assert SCHEMA.check(question(random.Random(seed)).trace(flaw))


@given(st.integers(10, 99), st.integers(10, 99))
def test_a_product_is_worked_right(a: int, b: int) -> None:
    work = product(a, b)
    assert work.value == a * b
    assert work.step(2) == f"{work.text}=2:{a * b:05}"
    for left, right in re.findall(r"([\d*+]+)=(\d+)", work.text):
        assert eval(re.sub(r"\b0+(?=\d)", "", left)) == int(right), work.text


@given(st.integers(0, 11_111), st.integers(2, 9))
def test_a_multiple_is_worked_right(number: int, factor: int) -> None:
    work = multiple(number, factor)
    assert work.step(3) == f"{work.text}=3;{number * factor:05}"
    digits = [int(found) % 10 for found in re.findall(r"=(\d\d)(?!\d)", work.text)]
    assert int("".join(map(str, reversed(digits)))) == number * factor


@given(st.lists(st.integers(0, 9_999), min_size=2, max_size=10))
def test_running_totals_are_right(numbers: list[int]) -> None:
    first, *rest = totals(numbers).split("+")
    assert int(first[::-1]) == numbers[0]
    for place, (part, number) in enumerate(zip(rest, numbers[1:], strict=True), 2):
        label, added, letters = re.fullmatch(r"(\d+):(\d+)=(\w+)", part).groups()  # type: ignore[union-attr]
        assert (int(label), int(added[::-1])) == (place, number)
        digits = [int(letter, 36) % 10 for letter in letters]
        assert int("".join(map(str, reversed(digits)))) == sum(numbers[:place])


def test_a_takeaway_names_results_as_they_stand() -> None:
    asked = nested(random.Random(1))
    for number, work in enumerate(asked.blocks[0].branches, 1):
        assert f"={number};{work.value:05}</step>" in asked.trace()
        if number > 1:
            assert f"+{number};{work.value:05}"[::-1][:5] in asked.blocks[0].takeaway
    assert "+2;" in asked.blocks[0].takeaway and "+2:" in asked.trace()


@pytest.mark.parametrize(("parts", "least"), [(4, 2.3), (8, 3.0)])
def test_it_is_worth_reasoning_in_parallel(parts: int, least: float) -> None:
    assert degree(parts) >= least


@given(seeds)
def test_blocks_depend_and_nest(seed: int) -> None:
    rng = random.Random(seed)
    two, within = dependent(rng), nested(rng)
    assert len(trace(two).graph.forks) == 2
    assert len(trace(within).graph.forks) == 1 + within.parts


def test_held_out_problems_are_not_trained() -> None:
    kept, learned = held_out(), problems(3000, 7, held_out())
    assert len({p.prompt for p in kept}) == 500
    assert not {p.prompt for p in kept} & {p.prompt for p in learned}
    assert held_out(20) == kept[:20]
    long = [p.id.startswith(("flat-7", "flat-8")) for p in problems(3000, 7, mixture=TRAINED)]
    assert 0.1 < sum(long) / 3000 < 0.2 < 1.0
    first = {p.prompt for p in problems(50, 7)}  # an equal seed begins with them again
    assert not first & {p.prompt for p in problems(50, 7, problems(50, 7))}
    parts = {p.prompt.count("*") for p in longer()}
    assert parts == {9, 10, 11, 12}
