"""Word problems: every trace legal and as parallel as it says, every line of working true, every
answer right, the splits apart."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

import nprdsl
from nprdsl.trainers.evaluate.suites import named
from nprdsl.trainers.smol.families import Asked, world
from nprdsl.trainers.smol.parts import Calculation, work
from nprdsl.trainers.smol.questions import (
    Split,
    WordProblem,
    problems,
    question,
    questions,
    tale_question,
)
from nprdsl.trainers.smol.registers import Register, drawn_register
from nprdsl.trainers.smol.tales import Tale, _single, tales, tell
from nprdsl.trainers.smol.worked import added, divided, multiplied, percent, reduced, subtracted

SCHEMA = nprdsl.load("npr")
seeds = st.integers(0, 10**6)
numbers = st.integers(0, 999)

CALCULATION = re.compile(r"\d+(?:[-+*/]\d+)+(?:=\d+(?:[-+*/]\d+)*)*")
DIGIT = re.compile(r"(\d+) is (\d+\*\d+(?:\+\d+)?)")  # of a quotient


def drawn(seed: int) -> WordProblem:
    rng = random.Random(seed)
    return tale_question(rng) if seed % 3 == 1 else question(rng, unseen=seed % 3 == 0)


def check_working(text: str) -> None:
    """All sides of each `=` are equal."""
    for calculation in CALCULATION.findall(text):
        sides = [eval(side.replace("/", "//")) for side in calculation.split("=")]
        assert len(set(sides)) == 1, calculation
    for whole, parts in DIGIT.findall(text):
        assert int(whole) == eval(parts), text


def test_numbers_are_put_together_by_places() -> None:
    assert added([64, 99, 40]).text == "64+99=150+13=163, 163+40=100+100+3=200+3=203"
    assert added([100, 45]).text == "100+45=145"  # no two digits meet
    assert subtracted(200, 144).text == "200-144=100-44=60-4=56"
    assert subtracted(126, 37).text == "126-37=96-7=90-1=89"  # by way of the ten below
    assert multiplied(24, 6).text == "24*6=120+24=144"
    assert multiplied(30, 12).text == "30*10=300, 30*2=60, 300+60=360"
    assert multiplied(465, 6).text == "465*6=2400+360+30=2760+30=2790"  # two at a time
    assert divided(84, 6).text == "84/6: 8 is 1*6+2, 24 is 4*6, so 14"
    assert divided(408, 4).text == "408/4: 4 is 1*4, 0 is 0*4, 8 is 2*4, so 102"
    assert divided(800, 4).text == "800/4=200"
    assert percent(80, 25).text == "25% of 80 is 80/4, 80/4=20"
    assert percent(60, 30).text == "10% of 60 is 6, 6*3=18"


@pytest.mark.parametrize("number, rate", [(65, 10), (80, 15), (81, 25), (81, 50)])
def test_shares_that_are_not_whole_are_not_worked(number: int, rate: int) -> None:
    with pytest.raises(ValueError, match="not worked here"):
        percent(number, rate)


@given(st.lists(numbers, min_size=2, max_size=6))
def test_sums_are_worked(values: list[int]) -> None:
    made = added(values)
    check_working(made.text)
    assert made.value == sum(values) == int(re.findall(r"\d+", made.text)[-1])


@given(numbers, numbers)
def test_differences_are_worked(one: int, other: int) -> None:
    most, least = max(one, other), min(one, other)
    made = subtracted(most, least)
    check_working(made.text)
    assert made.value == most - least == int(re.findall(r"\d+", made.text)[-1])


@given(st.integers(2, 999), st.integers(2, 10))
def test_products_and_quotients_are_worked(one: int, factor: int) -> None:
    for made in (multiplied(one, factor), divided(one * factor, factor)):
        check_working(made.text)
        assert int(re.findall(r"\d+", made.text)[-1]) == made.value
    assert multiplied(one, factor).value == one * factor
    assert divided(one * factor, factor).value == one


@given(st.integers(11, 99), st.integers(11, 99))
def test_products_of_two_digits_are_worked(one: int, other: int) -> None:
    made = multiplied(one, other)
    check_working(made.text)
    assert made.value == one * other


@pytest.mark.parametrize("rate", [10, 20, 25, 30, 40, 50])
def test_discounts_are_worked(rate: int) -> None:
    for price in range(20, 300, 20):
        made, share = reduced(price, rate), percent(price, rate)
        for one in (made, share):
            check_working(one.text.replace("% of", " of"))
        assert made.value == price * (100 - rate) // 100
        assert share.value == price * rate // 100


@pytest.mark.parametrize(
    "chain, given_numbers, value",
    [
        (Calculation.TIMES_PLUS, (7, 23, 5), 166),
        (Calculation.TIMES_MINUS, (7, 23, 5), 156),
        (Calculation.TIMES_TIMES, (2, 3, 8), 48),
        (Calculation.SUM, (35, 48), 83),
        (Calculation.SUM_LESS, (35, 48, 9), 74),
        (Calculation.SUM_TIMES, (12, 8, 4), 80),
        (Calculation.LESS, (83, 48), 35),
        (Calculation.LESS_LESS, (83, 48, 6), 29),
        (Calculation.LESS_PLUS, (83, 48, 6), 41),
        (Calculation.LESS_TIMES, (83, 48, 6), 210),
        (Calculation.LESS_PRODUCT, (83, 8, 6), 35),
        (Calculation.SHARE, (84, 7), 12),
        (Calculation.SHARE_TIMES, (84, 7, 3), 36),
        (Calculation.SHARE_PLUS, (84, 7, 3), 15),
        (Calculation.SHARE_LESS, (84, 7, 3), 9),
        (Calculation.SUM_SHARE, (80, 4, 7), 12),
        (Calculation.LESS_SHARE, (88, 4, 7), 12),
        (Calculation.TIMES_SHARE, (12, 6, 8), 9),
        (Calculation.SUM_THREE, (35, 48, 20), 103),
        (Calculation.PERCENT, (80, 25), 20),
        (Calculation.RAISED, (80, 20), 96),
        (Calculation.REDUCED, (80, 20), 64),
        (Calculation.REDUCED_TIMES, (80, 20, 3), 192),
        (Calculation.HOURS, (3, 25), 205),
        (Calculation.HOURS_LESS, (3, 25, 45), 160),
        (Calculation.WEEKS, (3, 2), 23),
        (Calculation.DOZENS, (4, 0), 48),
        (Calculation.DOZENS_LESS, (4, 5), 43),
        (Calculation.FEET, (8, 2), 26),
        (Calculation.GIVEN, (12,), 12),
    ],
)
def test_a_chain_has_its_value(
    chain: Calculation, given_numbers: tuple[int, ...], value: int
) -> None:
    assert work(chain, given_numbers).value == value


@given(seeds)
def test_traces_are_legal_parallel_and_true(seed: int) -> None:
    asked = drawn(seed)
    assert SCHEMA.check(asked.trace) == []
    trace = SCHEMA.parse(asked.trace)
    first = trace.find("guideline")[0]
    side_by_side = asked.parts if asked.parts <= 5 else asked.parts // 2
    assert len(first.find("plan")) == side_by_side
    assert len(trace.find("step")) == len(trace.find("plan")) >= asked.parts
    for text in re.findall(r"(?:step|takeaway)>\n(.*?)\n</", asked.trace):
        check_working(re.sub(r"\d+%", " ", text))
    assert asked.trace.endswith(f"\\boxed{{{asked.answer}}}.")


@given(seeds)
def test_answers_follow_from_the_steps(seed: int) -> None:
    asked = drawn(seed)
    steps = re.findall(r"<step>\n(.*?)\n</step>", asked.trace)[: asked.parts]
    # A part that is given ends with its unit, the others with their value.
    values = [int(re.findall(r"\d+", step)[-1]) for step in steps]
    limits = [int(number) for number in re.findall(r"\d+", asked.prompt)]
    total = sum(values)
    match asked.asked:
        case Asked.TOTAL:
            assert asked.answer == str(total)
        case Asked.MORE:
            differences = {abs(one - other) for one in values for other in values}
            assert int(asked.answer) in differences
        case Asked.LEFT:
            assert total + int(asked.answer) in limits
        case Asked.ENOUGH:
            (said,) = re.findall(r"(\d+) is (more|less) than (\d+)", asked.trace)
            assert int(said[0]) == total and int(said[2]) in limits
            assert (total > int(said[2])) is (said[1] == "more")
            is_goal = re.search(r"at least|or more|enough for \d", asked.prompt, re.I) is not None
            assert (asked.answer == "yes") is (is_goal is (said[1] == "more"))
        case Asked.SHARE:
            assert total / int(asked.answer) in limits
        case Asked.REPEAT:
            assert int(asked.answer) / total in limits
        case Asked.MOST:
            assert asked.answer == str(max(values))


def test_every_tale_is_told_whole() -> None:
    """In all of its wordings, and training has tales, and no other split any."""
    for tale in tales():
        slots = {letter for part in tale.parts for letter in part.numbers if letter.isalpha()}
        for text in tale.told:
            assert slots <= set(re.findall(r"\{(\w)\}", text)), text
    told = {tale.name for tale in tales()}
    for split in Split:
        names = {one.family for one in questions(split, 100)}
        assert bool(names & told) is (split is Split.TRAIN)


@pytest.mark.parametrize("tale", tales(), ids=lambda tale: tale.name.replace(" ", "-"))
def test_a_tale_may_be_asked_about_in_every_way_that_it_names(tale: Tale) -> None:
    """With a person in the question too; its parts have names of their own, and it is short."""
    rng = random.Random(0)
    missing = set(tale.measure)
    for count in range(2_000):
        one = tale_question(rng, tale)
        assert "{" not in one.prompt and len(one.prompt.split()) <= 90
        plans = re.findall(r"<plan>\d: (.*)</plan>", one.trace.partition("</guideline>")[0])
        assert tale.measure.get(Asked.TOTAL) == [""] or len(set(plans)) == one.parts
        missing.discard(one.asked)
        if not missing and count > 20:
            return
    raise AssertionError(missing)


def test_the_numbers_of_a_tale_are_in_its_ranges() -> None:
    (tale,) = (tale for tale in tales() if tale.name == "gift card")
    rng = random.Random(0)
    for _ in range(100):
        (told,) = tell(rng, tale, "Mia").parts
        amount, *spent = [int(number) for number in re.findall(r"\d+", told.step)[:3]]
        assert 50 <= amount <= 300 and amount % 5 == 0
        assert 8 <= spent[0] <= 120 and 5 <= spent[1] <= 90


def test_differences_are_in_about_half_of_the_tales() -> None:
    asked = [tale_question(random.Random(seed)) for seed in range(1500)]
    worked = [one for one in asked if re.search(r"\d-\d", one.trace)]
    assert 0.4 < len(worked) / len(asked) < 0.6


def test_a_question_may_stand_before_a_tale_or_in_it() -> None:
    asked = [tale_question(random.Random(seed)).prompt for seed in range(400)]
    ends = [one for one in asked if one.endswith("?")]
    first = [one for one in asked if not one.endswith("?") and "?" in one]
    assert len(ends) > 200 and len(first) > 40


def test_a_register_is_typed_alike_in_the_whole_problem() -> None:
    text = "Tom pays 5 dollars an hour for 3 hours. Are 20 dollars enough?"
    assert Register().typed(text) == text
    signed = Register(currency="euro", sign=True, short=True)
    assert signed.typed(text) == "Tom pays €5 an hour for 3 hrs. Is €20 enough?"
    assert signed.worked("5 dollars") == "5 euros"
    small = Register(sign=True, small=True, bare=True)
    assert small.typed(text) == "tom pays $5 an hour for 3 hours. is $20 enough"
    assert small.named("Tom") == "tom"
    assert Register(short=True).typed("A car at 60 miles an hour.") == "A car at 60 mph."


def test_pounds_are_either_money_or_weights() -> None:
    rng = random.Random(0)
    drawn_for = {
        text: {drawn_register(rng, text).currency for _ in range(400)}
        for text in ("3 dollars", "3 pounds for 3 dollars")
    }
    assert drawn_for["3 dollars"] == {"dollar", "euro", "pound"}
    assert drawn_for["3 pounds for 3 dollars"] == {"dollar"}


def test_plain_sums_are_among_the_tales() -> None:
    asked = [tale_question(random.Random(seed)) for seed in range(3000)]
    plain = [one for one in asked if one.family == "plain sum"]
    assert plain and all(len(re.findall(r"\d+", one.prompt)) == 2 for one in plain)


def test_splits_are_apart() -> None:
    prompts = {split: {one.prompt for one in questions(split, 150)} for split in Split}
    for one in Split:
        for other in Split:
            assert one is other or not prompts[one] & prompts[other]
    unseen = {family.name for family in world().families if family.unseen}
    for split in Split:
        names = {one.family for one in questions(split, 60)}
        assert names <= unseen if split is Split.UNSEEN else not names & unseen


def test_unseen_people_and_wordings_are_not_trained_on() -> None:
    told = " ".join(one.prompt for one in questions(Split.TRAIN, 300))
    assert not any(re.search(rf"\b{name}\b", told) for name in world().unseen_people)
    wordings: dict[bool, set[str]] = {True: set(), False: set()}
    for family in world().families:
        asked = {phrase for phrases in family.measure.values() for phrase in phrases}
        wordings[family.unseen] |= asked | {*family.lists, *family.settings, *family.idle}
    assert wordings[True] and not wordings[True] & wordings[False]


def test_fewer_problems_are_the_first_of_more() -> None:
    assert [*problems(Split.TEST, 20)] == [*problems(Split.TEST, 40)][:20]


@pytest.mark.parametrize("name", ["everyday", "everyday-develop"])
def test_the_written_suites_have_a_hundred_problems_each(name: str) -> None:
    suite = named(name)
    assert len({problem.prompt for problem in suite.problems}) == 100
    assert all(re.fullmatch(r"\d+|yes|no", problem.answer) for problem in suite.problems)


@pytest.mark.parametrize(
    "things, one",
    [
        ("boxes", "box"),
        ("wrenches", "wrench"),
        ("dishes", "dish"),
        ("pens", "pen"),
        ("horses", "horse"),
    ],
)
def test_one_of_many_things(things: str, one: str) -> None:
    assert _single(things) == one
