"""Several blocks in one sequence, behind a tag, in items, in branches and between map and process.

Costs, masks, forks, layout, example, export and oracle hold for them as for a single block.
"""

from __future__ import annotations

from functools import cache
from random import Random

import pytest

from nprdsl.export import ExportLimits
from nprdsl.export.linear import linearise
from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.machine.actions import ALL, FIRST
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.schema import Schema
from nprdsl.structure.stack import Bounds
from nprdsl.testing import Reading, byte_vocabulary, fuzz
from nprdsl.tokens.spelling import NEVER
from tests.linear_samples import sample
from tests.machines import limits_of, spawned, verify
from tests.runs import run, seeded, shuffled
from tests.test_costs import walk
from tests.walks import schema_of, vocabulary

RULES = """
l: "<l>" i+ "</l>"
i: "<i>" L "</i>"
b: "<b>" L ":" TEXT "</b>"
j: "<j>" TEXT "</j>"
L: /[a-z]{1,2}/
%declare TEXT
"""
BLOCK = "map{l} process{i, b} reduce{j}"
START = {
    "behind a tag": f'"<s>" {BLOCK} "</s>"',
    "the same twice": f"{BLOCK} {BLOCK}",
    "three": f"{BLOCK} {BLOCK} {BLOCK} TEXT",
    "with tags between": f'"<s>" {BLOCK} "<m>" TEXT "</m>" {BLOCK} "</s>"',
    "with text between": f"TEXT {BLOCK} TEXT {BLOCK} TEXT",
    "repeated": f'({BLOCK} "<m>" {BLOCK})~2..3 "<e>"',
    "optional": f'[{BLOCK}] "<m>" [{BLOCK}] "<e>"',
    "lists of other lengths": f'"<s>" map{{m}} process{{i, b}} reduce{{j}} {BLOCK}\n'
    'm: "<m>" i~2..3 n "</m>"\nn: "<n>" i',
    "a bare item as list": f"{BLOCK} map{{i}} process{{i, b}} reduce{{j}}",
    "in branches": 'map{l} process{i, c} reduce{j}\nc: "<c>" L ":" ' + f'{BLOCK} {BLOCK} "</c>"',
    "recursive": 'body\nbody: "<x>" map{l} process{i, c} reduce{j} ' + f"{BLOCK}\n"
    'c: "<c>" L ":" (TEXT | body) "</c>"',
    "in a join": f'map{{l}} process{{i, b}} reduce{{r}}\nr: "<r>" {BLOCK} "</r>" {BLOCK}',
    "in items": f"map{{m}} process{{ii, b}} reduce{{j}} {BLOCK}\n"
    f'm: "<m>" ii~1..2 "</m>"\nii: "<ii>" L {BLOCK} {BLOCK} "</ii>"',
    "two labels in one field": f"map{{m}} process{{ii, b}} reduce{{j}} {BLOCK}\n"
    'm: "<m>" ii~1..2 "</m>"\nii: "<ii>" L ":" map{k} process{ki, kb} reduce{j} "</ii>"\n'
    'k: ki+ "</k>"\nki: N "<ki>" TEXT "</ki>"\nkb: "<kb>" N "</kb>"\nN: /[0-9]/',
    "a tag between map and process": 'map{l} "<q>" TEXT "</q>" process{i, b} reduce{j} ' + BLOCK,
    "without text or label": f'"<s>" map{{k}} process{{m, n}} reduce{{o}} {BLOCK}\n'
    'k: "<k>" m+ "</k>"\nm: "<m>" "</m>"\nn: "<n>" "</n>"\no: "<o>" "</o>"',
    "an item between map and process": 'map{l} i "<q>" process{i, b} reduce{j}',
    "blocks between map and process": 'map{l} k process{i, b} reduce{j} "<z>"\n'
    f'k: "<k>" {BLOCK} {BLOCK}',
    "by count": '"<s>" spawn{p}~2..4 reduce{j} "<q>" spawn{p}~3 reread{j} ' + f"{BLOCK}\n"
    'p: "<p>" TEXT "</p>"',
    "read again": "map{l} process{i, b} reread{j} map{l} process{i, b} reread{j}",
    "repeated texts": 'map{g} process{gi, gb} reduce{j} "<s>" map{g} process{gi, gb} reduce{j}\n'
    'g: "<g>" gi~1..3 "</g>"\ngi: "<gi>" L ": " GOAL "</gi>"\n'
    'gb: "<gb>" L ": " GOAL " = " TEXT "</gb>"\n%declare GOAL',
}
OWN_LIST = """
%import .parallel (map, process, reduce)
start: map{l} process{i, b} reduce{j}
l: "<l>" i~1..2 "</l>"
i: "<i>" L (map{l} process{i, b} reduce{j} map{l} process{i, b} reduce{j})? "</i>"
b: "<b>" L ":" TEXT "</b>"
j: "<j>" TEXT "</j>"
L: /[a-z]{1,2}/
%declare TEXT
"""
ALL_KINDS = pytest.mark.parametrize("kind", [*START, "a list in its own item"])
BOUNDS = (Bounds(), Bounds(blocks=1), Bounds(blocks=2), Bounds(depth=1), Bounds(2, 3))


