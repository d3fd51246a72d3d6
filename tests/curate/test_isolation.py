"""What leans on a sibling is found, and what does not is left alone."""

from __future__ import annotations

import pytest

from nprdsl.trainers.curate.isolation import BranchSentences, leaks


def branches(
    first: str, second: str, before: str = "Find $a$ and $b$ for 120 cars."
) -> list[BranchSentences]:
    return [
        BranchSentences("branch 1 of block 1", before, ((1, first),)),
        BranchSentences("branch 2 of block 1", before, ((2, second), (3, "So it is."))),
    ]


@pytest.mark.parametrize(
    "opening",
    [
        "Similarly, $b = 3$.",
        "Next, we find $b$.",
        "Alternatively $b$ is odd.",
        "First, we find $b$.",
        "Then $b = 3$.",
        "On the other hand, $b = 3$.",
        "  *Also*, it is odd.",
        "The same logic gives $b$.",
        "But $b = 3$.",
        "By symmetry, $b = 3$.",
        "Analogously $b = 3$.",
        "For the same reason it is odd.",
        "As we saw, $b = 3$.",
        "Combining both gives $b$.",
    ],
)
def test_a_connective_at_the_beginning(opening: str) -> None:
    (found,) = leaks(branches("Let us see.", opening))
    assert found.startswith("sentence 2 opens branch 2 of block 1 with `")


@pytest.mark.parametrize(
    "opening",
    [
        "First-order terms vanish.",
        "Thus $b = 3$.",
        "The first term is 3.",
        "Theory helps.",
        "Second derivatives are positive.",
        "Butterflies fly.",
        "Next year $b = 3$.",
        "Next Tuesday is the day.",
        "Case 2: $b = 3$.",
    ],
)
def test_other_beginnings_are_fine(opening: str) -> None:
    assert leaks(branches("Let us see.", opening)) == []


def test_a_connective_inside_a_branch_is_fine() -> None:
    first, second = branches("Let us see.", "We find $b$.")
    second = BranchSentences(
        second.name, second.before, (*second.sentences, (4, "Similarly, it is so."))
    )
    assert leaks([first, second]) == []


@pytest.mark.parametrize(
    "pointing",
    [
        "As in the previous case, $b = 3$.",
        "This differs from the other approach.",
        "Unlike path 1, it is odd.",
        "We use the former method.",
    ],
)
def test_a_phrase_that_points_at_a_sibling(pointing: str) -> None:
    found = leaks(branches("Let us see.", f"Let us look. {pointing}"))
    assert any("points at a sibling" in fault for fault in found)


def test_a_name_that_only_a_sibling_introduces() -> None:
    first = "Let $k = 2a$ be the count."
    (found,) = leaks(branches(first, "We have $b = k + 1$."))
    assert found == "sentence 2 of branch 2 of block 1 uses `k`, which only a sibling introduces"
    assert leaks(branches(first, "Let $k = b$ be it, so $k > 1$.")) == []
    assert leaks(branches(first, "We have $b = k$.", "With $k$ cars.")) == []
    assert leaks(branches(first, r"We have $b = \ker f$, take a walk.")) == []
    (found,) = leaks(branches("Let $M$ be the middle of $AB$.", "We have $CM = 5$."))
    assert "uses `M`, which only a sibling introduces" in found
    assert leaks(branches("Let $M$ be the middle.", "We have $Mod = 5$.")) == []


def test_a_result_that_only_a_sibling_computed() -> None:
    first = "It is $12 \\cdot 12 = 144$."
    (found,) = leaks(branches(first, "Take 144 and add 1."))
    assert found == "sentence 2 of branch 2 of block 1 uses 144, which only a sibling computed"
    assert leaks(branches(first, "It is $72 \\cdot 2 = 144$, and 144 is even.")) == []
    assert leaks(branches(first, "Take 144 and add 1.", "There are 144 cars.")) == []
    assert leaks(branches("It is $3 + 4 = 7$.", "Take 7 and add 1.")) == []
    assert len(leaks(branches("It is $2400/2 = 1{,}200 = 1,200$.", "Add 1200 to it."))) == 1


