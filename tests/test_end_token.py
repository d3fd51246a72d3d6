"""The end token of a vocabulary as a tag of the schema: `<|im_end|>` of ChatML, `<|return|>`."""

from __future__ import annotations

from itertools import product

import pytest

import nprdsl
from nprdsl.grammar.diagnostics import DiagnosticCode, SchemaError
from nprdsl.machine.budget import Limits
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.structure.events import EndReason
from nprdsl.testing import byte_vocabulary
from nprdsl.testing.fuzzing import refused_at
from nprdsl.tokens.vocabulary import Vocabulary
from tests.machines import verify
from tests.runs import run, seeded
from tests.walks import allowed, schema_of

pytestmark = pytest.mark.filterwarnings("ignore::nprdsl.masks.bound_schema.SpelledTagsWarning")

TURN = 'start: "<|im_start|>" TEXT "<|im_end|>"\n%declare TEXT\n'
TURNS = 'start: turn~2\nturn: "<|im_start|>" TEXT "<|im_end|>"\n%declare TEXT\n'
MANY = 'start: turn+\nturn: "<|im_start|>" TEXT "<|im_end|>"\n%declare TEXT\n'
OPENS = 'start: "<|im_end|>" TEXT\n%declare TEXT\n'
FINAL = """
start: ("<|start|>" "analysis" "<|message|>" TEXT "<|end|>")* final
final: "<|channel|>" "final" "<|message|>" TEXT "<|return|>"
%declare TEXT
"""
BRANCHES = """
%import .parallel (map, process, reduce)
start: map{list} process{item, branch} reduce{join} "<|im_end|>"
list: "<l>" item~1..3 "<|im_end|>"
item: "<i>" LABEL "<|im_end|>"
branch: "<b>" LABEL ":" TEXT "<|im_end|>"
join: "<j>" TEXT "</j>"
LABEL: /[1-9]/
%declare TEXT
"""
SOURCES = {
    "turn": TURN, "turns": TURNS, "many": MANY, "opens": OPENS, "branches": BRANCHES,
}  # fmt: skip


def bind(source: str, end: str = "<|im_end|>", *, partial: bool = False) -> BoundSchema:
    """Over bytes, with the tags as special tokens and one of them as the end."""
    made = schema_of(source)
    names = [end] if partial else made.tags
    special = {tag: 256 + n for n, tag in enumerate(names)}
    return made.bind(Vocabulary({n: bytes([n]) for n in range(256)}, special, end))


def accepts(bound: BoundSchema, ids: tuple[int, ...]) -> bool:
    """Whether the masks allow these ids, and the trace may end behind them."""
    matcher = bound.matcher()
    for token in ids:
        if token not in allowed(matcher.mask(), bound.vocabulary.size):
            return False
        matcher.advance(token)
    return matcher.may_end


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_machines_read_back_what_they_write(source: str, partial: bool, seed: int) -> None:
    bound = bind(source, partial=partial)
    for budget in (bound.minimum, bound.minimum + 1, bound.minimum + 7, 2 * bound.minimum + 50):
        limits = Limits(max_tokens=budget, depth=2, branches=3, blocks=3)
        trace = verify(run(bound, limits, seeded(seed)), limits)
        assert schema_of(source).check(trace.text) == []
        assert refused_at(bound, bound.encode(trace.text)) is None
        assert bound.parse(bound.with_end(bound.encode(trace.text))).text == trace.text


@pytest.mark.parametrize("name", ["turn", "turns", "many", "opens"])
def test_checker_and_masks_agree_on_all_short_sequences(name: str) -> None:
    bound = bind(SOURCES[name])
    tokens = [*bound.vocabulary.special.values(), ord("x")]
    legal = 0
    for length in range(7):
        for ids in product(tokens, repeat=length):
            assert accepts(bound, ids) == (bound.check(ids) == []), ids
            legal += accepts(bound, ids)
    assert legal


def test_the_last_tag_ends_the_sequence() -> None:
    bound = bind(TURN)
    start, end = bound.vocabulary.special.values()
    ids = bound.encode("<|im_start|>x<|im_end|>")
    assert ids == (start, ord("x"), end)
    assert bound.check(ids) == []
    assert bound.parse(ids).text == "<|im_start|>x<|im_end|>"
    assert bound.with_end(ids) == ids
    machine = nprdsl.Machine(bound, limits=Limits(max_tokens=9))
    machine.start()
    machine.advance(0, ord("x"))
    machine.advance(0, end)
    assert machine.ended is EndReason.COMPLETED


def test_the_tag_in_the_middle_ends_nothing() -> None:
    bound = bind(TURNS)
    start, end = bound.vocabulary.special.values()
    machine = nprdsl.Machine(bound, limits=Limits(max_tokens=9))
    machine.start()
    machine.advance(0, ord("x"))
    machine.advance(0, end)
    assert machine.ended is None
    machine.advance(0, ord("y"))
    machine.advance(0, end)
    assert machine.trace().ids == (start, ord("x"), end, start, ord("y"), end)


def test_behind_a_last_tag_that_may_be_followed_it_stands_twice() -> None:
    """The second one is the end: `<|im_start|>` might come instead."""
    bound = bind(MANY)
    start, end = bound.vocabulary.special.values()
    ids = bound.encode("<|im_start|>x<|im_end|>")
    assert bound.with_end(ids) == (start, ord("x"), end, end)
    machine = nprdsl.Machine(bound, limits=Limits(max_tokens=30))
    machine.start()
    for token in (ord("x"), end, end):
        assert machine.ended is None
        machine.advance(0, token)
    assert machine.ended is EndReason.COMPLETED
    assert machine.trace().text == "<|im_start|>x<|im_end|>"


def test_other_end_tokens_are_tags_like_any() -> None:
    """The vocabulary of gpt-oss has three; the schema closes each message with the right one."""
    made = schema_of(FINAL)
    first = "<|start|>analysis<|message|>x<|end|>"
    text = f"{first}<|channel|>final<|message|>y<|return|>"
    for names in (made.tags, ("<|return|>",), ("<|end|>", "<|return|>")):
        for end in names:
            special = {tag: 256 + n for n, tag in enumerate(names)}
            words = Vocabulary({n: bytes([n]) for n in range(256)}, special, end)
            bound = made.bind(words)
            ids = bound.encode(text)
            assert refused_at(bound, ids) is None
            assert bound.check(bound.with_end(ids)) == []
            limits = Limits(max_tokens=bound.minimum + 20)
            verify(run(bound, limits, seeded(1)), limits)


@pytest.mark.parametrize(
    "source",
    [
        'start: "<|im_start|>" TEXT ["<|im_end|>"]\n%declare TEXT\n',
        'start: "<|im_start|>" TEXT "<|im_end|>"~1..2\n%declare TEXT\n',
        'start: ["<|im_end|>"]\n',
        'start: "<a>" ("</a>" | "<|im_end|>" "<b>")*\n',
    ],
)
def test_a_tag_that_may_stand_where_the_trace_may_end_is_refused(source: str) -> None:
    with pytest.raises(SchemaError) as caught:
        bind(source)
    (found,) = caught.value.diagnostics
    assert found.code is DiagnosticCode.END_TOKEN_TAG
    assert "`<|im_end|>`" in found.message and "eos" in found.suggestion
    other = bind(source, "<|im_start|>") if "<|im_start|>" in source else None
    assert other is None or other.minimum
    schema_of(source).bind(byte_vocabulary(["<|im_end|>"]))  # with another end token it can be used
