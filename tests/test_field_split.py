"""Contents are split among the symbols of a field as brute force does, in one walk."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nprdsl.structure.field_split import (
    ANY,
    BLANKS,
    GLUE,
    TEXT,
    FixedPiece,
    Piece,
    split,
    value_piece,
)
from tests.walks import schema_of

# a piece, and the same as an expression of `re`
PIECES: tuple[tuple[Piece, str], ...] = (
    (FixedPiece(":"), ":"),
    (FixedPiece("é a"), "é a"),
    (GLUE, f"[{BLANKS}]*"),
    (TEXT, r"(?s:.*[^ \t\n\r\f\v].*)"),
    (ANY, r"(?s:.*)"),
    *(
        (value_piece(pattern), pattern)
        for pattern in ("[0-9]+", "a|aa|ab", "[ab:]*b", "é?", "(a+)+b", "[a-z ]{1,3}", "[^a]")
    ),
)


def brute_force(content: str, patterns: Sequence[str], start: int = 0) -> Iterator[tuple[int, ...]]:
    """Where the pieces end, in every way, those that the first pieces prefer in front."""
    if not patterns:
        if start == len(content):
            yield ()
        return
    for end in range(len(content), start - 1, -1):
        if re.fullmatch(patterns[0], content[start:end], re.ASCII):
            for rest in brute_force(content, patterns[1:], end):
                yield (end, *rest)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=4),
    st.text("ab:é 1\n", max_size=9),
)
def test_the_first_pieces_take_as_much_as_any_reading_gives(
    pieces: list[tuple[Piece, str]], content: str
) -> None:
    expected = next(brute_force(content, [pattern for _, pattern in pieces]), None)
    found = split(content, [piece for piece, _ in pieces])
    assert found == (None if expected is None else list(expected))


class Counted(Piece):
    """A piece that counts the bytes that it is asked about."""

    def __init__(self, piece: Piece) -> None:
        self.piece, self.bytes = piece, 0

    @property
    def start(self) -> int:
        return self.piece.start

    def longest(self, data: bytes, at: int) -> int:
        self.bytes += len(data) - at
        return self.piece.longest(data, at)

    def step(self, state: int, byte: int) -> int:
        self.bytes += 1
        return self.piece.step(state, byte)

    def accepts(self, state: int) -> bool:
        return self.piece.accepts(state)


@pytest.mark.parametrize(
    "patterns",
    [("(a+)+b",), ("a+", "a+b"), ("(a|aa)+", "(a*)*c"), ("a{1,9}", "a{2,7}", "[ab]*c")],
    ids=str,
)
def test_the_work_grows_with_the_length(patterns: tuple[str, ...]) -> None:
    work = []
    for length in (200, 400):
        pieces = [Counted(value_piece(pattern)) for pattern in patterns]
        assert split("a" * length, pieces) is None
        work.append(sum(piece.bytes for piece in pieces))
    assert work[1] <= 2.1 * work[0]


def test_broken_utf8_fits_nothing() -> None:
    assert split("\udcff", [ANY]) is None


def test_nested_quantifiers_are_read_by_the_automaton() -> None:
    schema = schema_of('start: "<a>" X "</a>"\nX: /(a+)+b/\n')
    assert not schema.check(f"<a>{'a' * 3000}b</a>")
    assert [v.code for v in schema.check(f"<a>{'a' * 3000}</a>")] == ["bad-value"]
