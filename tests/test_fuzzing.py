"""`fuzz` blames no fine schema, and finds faults that are planted in the product."""

from __future__ import annotations

import pytest

from nprdsl.testing import fuzz
from tests.walks import schema_of

# An element that begins with a literal; a branch and a join that open with one tag; a tag that
# begins where free text may end; parts without a tag that may be missing.
FINE = {
    "attributes": r"""
%import .parallel (map, process, reduce)
start: map{plan} process{item, step} reduce{final}
plan: "<plan>" item~1..9 "</plan>"
item: "<item id=\"" ID "\" kind=\"" KIND "\">" TEXT "</item>"
step: "<step id=\"" ID "\">" TEXT "</step>"
final: "<final confidence=\"" CONF "\">" TEXT "</final>"
ID: /[1-9]/
KIND: "compute" | "lookup"
CONF: /0\.[0-9]{1,2}|1\.0/
%declare TEXT
""",
    "chat turns": r"""
%import .parallel (map, process, reread)
start: map{lead} process{ask, agent} reread{final}
lead: "<|im_start|>" "lead\n" TEXT (ask _NL)+ "<|im_end|>"
ask: "<|ask|>" NAME ": " GOAL "<|/ask|>"
agent: _NL "<|im_start|>" "agent " NAME "\n" GOAL "<|think|>" TEXT "<|im_end|>"
final: _NL "<|im_start|>" "lead\n" TEXT "<|im_end|>"
NAME: /[a-z]{2,10}/
_NL: "\n"
%declare TEXT GOAL
""",
    "branch and join alike": r"""
%import .parallel (map, process, reduce)
start: map{list} process{item, turn} reduce{end}
list: "<list>" item~1..3 "</list>"
item: "<item>" N "</item>"
turn: "<turn>" N ":" TEXT "</turn>"
end: "<turn>" TEXT "</turn>"
N: /[1-9]/
%declare TEXT
""",
    "options": r"""
start: "<a>" ((" - " V) | _NL) "</a>" ("<b>" V "<c>")~0..2 "</b>" TEXT
V: "maybe" | "no"
_NL: " "
%declare TEXT
""",
}


@pytest.mark.parametrize("name", FINE)
def test_a_fine_schema_is_not_blamed(name: str) -> None:
    report = fuzz(schema_of(FINE[name]), 60)
    assert report.failure is None
