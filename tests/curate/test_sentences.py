"""Sentences lose nothing, and formulas stay whole."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.trainers.curate.sentences import sentences
from tests.curate.oracle import math_chains

PIECES = (
    "Let $x = 3.$ ",
    "So it is. ",
    "e.g. ",
    "\n\n",
    "\n",
    "- a",
    "$$y.$$",
    " ",
    "A",
    "1. ",
    "$",
)


@given(st.lists(st.sampled_from(PIECES), max_size=20).map("".join) | st.text())
def test_joined_they_are_the_text_and_none_is_blank(text: str) -> None:
    found = sentences(text)
    assert "".join(found) == (text if text.strip() else "")
    assert all(sentence.strip() for sentence in found)


@pytest.mark.parametrize("row", math_chains(), ids=lambda row: row["id"])
def test_real_chains_lose_nothing(row: dict[str, str]) -> None:
    found = sentences(row["solution"])
    assert "".join(found) == row["solution"]
    assert all(sentence.count("$") % 2 == 0 for sentence in found)


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("It is so. Then we go on.", ["It is so.", "Then we go on."]),
        (
            "Let $x = 3. A$ be. Now $y=2.$ Also $z.$",
            ["Let $x = 3. A$ be.", "Now $y=2.$", "Also $z.$"],
        ),
        (r"So \[a. B.\]Thus c.", [r"So \[a. B.\]", "Thus c."]),
        (
            "See e.g. Euler, i.e. Leonhard. See Fig. 3 too.",
            ["See e.g. Euler, i.e. Leonhard.", "See Fig. 3 too."],
        ),
        ("Is it? Yes! (Really.) So.", ["Is it?", "Yes!", "(Really.)", "So."]),
        ("It is 3.5 or 2. so far", ["It is 3.5 or 2. so far"]),
        ("One\n\ntwo", ["One", "two"]),
        ("37*4: 148\n85-19: 66", ["37*4: 148", "85-19: 66"]),
        ("Take\n1. Foo. Bar\n2. Baz", ["Take", "1. Foo.", "Bar", "2. Baz"]),
        ("We wrap, and\nGo on.", ["We wrap, and", "Go on."]),
        ("Note that\n\\[a = b.\\]", ["Note that\n\\[a = b.\\]"]),
        (
            "[asy]\ndraw(A. B);\n\nlabel;\n[/asy]\n\nSo.",
            ["[asy]\ndraw(A. B);\n\nlabel;\n[/asy]", "So."],
        ),
    ],
)
def test_cuts(text: str, cut: list[str]) -> None:
    assert [sentence.strip() for sentence in sentences(text)] == cut
