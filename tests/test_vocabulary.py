"""Vocabulary: search, spelling and walking against brute force; reading real tokenizer layouts."""

from __future__ import annotations

import itertools
import string

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nprdsl.tokens.vocabulary import UnspellableError, Vocabulary

SMALL = st.lists(st.sampled_from(b"abc"), min_size=1, max_size=4).map(bytes)
# long tokens that differ, if at all, only far behind, or in trailing NULs
LONG = st.builds(lambda tail: b"abca" * 4 + tail, st.lists(st.sampled_from(b"ab\0")).map(bytes))
VOCABULARIES = st.lists(st.one_of(SMALL, SMALL, LONG, st.binary(max_size=2)), max_size=60).map(
    lambda tokens: dict(zip(itertools.count(2), tokens, strict=False))
)


def tables(states: int = 5) -> st.SearchStrategy[np.ndarray]:
    """Random DFA tables that follow a, b, c (and now and then any byte); state 0 is dead."""

    def build(draw: list[int], rest: int) -> np.ndarray:
        table = np.full((states, 256), rest, dtype=np.int32)
        table[:, 97:100] = np.array(draw, dtype=np.int32).reshape(states, 3)
        table[0] = 0
        return table

    targets = st.lists(st.integers(0, states - 1), min_size=3 * states, max_size=3 * states)
    return st.builds(build, targets, st.integers(0, states - 1))


def end_state(table: np.ndarray, start: int, token: bytes) -> int:
    for byte in token:
        start = int(table[start, byte])
    return start if token else 0


@given(VOCABULARIES, tables(), st.integers(0, 4))
def test_walk_is_a_loop_over_tokens(tokens, table, start):
    vocabulary = Vocabulary(tokens, {"<eos>": 1})
    expected = np.array(
        [end_state(table, start, tokens.get(i, b"")) for i in range(vocabulary.size)]
    )
    ends = vocabulary.walk(table, start)
    assert ends.dtype == np.int32
    np.testing.assert_array_equal(ends, expected)
    some = np.arange(0, vocabulary.size, 2, dtype=np.int32)
    expected[1::2] = 0
    np.testing.assert_array_equal(vocabulary.walk(table, start, ids=some), expected)


def test_walk_a_large_vocabulary_wide_middling_and_narrow():
    pieces = ["".join(p) for n in (1, 2, 3) for p in itertools.product(string.printable, repeat=n)]
    tokens = dict(enumerate(pieces[:40_000] + ["-" * n for n in range(4, 90)]))
    vocabulary = Vocabulary(tokens)
    for allowed in (string.printable, string.ascii_lowercase, "-x", "-"):
        table = np.zeros((3, 256), dtype=np.int32)
        table[1:, list(allowed.encode())] = [[2], [1]]
        expected = [end_state(table, 1, t.encode()) for t in tokens.values()]
        assert vocabulary.walk(table, 1).tolist() == expected


@given(VOCABULARIES, SMALL | LONG | st.binary(max_size=1))
@example({3: b"x" * 18, 4: b"x" * 17 + b"a", 5: b"x" * 17, 6: b"x" * 19}, b"x" * 18)
def test_prefixed_and_containing_are_filters(tokens, part):
    vocabulary = Vocabulary(tokens)
    solid = {i: t for i, t in tokens.items() if t}
    assert vocabulary.prefixed(part).tolist() == [i for i, t in solid.items() if t.startswith(part)]
    assert vocabulary.containing(part).tolist() == [i for i, t in solid.items() if part in t]


def spellings(tokens: dict[int, bytes], text: bytes) -> list[tuple[int, ...]]:
    if not text:
        return [()]
    return [
        (i, *rest)
        for i, t in tokens.items()
        if t and text.startswith(t)
        for rest in spellings(tokens, text[len(t) :])
    ]


