"""Vocabularies that have characters as whole tokens only, without their single bytes."""

from __future__ import annotations

import itertools
from random import Random

import pytest

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.regular.dfa import FAR, compile_regex
from nprdsl.schema import Schema
from nprdsl.testing.tokens import bound_to
from nprdsl.tokens.spelling import Spelling
from nprdsl.tokens.vocabulary import Vocabulary
from tests.all_spellings import compare
from tests.walks import allowed, schema_of

LABELS = ("甲", "乙", "甲乙", "丙a", "b", "é")
VALUES = ("是", "是的", "否", "a是", "ab", "é")
LIST = """
%import .parallel (map, process, reduce)
start: map{list} process{item, branch} reduce{join}
list: "<l>" item~0..2 "</l>"
item: "<i>" N "</i>"
branch: "<b>" N "</b>"
join: "<j>"
"""


def listing(labels: list[str]) -> tuple[Schema, list[str]]:
    """The schema of a list, and its texts."""
    texts = []
    for count in range(3):
        for listed in itertools.permutations(labels, count):
            items = "".join(f"<i>{label}</i>" for label in listed)
            branches = "".join(f"<b>{label}</b>" for label in listed)
            texts.append(f"<l>{items}</l>{branches}<j>")
    return schema_of(LIST + "N: " + " | ".join(f'"{label}"' for label in labels)), texts


def two_values(values: list[str]) -> tuple[Schema, list[str]]:
    """The schema of two values, and its texts."""
    defined = " | ".join(f'"{value}"' for value in values)
    schema = schema_of(f'start: "<s>" V "、" V "</s>"\nV: {defined}\n')
    return schema, [f"<s>{one}、{other}</s>" for one in values for other in values]


def vocabulary(pieces: set[bytes], special: tuple[str, ...]) -> Vocabulary:
    names = (*special, "<|end|>")
    ids = {name: len(pieces) + n for n, name in enumerate(names)}
    return Vocabulary(dict(enumerate(sorted(pieces))), ids, "<|end|>")


def some_pieces(words: tuple[str, ...], random: Random) -> set[bytes]:
    """The letters, but for some, and parts of words, also cut within characters."""
    pieces = {letter.encode() for letter in "".join(words) if random.random() < 0.9}
    for _ in range(random.randrange(5)):
        word = random.choice(words).encode()
        begin = random.randrange(len(word))
        pieces.add(word[begin : begin + random.randint(1, 4)])
    return pieces | {"、".encode()}


@pytest.mark.parametrize("make", [listing, two_values])
@pytest.mark.parametrize("seed", range(24))
def test_masks_allow_what_tokens_can_finish(make: object, seed: int) -> None:
    random = Random(seed)
    words = LABELS if make is listing else VALUES
    chosen = random.sample(words, random.randint(1, 4))
    schema, texts = listing(chosen) if make is listing else two_values(chosen)
    try:
        bound = bound_to(schema, vocabulary(some_pieces(words, random), schema.tags))
    except SchemaError:
        return  # no value can be spelled
    found = compare(bound, texts)
    assert (found.refused, found.stuck, found.cheap) == ([], [], [])


@pytest.mark.parametrize("pattern", ["[一-龥]{2,4}", "[丙-甲]|[a-c]{1,2}", r"\S{1,3}"])
@pytest.mark.parametrize("slack", [0, 5, 60])
def test_labels_of_whole_characters(pattern: str, slack: int) -> None:
    schema = schema_of(LIST.replace("~0..2", "~2..9") + f"N: /{pattern}/\n")
    whole = {letter.encode() for letter in "甲乙丙丁是否abc"}
    bound = schema.bind(vocabulary(whole, schema.tags))
    for seed in range(4):
        random = Random(seed)
        machine = Machine(bound, limits=Limits(max_tokens=bound.minimum + slack))
        machine.start()
        while machine.ended is None:
            branch = random.choice(machine.live)
            machine.advance(
                branch, random.choice(allowed(machine.mask(branch), bound.vocabulary.size))
            )
        assert bound.check(machine.trace().ids) == []


def test_an_ending_that_would_spell_a_tag_is_searched_among_whole_characters() -> None:
    schema = schema_of('start: "<s>" V TAG_E\nV: /[甲乙]{2}/\nTAG_E: "。" | "甲甲"\n')
    letters = {letter.encode() for letter in "甲乙。"}
    bound = bound_to(schema, vocabulary(letters, ("<s>",)))
    matcher = bound.matcher()
    letter = {name: bound.vocabulary.exactly(name.encode())[0] for name in "甲乙。"}
    matcher.advance(bound.vocabulary.special["<s>"])
    assert matcher.cost == 3
    matcher.advance(letter["甲"])
    assert [matcher.accepts(letter[name]) for name in "甲乙。"] == [False, True, False]
    assert matcher.cost == 2


def test_texts_that_tokens_spell() -> None:
    pieces = {b"a", "甲".encode(), "甲乙".encode(), "乙丙".encode(), "甲乙丙".encode(), b"\xe4\xb8"}
    spelling = Spelling(vocabulary(pieces, ()))
    bricks = [brick.decode("utf-8", "replace") for brick in spelling.bricks]
    assert bricks == ["\ufffd", "甲", "乙丙", "甲乙"]  # `甲乙丙` consists of two of them
    usable = spelling.usable(compile_regex("[甲乙丙a]{1,3}"))
    for text in ("a", "甲", "甲乙", "甲乙丙", "甲甲乙", "乙丙a"):
        assert usable.accepts(text.encode()), text
    for text in ("乙", "丙", "乙甲", "丙丙a"):
        assert not usable.accepts(text.encode()), text
    assert usable.distance[usable.start] == 1 and FAR not in usable.distance[usable.table[1][97:98]]
