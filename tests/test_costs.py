"""Costs are enough and get smaller: what a legal end takes, from every state of random walks.

The oracle of `tight` is the cost behind each allowed token, asked of a fork of the matcher.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.completion_cost import Costs
from nprdsl.masks.matcher import Matcher
from nprdsl.schema import load
from nprdsl.structure.stack import Frame
from nprdsl.structure.tag_machine import Bounds
from nprdsl.testing import byte_vocabulary, schemas
from nprdsl.testing.tokens import bound_to
from nprdsl.tokens.spelling import NEVER
from nprdsl.tokens.vocabulary import Vocabulary
from tests.runs import linear, run, seeded
from tests.walks import GOAL, SUMS, allowed, choose, schema_of, vocabulary

QUICK = settings(max_examples=12, deadline=None, suppress_health_check=tuple(HealthCheck))
NAMES = ("npr", "multiverse", "threadweaver", "parallel_r1", "arith", "goal")
SLACKS = (0, 1, 2, 5, 30)

BLOCK = """
%import .parallel (map, process, reduce, spawn)
start: body
body: TEXT (block TEXT)*
block: "<p>" "<q>" map{list} process{item, branch} reduce{join}
list: "<l>" item+ "</l>"
item: "<i>" LABEL ":" TEXT "</i>"
branch: "<b>" LABEL ":" body "</b>"
join: "<j>" TEXT "</j>"
LABEL: /[1-9]/
%declare TEXT
"""

TOPICS = r"""
%import .parallel (map, process, reduce)
start: map{list} process{item, branch} reduce{join}
list: "<p>" item+ "</p>"
item: "<i>" TOPIC ":" TEXT "</i>"
branch: "<b>" TOPIC ":" TEXT "</b>"
join: "<j>" TEXT "</j>"
TOPIC: /[A-Z][a-z]{2,12}( [a-z]{2,12}){0,3}/
%declare TEXT
"""


def costs_behind(bound: BoundSchema, matcher: Matcher) -> dict[int, int]:
    """The cost behind every allowed token."""
    found = {}
    for token in allowed(matcher.mask(), bound.vocabulary.size):
        fork = matcher.fork()
        fork.advance(token)
        found[token] = fork.cost
    return found


def check_state(bound: BoundSchema, matcher: Matcher) -> None:
    size, cost, behind = bound.vocabulary.size, matcher.cost, costs_behind(bound, matcher)
    assert 0 <= cost < NEVER
    if not cost:
        assert matcher.may_end
    for slack in SLACKS:
        kept = set(allowed(matcher.tight(slack), size))
        wanted = {token for token, after in behind.items() if after <= cost + slack - 1}
        assert kept <= wanted
        assert all(_closes_partly(bound, token) for token in wanted - kept)
        if cost:
            assert kept, "the end cannot be reached"
            assert min(behind[token] for token in kept) <= cost - 1
    assert set(allowed(matcher.tight(1 << 20), size)) == behind.keys()


def _closes_partly(bound: BoundSchema, token: int) -> bool:
    """Whether a token could end free text and go on: the one kind that may be left out."""
    data = bound.vocabulary.bytes_of(token)
    closings = [b"\n", b" ", *(tag.encode()[:1] for tag in bound.grammar.tags)]
    return any(closing in data[1:] for closing in closings)


def walk(bound: BoundSchema, seed: int, *, steps: int = 30) -> None:
    random, matcher = Random(seed), bound.matcher()
    for _ in range(steps):
        check_state(bound, matcher)
        if matcher.finished:
            return
        token = choose(bound, matcher, random)
        matcher.advance(token)


@pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
@pytest.mark.parametrize("name", NAMES)
def test_some_token_always_brings_the_end_nearer(name: str, special: bool) -> None:
    made = schema_of(GOAL) if name == "goal" else load(name)
    for seed in range(2):
        walk(made.bind(vocabulary(made, special=special, seed=seed)), seed)


@pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
@pytest.mark.parametrize(
    "content",
    [
        '[TEXT "<b>"] V "<c>"',
        '(TEXT "<b>" | V "<c>")+',
        '[TEXT "<b>"] "(" V ")"',
        '[TEXT "<b>"] V',
        '("<i>" [TEXT "<b>"] V "<c>" | TEXT "</a>")+',
    ],
)
def test_a_value_in_place_of_free_text_is_not_forgotten(content: str, special: bool) -> None:
    made = schema_of(f'start: "<a>" {content}\nV: /x|yy|[ab]{{1,2}}b/\n%declare TEXT\n')
    bound = bound_to(made, byte_vocabulary(special=made.tags if special else ()))
    for seed in range(6):
        walk(bound, seed, steps=12)


@QUICK
@given(schemas(first=20), st.booleans(), st.integers(0, 99))
def test_some_token_always_brings_the_end_nearer_in_random_schemas(
    source: str, special: bool, seed: int
) -> None:
    made = schema_of(source)
    walk(made.bind(vocabulary(made, special=special, seed=seed)), seed, steps=20)


@pytest.mark.parametrize(
    "bounds", [Bounds(depth=0), Bounds(depth=1, branches=2), Bounds(blocks=1)], ids=str
)
def test_limits_leave_no_dead_end(bounds: Bounds) -> None:
    made = schema_of(BLOCK)
    bound = made.bind(byte_vocabulary(special=made.tags)).under(bounds)
    for seed in range(4):
        walk(bound, seed)
    special = bound.vocabulary.special
    matcher = bound.matcher()
    matcher.advance(ord("x"))
    assert matcher.accepts(special["<p>"]) == (bounds.depth != 0)


def shortest(bound: BoundSchema, most: int) -> int:
    """The length of a shortest legal trace, by trying all tokens in breadth."""
    states, length = [bound.matcher()], 0
    while not any(matcher.may_end for matcher in states):
        assert length < most
        after = []
        for matcher in states:
            # of tokens that spell the same kind of thing one is enough
            for token in {*allowed(matcher.mask(), bound.vocabulary.size)[:2], *_tags(matcher)}:
                after.append(matcher.fork())
                after[-1].advance(token)
        states, length = after, length + 1
    return length


def _tags(matcher: Matcher) -> list[int]:
    row = matcher.mask()
    return [t for t in allowed(row, 32 * len(row)) if t >= 256]


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ('"<a>" TEXT "</a>"', 3),
        ('"<a>" V "</a>"', 4),
        ('["<a>" TEXT "</a>"]', 0),
        ('("<a>" TEXT "</a>" | "<b>" "</b>")', 2),
        ('("<a>" TEXT "</a>")~2', 6),
        ('"<a>" _GLUE TEXT "</a>" [_GLUE "<b>" V "</b>"]', 5),
    ],
)
def test_the_minimum_is_the_length_of_the_shortest_trace(body: str, tokens: int) -> None:
    declared = "".join(
        line
        for name, line in (
            ("V", "V: /ok|yes/\n"),
            ("_GLUE", '_GLUE: "\\n\\n"\n'),
            ("TEXT", "%declare TEXT\n"),
        )
        if name in body
    )
    made = schema_of(f"start: {body}\n{declared}")
    bound = made.bind(byte_vocabulary(special=made.tags))
    assert bound.minimum == tokens == shortest(bound, 8)


@pytest.mark.parametrize(
    ("name", "special", "tokens"),
    [("npr", True, 23), ("arith", True, 16), ("multiverse", True, 1), ("arith", False, 78)],
)
def test_minima_of_shipped_schemas(name: str, special: bool, tokens: int) -> None:
    """Counted by hand: tags, labels, separators, glue and one character for every text."""
    made = load(name)
    assert made.bind(byte_vocabulary(special=made.tags if special else ())).minimum == tokens


def test_a_listed_item_costs_its_branch_too() -> None:
    made = schema_of(SUMS)
    bound = made.bind(byte_vocabulary(special=made.tags))
    matcher, special = bound.matcher(), bound.vocabulary.special
    before = matcher.cost
    for token in (special["<guideline>"], special["<plan>"], *b"1: a", special["</plan>"]):
        matcher.advance(token)
    assert matcher.cost == before - 7
    matcher.advance(special["<plan>"])
    # the rest of the item, `1: a</plan>`, and its branch, `<step>1: a</step>`
    assert matcher.cost == before - 7 + 5 + 6


def test_labels_grow_dearer_as_the_short_ones_are_used() -> None:
    made = schema_of(BLOCK.replace("LABEL: /[1-9]/", "LABEL: /[1-3]|x[1-9]/"))
    bound = made.bind(byte_vocabulary(special=made.tags))
    matcher, special = bound.matcher(), bound.vocabulary.special
    for token in (ord("a"), special["<p>"], special["<q>"], special["<l>"]):
        matcher.advance(token)
    costs = []
    for label in (b"1", b"2", b"3", b"x1"):
        matcher.advance(special["<i>"])
        costs.append(matcher.cost)
        for token in (*label, *b":a", special["</i>"]):
            matcher.advance(token)
    steps = [after - before for before, after in pairwise(costs)]
    branch = 1 + 1 + 1 + 1 + 1  # <b> label : text </b>
    assert steps == [branch, branch, branch + 2]


def test_a_value_that_has_to_be_longer_costs_its_branch_more_too() -> None:
    """`xa` before `aa` would spell `aa` too early, so items say `xay`, and branches too."""
    made = schema_of(
        """
        %import .parallel (map, process, reduce)
        start: "<l>" map{list} process{item, branch} reduce{join} TEXT
        list: item~2
        item: "<i>" LABEL ODD TAG_END
        branch: "<b>" LABEL ODD TEXT "</b>"
        join: "<j>"
        LABEL: /[1-9]/
        ODD: "xa" "y"?
        TAG_END: "aa"
        %declare TEXT
        """
    )
    bound = made.bind(byte_vocabulary(special=made.tags))
    item, branch = len("<1xay>"), len("<1xay.>")
    assert bound.minimum == 1 + 2 * item + 2 * branch + 1 + 1
    assert written_at_the_minimum(bound) == bound.minimum


@pytest.mark.parametrize(("inside", "behind"), [("ba", "</b>"), ("ba", "b.a")])
def test_a_value_that_must_be_longer_in_an_item_is_so_in_its_branch(
    inside: str, behind: str
) -> None:
    """`a` before a tag that begins with `b` would spell `ab`: the value has to be `cc`."""
    made = schema_of(
        f"""
        %import .parallel (map, process, reduce)
        start: TAG_LIST map{{list}} process{{item, branch}} reduce{{join}}
        list: item~1
        item: DAY VALUE TAG_ITEM
        branch: DAY VALUE TAG_BRANCH
        join: "<j>"
        DAY: /[0-9]{{5}}/
        VALUE: /a|cc/
        TAG_LIST: "ab"
        TAG_ITEM: "{inside}"
        TAG_BRANCH: "{behind}"
        """
    )
    bound = made.bind(byte_vocabulary(special=made.tags))
    assert bound.minimum == 1 + 2 * len("12345cc.") + 1
    assert written_at_the_minimum(bound) == bound.minimum


def test_each_of_two_texts_that_may_stand_here_is_filled_by_itself() -> None:
    """Behind `<a>x` stands the filled text of `<b>`, or an empty one: a blank fills none."""
    made = schema_of(
        """
        start: "<a>" [TEXT "<b>"] "x" TEXT "<c>"
        %declare TEXT
        """
    )
    bound = made.bind(byte_vocabulary(special=made.tags))
    matcher = bound.matcher()
    for token in (bound.vocabulary.special["<a>"], ord("x")):
        matcher.advance(token)
    for token in allowed(matcher.tight(0), bound.vocabulary.size):
        after = matcher.fork()
        after.advance(token)
        assert after.cost < matcher.cost, token


def written_at_the_minimum(bound: BoundSchema) -> int:
    """The tokens that a machine writes under the least budget, the first allowed one each time."""
    machine = Machine(bound, limits=Limits(max_tokens=bound.minimum))
    machine.start()
    while machine.ended is None:
        branch = machine.live[0]
        machine.advance(branch, allowed(machine.mask(branch), bound.vocabulary.size)[0])
    return len(machine.written)


def test_a_repeated_text_costs_each_of_its_tokens_twice() -> None:
    made = schema_of(GOAL)
    bound = made.bind(byte_vocabulary(special=made.tags))
    matcher, special = bound.matcher(), bound.vocabulary.special
    for token in (special["<g>"], 10, special["<plan>"], *b"1:"):
        matcher.advance(token)
    empty = matcher.cost
    matcher.advance(ord("a"))
    assert matcher.cost == empty - 1, "one token of text was counted, and one of its repeat"
    for _ in range(3):
        before = matcher.cost
        matcher.advance(ord("b"))
        assert matcher.cost == before + 1
    before = matcher.cost
    matcher.advance(special["</plan>"])
    assert matcher.cost == before - 1


def test_blocks_beyond_the_limit_are_no_way_to_end() -> None:
    made = schema_of(
        "%import .parallel (spawn, reduce)\n"
        "start: block block\n"
        'block: "<p>" spawn{branch}~2 reduce{join}\nbranch: "<b>" TEXT "</b>"\n'
        'join: "<j>" TEXT "</j>"\n%declare TEXT\n'
    )
    bound = made.bind(byte_vocabulary(special=made.tags))
    assert bound.under(Bounds(blocks=2)).minimum == bound.minimum == 20
    with pytest.raises(SchemaError, match="no trace can be finished under the limits"):
        bound.under(Bounds(blocks=1))
    with pytest.raises(SchemaError, match="no trace can be finished under the limits"):
        bound.under(Bounds(branches=1))


def test_a_depth_that_nothing_reaches_costs_what_none_does() -> None:
    """Each level was measured by itself, so a client's `depth` of 10^9 ran for hours."""
    for made in (schema_of(BLOCK), load("arith"), load("multiverse")):
        bound = made.bind(byte_vocabulary(special=made.tags))
        assert bound.under(Bounds(depth=10**9)).minimum == bound.minimum