@given(
    st.lists(SMALL, max_size=8),
    st.lists(st.sampled_from(b"ab"), min_size=1, max_size=7).map(bytes),
)
@example([b"a", b"ab", b"b", b"abb"], b"abb")
@example([b"a", b"abb", b"bb", b"ab", b"b"], b"abba")
@example([b"a", b"bb", b"ab", b"b"], b"abb")
def test_spell_takes_the_fewest_tokens_then_the_longest_first(pieces, text):
    tokens = dict(enumerate(pieces))
    vocabulary = Vocabulary(tokens)
    every = spellings(tokens, text)
    best = min(every, key=lambda s: (len(s), -len(tokens[s[0]])), default=None)
    spelling = vocabulary.spell(text)
    if best is None:
        assert spelling is None
    else:
        assert spelling is not None and len(spelling) == len(best)
        assert len(tokens[spelling[0]]) == len(tokens[best[0]])
        assert b"".join(map(vocabulary.bytes_of, spelling)) == text
    assert vocabulary.spell(text) == spelling


def test_the_first_of_equal_tokens_spells():
    vocabulary = Vocabulary({7: "a", 3: b"a"})
    assert vocabulary.spell(b"a") == (7,)
    assert vocabulary.prefixed(b"a").tolist() == [3, 7]


@given(st.lists(LONG | st.sampled_from([b"x", b"x\0", b"x\0\0"]), min_size=1, unique=True))
def test_every_token_spells_itself(pieces):
    vocabulary = Vocabulary(dict(enumerate(pieces)))
    for i, piece in enumerate(pieces):
        assert vocabulary.spell(piece) == (i,)
        assert vocabulary.bytes_of(i) == piece


def test_attributes_and_text():
    vocabulary = Vocabulary({0: "é", 1: b"\xc3", 3: ""}, {"<s>": 4}, "<s>", size=9)
    assert (vocabulary.size, vocabulary.eos_id) == (9, 4)
    assert vocabulary.special_text == {4: "<s>"}
    assert [vocabulary.bytes_of(i) for i in range(6)] == ["é".encode(), b"\xc3", b"", b"", b"", b""]
    assert vocabulary.text([0, 4, 1, 0]) == "é<s>\ufffdé"
    assert len(vocabulary.walk(np.ones((2, 256), np.int32), 1)) == 9
    assert Vocabulary({}).size == 0


def test_the_digest_follows_the_content():
    same = Vocabulary({0: "ab", 1: "c"}).digest
    assert same == Vocabulary({0: b"ab", 1: b"c"}).digest
    others = [
        Vocabulary({0: "a", 1: "bc"}),
        Vocabulary({1: "ab", 0: "c"}),
        Vocabulary({0: "ab", 1: "c"}, size=3),
        Vocabulary({0: "ab", 1: "c"}, {"<s>": 2}),
        Vocabulary({0: "ab", 1: "c"}, {"<s>": 2}, "<s>"),
    ]
    assert len({same, *(v.digest for v in others)}) == 6


def test_encode_prefers_the_tokenizer_where_it_is_exact():
    tokens = {0: "a", 1: "b", 2: "ab"}
    assert Vocabulary(tokens).encode("ab") == (2,)
    assert Vocabulary(tokens, encode=lambda text: [0, 1]).encode("ab") == (0, 1)
    assert Vocabulary(tokens, encode=lambda text: [1, 0]).encode("ab") == (2,)
    with_empty_special = Vocabulary(tokens, {"<s>": 3}, encode=lambda text: [3, 0, 1])
    assert with_empty_special.encode("ab") == (2,)
    with pytest.raises(UnspellableError, match="no token spells byte 0x63 at offset 2") as caught:
        Vocabulary(tokens).encode("abcab")
    assert caught.value.offset == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tokens": {0: "a"}, "special": {"<s>": 0}}, "id 0 is in tokens .* and in special"),
        ({"tokens": {}, "special": {"<s>": 0, "<t>": 0}}, "have the same id 0"),
        ({"tokens": {0: "a"}, "special": {"<s>": 1}, "eos": "<S>"}, "did you mean `<s>`"),
        ({"tokens": {0: "a"}, "eos": "</s>"}, "not among the special tokens; add it"),
        ({"tokens": {"a": 0}}, "must be int, not str"),
        ({"tokens": {True: "a"}}, "must be int, not bool"),
        ({"tokens": {-1: "a"}}, "-1 is negative"),
        ({"tokens": {0: "a"}, "special": {"": 1}}, "empty text"),
        ({"tokens": {9: "a"}, "size": 9}, "give size=10"),
    ],
)
def test_mistakes_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Vocabulary(**arguments)
