"""What meets inside a field, put to the proof: tags of few letters, so that neighbours spell them
all the time, and every short text looked at."""

from __future__ import annotations

import random
import re
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
@pytest.mark.parametrize("seed", range(12))
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


BLOCK = "%import .parallel (map, process, reduce)\nstart: map{l} process{i, s} reduce{r}\n"
MEETING = {
    "a value that is a tag": 'start: "<a>" X "</a>" ["<b>"]\nX: /<b>|cccccc/\n',
    "a literal and a value": 'start: "<a>" "<" X "</a>" ["<b>"]\nX: /b>|c/\n',
    "tags that overlap": 'start: "<a>" TEXT TAG_Y TEXT TAG_X\nTAG_X: "ab"\nTAG_Y: "bc"\n'
    "%declare TEXT\n",
    "ends of lines": BLOCK
    + 'l: TAG_PLAN i~1..3 TAG_END\ni: TAG_ITEM N ". " TEXT TAG_NL\ns: TAG_STEP N ". " TEXT TAG_NN\n'
    'r: TAG_ANS TEXT\nTAG_PLAN: "# Plan\\n"\nTAG_END: "# Steps\\n"\nTAG_ITEM: "- "\n'
    'TAG_NL: ".\\n"\nTAG_STEP: "* "\nTAG_NN: "\\n\\n"\nTAG_ANS: "# A\\n"\nN: /[1-9]/\n'
    "%declare TEXT\n",
    "empty lines": BLOCK + 'l: TAG_PLAN i~1..6 TAG_STEPS\ni: TAG_ITEM N "**: " TEXT TAG_NN\n'
    's: TAG_STEP N "\\n" TEXT TAG_RULE\nr: TAG_ANS TEXT\nN: /[1-9]/\nTAG_PLAN: "## Plan\\n"\n'
    'TAG_ITEM: "- **"\nTAG_NN: "\\n\\n"\nTAG_STEPS: "## Steps\\n"\nTAG_STEP: "### Step "\n'
    'TAG_RULE: "\\n---\\n"\nTAG_ANS: "## A\\n"\n%declare TEXT\n',
    "labels that are tags": BLOCK
    + 'l: "<l>" i~2..3 "</l>"\ni: "<i>" N "</i>"\ns: "<s>" N "</s>" TEXT "<e>"\nr: "<r>" TEXT\n'
    "N: /<i>|<[a-c]|[xy]/\n%declare TEXT\n",
    "values before glue": BLOCK
    + 'l: "<l>" i~1..3 "</l>"\ni: "<i>" N _SP TEXT "</i>"\ns: "<s>" N _SP S _NL "</s>"\n'
    'r: "<r>" N _SP N _NL\nN: /[0-9]+/\nS: /[a-z][a-z ]*/\n_SP: " "\n_NL: "\\n"\n%declare TEXT\n',
    "a text that a branch repeats": BLOCK
    + 'l: "<l>" i~1..3 "</l>"\ni: "<i>" GOAL TAG_A\ns: TAG_B GOAL TAG_C TEXT "</s>"\nr: "<r>"\n'
    'TAG_A: "##"\nTAG_B: "#b"\nTAG_C: "#c#"\n%declare TEXT GOAL\n',
}


def written(bound: nprdsl.BoundSchema, budget: int, rng: random.Random) -> nprdsl.Machine:
    """What random choices write within a budget, bytes of tags before others."""
    machine = nprdsl.Machine(bound, limits=nprdsl.Limits(max_tokens=budget))
    likely = {*"".join(bound.grammar.tags).encode(), *bound.vocabulary.special.values()}
    machine.start()
    while machine.ended is None:
        branch = rng.choice(machine.live)
        tokens = allowed(machine.mask(branch))
        assert tokens, bound.vocabulary.text([w.token for w in machine.written])
        preferred = [t for t in tokens if t in likely] if rng.random() < 0.7 else []
        machine.advance(branch, rng.choice(preferred or tokens))
    return machine


@pytest.mark.parametrize("source", MEETING.values(), ids=MEETING.keys())
def test_what_the_machine_writes_reads_back(source: str) -> None:
    schema = Schema(read_grammar(source, file="some.lark", name="some", types={}))
    for special in (schema.tags, ()):
        bound = schema.bind(byte_vocabulary(special))
        for seed in range(12):
            budget = bound.minimum + (0, 1, 7, 60)[seed % 4]
            trace = written(bound, budget, random.Random(seed)).trace()
            assert len(trace.ids) <= budget
            assert not bound.check(trace.ids)
            assert not schema.check(trace.text), trace.text


def splits(parts: list[str], text: str) -> set[tuple[str, ...]]:
    """All ways to split a text among regular expressions."""
    if len(parts) == 1:
        return {(text,)} if re.fullmatch(parts[0], text) else set()
    heads = (n for n in range(len(text) + 1) if re.fullmatch(parts[0], text[:n]))
    return {(text[:n], *rest) for n in heads for rest in splits(parts[1:], text[n:])}


@pytest.mark.parametrize("seed", range(40))
def test_what_can_be_split_in_two_ways_is_refused(seed: int) -> None:
    rng = random.Random(seed)
    parts = [rng.choice((*VALUES, *LITERALS)) for _ in range(rng.choice((2, 2, 3)))]
    text = ["[abc]+"] if rng.random() < 0.3 else []
    names = [f'"{p}"' if p in LITERALS else f"V{n}" for n, p in enumerate(parts)]
    source = f'start: "<t>" {" ".join(names)} {"TEXT" if text else ""} "</t>"\n'
    source += "".join(f"{v}: /{p}/\n" for v, p in zip(names, parts, strict=True) if v[0] == "V")
    source += "%declare TEXT\n" if text else ""
    texts = ("".join(t) for n in range(LONGEST + 1) for t in product(LETTERS, repeat=n))
    ambiguous = any(len(splits([*parts, *text], t)) > 1 for t in texts)
    try:
        read_grammar(source, file="some.lark", name="some", types={})
        codes = set()
    except nprdsl.SchemaError as error:
        codes = {d.code for d in error.diagnostics}
    assert codes == ({DiagnosticCode.UNDECIDED_SPLIT} if ambiguous else set()), source
