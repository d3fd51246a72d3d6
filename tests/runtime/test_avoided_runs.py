"""What a text to be avoided says is not written again, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nprdsl.machine.actions import DropAction, FeedAction, ForkAction, JoinAction
from nprdsl.machine.budget import Limits
from nprdsl.prompting.examples import Example
from nprdsl.runtime.drawing.avoided_runs import RUN, AvoidedRuns, AvoidedTexts, LastTokens
from nprdsl.runtime.results import Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.untrained import eased
from nprdsl.tokens.vocabulary import Vocabulary
from tests.runtime.test_engine import GREEDY, engine, schema

TEXTS = ("abcdef", "xbcdeg", "ab")
LIMITS = Limits(300, branches=2, blocks=1, rule_tokens={"plan": 5, "step": 40})


def runs(ids: tuple[int, ...]) -> set[tuple[int, ...]]:
    return {ids[i : i + RUN] for i in range(len(ids) - RUN + 1)}


def free_texts(result: Result) -> list[str]:
    assert result.trace is not None
    return [element.text for element in result.trace.find("TEXT")]


def copied(result: Result, texts: list[str]) -> set[tuple[int, ...]]:
    """The runs of a trace's own texts that stand in the others."""
    encode = engine("npr").vocabulary.encode
    avoided = set().union(*(runs(encode(text)) for text in texts))
    return avoided & set().union(*(runs(encode(text)) for text in free_texts(result)))


def test_the_tokens_that_complete_a_run() -> None:
    vocabulary = engine("npr").vocabulary
    made = AvoidedRuns(vocabulary, TEXTS)
    encode = vocabulary.encode
    assert RUN == 5
    assert made.completing(encode("abcd")) == encode("e")
    assert made.completing(encode("bcde")) == tuple(sorted(encode("fg")))
    assert made.completing(encode("bcd")) == made.completing(encode("cdef")) == ()
    kept = AvoidedTexts(vocabulary)
    assert kept.runs(TEXTS) is kept.runs(TEXTS) and kept.runs(()) is None


def test_what_no_token_spells_cannot_be_copied() -> None:
    vocabulary = Vocabulary(dict(enumerate("abcdef")), {"<eos>": 6}, "<eos>")
    made = AvoidedRuns(vocabulary, ("abcdeX", "bcdef"))
    assert made.completing(vocabulary.encode("bcde")) == vocabulary.encode("f")
    assert made.completing(vocabulary.encode("abcd")) == ()


def test_each_branch_has_the_last_tokens_that_it_wrote_itself() -> None:
    last = LastTokens()
    last.apply([FeedAction(0, (1, 2, 3)), FeedAction(0, (4, 5))])
    assert last.of(0) == (2, 3, 4, 5)
    last.apply(
        [ForkAction(0, (1, 2)), FeedAction(1, (6,)), FeedAction(2, (7, 8)), ForkAction(1, (3,))]
    )
    assert (last.of(1), last.of(2), last.of(3)) == ((6,), (7, 8), ())
    last.apply([DropAction(1, (3,)), FeedAction(1, (9,))])
    assert last.of(1) == (6, 9)
    last.apply([JoinAction(0, (1, 2))])
    assert last.of(0) == ()
    last.apply([FeedAction(0, (3,)), ForkAction(0, (1,))])
    assert last.of(1) == ()


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(seed=3, temperature=0.5)], ids=str)
def test_a_trace_copies_nothing_of_what_is_to_be_avoided(sampling: Sampling) -> None:
    one, npr = engine("npr"), schema("npr")
    first = one.generate(npr, "hello", limits=LIMITS, sampling=sampling)
    said = free_texts(first)
    assert copied(first, said)
    sampling = replace(sampling, avoid=said)
    alone = one.generate(npr, "hello", limits=LIMITS, sampling=sampling)
    assert free_texts(alone) != said and not copied(alone, said)
    assert npr.check(alone.text) == []
    beside = one.generate(
        npr, ["hello", "hello"], limits=LIMITS, sampling=[sampling, replace(sampling, avoid=())]
    )
    assert [result.token_ids for result in beside] == [alone.token_ids, first.token_ids]


def test_untrained_models_avoid_what_the_examples_say() -> None:
    npr = schema("npr")
    assert eased(GREEDY, npr).avoid == ()
    own = Example("Is it cold?", npr.examples[0].trace)
    illegal = Example("Is it hot?", "<plan>")
    made = eased(replace(GREEDY, avoid=("x",)), npr, (own, illegal))
    assert made.avoid[:3] == ("x", "Is it cold?", "Is it hot?")
    assert not any("<" in text for text in made.avoid)
    trace = npr.parse(own.trace)
    assert [text.strip() for text in made.avoid[3:]] == [e.text.strip() for e in trace.find("TEXT")]
