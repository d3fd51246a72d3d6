"""Byte automata against `re.fullmatch`, and what regexes are refused."""

from __future__ import annotations

import itertools
import re
import time

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nprdsl.regular import dfa as dfa_module
from nprdsl.regular.aho_corasick import NO_WORD, ROOT, aho_corasick
from nprdsl.regular.codepoints import EVERYTHING, byte_tree, complement, union
from nprdsl.regular.dfa import FAR, UTF8, compile_regex, one_text, whitespace_loop
from nprdsl.regular.syntax import RegexError

LETTERS = "aAbZz09_ \n\té߿ऀ日\ud7ff\ue000😀\U0010ffff-"
CLASSES = [r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", "."]


def ranges(pair: tuple[str, str]) -> str:
    low, high = sorted(pair)
    return f"{re.escape(low)}-{re.escape(high)}"


MEMBERS = st.one_of(
    st.sampled_from(LETTERS).map(re.escape),
    st.sampled_from(CLASSES[:-1]),
    st.tuples(st.sampled_from(LETTERS), st.sampled_from(LETTERS)).map(ranges),
)
SETS = st.builds(
    lambda negated, members: f"[{negated}{''.join(members)}]",
    st.sampled_from(["", "^"]),
    st.lists(MEMBERS, min_size=1, max_size=3),
)
COUNTS = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,3}", "{2,}", "*?", "+?", "{1,2}?"])
FLAGS = st.sampled_from(["(?:", "(", "(?s:", "(?-i:", "(?i:", "(?a:", "(?m:", "(?#x)("])
ESCAPES = st.sampled_from([r"\101", r"\x41", r"\u65e5", r"\N{DIGIT ZERO}", r"\0", r"[\b\60-\71]"])
REGEXES = st.recursive(
    st.one_of(st.sampled_from(LETTERS).map(re.escape), st.sampled_from(CLASSES), SETS, ESCAPES),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map("".join),
        st.builds(lambda f, a, b: f"{f}{a}|{b})", FLAGS, inner, inner),
        st.builds(lambda a, count: f"(?:{a}){count}", inner, COUNTS),
    ),
    max_leaves=8,
)
TEXTS = st.text(st.sampled_from(LETTERS), max_size=5)


def compiled(pattern: str):
    """The automaton, or None for a pattern that matches nothing."""
    try:
        return compile_regex(pattern)
    except RegexError as error:
        assert "matches nothing" in str(error)
        return None


SHORT = ["".join(letters) for n in range(4) for letters in itertools.product("aA0 \né😀", repeat=n)]


@given(REGEXES)
def test_accepts_what_fullmatch_accepts(pattern):
    dfa = compiled(pattern)
    oracle = re.compile(pattern, re.ASCII)
    for text in SHORT:
        assert (dfa is not None and dfa.accepts(text.encode())) == bool(oracle.fullmatch(text))


@given(REGEXES, REGEXES, st.sampled_from(["^{}", "{}$", r"\A{}\Z", "^{}$|^{}$", "^(?:{}|{})$"]))
@example(r"aa\d", r"aa\d", "^{}$|^{}$")
def test_anchors_at_the_ends_change_nothing(one, two, form):
    pattern = form.format(f"(?:{one})", f"(?:{two})")
    dfa, oracle = compiled(pattern), re.compile(pattern, re.ASCII)
    for text in SHORT:
        assert (dfa is not None and dfa.accepts(text.encode())) == bool(oracle.fullmatch(text))


@given(REGEXES, st.lists(st.integers(0, 255), max_size=9))
def test_fullmatch_accepts_every_walk_that_is_completed(pattern, choices):
    dfa = compiled(pattern)
    if dfa is None:
        return
    text, state = b"", dfa.start
    for choice in choices:
        alive = dfa.table[state].nonzero()[0]
        if len(alive):
            text += bytes([alive[choice % len(alive)]])
            state = dfa.run(text)
    text += dfa.completion(state)
    assert re.compile(pattern, re.ASCII).fullmatch(text.decode())


@given(REGEXES)
@example("[A-z]a")
@example("[^a-c]|(?-i:a)")
@example("é|[^É]")
def test_case_is_ignored_for_ascii_letters(pattern):
    pattern = f"(?i){pattern}"
    if any(ord(c) > 0xFFFF for c in pattern):
        return  # CPython folds ranges beyond the BMP in Unicode even with re.ASCII
    dfa = compiled(pattern)
    oracle = re.compile(pattern, re.ASCII)
    for text in (*SHORT, "É", "B", "b", "c", "C", "_a", "Zz"):
        expected = bool(oracle.fullmatch(text))
        assert (dfa is not None and dfa.accepts(text.encode())) == expected


