"""The shipped grammars: plain Lark loads them, Hypothesis draws from them, nprdsl resolves them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.extra.lark import from_lark
from lark import Lark

from nprdsl.grammar.ir import Grammar, JoinKind
from nprdsl.grammar.resolve import read_grammar
from nprdsl.grammar.terminal_types import TerminalType

FOLDER = Path(str(resources.files("nprdsl") / "grammars"))
LANGUAGES = ["arith", "multiverse", "npr", "parallel_r1", "threadweaver", "triage"]
DECLARED = {"TEXT": "some text", "VERDICT": '{"answer":"yes"}', "DECISION": "close"}


TYPES = {
    "triage": {
        name: TerminalType(pattern=pattern, convert=str, description="", free_text=False)
        for name, pattern in {"VERDICT": r'\{[a-z:"]{1,40}\}', "DECISION": "close|reply"}.items()
    }
}


def grammar(name: str) -> Grammar:
    path = FOLDER / f"{name}.lark"
    return read_grammar(path.read_text(), file=str(path), name=name, types=TYPES.get(name, {}))


def test_every_language_is_tested() -> None:
    assert sorted(p.stem for p in FOLDER.glob("*.lark")) == sorted([*LANGUAGES, "parallel"])


@pytest.mark.parametrize("name", LANGUAGES)
def test_resolves_without_a_fault(name: str) -> None:
    found = grammar(name)
    assert found.start == "start"
    assert found.blocks
    assert len(found.digest) == 64


@pytest.mark.parametrize("name", LANGUAGES)
@pytest.mark.parametrize("parser", ["earley", "lalr"])
def test_plain_lark_loads_it(name: str, parser: str) -> None:
    lark = Lark.open(str(FOLDER / f"{name}.lark"), parser=parser)
    assert {str(rule.origin.name) for rule in lark.rules} >= set(grammar(name).rules)


@pytest.mark.parametrize("name", LANGUAGES)
@settings(
    max_examples=3, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(data=st.data())
def test_hypothesis_draws_from_it(name: str, data: st.DataObject) -> None:
    found = grammar(name)
    lark = Lark.open(str(FOLDER / f"{name}.lark"), parser="lalr")
    used = {n: st.just(text) for n, text in DECLARED.items() if n in found.terminals}
    text = data.draw(from_lark(lark, explicit=used))
    assert any(tag in text for tag in found.tags) or name in ("multiverse", "parallel_r1")


def test_blocks() -> None:
    blocks = {name: grammar(name).blocks for name in LANGUAGES}
    assert all(len(found) == 1 for found in blocks.values())
    bound = {name: found[0].bound for name, found in blocks.items()}
    assert bound.pop("parallel_r1") == ()
    assert set(bound.values()) == {("LABEL",)}
    joins = {name for name, found in blocks.items() if found[0].join is JoinKind.REREAD}
    assert joins == {"threadweaver", "parallel_r1"}
    spawn = blocks["parallel_r1"][0]
    assert (spawn.item, spawn.branch, spawn.low, spawn.high) == (None, "path", 2, 8)


def test_npr_has_the_eight_tags_in_order() -> None:
    names = ("guideline", "plan", "step", "takeaway")
    tags = grammar("npr").tags
    assert sorted(tags) == sorted([f"<{n}>" for n in names] + [f"</{n}>" for n in names])
    assert [t for t in tags if "/" not in t] == [f"<{n}>" for n in names]