@cache
def schema(kind: str) -> Schema:
    if kind not in START:
        return schema_of(OWN_LIST)
    rules = [rule for rule in RULES.splitlines() if _used(rule, START[kind])]
    source = "\n".join((f"start: {START[kind]}", *rules))
    names = ("map", "process", "spawn", "reduce", "reread")
    templates = ", ".join(name for name in names if f"{name}{{" in source)
    return schema_of(f"%import .parallel ({templates})\n{source}\n")


def _used(rule: str, start: str) -> bool:
    """Whether a line of RULES defines what the start rule needs."""
    needed = {"l": "{l}" in start, "i": "{i" in start, "b": ", b}" in start}
    return needed.get(rule.partition(":")[0], True)


def bounded(kind: str, bounds: Bounds, *, special: bool) -> BoundSchema | None:
    """The schema over bytes; None where no trace is within the bounds."""
    made = schema(kind)
    try:
        bound = made.bind(byte_vocabulary(made.tags if special else ())).under(bounds)
    except SchemaError:
        return None
    return bound if bound.minimum < NEVER else None


@ALL_KINDS
def test_generations_are_legal_and_equal_their_layout(kind: str) -> None:
    for number, bounds in enumerate(BOUNDS):
        bound = bounded(kind, bounds, special=bool(number % 2))
        if bound is None:
            continue
        for seed, extra in enumerate((0, 1, 9, 60)):
            limits = limits_of(bounds, bound.minimum + extra, spawned(bound, 2))
            join = FIRST if seed % 2 else ALL
            made = run(bound, limits, seeded(seed), scheduler=shuffled(seed), join=join)
            verify(made, limits)


@ALL_KINDS
@pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
def test_costs_lead_to_an_end(kind: str, special: bool) -> None:
    made = schema(kind)
    walk(made.bind(vocabulary(made, special=special, seed=1)), 1, steps=25)


@ALL_KINDS
def test_example_and_linear_samples_are_legal(kind: str) -> None:
    made = schema(kind)
    assert not made.check(made.skeleton())
    for target in ("xgrammar", "llguidance", "outlines"):
        made.export(target)
    linear = linearise(made.grammar, ExportLimits(items=4))
    for seed in range(4):
        text = sample(linear, Random(seed), depth=7)
        assert {v.code for v in made.check(text)} <= {"label-mismatch"}, text
        assert kind == "repeated texts" or not made.check(text), text


@pytest.mark.parametrize(
    "kind", ["in items", "repeated texts", "by count", "a list in its own item"]
)
def test_fuzzed(kind: str) -> None:
    report = fuzz(schema(kind), examples=12)
    assert report.ok, report.failure


def test_the_oracle_takes_the_split_that_fits_the_item() -> None:
    text = "<g><gi>a: x = y</gi></g><gb>a: x = y = z = z</gb><j>x</j>"
    text = f"{text}<s>{text}"
    assert not schema("repeated texts").check(text)
    assert Reading(schema("repeated texts").grammar, text).tree is not None
