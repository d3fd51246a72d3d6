"""The token automaton against the checker, both ways, in special-token and in text mode.

The oracles are `BoundSchema.check` on whole prefixes and `Matcher.accepts` on single tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import cache
from random import Random
from typing import Literal

import pydantic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.masks.automaton import GlueMode
from nprdsl.masks.bound_schema import BoundSchema, TagMode
from nprdsl.masks.fields import FieldState
from nprdsl.masks.matcher import IllegalTokenError, Matcher
from nprdsl.schema import Schema, load
from nprdsl.structure.tag_machine import Bounds
from nprdsl.structure.violations import ViolationCode
from nprdsl.testing import Spacing, byte_vocabulary, schemas, token_traces, tokenise, traces
from tests.walks import (
    GOAL,
    allowed,
    choose,
    schema_of,
    sparse_vocabulary,
    vocabulary,
)

NAMES = ("npr", "multiverse", "threadweaver", "parallel_r1", "arith")
MODES = pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
SCHEMAS = pytest.mark.parametrize("name", [*NAMES, "goal"])
QUICK = settings(max_examples=12, deadline=None, suppress_health_check=tuple(HealthCheck))
BYTES_PER_WALK = 40


@cache
def schema(name: str) -> Schema:
    return schema_of(GOAL) if name == "goal" else load(name)


@cache
def byte_bound(name: str, special: bool) -> BoundSchema:
    made = schema(name)
    return made.bind(byte_vocabulary(special=made.tags if special else ()))


def advance(matcher: Matcher, ids: Iterable[int]) -> bool:
    """Whether the matcher takes all of the ids."""
    for token in ids:
        if not matcher.accepts(token):
            return False
        matcher.advance(token)
    return True


def ids_of(bound: BoundSchema, text: str) -> tuple[int, ...]:
    ids = tokenise(bound.grammar, bound.vocabulary, text)
    assert ids is not None
    return ids


# -- walks: masks, moves, the checker


def walk(bound: BoundSchema, seed: int, *, steps: int = BYTES_PER_WALK) -> None:
    """One random walk in step with everything that must agree."""
    random, size = Random(seed), bound.vocabulary.size
    loose, exact = bound.matcher(GlueMode.ANY), bound.matcher()
    ids: list[int] = []
    for _ in range(steps):
        tokens = allowed(loose.mask(), size)
        assert tokens, f"nothing may follow {bound.vocabulary.text(ids)!r}"
        assert tokens == [token for token in range(size) if loose.accepts(token)]
        assert loose.may_end == (bound.check(ids) == []), bound.vocabulary.text(ids)
        if loose.finished:
            return
        token = choose(bound, loose, random)
        if token == bound.vocabulary.eos_id:
            return
        ids.append(token)
        loose.advance(token)
    for token in ids:
        narrow = set(allowed(exact.mask(), size))
        assert narrow == {t for t in range(size) if exact.accepts(t)}
        if token not in narrow:
            return
        exact.advance(token)


def walk_exactly(bound: BoundSchema, seed: int) -> None:
    """What canonical glue allows is allowed with any glue, and legal in the end."""
    random, size = Random(seed), bound.vocabulary.size
    exact, loose = bound.matcher(), bound.matcher(GlueMode.ANY)
    ids: list[int] = []
    for _ in range(BYTES_PER_WALK):
        tokens = allowed(exact.mask(), size)
        assert tokens, f"nothing may follow {bound.vocabulary.text(ids)!r}"
        assert set(tokens) <= set(allowed(loose.mask(), size))
        if exact.may_end:
            assert bound.check(ids) == []
        token = choose(bound, exact, random)
        if token == bound.vocabulary.eos_id:
            return
        ids.append(token)
        exact.advance(token)
        loose.advance(token)


@SCHEMAS
@MODES
def test_masks_moves_and_checker_agree_on_walks(name: str, special: bool) -> None:
    for seed in range(2):
        bound = schema(name).bind(vocabulary(schema(name), special=special, seed=seed))
        walk(bound, seed)
        walk_exactly(bound, seed)


@QUICK
@given(schemas(first=20), st.booleans(), st.integers(0, 99))
def test_masks_moves_and_checker_agree_on_random_schemas(
    source: str, special: bool, seed: int
) -> None:
    made = schema_of(source)
    bound = made.bind(vocabulary(made, special=special, seed=seed))
    walk(bound, seed, steps=25)
    walk_exactly(bound, seed)


@SCHEMAS
@MODES
def test_masks_and_moves_agree_where_many_bytes_are_no_tokens(name: str, special: bool) -> None:
    bound_once = False
    for seed in range(4):
        try:
            made = schema(name)
            bound = made.bind(sparse_vocabulary(made, special=special, seed=seed))
        except SchemaError:  # some literal cannot be spelled
            continue
        walk(bound, seed)
        walk_exactly(bound, seed)
        bound_once = True
    assert bound_once


@pytest.mark.parametrize("bounds", [Bounds(depth=1), Bounds(branches=2), Bounds(blocks=1)], ids=str)
def test_masks_moves_and_checker_agree_under_bounds(bounds: Bounds) -> None:
    for name in ("multiverse", "npr", "parallel_r1"):
        for seed in range(3):
            walk_exactly(byte_bound(name, True).under(bounds), seed)
            walk(byte_bound(name, True).under(bounds), seed)


def nested(depth: int) -> str:
    """A trace of `multiverse` whose blocks stand in one another."""
    if not depth:
        return "x"
    return (
        "x<Parallel><Goal><Outline>1:x</Outline></Goal>"
        f"<Path>1:{nested(depth - 1)}</Path><Conclusion>x</Conclusion></Parallel>x"
    )


@MODES
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_blocks_nest_as_deep_as_the_bound_and_no_deeper(depth: int, special: bool) -> None:
    """The checker counts for itself; masks would leave out what costs show to be hopeless."""
    bound = byte_bound("multiverse", special).under(Bounds(depth=depth))
    for inner, legal in ((depth, True), (depth + 1, False)):
        ids = ids_of(bound, nested(inner))
        assert (bound.check(ids) == []) == legal
        assert advance(bound.matcher(GlueMode.ANY), ids) == legal


# -- whole traces


@SCHEMAS
@MODES
def test_legal_traces_are_accepted(name: str, special: bool) -> None:
    """Also with pieces that straddle tags, and with any glue."""
    made = schema(name)
    straddling = made.bind(vocabulary(made, special=special, seed=1))
    # the reference reading, by which texts are cut into tokens, wants a tag behind every text
    bounds = [byte_bound(name, special)] + [straddling] * (name != "goal")

    @QUICK
    @given(st.sampled_from(Spacing), st.integers(0, 99), st.data())
    def run(spacing: Spacing, seed: int, data: st.DataObject) -> None:
        text = data.draw(traces(made, spacing=spacing))
        for bound in bounds:
            ids = tokenise(made.grammar, bound.vocabulary, text, seed=seed)
            assert ids is not None
            matcher = bound.matcher(GlueMode.ANY)
            assert advance(matcher, ids), bound.vocabulary.text(ids)
            assert matcher.may_end
            if spacing is Spacing.CANONICAL:
                matcher = bound.matcher()
                assert advance(matcher, ids) and matcher.may_end

    run()


@SCHEMAS
@MODES
def test_what_one_edit_makes_of_a_trace_is_judged_alike(name: str, special: bool) -> None:
    made = schema(name)
    bound = made.bind(vocabulary(made, special=special, seed=2))
    merged = list(range(256, bound.vocabulary.size))

    @settings(QUICK, max_examples=40)
    @given(token_traces(bound, max_items=2, max_blocks=2, max_depth=1), st.data())
    def run(tokens: tuple[int, ...], data: st.DataObject) -> None:
        ids = list(tokens)
        start = data.draw(st.integers(0, len(ids)))
        stop = data.draw(st.integers(start, min(start + 3, len(ids))))
        new = data.draw(st.sampled_from([b"1", b"2:", b"\n", b"x", b"", *merged]))
        ids[start:stop] = [new] if isinstance(new, int) else list(new)
        matcher = bound.matcher(GlueMode.ANY)
        accepted = advance(matcher, ids) and matcher.may_end
        assert accepted == (bound.check(ids) == []), bound.vocabulary.text(ids)

    run()


# -- bytes


def test_free_text_is_utf8() -> None:
    bound = byte_bound("arith", True)
    matcher = bound.matcher()
    assert advance(matcher, ids_of(bound, "<guideline><plan>1: "))
    assert not matcher.accepts(0x80) and not matcher.accepts(0xFF) and not matcher.accepts(0xC0)
    assert advance(matcher, "漢".encode()[:2])
    assert allowed(matcher.mask(), 256) == list(range(0x80, 0xC0))
    assert not matcher.accepts(bound.vocabulary.special["</plan>"])
    assert advance(matcher, "漢".encode()[2:])
    assert matcher.accepts(bound.vocabulary.special["</plan>"])


def test_a_stray_byte_is_refused_behind_longer_characters() -> None:
    bound = byte_bound("arith", True)
    text = "<guideline><plan>1: 🙂</plan></guideline><step>1: b</step><takeaway>c"
    ids = [*ids_of(bound, text), 0x82, *ids_of(bound, "</takeaway>d")]
    assert not advance(bound.matcher(), ids)
    assert [v.code for v in bound.check(ids)] == [ViolationCode.NOT_UTF8]


def test_text_cannot_spell_a_tag_where_tags_are_special() -> None:
    made = schema("arith")
    tag = "</takeaway>"
    bound = made.bind(byte_vocabulary(special=made.tags, merges=[tag, "x" + tag + "y", "way>"]))
    matcher = bound.matcher()
    assert advance(matcher, ids_of(bound, "<guideline><plan>1: a"))
    assert not matcher.accepts(256) and not matcher.accepts(257) and matcher.accepts(258)
    assert advance(matcher, b"</takea")
    assert not matcher.accepts(258)
    assert matcher.accepts(ord("w")) and matcher.accepts(ord("<"))
    assert advance(matcher, b"way") and not matcher.accepts(ord(">"))


def test_tokens_may_run_past_a_tag_but_not_out_of_a_branch() -> None:
    made = schema("npr")
    merges = [">\n", "e>\n<p", "e>\n<plan>1", "n>\n", "1:a</plan>", "p>\n<take", "y>\nx"]
    bound = made.bind(byte_vocabulary(merges=merges))
    vocab = bound.vocabulary
    token = {merge: 256 + n for n, merge in enumerate(merges)}
    matcher = bound.matcher()
    assert advance(matcher, b"<guidelin")
    fork = matcher.fork()
    assert advance(fork, [token["e>\n<p"], *b"lan>1:a</pla"])
    assert not fork.accepts(token["n>\n"]), "an item ends between tokens"
    assert advance(matcher, [token["e>\n<plan>1"], *b"2:a</plan>\n</guideline>"])
    assert vocab.text(matcher.forced()) == "\n<step>\n12:", "the label began inside a token"
    assert advance(matcher, b"\n<step>\n12:x</ste")
    assert not matcher.accepts(token["p>\n<take"]), "a branch ends between tokens"
    assert advance(matcher, b"p>\n<takeaway>\nz</takeawa")
    assert matcher.accepts(token["y>\nx"])


def test_one_token_may_hold_a_tag_a_label_and_a_tag() -> None:
    made = schema_of(
        "%import .parallel (map, process, reduce)\n"
        "start: map{list} process{item, branch} reduce{join}\n"
        'list: "<l>" item "</l>"\nitem: "<i>" LABEL "</i>"\nbranch: "<b>" LABEL ":" TEXT "</b>"\n'
        'join: "<j>" TEXT "</j>"\nLABEL: /[1-9]/\n%declare TEXT\n'
    )
    bound = made.bind(byte_vocabulary(merges=["l><i>7</i>"]))
    matcher = bound.matcher()
    assert advance(matcher, [ord("<"), 256])
    assert advance(matcher, b"</l>")
    assert bound.vocabulary.text(matcher.forced()) == "<b>7:"


def test_the_end_comes_once() -> None:
    for name, text in (("arith", "d"), ("triage", "")):
        types = {"VERDICT": "yes|no", "DECISION": "stop"} if name == "triage" else {}
        made = load(name, terminals=types)
        bound = made.bind(byte_vocabulary(special=made.tags))
        matcher, end = bound.matcher(), bound.vocabulary.eos_id
        while not matcher.may_end:
            matcher.advance(allowed(matcher.tight(0), bound.vocabulary.size)[0])
        assert advance(matcher, text.encode()) and end is not None
        matcher.advance(end)
        assert matcher.finished
        with pytest.raises(IllegalTokenError):
            matcher.advance(end)
        assert not allowed(matcher.mask(), bound.vocabulary.size)


# -- repeated texts


@MODES
def test_a_branch_repeats_the_tokens_of_its_goal(special: bool) -> None:
    made = schema("goal")
    merges = ["ab", "bc", "<g>\n<plan>1:"]
    bound = made.bind(byte_vocabulary(special=made.tags if special else (), merges=merges))
    matcher = bound.matcher()
    assert advance(matcher, ids_of(bound, "<g>\n<plan>2:"))
    goal = [ord("a"), 257, ord(" "), 256]
    assert advance(matcher, goal)
    assert advance(matcher, ids_of(bound, "</plan>\n</g>"))
    forced = matcher.forced()
    assert bound.vocabulary.text(forced) == "\n<step>2:abc ab\n"
    at = len(forced) - len(goal) - 1
    assert forced[at:-1] == goal


@MODES
@pytest.mark.parametrize("close", ['"</plan>"', '("</plan>" | "<k>" LABEL "</k>")'])
def test_only_a_tag_ends_a_goal(special: bool, close: str) -> None:
    """So each token from a goal's first on is repeated, up to the one that completes its tag; shown
    for all bytes behind all states."""
    made = schema_of(GOAL.replace('"</plan>"', close))
    bound = made.bind(byte_vocabulary(special=made.tags if special else ()))
    fields, matcher = bound.automaton().fields, bound.matcher()
    assert advance(matcher, ids_of(bound, "<g>\n<plan>1:a"))
    goals = [state for state in fields.known.values() if state.is_counted]
    assert goals
    for state in goals:
        for byte in range(256):
            moved = fields.step(state, byte)
            if isinstance(moved, FieldState):
                assert moved.is_counted and fields.settle(moved).is_counted
                goals += [at for at in (moved, fields.settle(moved)) if at not in goals]


def test_a_goal_begins_and_ends_between_tokens() -> None:
    made = schema("goal")
    bound = made.bind(byte_vocabulary(merges=["1:a", "a</plan>", "n>1:a"]))
    matcher = bound.matcher()
    assert advance(matcher, ids_of(bound, "<g>\n<pla"))
    assert not matcher.accepts(258)
    assert advance(matcher, b"n>")
    assert not matcher.accepts(256)
    assert advance(matcher, b"1:")
    assert not matcher.accepts(257)
    assert advance(matcher, b"a</plan>")
    made = schema_of(GOAL.replace('LABEL ":" GOAL', "GOAL").replace("LABEL: /[1-9][0-9]*/\n", ""))
    matcher = made.bind(byte_vocabulary(merges=["n>a"])).matcher()
    assert advance(matcher, b"<g>\n<pla")
    assert not matcher.accepts(256)


# -- typed terminals


class Verdict(pydantic.BaseModel):
    answer: Literal["yes", "no"]
    sure: bool


class Decision(StrEnum):
    CLOSE = "close"
    REPLY = "reply"


@MODES
def test_typed_terminals_are_constrained(special: bool) -> None:
    made = load("triage", terminals={"VERDICT": Verdict, "DECISION": Decision})
    bound = made.bind(vocabulary(made, special=special, seed=3))
    for seed in range(3):
        walk_exactly(bound, seed)
    matcher, random = bound.matcher(), Random(5)
    ids: list[int] = []
    while not matcher.finished:
        token = random.choice(allowed(matcher.tight(0), bound.vocabulary.size))
        matcher.advance(token)
        ids.append(token)
    trace = bound.parse(ids)
    assert isinstance(trace.find("verdict")[0].value, Verdict)
    assert trace.find("decision")[0].value in Decision


def test_the_mode_follows_the_vocabulary() -> None:
    assert byte_bound("npr", True).mode is TagMode.SPECIAL
    assert byte_bound("npr", False).mode is TagMode.TEXT


@pytest.mark.parametrize("text", ["xx.\n", "xx.\n\n"])
def test_a_token_of_prose_may_end_with_the_glue_behind_it(text: str) -> None:
    made = schema_of('start: TEXT _GLUE "<b>"\n_GLUE: "\\n"\n%declare TEXT\n')
    bound = made.bind(byte_vocabulary(special=["<b>"], merges=[".\n", ".\n\n"]))
    matcher, vocabulary = bound.matcher(), bound.vocabulary
    for token in (*vocabulary.encode(text), vocabulary.special["<b>"]):
        matcher.advance(token)
    assert matcher.may_end
