"""What meets inside a field, put to the proof: tags of few letters, so that neighbours spell them
all the time, and every short text looked at."""

from __future__ import annotations

import random
from itertools import product

import numpy as np
import pytest

import nprdsl
from nprdsl.grammar.diagnostics import DiagnosticCode
from nprdsl.grammar.resolve import read_grammar
from nprdsl.masks.matcher import Matcher
from nprdsl.schema import Schema
from nprdsl.structure.violations import ViolationCode
from nprdsl.testing import byte_vocabulary

LETTERS = "abc"
LONGEST = 7  # letters of the texts that are all looked at
VALUES = ("a", "b|c", "ab?", "[ab]{1,2}", "a|bc", "(ab)+", "[abc]{2}", "b+", "c?ab")
LITERALS = ("a", "b", "c", "ab", "bc", "cb")


def some_schema(rng: random.Random) -> str:
    """Two or three fields between tags of one to three letters."""
    tags: list[str] = []
    while len(tags) < 3:
        tag = "".join(rng.choice(LETTERS) for _ in range(rng.choice((1, 2, 2, 3))))
        if not any(tag in other or other in tag for other in tags):
            tags.append(tag)
    values = {f"V{n}": rng.choice(VALUES) for n in range(3)}
    used: set[str] = set()

    def field() -> str:
        parts = []
        for _ in range(rng.choice((0, 1, 1, 2, 3))):
            part = rng.choice((*values, f'"{rng.choice(LITERALS)}"'))
            used.update({part} & values.keys())
            parts.append(part)
        if rng.random() < 0.4:
            parts.append("TEXT")
            used.add("TEXT")
        return " ".join(parts)

    shape = rng.choice(
        ("T0 {} T1 {} T2", "T0 {} [T1 {}] T2", "T0 {} (T1 {})~1..2 T2 {}", "{} T0 T1 {}")
    )
    rule = shape.format(*(field() for _ in range(3)))
    names = [n for n in range(3) if f"T{n}" in rule]
    lines = [f"start: {rule.replace('T0', 'TAG_0').replace('T1', 'TAG_1').replace('T2', 'TAG_2')}"]
    lines += [f'TAG_{n}: "{tags[n]}"' for n in names]
    lines += [f"{name}: /{values[name]}/" for name in sorted(used - {"TEXT"})]
    lines += ["%declare TEXT"] if "TEXT" in used else []
    return "\n".join(lines) + "\n"


def vocabulary(special: tuple[str, ...]) -> nprdsl.Vocabulary:
    pieces = [*LETTERS, "ab", "cab", "bb"]
    ids = {tag: 10 + n for n, tag in enumerate(special)} | {"<end>": 20}
    return nprdsl.Vocabulary(dict(enumerate(pieces)), ids, eos="<end>")


def allowed(mask: np.ndarray) -> list[int]:
    return np.flatnonzero(np.unpackbits(mask.view(np.uint8), bitorder="little")).tolist()


def finished(schema: Schema, bound: nprdsl.BoundSchema, matcher: Matcher, ids: list[int]) -> None:
    """The cheapest way on is as long as its cost says, and legal as ids and as text."""
    least = matcher.cost
    end = bound.vocabulary.eos_id
    matcher, written = matcher.fork(), list(ids)
    while not matcher.finished and not (least == 0 and matcher.may_end):
        tokens = [t for t in allowed(matcher.tight(0)) if t != end]
        assert tokens, f"nothing is allowed behind {bound.vocabulary.text(written)!r}, cost {least}"
        matcher.advance(tokens[0])
        written.append(tokens[0])
        assert matcher.cost < least, f"{bound.vocabulary.text(written)!r}: {matcher.cost}, {least}"
        least = matcher.cost
    text = bound.vocabulary.text(written)
    assert not bound.check(written), text
    assert not schema.check(text), text


def explored(schema: Schema, bound: nprdsl.BoundSchema, depth: int) -> set[str]:
    """The texts of all legal ids of at most so many tokens; each token that is allowed on the way
    can be followed by others to a legal end."""
    texts: set[str] = set()
    pending: list[tuple[Matcher, list[int]]] = [(bound.matcher(), [])]
    while pending:
        matcher, ids = pending.pop()
        if matcher.may_end:
            texts.add(bound.vocabulary.text(ids))
        finished(schema, bound, matcher, ids)
        for token in allowed(matcher.mask()) if len(ids) < depth and not matcher.finished else ():
            if token != bound.vocabulary.eos_id:
                after = matcher.fork()
                after.advance(token)
                pending.append((after, [*ids, token]))
    return texts


@pytest.mark.filterwarnings("ignore::nprdsl.masks.bound_schema.SpelledTagsWarning")
@pytest.mark.parametrize("seed", range(24))
def test_every_token_allowed_leads_to_a_legal_text_and_every_legal_text_is_allowed(
    seed: int,
) -> None:
    rng = random.Random(seed)
    while True:
        try:
            source = some_schema(rng)
            schema = Schema(read_grammar(source, file="some.lark", name="some", types={}))
            break
        except nprdsl.SchemaError:
            continue
    texts = ("".join(t) for n in range(LONGEST + 1) for t in product(LETTERS, repeat=n))
    legal = [text for text in texts if not schema.check(text)]
    for special in ((), schema.tags, schema.tags[:1]):
        try:
            bound = schema.bind(vocabulary(special))
        except nprdsl.SchemaError as error:
            codes = {d.code for d in error.diagnostics}
            assert codes == {DiagnosticCode.DEAD_END}, source
            continue
        for text in legal:
            matcher = bound.matcher()
            for token in bound.encode(text):
                assert matcher.accepts(token), (source, special, text)
                matcher.advance(token)
            assert matcher.may_end, (source, special, text)
        explored(schema, bound, 4)


def test_ids_whose_text_reads_otherwise_are_refused() -> None:
    source = 'start: "<a>" TEXT TAG_Y TEXT TAG_X\nTAG_X: "ab"\nTAG_Y: "bc"\n%declare TEXT\n'
    schema = Schema(read_grammar(source, file="some.lark", name="some", types={}))
    bound = schema.bind(byte_vocabulary(schema.tags))
    special, spell = bound.vocabulary.special, bound.vocabulary.encode
    for text, is_legal in (("xa", False), ("xax", True), ("a", False), ("b", True)):
        before = [special["<a>"], *spell(text)]
        ids = [*before, special["bc"], *spell("x"), special["ab"]]
        faults = bound.check(ids)
        assert [f.code for f in faults] == [] if is_legal else [ViolationCode.TAG_OUT_OF_PLACE]
        assert is_legal or faults[0].offset == len("<a>" + text) - 1
        assert is_legal is not bool(schema.check(bound.vocabulary.text(ids)))
        matcher = bound.matcher()
        for token in before:
            matcher.advance(token)
        assert matcher.accepts(special["bc"]) is is_legal
