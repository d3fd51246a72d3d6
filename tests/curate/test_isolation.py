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


def test_a_result_that_only_a_sibling_computed() -> None:
    first = "It is $12 \\cdot 12 = 144$."
    (found,) = leaks(branches(first, "Take 144 and add 1."))
    assert found == "sentence 2 of branch 2 of block 1 uses 144, which only a sibling computed"
    assert leaks(branches(first, "It is $72 \\cdot 2 = 144$, and 144 is even.")) == []
    assert leaks(branches(first, "Take 144 and add 1.", "There are 144 cars.")) == []
    assert leaks(branches("It is $3 + 4 = 7$.", "Take 7 and add 1.")) == []
    assert len(leaks(branches("It is $2400/2 = 1{,}200 = 1,200$.", "Add 1200 to it."))) == 1
