"""Texts to token ids, as a generation would have written them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.machine.budget import Limits
from nprdsl.structure.violations import TraceError
from nprdsl.testing import byte_vocabulary
from nprdsl.testing.tokens import straddling_merges
from nprdsl.testing.traces import traces
from nprdsl.tokens.vocabulary import UnspellableError, Vocabulary
from nprdsl.trace.encoding import spell_text
from nprdsl.trace.trace import TokenTrace
from tests.machines import MODES, QUICK, SCHEMAS, awkward_bound, byte_bound, schema
from tests.runs import run, seeded


@SCHEMAS
@MODES
@QUICK
@given(data=st.data())
def test_any_legal_text_is_spelled_legally(name: str, special: bool, data: st.DataObject) -> None:
    bound = awkward_bound(name, special)
    text = data.draw(traces(schema(name), max_items=3, max_depth=2))
    ids = bound.encode(text)
    assert bound.check(ids) == []
    assert bound.parse(ids).text == text


@SCHEMAS
@MODES
@pytest.mark.parametrize("seed", range(4))
def test_a_generated_text_has_its_own_forced_tokens_again(
    name: str, special: bool, seed: int
) -> None:
    """What the runtime would force is spelled the same and stands in the same places. (With larger
    tokens a model may sample one that holds more than it had to choose.)"""
    limits = Limits(max_tokens=600, depth=2, branches=3, blocks=3)
    bound = byte_bound(name, special).under(limits.bounds)  # what a limit forces is forced again
    trace = run(bound, limits, seeded(seed)).machine.trace()
    again = bound.parse((*bound.encode(trace.text), *_end(trace, bound.vocabulary)))
    assert _forced(again, bound.vocabulary) == _forced(trace, bound.vocabulary)


@pytest.mark.filterwarnings("ignore::nprdsl.masks.bound_schema.SpelledTagsWarning")
@pytest.mark.parametrize("name", ["npr", "sums", "goal"])
def test_some_tags_have_their_own_forced_tokens_again(name: str) -> None:
    """`<plan>` is one token, `</guideline>` is spelled: behind its `<` there is no choice."""
    made = schema(name)
    bound = made.bind(byte_vocabulary([tag for tag in made.tags if tag == "<plan>"]))
    limits = Limits(max_tokens=600, depth=2, branches=3, blocks=3)
    trace = run(bound, limits, seeded(0)).machine.trace()
    again = bound.parse((*bound.encode(trace.text), *_end(trace, bound.vocabulary)))
    assert _forced(again, bound.vocabulary) == _forced(trace, bound.vocabulary)


def _end(trace: TokenTrace, vocabulary: Vocabulary) -> tuple[int, ...]:
    return trace.ids[-1:] if trace.ids[-1] == vocabulary.eos_id else ()


def _forced(trace: TokenTrace, vocabulary: Vocabulary) -> list[tuple[int, int]]:
    """(bytes before it, token) of every forced token."""
    at, found = 0, []
    for token, chosen in zip(trace.ids, trace.sampled, strict=True):
        if not chosen:
            found.append((at, token))
        name = vocabulary.special_text.get(token)
        at += len(vocabulary.bytes_of(token)) if name is None else len(name)
    return found


def test_an_illegal_text_is_refused_with_its_places() -> None:
    with pytest.raises(TraceError) as caught:
        byte_bound("arith").encode("<guideline></guideline>")
    assert list(caught.value.violations) == schema("arith").check("<guideline></guideline>")


def test_any_text_can_be_spelled_with_its_tags() -> None:
    tags = ("<plan>", "</plan>")
    vocabulary = byte_vocabulary(special=tags, merges=straddling_merges(tags))
    text = "</plan>ab<plan><plan"
    ids = spell_text(vocabulary, text, tags)
    assert vocabulary.text(ids) == text
    assert ids[0] == vocabulary.special["</plan>"]
    assert vocabulary.special["<plan>"] in ids[1:-1]
    assert spell_text(vocabulary, "", tags) == ()


def test_spelled_tags_have_tokens_of_their_own() -> None:
    tags = ("<plan>", "</plan>")
    vocabulary = byte_vocabulary(merges=straddling_merges(tags))
    pieces = [vocabulary.text([i]) for i in spell_text(vocabulary, "x<plan>x</plan>\n", tags)]
    assert "".join(pieces) == "x<plan>x</plan>\n"
    for start in (1, 7, 8, 15):
        assert start in [len("".join(pieces[:n])) for n in range(len(pieces))]


def test_what_the_vocabulary_lacks_is_told() -> None:
    with pytest.raises(UnspellableError, match="cannot spell 'ab'"):
        spell_text(Vocabulary({0: "a"}), "ab", ())
