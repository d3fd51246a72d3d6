"""Gold answers are right, so are their usual re-spellings; other answers are not."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from nprdsl.trainers.data.problems import read_problems
from nprdsl.trainers.grading.answers import Fallback, answer_of
from nprdsl.trainers.grading.grading import is_right, same, same_choice
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


def test_hostile_expressions_end() -> None:
    assert not same("(" * 500 + "1" + ")" * 499, "3")


WRONG = json.loads((Path(__file__).parent / "wrong_answers.json").read_text(encoding="utf-8"))
STATED_OTHERWISE = [
    ("3 m/s", "$3.0$"), ("x<3", r"(-\infty,3)"), (r"x \geq 2", r"[2,\infty)"), ("-1<x<4", "(-1,4)"),
    (r"2\le x\le 5", "[2,5]"), ("3.14", "3.1416"), ("71.499", "71.5"), ("71.5", "71.499"),
    ("1.602e-19", "1.602176634e-19"), ("4210", "4210_{5}"), ("4210_5", "4210_{5}"), ("70", "70 cm"),
    ("70 centimeters", r"70\text{ cm}"), (r"70\,\mathrm{cm}", "70 cm"), ("12 dollars", r"\$12"),
    (r"\frac{3}{4}\text{ mile}", "0.75"), (r"(1,\,2)", "(1,2)"), ("B. 5", "B"), ("(B)", "B"),
    ("A. apples or pears", "A"), (r"\dfrac{7}{6}", r"\frac76"),
]  # fmt: skip


def test_there_are_a_hundred_wrong_answers() -> None:
    assert len(WRONG) >= 100 and len({tuple(pair) for pair in WRONG}) == len(WRONG)


@pytest.mark.parametrize(("given", "wanted"), WRONG)
def test_wrong_answers_are_not_accepted(given: str, wanted: str) -> None:
    assert not is_right(rf"\boxed{{{given}}}", wanted)


@pytest.mark.parametrize(("given", "wanted"), STATED_OTHERWISE)
def test_what_is_stated_otherwise_is_right(given: str, wanted: str) -> None:
    assert is_right(rf"\boxed{{{given}}}", wanted)
