"""Gold answers are right, so are their usual re-spellings; other answers are not."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nprdsl.trainers.data.problems import read_problems
from nprdsl.trainers.grading.answers import Fallback, answer_of
from nprdsl.trainers.grading.grading import is_right, same, same_choice
from nprdsl.trainers.grading.quantities import Tolerance
from tests.trainers.respellings import RULES

NAMES = ("aime25", "amc23", "hmmt25", "math500")
SUITES = importlib.resources.files("nprdsl.trainers") / "suites"

RESPELLED = [
    (r"\frac{1}{2}", "0.5"), (r"\frac{1}{2}", "1/2"), (r"\frac12", r"\dfrac{1}{2}"),
    (r"1 \frac{1}{2}", r"\frac{3}{2}"), ("27.0", "27"), ("27.0", "27.00"), ("70", "70."),
    ("1000", "1,000"), ("5", r"5\text{ cm}"), (r"5 \text{ cm}", "5"), (r"90^\circ", "90"),
    ("90", r"90^{\circ}"), (r"50\%", "50"), ("0.5", r"50\%"), (r"\$18.90", "18.9"),
    ("(0,1]", "(0, 1]"), ("[0,1]", r"\left[0,1\right]"),
    (r"(-\infty,2)\cup(3,\infty)", r"(-\infty, 2) \cup (3, \infty)"),
    (r"\text{(A)}", "A"), (r"\text{A}", "(A)"), ("C", r"\text{C}"), ("B", r"\textbf{(B)}"),
    ("x^2+2x+1", "(x+1)^2"), (r"\sqrt{8}", r"2\sqrt{2}"), (r"11\sqrt2", r"11\sqrt{2}"),
    (r"\text{Evelyn}", "Evelyn"), (r"\{1,2\}", r"\{2,1\}"), ("x=3", "3"), ("3", "x=3"),
    ("6 - 5i", "-5i+6"), ("2516_8", "2516"), ("1:2", r"\frac{1}{2}"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix}1\\2\end{bmatrix}"),
    ("1.6e-19", r"1.60 \times 10^{-19}\text{ C}"),
    (r"2.75 \times 10^{11}", "2.75e11"), ("2.75e11", "275000000000"), ("0.00002", "2E-5"),
    (r"$\frac{1}{2}$", "0.5"), (r"\text{Yes}", "yes"), ("12 dollars", "12"),
]  # fmt: skip
OTHER = [
    ("70", "71"), ("70", "170"), (r"\frac{1}{2}", "0.51"), ("(0,1]", "(0,1)"), ("A", "B"),
    ("x^2", "x^3"), ("(1,2)", "(2,1)"), ("Evelyn", "Angela"), ("70", ""),
    (r"\text{(C)}", "(D) 42"), ("1,-2", "1,2"), ("1,2", "1"), ("1", "1,2"),
    ("1.6e-19", "1.6e-18"), ("10000000", "10000001"), ("1e-9", "0"),
    (r"1 \pm \sqrt{19}", r"1+\sqrt{19}"), (r"90^\circ", r"91^\circ"),
]  # fmt: skip


@cache
def answers(name: str) -> tuple[str, ...]:
    """The different answers of a published file."""
    loaded = read_problems(str(SUITES / f"{name}.json"))
    return tuple(dict.fromkeys(problem.answer for problem in loaded.problems))


def respelled(answer: str) -> Iterator[tuple[str, str]]:
    """All other spellings, each with the name of its rule."""
    for rule, respell in RULES.items():
        yield from ((rule, spelling) for spelling in dict.fromkeys(respell(answer)))


@pytest.mark.parametrize("name", NAMES)
def test_every_gold_answer_is_right(name: str) -> None:
    golds = answers(name)
    assert len(golds) >= 20
    wrong = [a for a in golds if not is_right(f"So the answer is \\boxed{{{a}}}.", a)]
    assert wrong == []


@pytest.mark.parametrize("name", NAMES)
def test_every_gold_answer_is_right_in_its_usual_other_spellings(name: str) -> None:
    pairs = [(a, *other) for a in answers(name) for other in respelled(a)]
    wrong = [(a, rule, b) for a, rule, b in pairs if not is_right(f"so \\boxed{{{b}}}.", a)]
    assert wrong == []


def test_every_rule_of_spelling_is_used() -> None:
    golds = [answer for name in NAMES for answer in answers(name)]
    found = [rule for answer in golds for rule, _ in respelled(answer)]
    assert set(found) == set(RULES) and len(found) > 4000


def test_neighbours_of_gold_answers_are_wrong() -> None:
    """One more, the other sign, a digit less: what a careless grader would let pass."""
    near: list[tuple[str, str]] = []
    for answer in {answer for name in NAMES for answer in answers(name)}:
        if answer.lstrip("-").isdigit():
            value = int(answer)
            near += [(answer, str(value + 1)), (answer, f"{answer}.01"), (answer, f"{answer}1")]
            near += [(answer, str(-value))] * (value != 0)
            near += [(answer, answer[:-1])] * (len(answer.lstrip("-")) > 1)
        elif answer.startswith((r"\frac", "(", r"\left")):
            near.append((answer, f"-{answer}"))
        elif r"\sqrt" in answer:
            near.append((answer, f"{answer}+1"))
    right = [(wanted, given) for wanted, given in near if same(given, wanted)]
    assert len(near) > 500 and right == []


def test_different_gold_answers_differ() -> None:
    golds = [a for a in answers("hmmt25") if not a.isdigit()]
    equal = [(a, b) for a in golds for b in golds if a != b and same(a, b)]
    assert equal == []


CHOICES = ("Eric", "Arnold", "Peter Pan")


@pytest.mark.parametrize(
    "given",
    [
        "B",
        "(B)",
        "b",
        "B.",
        "B. Arnold",
        "(B) Arnold",
        r"\text{B}",
        r"\textbf{(B)}\ Arnold",
        "Arnold",
        "arnold",
        r"\text{Arnold}",
        "B: Arnold",
        r"\textbf{B}",
    ],
)
def test_a_choice_may_be_given_by_letter_or_text(given: str) -> None:
    assert is_right(f"It is \\boxed{{{given}}}", "B", choices=CHOICES)


@pytest.mark.parametrize("given", ["A", "C. Arnold", "Eric", "D", "Arnold or Eric", "Bob", "2", ""])
def test_other_choices_are_wrong(given: str) -> None:
    assert not same_choice(given, "B", CHOICES)


@pytest.mark.parametrize(
    ("given", "right"), [("2", True), ("2.0", True), ("B", True), ("1", False)]
)
def test_choices_that_are_numbers(given: str, right: bool) -> None:
    assert same_choice(given, "B", ("1", "2", "3")) is right


@pytest.mark.parametrize(("wanted", "given"), RESPELLED)
def test_respellings_are_right(wanted: str, given: str) -> None:
    assert same(given, wanted)


@pytest.mark.parametrize(("wanted", "given"), OTHER)
def test_other_answers_are_wrong(wanted: str, given: str) -> None:
    assert not same(given, wanted)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"\boxed{7}", "7"),
        (r"\boxed{1} then \boxed{2}", "2"),
        (r"\boxed{\frac{1}{2}} done", r"\frac{1}{2}"),
        (r"\boxed{\{1\}}", r"\{1\}"),
        (r"\boxed {3}", "3"),
        (r"\boxed{} and no more", None),
        (r"\boxed{7", None),
        ("the answer is 42", None),
        ("", None),
    ],
)
def test_the_answer_is_the_last_box(text: str, answer: str | None) -> None:
    assert answer_of(text) == answer


def test_the_last_number_counts_where_it_may() -> None:
    assert answer_of("first 3, so 1,042.5", Fallback.LAST_NUMBER) == "1,042.5"
    assert is_right("it is 42", "42", Fallback.LAST_NUMBER) and not is_right("it is 42", "42")
    assert answer_of("none at all", Fallback.LAST_NUMBER) is None


WRONG = json.loads((Path(__file__).parent / "wrong_answers.json").read_text(encoding="utf-8"))
RIGHT = json.loads((Path(__file__).parent / "right_answers.json").read_text(encoding="utf-8"))
STATED_OTHERWISE = [
    ("3 m/s", "$3.0$"), ("x<3", r"(-\infty,3)"), (r"x \geq 2", r"[2,\infty)"), ("-1<x<4", "(-1,4)"),
    (r"2\le x\le 5", "[2,5]"), ("3.14", "3.1416"), ("71.499", "71.5"), ("71.5", "71.499"),
    ("1.602e-19", "1.602176634e-19"), ("4210", "4210_{5}"), ("4210_5", "4210_{5}"), ("70", "70 cm"),
    ("70 centimeters", r"70\text{ cm}"), (r"70\,\mathrm{cm}", "70 cm"), ("12 dollars", r"\$12"),
    (r"\frac{3}{4}\text{ mile}", "0.75"), (r"(1,\,2)", "(1,2)"), ("B. 5", "B"), ("(B)", "B"),
    ("A. apples or pears", "A"), (r"\dfrac{7}{6}", r"\frac76"),
]  # fmt: skip


def test_the_tables_are_large_and_hold_each_pair_once() -> None:
    for table, least in ((WRONG, 600), (RIGHT, 300)):
        assert len(table) >= least and len({tuple(pair) for pair in table}) == len(table)
    assert not {tuple(pair) for pair in WRONG} & {tuple(pair) for pair in RIGHT}


@pytest.mark.parametrize("decade", range(0, len(WRONG), 10))
def test_wrong_answers_are_not_accepted(decade: int) -> None:
    pairs = WRONG[decade : decade + 10]
    accepted = [(a, b) for a, b in pairs if is_right(rf"\boxed{{{a}}}", b)]
    assert accepted == []


@pytest.mark.parametrize("decade", range(0, len(RIGHT), 10))
def test_right_answers_are_accepted(decade: int) -> None:
    pairs = RIGHT[decade : decade + 10]
    refused = [(a, b) for a, b in pairs if not is_right(rf"\boxed{{{a}}}", b)]
    assert refused == []


@pytest.mark.parametrize(("given", "wanted"), STATED_OTHERWISE)
def test_what_is_stated_otherwise_is_right(given: str, wanted: str) -> None:
    assert is_right(rf"\boxed{{{given}}}", wanted)


def test_a_right_answer_equals_itself_in_every_form() -> None:
    answers = [wanted for _, wanted in RIGHT]
    assert [a for a in answers if not same(a, a)] == []


# -- tolerances and units that a data set states ---------------------------------------------------


@pytest.mark.parametrize(
    ("given", "wanted", "tolerance", "right"),
    [
        ("3.2", "3.14", Tolerance(absolute=0.1), True),
        ("3.25", "3.14", Tolerance(absolute=0.1), False),
        (r"\pi", "3.14", Tolerance(absolute=0.01), True),
        (r"\sqrt{10}", "3.14", Tolerance(absolute=0.01), False),
        ("10.001", "10", Tolerance(relative=1e-4), True),
        ("10.0011", "10", Tolerance(relative=1e-4), False),
        ("1.6001e-19", "1.6e-19", Tolerance(relative=1e-4), True),
        ("1.61e-19", "1.6e-19", Tolerance(relative=1e-4), False),
        ("-10.0005", "-10", Tolerance(relative=1e-4), True),
        ("10", "-10", Tolerance(relative=1e-4), False),
        ("0.0001", "0", Tolerance(relative=1e-4), False),
        ("x", "10", Tolerance(absolute=100.0), False),
        ("(1.01,2)", "(1,2)", Tolerance(absolute=0.02), True),
        ("(1.03,2)", "(1,2)", Tolerance(absolute=0.02), False),
        ("1.01, 2.01", "2,1", Tolerance(absolute=0.02), True),
        (r"10.01\text{ cm}", r"10\text{ m}", Tolerance(absolute=0.1), False),
    ],
)
def test_tolerances(given: str, wanted: str, tolerance: Tolerance, right: bool) -> None:
    assert same(given, wanted, tolerance) is right


@given(st.integers(1, 10**6), st.integers(-(10**3), 10**3), st.integers(0, 10**3))
def test_an_absolute_tolerance_is_that_of_numbers(wanted: int, off: int, error: int) -> None:
    right = same(str(wanted + off), str(wanted), Tolerance(absolute=float(error)))
    assert right is (abs(off) <= error)


@pytest.mark.parametrize("wrong", [-1.0, float("nan"), float("inf")])
def test_a_tolerance_is_a_number_from_zero(wrong: float) -> None:
    with pytest.raises(ValueError, match="it is a number from 0"):
        Tolerance(absolute=wrong)
    with pytest.raises(ValueError, match="the relative tolerance is"):
        Tolerance(relative=wrong)


@pytest.mark.parametrize(
    ("given", "unit", "right"),
    [
        ("70", "m", True),
        (r"70\text{ m}", "m", True),
        ("70 meters", "m", True),
        ("7000 cm", r"$\mathrm{m}$", True),
        ("70 cm", "m", False),
        ("70 s", r"\text{m}", False),
        (r"70\%", "m", False),
        (r"70^\circ", r"^\circ", True),
        ("70 kJ", r"$\mathrm{~kJ}$", True),
        ("70 J", r"$\mathrm{~kJ}$", False),
    ],
)
def test_units_that_the_data_set_states(given: str, unit: str, right: bool) -> None:
    assert same(given, "70", unit=unit) is right


# -- what is made to take for ever -----------------------------------------------------------------

HOSTILE = [
    "10^{10^{10}}", "9**9**9**9", "(9^9)^{9999}", "((9^{9999})^{9999})^{9999}", "9999999!",
    "(99999!)!", "2^{9999}!", r"\binom{1000000}{500000}", r"\prod_{k=1}^{100000} k", "3000!",
    "(" * 2000 + "1" + ")" * 2000, "{" * 2000 + "1" + "}" * 2000, "1" * 100_000, "1," * 5000,
    r"\frac{1}{" * 300 + "1" + "}" * 300, r"\pm" * 200 + "1", "1e999999999999", "10^{999999}",
    r"\text{" * 500 + "a" + "}" * 500, r"\lfloor e^{1000}\rfloor", "2^{2^{2^{2^{2}}}}", "$" * 999,
    r"0.\overline{" + "1" * 5000 + "}", "5 " + "m " * 900, "5" + "!" * 10, "^" * 500, "\x00",
    r"1 \pmod{0}", "5/0", r"\frac{0}{0}", "10_{99999999999}", "1_2_3_4", r"\end{pmatrix}",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(HOSTILE)))
def test_hostile_answers_are_wrong_and_raise_nothing(number: int) -> None:
    assert not is_right(rf"\boxed{{{HOSTILE[number]}}}", "1")
    assert not is_right(r"\boxed{1}", HOSTILE[number])


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(WRONG + RIGHT), st.data())
def test_no_text_raises(pair: list[str], data: st.DataObject) -> None:
    """A piece of one answer within another."""
    other = data.draw(st.sampled_from(WRONG + RIGHT))[0]
    at = data.draw(st.integers(0, len(pair[0])))
    given = pair[0][:at] + other[data.draw(st.integers(0, len(other))) :]
    assert same(given, pair[1]) in (True, False)
