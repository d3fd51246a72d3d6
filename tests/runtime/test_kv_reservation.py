"""What a request can ever feed: prompt, trace, a copy for every `reread` block around a token."""

from __future__ import annotations

import pytest

import nprdsl
from nprdsl import LimitError, Limits
from nprdsl.grammar.ir import Grammar
from nprdsl.grammar.resolve import read_grammar
from nprdsl.runtime import kv_reservation
from nprdsl.runtime.kv_reservation import most_fed, rereads

NESTED = """
%import .parallel (map, process, spawn, reduce, reread)
start:  outer
outer:  spawn{{path}}~2..2 {join}{{close}}
path:   "<path>" inner "</path>"
inner:  "<inner>" spawn{{leaf}}~2..2 reread{{shut}}
leaf:   "<leaf>" {inside} "</leaf>"
close:  "<close>"
shut:   "<shut>"
%declare TEXT
"""


def grammar(join: str, inside: str = "TEXT") -> Grammar:
    source = NESTED.format(join=join, inside=inside)
    return read_grammar(source, file="nested.lark", name="nested", types={})


@pytest.mark.parametrize(
    ("name", "copies"), [("npr", 0), ("multiverse", 0), ("parallel_r1", 1), ("threadweaver", 1)]
)
def test_shipped(name: str, copies: int) -> None:
    schema = nprdsl.load(name)
    assert rereads(schema.grammar, None) == copies
    assert most_fed(schema.grammar, Limits(max_tokens=100), 7) == 7 + 100 * (1 + copies)


@pytest.mark.parametrize(("join", "copies"), [("reread", 2), ("reduce", 1)])
def test_nested(join: str, copies: int) -> None:
    assert rereads(grammar(join), None) == copies
    assert rereads(grammar(join), 1) == 1
    assert rereads(grammar(join), 0) == 0


def test_endless_copies_need_a_depth() -> None:
    endless = grammar("reduce", "(TEXT | inner)")
    with pytest.raises(LimitError, match=r"set Limits\(depth=…\)"):
        rereads(endless, None)
    assert rereads(endless, 5) == 5


def test_endless_merges_need_none() -> None:
    merging = NESTED.format(join="reduce", inside="(TEXT | inner)").replace("reread{", "reduce{")
    one = read_grammar(merging, file="merging.lark", name="merging", types={})
    assert rereads(one, None) == 0


def test_a_grammar_is_walked_once_for_each_depth(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was walked for every request: half of the calls before its first forward."""
    nested = grammar("reread")
    assert most_fed(nested, Limits(max_tokens=10), 3) == 33
    monkeypatch.setattr(kv_reservation, "_uses", None)
    assert most_fed(nested, Limits(max_tokens=20), 0) == 60
    with pytest.raises(TypeError):
        most_fed(nested, Limits(max_tokens=20, depth=1), 0)