@given(REGEXES, st.binary(max_size=4))
def test_accepts_only_utf8(pattern, text):
    dfa = compiled(pattern)
    if dfa is not None and dfa.accepts(text):
        assert re.compile(pattern, re.ASCII).fullmatch(text.decode())


@given(REGEXES)
def test_every_live_state_is_one_byte_nearer_by_its_next_byte(pattern):
    dfa = compiled(pattern)
    if dfa is None:
        return
    assert (dfa.table[0] == 0).all() and not dfa.accepting[0]
    assert dfa.distance[0] == FAR and dfa.next_byte[0] == -1
    for state in range(1, len(dfa.table)):
        assert (dfa.distance[state] == 0) == dfa.accepting[state] == (dfa.next_byte[state] == -1)
        following = dfa.distance[dfa.table[state]]
        if not dfa.accepting[state]:
            assert following.min() == dfa.distance[state] - 1
            assert following[dfa.next_byte[state]] == dfa.distance[state] - 1
        completion = dfa.completion(state)
        assert len(completion) == dfa.distance[state]
        assert dfa.accepting[dfa.run(completion, state)]


@given(st.integers(0, 0x10FFFF), st.integers(0, 3000))
@example(0xD700, 0x1000)
@example(0xFF00, 0x200)
def test_ranges_are_spelled_exactly(low, width):
    high = min(low + width, 0x10FFFF)

    def spellings(tree):
        for before, last in tree:
            ends = [bytes([b]) for b in range(256) if last >> b & 1]
            yield from (
                head + end for head in (spellings(before) if before else [b""]) for end in ends
            )

    expected = [chr(c).encode() for c in range(low, high + 1) if not 0xD800 <= c <= 0xDFFF]
    within = complement(complement([(low, high)]))
    assert sorted(spellings(byte_tree(within))) == expected


def test_sets_of_code_points():
    assert union([(5, 9), (1, 2), (3, 4), (7, 20)]) == ((1, 20),)
    assert complement(()) == EVERYTHING
    assert complement(EVERYTHING) == ()
    assert complement([(0, 0x41), (0x43, 0x10FFFF)]) == ((0x42, 0x42),)


def test_utf8_has_eight_live_states():
    dfa = UTF8
    assert len(dfa.table) == 9
    assert dfa.accepting.nonzero()[0].tolist() == [dfa.start]
    assert sorted(dfa.distance[1:].tolist()) == [0, 1, 2, 2, 2, 3, 3, 3]
    for text in (
        b"\xc0\x80",
        b"\xed\xa0\x80",
        b"\xf4\x90\x80\x80",
        b"\x80",
        b"\xf8\x88\x80\x80\x80",
    ):
        assert dfa.run(text) == 0
    assert dfa.accepts("aé日😀\n".encode())


@pytest.mark.parametrize(
    ("pattern", "completion"),
    [
        (r"[1-9][0-9]*(\.[1-9][0-9]*)*", b"1"),
        (r"[^x]{2}yes", b"00yes"),
        (r"\s\W", b" !"),
        ("é|[日-月]a", "é".encode()),
        ("^(?:a|bc)$", b"a"),
        (r"\A(^ab$)?\Z", b""),
        ("", b""),
    ],
)
def test_shortest_completions_are_plain(pattern, completion):
    assert compile_regex(pattern).completion() == completion


@pytest.mark.parametrize(
    ("pattern", "witness"),
    [
        (r"\s*a", b" "),
        (r"a[\t\n]*", b"a\t"),
        (r"\[( ?\d+( ?, *\d+)*)?\]", b"[0, "),
        (r"(?:a(?: \n)+)+b", b"a \n "),
        (r"\s?a\s{0,9}", None),
        (r'"[^"]*"', None),
        (r"[\w ]*", None),
        (r"(?:[a-z]é ?)*", None),
        ("[1-9]*", None),
    ],
)
def test_loops_of_white_space(pattern, witness):
    assert whitespace_loop(compile_regex(pattern)) == witness


