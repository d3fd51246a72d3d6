"""Random walks of matchers: vocabularies with awkward tokens, allowed tokens, choices that get on.

Non-goals: what the walks must satisfy (see the tests), branches (see `tests.runs`).
"""

from __future__ import annotations

from random import Random

import numpy as np

from nprdsl.grammar.resolve import read_grammar
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.matcher import Matcher
from nprdsl.schema import Schema
from nprdsl.testing import byte_vocabulary, straddling_merges
from nprdsl.tokens.bitmask import Mask, unpack
from nprdsl.tokens.vocabulary import Vocabulary

SPLIT = ["漢".encode()[:2], "漢".encode()[1:], "é".encode()[:1], b"\xa9 x", "🙂".encode()[:3]]
PLAIN = ["1:", " x", "\n\n", "1:a", "a\n", "x漢"]

SUMS = """
%import .parallel (map, process, reduce)

start:     block answer
block:     map{guideline} process{plan, step} reduce{takeaway}
guideline: "<guideline>" plan~1..4 "</guideline>"
plan:      "<plan>" LABEL ": " TEXT "</plan>"
step:      "<step>" LABEL ": " TEXT "</step>"
takeaway:  "<takeaway>" TEXT "</takeaway>"
answer:    TEXT

LABEL: /[1-9]/
%declare TEXT
"""

GOAL = """
%import .parallel (map, process, reduce)
start: map{goals} process{plan, step} reduce{join} TEXT
goals: "<g>" (_NL plan)~1..3 _NL "</g>"
plan: "<plan>" LABEL ":" GOAL "</plan>"
step: _NL "<step>" LABEL ":" GOAL "\\n" TEXT "</step>"
join: _NL "<t>" TEXT "</t>"
LABEL: /[1-9][0-9]*/
_NL: "\\n"
%declare TEXT GOAL
"""


def schema_of(source: str) -> Schema:
    return Schema(read_grammar(source, file="random.lark", name="random", types={}))


def vocabulary(schema: Schema, *, special: bool, seed: int) -> Vocabulary:
    """Bytes, parts of characters, pieces of the schema's own traces that straddle everything."""
    random, example = Random(seed), schema.skeleton() or " "
    merges: list[str | bytes] = [*(PLAIN if special else straddling_merges(schema.tags))]
    merges += random.sample(SPLIT, 3)
    for _ in range(12):
        start = random.randrange(len(example))
        merges.append(example[start : start + random.choice((2, 3, 5, 9))])
    spelled = {m.encode() if isinstance(m, str) else m for m in merges}
    return byte_vocabulary(
        special=schema.tags if special else (), merges=sorted(m for m in spelled if len(m) > 1)
    )


def sparse_vocabulary(schema: Schema, *, special: bool, seed: int) -> Vocabulary:
    """As `vocabulary`, but many bytes are in no token, or only inside longer ones."""
    random, example = Random(seed), (schema.skeleton() or " ").encode()
    spelled = {bytes((byte,)) for byte in range(256) if random.random() < 0.6}
    spelled |= {*SPLIT, b"1:", b" x", b"\n\n", b"ab", *(tag.encode() for tag in schema.tags)}
    for _ in range(60):
        start = random.randrange(len(example))
        spelled.add(example[start : start + random.choice((1, 1, 2, 3, 5))])
    tokens = sorted(spelled)
    random.shuffle(tokens)
    names = (*(schema.tags if special else ()), "<end>")
    return Vocabulary(
        dict(enumerate(tokens)),
        special={name: len(tokens) + n for n, name in enumerate(names)},
        eos="<end>",
    )


def allowed(row: Mask, size: int) -> list[int]:
    """The tokens of a mask."""
    tokens: list[int] = np.flatnonzero(unpack(row, size)).tolist()
    return tokens


def choose(bound: BoundSchema, matcher: Matcher, random: Random) -> int:
    """One of the allowed tokens: often one that brings the end nearer, or one of many bytes."""
    tokens = allowed(matcher.mask(), bound.vocabulary.size)
    kind = random.random()
    if kind < 0.35 and matcher.cost:
        return random.choice(allowed(matcher.tight(0), bound.vocabulary.size))
    long = [token for token in tokens if token >= 256]
    return random.choice(long if long and kind < 0.6 else tokens)