@QUICK
@given(schemas(first=20), st.integers(0, 4), st.integers(0, 99))
@example(BLOCK.replace("start: body", "start: block TEXT"), 3, 0)
def test_costs_of_few_levels_are_those_of_each_level(source: str, depth: int, seed: int) -> None:
    """The oracle measures every level; costs decide what may be drawn, so runs are the same too."""

    def drawn() -> tuple[int, list[int]]:
        made = schema_of(source)
        try:
            bound = made.bind(byte_vocabulary(special=made.tags))
            least = bound.under(Bounds(depth=depth)).minimum
        except SchemaError:
            return NEVER, []
        limits = Limits(max_tokens=least + 60, depth=depth)
        return least, linear(run(bound, limits, seeded(seed)))

    def left(costs: Costs, frame: Frame | None) -> int | None:
        used = frame.branch.depth if frame is not None else 0
        return None if costs._bounds.depth is None else costs._bounds.depth - used

    def measure(costs: Costs) -> None:
        for least in (None,) if costs._bounds.depth is None else range(depth + 1):
            costs._measure_level(least)

    found = drawn()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Costs, "_left", left)
        patch.setattr(Costs, "_measure", measure)
        assert found == drawn()


@pytest.mark.parametrize(
    ("body", "least"),
    [
        ("TAG_0 _GLUE V", 6),
        ("TAG_0 _GLUE V V", 7),
        ("TAG_0 _GLUE V~2", 7),
        ('TAG_0 _GLUE (V "<t>")~2', 9),
        ('TAG_0 (_GLUE V "<t>")~2', 12),
    ],
)
def test_what_a_field_costs_beyond_its_parts_is_counted_once(body: str, least: int) -> None:
    glued = f'start: {body}\n_GLUE: "\\n\\n"\nTAG_0: "\\nb"\nV: /[ab]|cc/\n'
    letters = b"\nbcdx"  # no `a`: behind the glue only `cc` spells no tag
    special = {"<t>": len(letters), "<eos>": len(letters) + 1}
    few = Vocabulary({n: bytes([c]) for n, c in enumerate(letters)}, special, "<eos>")
    bound = schema_of(glued).bind(few)
    assert bound.minimum == least
    trace = shortest_by_search(bound, least)
    assert trace is not None and len(trace) == least


