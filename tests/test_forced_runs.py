"""Forced runs of the token automaton: what is written without a choice leaves none.

The oracle is the mask at every token of the run.
"""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from nprdsl.machine.actions import FeedAction
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.masks.matcher import Matcher
from nprdsl.schema import load
from nprdsl.testing import byte_vocabulary
from tests.test_automaton import MODES, NAMES, QUICK, advance, byte_bound, ids_of, schema
from tests.walks import allowed, choose, schema_of, vocabulary


def follow_forced(bound: BoundSchema, matcher: Matcher) -> list[int]:
    """Advance over the forced run; at every token nothing else could spell what follows."""
    run = matcher.forced()
    vocab = bound.vocabulary
    for at, token in enumerate(run):
        rest = "\0".join(
            b"".join(map(vocab.bytes_of, part)).decode("latin-1")
            for part in _parts(run[at:], vocab.special_text)
        )
        for other in allowed(matcher.mask(), vocab.size):
            if other in vocab.special_text:
                assert other == token
                continue
            spelled = vocab.bytes_of(other).decode("latin-1")
            assert rest.startswith(spelled) or spelled.startswith(rest), (rest, spelled)
        matcher.advance(token)
    return run


def _parts(run: list[int], special: Iterable[int]) -> list[list[int]]:
    """The stretches of a run between special tokens."""
    parts: list[list[int]] = [[]]
    for token in run:
        if token in special:
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


@QUICK
@given(st.sampled_from([*NAMES, "goal"]), st.booleans(), st.integers(0, 99))
def test_forced_runs_leave_no_choice(name: str, special: bool, seed: int) -> None:
    bound = schema(name).bind(vocabulary(schema(name), special=special, seed=seed))
    matcher, random = bound.matcher(), Random(seed)
    for _ in range(40):
        cost = matcher.cost
        run = follow_forced(bound, matcher)
        assert matcher.cost <= cost - len(run)
        if matcher.finished:
            return
        token = choose(bound, matcher, random)
        if token == bound.vocabulary.eos_id:
            return
        matcher.advance(token)


@MODES
def test_headers_labels_and_glue_are_forced(special: bool) -> None:
    bound = byte_bound("npr", special)
    matcher = bound.matcher()
    text = bound.vocabulary.text
    assert text(follow_forced(bound, matcher)) == "<guideline>\n<plan>"
    assert advance(matcher, ids_of(bound, "12:a</plan>"))
    assert text(follow_forced(bound, matcher)) == "\n"
    assert advance(matcher, ids_of(bound, "</guideline>"))
    assert text(follow_forced(bound, matcher)) == "\n<step>\n12:"


def test_a_tag_begun_is_finished_in_the_fewest_tokens() -> None:
    made = load("npr")
    bound = made.bind(byte_vocabulary(merges=["</guid", "eline>"]))
    matcher = bound.matcher()
    assert advance(matcher, ids_of(bound, "<guideline>\n<plan>1:a</plan>\n</guid"))
    assert bound.vocabulary.text(matcher.forced()[:1]) == "eline>"


def test_a_value_is_not_split_where_it_is_cheaper_whole() -> None:
    made = schema_of('start: "<a>" V "</a>"\nV: /answer (yes|no)/\n')
    bound = made.bind(byte_vocabulary(special=made.tags, merges=["answer no"]))
    matcher = bound.matcher()
    assert bound.minimum == 3
    assert bound.vocabulary.text(matcher.forced()) == "<a>"


def test_a_prefix_is_forced_only_if_every_way_out_stays_affordable() -> None:
    """`ab` begins both values, but it may go on to the dear one, where `abX` is one cheap token."""
    made = schema_of(
        'start: "<s>" (V "</a>" | W "</b>" LONG "</c>")\nV: /abX/\nW: /aby/\nLONG: /z{9}/\n'
    )
    bound = made.bind(byte_vocabulary(special=made.tags, merges=["abX"]))
    assert bound.minimum == 3
    machine = Machine(bound, limits=Limits(max_tokens=bound.minimum))
    assert machine.start() == [FeedAction(0, (bound.vocabulary.special["<s>"],))]
    assert machine.left(0) == 2
    assert allowed(machine.mask(0), bound.vocabulary.size) == [256]


def test_the_rest_of_a_character_is_forced_as_bytes() -> None:
    made = schema_of('start: "<a>" V "</a>"\nV: /(é|è)/\n')
    bound = made.bind(byte_vocabulary(special=made.tags))
    matcher = bound.matcher()
    assert matcher.forced() == [bound.vocabulary.special["<a>"], 0xC3]
