"""Words of automata, in order and without those that are taken, against all strings up to a length
and `re`."""

from __future__ import annotations

import itertools
import re
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nprdsl.regular.dfa import PLAINEST_FIRST, compile_regex, narrowed
from nprdsl.regular.tag_free import has_values, tag_free
from nprdsl.regular.words import ENDLESS, Words

LONGEST = 6
QUICK = settings(max_examples=60, deadline=None)
STRINGS = [bytes(s) for n in range(LONGEST + 1) for s in itertools.product(b"ab-", repeat=n)]
PATTERNS = st.recursive(
    st.sampled_from(["a", "b", "-", "ab", "[ab]", "[ab-]", "b-"]),
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("(?:{0[0]}|{0[1]})".format),
        st.tuples(inner, inner).map("{0[0]}{0[1]}".format),
        st.tuples(inner, st.sampled_from(["*", "+", "?", "{2}", "{1,3}"])).map(
            "(?:{0[0]}){0[1]}".format
        ),
    ),
    max_leaves=6,
)


def in_order(words: list[bytes]) -> list[bytes]:
    return sorted(words, key=lambda word: (len(word), [PLAINEST_FIRST.index(b) for b in word]))


def brute(pattern: str) -> list[bytes]:
    return in_order([s for s in STRINGS if re.fullmatch(pattern, s.decode())])


@QUICK
@given(PATTERNS)
def test_words_are_counted_and_numbered(pattern: str) -> None:
    dfa, wanted = compile_regex(pattern), brute(pattern)
    words = Words(dfa)
    if words.size < ENDLESS:
        assert words.size == sum(words.count(dfa.start, length) for length in range(200))
    for rank, word in enumerate(wanted):
        assert words.nth(rank) == word
        assert words.rank(word) == rank
        assert words.bytes_of_first(rank + 1) == sum(map(len, wanted[: rank + 1]))


@QUICK
@given(PATTERNS, st.integers(0, 3), st.randoms(use_true_random=False))
def test_the_first_free_word_is_found(pattern: str, begun: int, random: Random) -> None:
    dfa, wanted = compile_regex(pattern), brute(pattern)
    taken = random.sample(wanted, random.randint(0, len(wanted)))
    prefix = random.choice(wanted)[:begun] if wanted else b""
    free = [w[len(prefix) :] for w in wanted if w.startswith(prefix) and w not in taken]
    state = dfa.run(prefix)
    found = Words(dfa).first(state, [w[len(prefix) :] for w in taken if w.startswith(prefix)])
    if free:
        assert found == free[0]
    elif found is not None:
        assert len(prefix + found) > LONGEST
        assert re.fullmatch(pattern, (prefix + found).decode())


@QUICK
@given(PATTERNS, st.sets(st.sampled_from(b"ab-")))
def test_narrowed_automata_lack_the_words_with_other_bytes(pattern: str, kept: set[int]) -> None:
    allowed = np.isin(np.arange(256), list(kept))
    dfa = narrowed(compile_regex(pattern), allowed)
    wanted = [word for word in brute(pattern) if set(word) <= kept]
    assert [s for s in in_order(STRINGS) if dfa.accepts(s)] == wanted
    if wanted:
        assert dfa.completion() == Words(dfa).nth(0) == wanted[0]


@pytest.mark.parametrize(
    ("pattern", "size", "last"),
    [
        (r"[0-9]{5}", 10**5, "99999"),
        (r"[0-9a-f]{8}", 16**8, "ffffffff"),
        (r"[a-z]{4,6}", 26**4 + 26**5 + 26**6, "zzzzzz"),
        (r"[一-龥]{2}", (0x9FA5 - 0x4E00 + 1) ** 2, "龥龥"),
        (r"(a|b)*c", ENDLESS, None),
        (r"[A-Z][a-z]{3,20}", ENDLESS, None),
    ],
)
def test_sizes(pattern: str, size: int, last: str | None) -> None:
    words = Words(compile_regex(pattern))
    assert words.size == size
    if last is not None:
        assert words.nth(size - 1).decode() == last
        assert words.rank(last.encode()) == size - 1


def test_many_taken_words_are_passed_over() -> None:
    dfa = compile_regex(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    words = Words(dfa)
    taken = [words.nth(rank) for rank in range(500)]
    assert words.first(dfa.start, taken) == words.nth(500)
    assert words.first(dfa.start, taken[1:]) == taken[0]


@QUICK
@given(PATTERNS, st.lists(st.sampled_from(["a", "ab", "b-", "aab", "-"]), max_size=2))
def test_values_without_tags(pattern: str, tags: list[str]) -> None:
    dfa = tag_free(pattern, tuple(tags))
    wanted = [w for w in brute(pattern) if not any(tag.encode() in w for tag in tags)]
    assert [s for s in in_order(STRINGS) if dfa.accepts(s)] == wanted
    assert has_values(dfa) or not wanted
    if wanted:
        assert Words(dfa).nth(0) == dfa.completion() == wanted[0]