def test_what_one_field_costs_beyond_its_parts_is_not_counted_in_another_as_well() -> None:
    """`a a` would spell the last tag, so each value is `bb`, also the one behind the glue."""
    made = schema_of(
        """
        start: TAG_0 _GLUE (VALUE TAG_VALUE)~3 TAG_END
        TAG_0: "a:"
        _GLUE: "\\n\\n"
        VALUE: /a|bb/
        TAG_VALUE: " a"
        TAG_END: "a "
        """
    )
    assert made.bind(byte_vocabulary()).minimum == len("a:\n\n" + 3 * "bb a" + "a ")


def shortest_by_search(bound: BoundSchema, most: int) -> tuple[int, ...] | None:
    """A shortest legal trace that the masks allow, by breadth-first search."""
    waiting: list[tuple[tuple[int, ...], Matcher]] = [((), bound.matcher())]
    for ids, matcher in waiting:
        if matcher.may_end:
            return ids
        if len(ids) < most:
            for token in allowed(matcher.mask(), bound.vocabulary.size):
                after = matcher.fork()
                after.advance(token)
                waiting.append(((*ids, token), after))
    return None


def test_labels_with_thousands_of_tokens() -> None:
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [*letters, *letters.upper(), *map(chr, range(0x20, 0x40)), "\n"]
    pieces += [a + b + c for a in letters for b in letters for c in letters[:8]]
    tags = ("<p>", "</p>", "<i>", "</i>", "<b>", "</b>", "<j>", "</j>")
    words = Vocabulary(
        tokens=dict(enumerate(dict.fromkeys(pieces))),
        special={tag: len(pieces) + n for n, tag in enumerate(tags)},
    )
    bound = schema_of(TOPICS).bind(words)
    matcher = bound.matcher()
    for token in words.encode("A"):
        check_state(bound, matcher.fork())
        for forced in matcher.forced():
            matcher.advance(forced)
        matcher.advance(token)
    assert len(allowed(matcher.mask(), words.size)) > 4096
    check_state(bound, matcher)
