"""Tags that are special tokens, tag by tag: a vocabulary may have all of them, some, or none."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema, SpelledTagsWarning, TagMode
from nprdsl.masks.matcher import IllegalTokenError
from nprdsl.structure.stack import Bounds
from nprdsl.structure.violations import ViolationCode
from nprdsl.testing import byte_vocabulary, straddling_merges
from nprdsl.testing.fuzzing import refused_at
from nprdsl.testing.traces import traces
from nprdsl.tokens.bitmask import allows
from nprdsl.tokens.vocabulary import Vocabulary
from tests.machines import QUICK, SCHEMAS, schema, verify
from tests.runs import run, seeded
from tests.walks import PLAIN, schema_of

pytestmark = pytest.mark.filterwarnings("ignore::nprdsl.masks.bound_schema.SpelledTagsWarning")

VALUE = 'start: "<v>" VALUE "</v>"\nVALUE: /x/\n'


def some_tags(tags: tuple[str, ...], number: int) -> tuple[str, ...]:
    """A subset of the tags, another for each number; never all, never none."""
    chosen = Random(number).sample(tags, 1 + number % (len(tags) - 1))
    return tuple(tag for tag in tags if tag in chosen)


@cache
def partial_bound(name: str, number: int) -> BoundSchema:
    """Some tags are tokens; the others are spelled by tokens that straddle them, which hold whole
    special tags too."""
    tags = schema(name).tags
    merges = [*straddling_merges(tags), *PLAIN]
    return schema(name).bind(byte_vocabulary(some_tags(tags, number), merges))


# -- every tag in the way that the vocabulary has


@SCHEMAS
@QUICK
@given(data=st.data())
def test_text_ids_and_masks_agree_whatever_tags_are_tokens(name: str, data: st.DataObject) -> None:
    bound = partial_bound(name, data.draw(st.integers(0, 9)))
    text = data.draw(traces(schema(name), max_items=3, max_depth=2))
    ids = bound.encode(text)
    assert refused_at(bound, ids) is None
    assert bound.check(ids) == []
    assert bound.parse(ids).text == bound.vocabulary.text(ids) == text
    _each_tag_in_its_way(bound, ids)


@SCHEMAS
@pytest.mark.parametrize("number", range(4))
def test_a_machine_writes_each_tag_in_its_way(name: str, number: int) -> None:
    bound = partial_bound(name, number)
    for budget in (bound.minimum, bound.minimum + 9, 2 * bound.minimum + 60):
        limits = Limits(max_tokens=budget, depth=2, branches=3, blocks=3)
        trace = verify(run(bound, limits, seeded(number)), limits)
        _each_tag_in_its_way(bound, trace.ids)
        assert schema(name).check(trace.text) == []


def _each_tag_in_its_way(bound: BoundSchema, ids: tuple[int, ...]) -> None:
    vocabulary = bound.vocabulary
    own = {*vocabulary.special_text, *bound.tag_tokens.values()}
    spelled = b"".join(b"\0" if token in own else vocabulary.bytes_of(token) for token in ids)
    assert not any(tag.encode() in spelled for tag in bound.tag_tokens)
    text = vocabulary.text(ids)
    for tag, token in bound.tag_tokens.items():
        assert ids.count(token) == text.count(tag)


# -- what a bound schema says of it


def mixed() -> BoundSchema:
    return schema_of(VALUE).bind(byte_vocabulary(["<v>"]))


def test_one_tag_is_a_token_and_the_other_is_spelled() -> None:
    bound = mixed()
    token = bound.vocabulary.special["<v>"]
    assert bound.mode is TagMode.MIXED
    assert bound.tag_tokens == {"<v>": token}
    assert bound.encode("<v>x</v>") == (token, *b"x</v>")
    assert Machine(bound, limits=Limits(max_tokens=50)).start()[0].tokens == (token, *b"x</v>")
    assert bound.minimum == 6


@pytest.mark.filterwarnings("default::nprdsl.masks.bound_schema.SpelledTagsWarning")
def test_a_partial_vocabulary_is_told_once_when_it_is_bound() -> None:
    with pytest.warns(SpelledTagsWarning) as caught:
        schema_of(VALUE).bind(byte_vocabulary(["<v>"])).under(Bounds(depth=3))
    (warned,) = caught
    assert warned.filename == __file__
    assert str(warned.message).startswith(
        "the vocabulary has 1 of the 2 tags of `random` as tokens; `</v>` must be spelled. To make "
    )


@pytest.mark.parametrize("tags", [(), ("<v>", "</v>")])
def test_all_tags_or_none_are_tokens(tags: tuple[str, ...]) -> None:
    bound = schema_of(VALUE).bind(byte_vocabulary(tags))
    assert bound.mode is (TagMode.SPECIAL if tags else TagMode.TEXT)
    assert tuple(bound.tag_tokens) == tags


def test_a_tag_with_a_token_may_not_be_spelled() -> None:
    bound = mixed()
    found = bound.check([*b"<v>x</v>"])
    assert [v.code for v in found][:1] == [ViolationCode.TAG_OUT_OF_PLACE]
    assert "must be its own token" in found[0].message
    assert not allows(bound.matcher().mask(), ord("<"))
    with pytest.raises(IllegalTokenError):
        bound.matcher().advance(ord("<"))


def test_free_text_spells_no_tag_of_either_kind() -> None:
    bound = schema_of('start: "<v>" TEXT "</v>"\n%declare TEXT\n').bind(byte_vocabulary(["<v>"]))
    token = bound.vocabulary.special["<v>"]
    matcher = bound.matcher()
    for one in (token, *b"x<v"):
        matcher.advance(one)
    assert not allows(matcher.mask(), ord(">"))
    found = bound.check([token, *b"x<v></v>"])
    assert [(v.code, v.offset) for v in found] == [(ViolationCode.TAG_OUT_OF_PLACE, 4)]
    assert bound.check([token, *b"x<</v>"]) == []


def test_a_special_token_inside_the_spelling_of_a_tag_is_no_part_of_it() -> None:
    source = 'start: TAG_TURN TEXT "<e>"\nTAG_TURN: "A <|start|>user:"\n%declare TEXT\n'
    bound = schema_of(source).bind(byte_vocabulary(["<|start|>"]))
    assert bound.mode is TagMode.TEXT
    assert bound.check(bound.encode("A <|start|>user:x<e>")) == []
    found = bound.check([*b"A ", bound.vocabulary.special["<|start|>"], *b"user:x<e>"])
    assert "the special token `<|start|>` may not stand in a trace" in found[0].message


MARKDOWN = """
start: TAG_PLAN TEXT TAG_STEP TEXT TAG_DONE
TAG_PLAN: "## Plan "
TAG_STEP: "\\n## Step "
TAG_DONE: "\\n\\n"
%declare TEXT
"""


@pytest.mark.parametrize("named", [("## Plan ",), ("\n\n",), ("## Plan ", "\n## Step ", "\n\n")])
def test_an_added_token_that_is_no_special_one_is_the_tag_that_it_spells(
    named: tuple[str, ...],
) -> None:
    """A tokenizer never splits it, so a model has seen no other spelling."""
    tokens = {n: bytes([n]) for n in range(256)} | {300 + n: t for n, t in enumerate(named)}
    added = {tag: 300 + n for n, tag in enumerate(named)}
    words = Vocabulary(tokens, {"<eos>": 299}, "<eos>", added=added)
    bound = schema_of(MARKDOWN).bind(words)
    assert bound.tag_tokens == added
    text = "## Plan a\n## Step b\n\n"
    ids = bound.encode(text)
    assert set(added.values()) < set(ids)
    assert refused_at(bound, ids) is None and bound.check(ids) == []
    assert bound.vocabulary.text(ids) == text
    assert bound.check([*text.encode()])
    for seed in range(4):
        limits = Limits(max_tokens=bound.minimum + 5 * seed)
        trace = verify(run(bound, limits, seeded(seed)), limits)
        _each_tag_in_its_way(bound, trace.ids)
        assert schema_of(MARKDOWN).check(trace.text) == []


def test_an_added_token_is_text_where_it_is_no_tag() -> None:
    tokens = {n: bytes([n]) for n in range(256)} | {300: "## Plan"}
    words = Vocabulary(tokens, {"<v>": 301, "<eos>": 302}, "<eos>", added={"## Plan": 300})
    bound = schema_of('start: "<v>" TEXT "</v>"\n%declare TEXT\n').bind(words)
    assert bound.check([301, 300, *b"</v>"]) == []
    assert refused_at(bound, (301, 300, *b"</v>")) is None


def test_added_tokens_must_be_tokens() -> None:
    with pytest.raises(ValueError, match="the added token '##' is id 0"):
        Vocabulary({0: "#"}, added={"##": 0})


def test_masks_of_partial_vocabularies_are_kept_apart_on_disk(tmp_path: Path) -> None:
    made = schema("npr")
    for number in range(6):
        vocabulary = byte_vocabulary(some_tags(made.tags, number), straddling_merges(made.tags))
        for _ in range(2):
            bound, fresh = made.bind(vocabulary, cache=tmp_path), made.bind(vocabulary)
            ids = bound.encode(made.skeleton())
            walked, wanted = bound.matcher(), fresh.matcher()
            for token in ids:
                assert (walked.mask() == wanted.mask()).all()
                walked.advance(token)
                wanted.advance(token)
            bound.save_rows()
