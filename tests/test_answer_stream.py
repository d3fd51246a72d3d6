"""The answer while it is written: never anything else, and at once where nothing else can come."""

from __future__ import annotations

import re
from random import Random

import pytest

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.machine.budget import Limits
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.schema import load
from nprdsl.structure.events import TokenEvent
from nprdsl.testing import byte_vocabulary
from nprdsl.testing.schemas import random_schema
from nprdsl.testing.tokens import bound_to
from tests.machines import DEAREST
from tests.runs import run, seeded, shuffled
from tests.walks import schema_of

BLOCK = (
    'block: "<o>" spawn{path}~2 reduce{end}\npath: "<p>" TEXT "</p>"\nend: "<e>" TEXT "</e>"\n'
    "%import .parallel (map, process, spawn, reduce)\n%declare TEXT\n"
)
VALUE = "VALUE: /[0-9]/\n"
TOLD = [
    "block answer\nanswer: TEXT\n",
    "block block? answer\nanswer: TEXT\n",
    'block TEXT answer\nanswer: "<a>" TEXT "</a>"\n',
    'block answer "<b>" "</b>"\nanswer: "<a>" TEXT "</a>"\n',
    "block TEXT\n",
    'block "<a>" TEXT "</a>"\n',
    'block "<a>" ANSWER "</a>"\nANSWER: /[0-9]+/\n',
    'block answer\nanswer: "<c>" said | "<d>" VALUE\nsaid: TEXT\n',
]
HELD = [
    "(block TEXT)+\n",
    'block answer+\nanswer: "<a>" TEXT "</a>"\n',
    'block answer\nanswer: "<a>" TEXT "</a>" "<b>" TEXT "</b>"\n',
    'block "so " answer\nanswer: VALUE\n',
    'block answer block?\nanswer: "<a>" TEXT "</a>"\n',
]


def told(bound: BoundSchema, seed: int, tokens: int = 120) -> tuple[str, str]:
    """What came of the answer on the way, and the answer."""
    limits = Limits(max_tokens=max(tokens, bound.minimum))
    done = run(bound, limits, seeded(seed), scheduler=shuffled(seed))
    pieces = [event.answer for event in done.events if isinstance(event, TokenEvent)]
    return "".join(pieces), done.machine.trace().answer


def bound_of(start: str, merges: tuple[str, ...] = ()) -> BoundSchema:
    value = VALUE if "VALUE" in start else ""
    schema = schema_of(f"start: {start}{value}{BLOCK}")
    return bound_to(schema, byte_vocabulary((), merges))


@pytest.mark.parametrize("start", TOLD)
@pytest.mark.parametrize("merges", [(), ("</e>4", ">1", "x<a>7", "<a", "7</a>", " \n", "e>")])
def test_what_must_be_the_answer_is_told_as_it_is_written(
    start: str, merges: tuple[str, ...]
) -> None:
    bound = bound_of(start, merges)
    for seed in range(6):
        told_text, answer = told(bound, seed)
        assert answer.startswith(told_text)
        assert len(told_text) >= len(answer) - 3, "no more than what may begin a tag is held"


@pytest.mark.parametrize("start", HELD)
def test_what_may_not_be_the_answer_waits(start: str) -> None:
    bound = bound_of(start)
    for seed in range(6):
        told_text, answer = told(bound, seed)
        assert answer.startswith(told_text)
    assert not told_text


@pytest.mark.parametrize("name", ["npr", "arith", "parallel_r1", "threadweaver", "multiverse"])
@pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
def test_schemas_that_ship(name: str, special: bool) -> None:
    schema = load(name)
    bound = bound_to(schema, byte_vocabulary(schema.tags if special else ()))
    pairs = [told(bound, seed, 400) for seed in range(4)]
    assert all(answer.startswith(early) for early, answer in pairs)
    if name in ("npr", "arith"):
        assert all(early == answer for early, answer in pairs)


def test_random_schemas_never_take_a_word_back() -> None:
    """Also where any of their rules and terminals is called `answer`."""
    streamed = tried = 0
    for number in range(60):
        drawn, random = random_schema(number), Random(number)
        names = sorted(set(re.findall(r"^(?!start\b)([a-zA-Z]\w*)\s*:", drawn.source, re.M)))
        source = drawn.source
        if names and number % 3:
            name = random.choice(names)
            new = "ANSWER" if name.isupper() else "answer"
            source = re.sub(rf"\b{name}\b", new, source)
            types = {new if key == name else key: one for key, one in drawn.types.items()}
        else:
            types = dict(drawn.types)
        try:
            schema = type(drawn)(number, source, types, drawn.end).load()
            bound = bound_to(schema, byte_vocabulary((), ("</", "><", "a<", "> ")))
        except (SchemaError, ValueError):
            continue
        if bound.minimum > DEAREST:
            continue
        tried += 1
        for seed in range(2):
            early, answer = told(bound, seed)
            assert answer.startswith(early), (number, seed, early, answer)
            streamed += bool(early)
    assert tried > 20 and streamed > 5, (tried, streamed)
