"""Tags of which a real tokenizer has some as tokens: every subset, with the tokenizer's own ids."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import combinations

import pytest

pytest.importorskip("tokenizers")

from tokenizers import AddedToken, Tokenizer

from benchmarks import vocabularies
from nprdsl.masks.bound_schema import TagMode
from nprdsl.structure.violations import ViolationCode
from nprdsl.testing.fuzzing import refused_at
from nprdsl.tokens.vocabulary import Vocabulary
from tests.walks import schema_of

pytestmark = pytest.mark.filterwarnings("ignore::nprdsl.masks.bound_schema.SpelledTagsWarning")

SCHEMA = schema_of("""
%import .parallel (spawn, reduce)
start: "<plan>" TEXT "</plan>" spawn{step}~1..3 reduce{join}
step: "<step>" TEXT "</step>"
join: TEXT
%declare TEXT
""")
# tags beside what a tokenizer likes to join with them: blanks, line ends, brackets, full stops
TEXT = (
    "<plan>\n\nFirst, 漢字 and <b>.</plan><step> one:\n</step>"
    "<step>x = [</step><step><</step>\n\nSo 2 >"
)
REAL = pytest.mark.parametrize(
    "name",
    [
        *("gpt2", "mistral"),
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("deepseek", "qwen3", "qwen36")),
    ],
)


@cache
def real(name: str) -> tuple[Tokenizer, Vocabulary]:
    try:
        loaded = vocabularies.load(name)
    except vocabularies.MissingVocabulary as missing:
        pytest.skip(str(missing))
    tokenizer = vocabularies.fast_tokenizer(loaded)
    return tokenizer, Vocabulary.from_tokenizer(tokenizer, loaded.size + 8, eos=loaded.eos)


def with_tags(vocabulary: Vocabulary, tags: Sequence[str]) -> Vocabulary:
    """The same tokens, and these tags as special ones: a trie of 150,000 tokens is built once."""
    made = copy.copy(vocabulary)
    made.special = vocabulary.special | {t: vocabulary.size - 1 - n for n, t in enumerate(tags)}
    made.special_text = {token: text for text, token in made.special.items()}
    made.__dict__.pop("digest")
    return made


def subsets(tags: Sequence[str]) -> Iterator[tuple[str, ...]]:
    for count in range(len(tags) + 1):
        yield from combinations(tags, count)


def own_ids(tokenizer: Tokenizer, vocabulary: Vocabulary, cuts: Sequence[str]) -> list[int]:
    """What the tokenizer writes for `TEXT` if it cuts it at these strings."""
    ids: list[int] = []
    for piece in re.split(f"({'|'.join(map(re.escape, cuts))})", TEXT) if cuts else [TEXT]:
        token = vocabulary.special.get(piece)
        ids += tokenizer.encode(piece).ids if token is None else (token,)
    return ids


@REAL
def test_every_subset_of_tags_as_tokens(name: str) -> None:
    tokenizer, words = real(name)
    for tags in subsets(SCHEMA.tags):
        vocabulary = with_tags(words, tags)
        bound = SCHEMA.bind(vocabulary)
        assert tuple(bound.tag_tokens) == tags
        ids = bound.encode(TEXT)
        assert list(ids) == own_ids(tokenizer, vocabulary, SCHEMA.tags)
        assert refused_at(bound, ids) is None
        assert bound.check(ids) == []
        assert bound.parse(ids).text == vocabulary.text(ids) == TEXT
        whole = own_ids(
            tokenizer, vocabulary, tags
        )  # it may join a spelled tag with its neighbours
        assert {v.code for v in bound.check(whole)} <= {ViolationCode.TOKEN_BOUNDARY}


@pytest.mark.parametrize("name", ["gpt2", "mistral"])
def test_tokens_that_a_tokenizer_has_been_given(name: str) -> None:
    """A special one, one that takes the blanks before it, and one that takes those behind it: what
    the tokenizer then leaves out of a text is written all the same."""
    tokenizer = Tokenizer.from_str(real(name)[0].to_str())
    tokenizer.add_special_tokens([AddedToken("<plan>", rstrip=True)])
    tokenizer.add_tokens([AddedToken("</plan>", lstrip=True), AddedToken("<step>", special=False)])
    bound = SCHEMA.bind(Vocabulary.from_tokenizer(tokenizer, eos=vocabularies.load(name).eos))
    assert bound.mode is TagMode.MIXED
    tags = ("<plan>", "</plan>", "<step>")
    assert bound.tag_tokens == {tag: tokenizer.encode(tag).ids[0] for tag in tags}
    ids = bound.encode(TEXT)
    assert bound.vocabulary.text(ids) == TEXT
    assert bound.check(ids) == [] and refused_at(bound, ids) is None
    assert [t for t in tokenizer.encode(TEXT).ids if t in bound.tag_tokens.values()] == [
        t for t in ids if t in bound.tag_tokens.values()
    ]
