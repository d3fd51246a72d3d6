"""Gold answers are right, so are their usual re-spellings; other answers are not."""

from __future__ import annotations

import importlib.resources

import pytest

from nprdsl.trainers.data.problems import read_problems
from nprdsl.trainers.grading import Fallback, answer_of, is_right, same

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
]  # fmt: skip
OTHER = [
    ("70", "71"), ("70", "170"), (r"\frac{1}{2}", "0.51"), ("(0,1]", "(0,1)"), ("A", "B"),
    ("x^2", "x^3"), ("(1,2)", "(2,1)"), ("Evelyn", "Angela"), ("70", ""),
]  # fmt: skip


@pytest.mark.parametrize("name", ["aime25", "amc23", "hmmt25", "math500"])
def test_every_gold_answer_is_right(name: str) -> None:
    answers = [p.answer for p in read_problems(str(SUITES / f"{name}.json")).problems]
    assert len(answers) >= 30
    wrong = [a for a in answers if not is_right(f"So the answer is \\boxed{{{a}}}.", a)]
    assert wrong == []


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