@pytest.mark.parametrize(
    ("pattern", "message", "position"),
    [
        (r"[(?=]\\(?=a)b", "lookaround is not supported", 7),
        ("a(?!b)", "lookaround is not supported", 1),
        ("ab(?<=b)", "lookaround is not supported", 2),
        ("a(?!)", "lookaround is not supported", 1),
        (r"(a)\1", "a backreference is not supported: repeat the group's pattern", 3),
        ("(?P<x>a)(?P=x)", "a backreference", 8),
        ("(a)?(?(1)b|c)", "a conditional group", 4),
        ("(?>a|ab)c", r"an atomic group is not supported: use `\(\?:…\)`", 0),
        (r"a\+b++", "a possessive quantifier", 5),
        (r"a\b", "a word boundary", 1),
        (r"^a[$]^b", "an anchor inside a pattern", 5),
        (r"(?:^a)*", "an anchor inside a pattern", 3),
        (r"a$\n", "an anchor inside a pattern", 1),
        ("a[^\\s\\S]", "matches nothing", None),
        ("\ud800", "matches nothing", None),
        ("(a", "missing \\)", 0),
        ("x{2,1}", "min repeat greater", 2),
        ("(?u)é", "classes are ASCII", None),
        (r"a(?u:\w)", "classes are ASCII", None),
        (r"a[^a--b]", "set operations", 1),
        (r"[\]a&&b]", "set operations", 0),
        (r"\[[[:alpha:]]", "set operations and nested classes", 2),
        (r"\q", r"bad escape \\q", 0),
        (r"\400", "octal escape", 0),
        ("x(?i)a", "global flags not at the start", 1),
        ("(?:a{300}){300}", "more than 20,000 states; use smaller counts", None),
        (r"(?:a|b)*a(?:a|b){16}", "more than 20,000 states", None),
        ("(" * 5000 + ")" * 5000, "nested too deeply", None),
    ],
)
def test_refused(pattern, message, position):
    with pytest.raises(RegexError, match=message) as caught:
        compile_regex(pattern)
    assert caught.value.position == position
    assert caught.value.pattern == pattern


def test_a_label_compiles_in_a_millisecond():
    best = float("inf")
    for _ in range(10):
        dfa_module._automaton.cache_clear()
        begin = time.perf_counter()
        compile_regex(r"[1-9][0-9]*(\.[1-9][0-9]*)*")
        best = min(best, time.perf_counter() - begin)
    assert best < 0.005  # 0.3 ms on a quiet machine


def test_tables_are_what_a_vocabulary_walks():
    dfa = compile_regex("a+b")
    assert dfa.table.dtype == np.int32 and dfa.table.flags.c_contiguous
    assert dfa.table.shape == (len(dfa.accepting), 256)
    assert compile_regex("a+b") is dfa


@given(
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=4, unique=True),
    st.text("abc", max_size=12),
)
def test_aho_corasick_finds_what_a_look_at_every_word_finds(words: list[str], text: str):
    automaton = aho_corasick(words)
    state = ROOT
    for end, letter in enumerate(text, 1):
        state = automaton.moves[state].get(letter, ROOT)
        read = text[:end]
        ended = [word for word in words if read.endswith(word)]
        longest = max(ended, key=len, default="")
        assert automaton.ends[state] == (words.index(longest) if longest else NO_WORD)
        begun = [
            (word[:length], word[length:])
            for word in words
            for length in range(1, len(word) + 1)
            if read.endswith(word[:length])
        ]
        assert set(automaton.rests[state]) == {rest for _, rest in begun}
        assert automaton.depths[state] == max((len(part) for part, _ in begun), default=0)
    assert aho_corasick([word.encode() for word in words]).ends == automaton.ends


@given(st.text(LETTERS + "()*[.\\", max_size=6))
def test_the_automaton_of_one_text_is_that_of_its_regex(text: str) -> None:
    made, compiled = one_text(text), compile_regex(re.escape(text))
    assert made.start == compiled.start
    for name in ("table", "accepting", "distance", "next_byte"):
        one, other = getattr(made, name), getattr(compiled, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_counts_of_counts_are_refused_before_all_their_ways_are_joined() -> None:
    """Its subset construction took 42 s of joining; the states alone are within their limit."""
    with pytest.raises(RegexError, match="in too many ways"):
        compile_regex("(a{1,100}){1,100}")
    assert compile_regex("(a{1,20}){1,20}").accepts(b"a" * 400)
