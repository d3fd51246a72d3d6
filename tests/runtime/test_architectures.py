"""The architectures that are used most run exactly, or are refused, as the page on models says."""

from __future__ import annotations

import re

import pytest

from benchmarks.architectures import BEGIN, END, MOST_USED, TOLERANCE, Outcome, examine
from tests.documents import DOCS


def told() -> dict[str, Outcome]:
    """Of every architecture in the table."""
    table = (DOCS / "models.md").read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0]
    rows = re.findall(r"^\| (\S+) \| (equal|refused|not built|wrong) \|", table, re.MULTILINE)
    return {name: Outcome(outcome) for name, outcome in rows}


def test_nothing_that_is_accepted_is_wrong() -> None:
    found = told()
    assert len(found) > 150 and Outcome.WRONG not in found.values()
    assert sum(found[name] is Outcome.EQUAL for name in MOST_USED) >= 30


@pytest.mark.parametrize("name", MOST_USED)
def test_the_most_used_are_what_the_page_says(name: str) -> None:
    found = examine(name)
    assert found.outcome is told()[name], found.note
    if found.outcome is Outcome.EQUAL:
        assert float(found.note.split(",")[0]) <= TOLERANCE