@pytest.mark.parametrize(
    ("computed", "used"),
    [
        ("The sum is 4,235.", "Dividing 4235 by 5 we go on."),
        ("The sum is $= 4235$.", "Dividing 4.235 thousand by 5 we go on."),
        ("The sum is $= 4235$.", r"Dividing $4.235 \times 10^3$ by 5 we go on."),
        (r"So $s = 4{,}235$.", "Take the four thousand two hundred thirty-five from it."),
        (r"So $r = \frac{17}{23}$.", "Multiplying 17/23 by 46 we go on."),
        (r"So $r = \frac{17}{23}$.", r"Multiplying $\dfrac{34}{46}$ by 46 we go on."),
        ("So $p = 0.75$.", r"With $\frac{3}{4}$ we go on."),
        ("We find 1023 of them.", "Half of the 1,023 are good."),
    ],
)
def test_a_computed_number_in_another_notation(computed: str, used: str) -> None:
    assert any("only a sibling computed" in fault for fault in leaks(branches(computed, used)))
    assert leaks(branches(computed, used, f"Find it. {used}")) == []


# -- expressions

NUMERATOR = r"By the formula, $\cos 25^\circ + \cos 85^\circ = 2 \cos 55^\circ \cos 30^\circ.$"
DENOMINATOR = (
    r"The denominator is \begin{align*} &\sin 25^\circ - \sin 85^\circ \\ &= -2 \sin 30^\circ \cos"
    r" 55^\circ, \end{align*}so it is equal to \[\frac{2 \cos 55^\circ \cos 30^\circ}{-2 \sin"
    r" 30^\circ \cos 55^\circ} = -\frac{\cos 30^\circ}{\sin 30^\circ}.\]"
)


def test_a_numerator_that_only_a_sibling_derived() -> None:
    """As in precalculus/44 of MATH500."""
    (found,) = leaks(branches(NUMERATOR, DENOMINATOR))
    assert "of branch 2 of block 1 uses" in found and found.endswith("only a sibling derived")
    assert r"`2 \cos 55^\circ \cos 30^\circ`" in found
    known = f"Find it. {NUMERATOR}"
    assert leaks(branches(NUMERATOR, DENOMINATOR, known)) == []


@pytest.mark.parametrize(
    ("derived", "used"),
    [
        (r"So $x = \frac{3+\sqrt{17}}{2}$.", r"One more is $y = \frac{\sqrt{17}+3}{2} + 1$."),
        (r"We get $a = x^2+3x+2$.", r"The ratio is $r = \frac{x^2+3x+2}{x+5}$."),
        (r"We get $a = x^2+3x+2$.", r"Take $(x+1)(x+2)$ and add one."),
        (r"$A = \pi r^2 h + 2$.", r"$B = \frac{\pi r^2 h + 2}{3}$."),
        (r"We get $k = \frac{2n+1}{n-4}$.", r"Because $\frac{4n+2}{2n-8}$ is whole, it ends."),
        (r"We have $p = \frac{3}{8} + \frac{k}{5}$.", r"It is $1 - \frac{15+8k}{40}$."),
        (r"So $m = \frac{y-3}{x+1}$.", r"Take $2 + \frac{3-y}{x+1}$."),
        (r"The volume is $V = 36\pi$.", r"Half of $36\pi$ is enough."),
        (r"So $x = 2\sqrt{13}$.", r"Squaring $\sqrt{52}$ we go on."),
        (r"The sum is $a^2+2ab+c$.", r"We want \[\sqrt{c+a^2+2ba} > 0.\]"),
    ],
)
def test_expressions_are_known_again_within_others(derived: str, used: str) -> None:
    assert any("only a sibling derived" in fault for fault in leaks(branches(derived, used)))
    assert leaks(branches(derived, used, f"Find it. {derived}")) == []


@pytest.mark.parametrize(
    ("derived", "used"),
    [
        (r"We get $a = x^2+3x+2$.", r"Expanding, $(x+1)(x+2) = x^2+3x+2$."),
        (r"We get $a = x^2+3x+2$.", r"We get $b = x^2+3x+5$."),
        (r"It is $a=2\sqrt3$.", r"It is $b=4\sqrt5$."),
        (r"It is $a=2n+1$.", r"There are $2n+1$ men."),
        (r"$x=3$", r"$y=4+x$"),
        (r"$a = \frac{1}{2}$", r"$b = \frac{1}{2} + 3$"),
        (r"$a = \frac{\sqrt{3}}{2}$", r"$b = 2 \cdot \frac{\sqrt{3}}{2}$"),
        (r"$a = 2\pi$", r"$b < 2\pi$"),
        (r"$a = \frac{3}{4}$", r"$b < \frac{3}{4}$"),
        ("There are 144 cars.", "Take 144 of them."),
        (r"$a = $ and $$ b", r"$\frac{$ and \[ x"),
        (r"$a = 9^{9^{9^9}}$", r"$b = 9^{9^{9^9}}+1$"),
    ],
)
def test_what_a_branch_derives_itself_or_anybody_would_write_is_fine(
    derived: str, used: str
) -> None:
    assert leaks(branches(derived, used)) == []
