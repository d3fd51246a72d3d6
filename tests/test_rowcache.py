"""Rows on disk: what was saved is found, is the same, and a broken file does no harm."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import nprdsl
from nprdsl.masks.field_rests import FieldPart
from nprdsl.masks.fields import FieldMachine, FieldState
from nprdsl.masks.mask_cache import MaskCache
from nprdsl.masks.mask_rows import MaskTable
from nprdsl.masks.matcher import Matcher
from nprdsl.masks.parts import (
    FreshPart,
    LiteralPart,
    RegularPart,
    TagPart,
    TextPart,
    any_glue,
    whole_field,
)
from nprdsl.regular.dfa import compile_regex
from nprdsl.regular.tag_scan import tag_scan
from nprdsl.tokens.spelling import Spelling

TRACE = "<guideline>\n<plan>1: add</plan>\n</guideline>\n<step>\n1: é 2</step>\n<takeaway>\nso</takeaway>\n4"  # noqa: E501


def vocabulary(special: bool) -> nprdsl.Vocabulary:
    tags = nprdsl.load("npr").tags
    tokens = {i: bytes((i,)) for i in range(256)} | {300: b">\n", 301: b"</", 302: b"plan"}
    ids = {tag: 400 + i for i, tag in enumerate(tags)} if special else {}
    return nprdsl.Vocabulary(tokens=tokens, special={**ids, "<eos>": 500}, eos="<eos>")


def spell(words: nprdsl.Vocabulary) -> list[int]:
    text, ids = TRACE, []
    while text:
        tag = next((t for t in words.special if text.startswith(t)), None)
        ids += [words.special[tag]] if tag else list(text[0].encode())
        text = text[len(tag) if tag else 1 :]
    return ids


def masks(matcher: Matcher, ids: list[int]) -> list[np.ndarray]:
    found = []
    for token in ids:
        found.append(matcher.mask().copy())
        matcher.advance(token)
    return found


@pytest.mark.parametrize("special", [True, False])
def test_saved_rows_are_found_and_equal(
    tmp_path: Path, special: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = vocabulary(special)
    ids = spell(words)
    first = nprdsl.load("npr").bind(words, cache=tmp_path)
    wanted = masks(first.matcher(), ids)
    assert first.save_rows() > 5
    assert first.save_rows() == 0

    def never(*_: object) -> None:
        raise AssertionError("a row on disk was computed again")

    monkeypatch.setattr(MaskTable, "_compute", never)
    again = masks(nprdsl.load("npr").bind(words, cache=tmp_path).matcher(), ids)
    assert all((a == b).all() for a, b in zip(wanted, again, strict=True))


def test_rows_belong_to_their_vocabulary_and_tags(tmp_path: Path) -> None:
    for special in (True, False):
        bound = nprdsl.load("npr").bind(vocabulary(special), cache=tmp_path)
        masks(bound.matcher(), spell(vocabulary(special)))
        bound.save_rows()
    assert len(list(tmp_path.glob("rows-*.bin"))) == 2


def test_rows_belong_to_the_bytes_of_each_token(tmp_path: Path) -> None:
    """Vocabularies of one size, with the same special tokens, share no mask on disk."""
    made = nprdsl.load("npr")
    swapped = {ord("A"): b"<", ord("<"): b"A"}
    for changed in ({}, swapped):
        tokens = {i: bytes((i,)) for i in range(256)} | changed
        words = nprdsl.Vocabulary(tokens, {"<eos>": 256}, "<eos>")
        bound = made.bind(words, cache=tmp_path)
        fresh = made.bind(words).matcher().mask()
        assert (bound.matcher().mask() == fresh).all()
        assert bound.save_rows() > 0


def close(reserve: int = 0, *, counted: bool = False) -> TagPart:
    return TagPart("</p>", b"</p>", reserve, counted)


VALUE = compile_regex("[1-9]|1[0-9]")
PARTS: tuple[FieldPart, ...] = (
    LiteralPart(b"x1"),
    any_glue(),
    TextPart(),
    TextPart(counted=True),
    RegularPart(VALUE),
    FreshPart(VALUE, frozenset()),
    FreshPart(VALUE, frozenset({b"1"})),
    *(close(reserve) for reserve in range(4)),
)
TWINS = (LiteralPart(b"x1", (120, 49)), LiteralPart(b"x1", (300,)), close(3, counted=True))


def between_tokens(machine: FieldMachine, part: FieldPart) -> list[FieldState]:
    """Every state between two tokens of a field that begins with the part."""
    rests, words = machine.rests, machine.rests.spelling.vocabulary
    rest = None if isinstance(part, TagPart) else whole_field(rests, (), "</p>")
    reached = [machine.start((rests.link(part, rest),))]
    for state in reached:
        for data in map(words.bytes_of, (*range(256), 300, 301, 302)):
            led = machine.walk(state, data)
            if isinstance(led, FieldState) and led not in reached:
                reached.append(led)
    return reached


@pytest.mark.parametrize("tags", [{}, {"</p>": 400}])
def test_parts_of_one_name_have_one_row(tmp_path: Path, tags: dict[str, int]) -> None:
    """A name leaves out what costs depend on and masks do not: the tokens by which a text is
    repeated, and whether the tokens of a tag are counted."""
    tokens = {i: bytes((i,)) for i in range(256)} | {300: b"x1", 301: b"1</p>", 302: b"p>x"}
    words = nprdsl.Vocabulary(tokens, {**tags, "<eos>": 500}, "<eos>")
    machine = FieldMachine(tag_scan(("</p>",)), tags, Spelling(words))
    rows = MaskTable(machine, words)
    cache = MaskCache(tmp_path, rows, ("</p>",))
    for part in (*PARTS, *TWINS):
        if tags and isinstance(part, TagPart):
            part = replace(part, data=b"")
        computed = {state: rows.row(state) for state in between_tokens(machine, part)}
        for state, row in computed.items():
            stored = cache.find(state)
            assert stored is not None or part not in TWINS
            if stored is not None:
                assert (stored.bits == row.bits).all()
                assert dict(stored.crossings) == dict(row.crossings)
        cache.save(computed, {})


@pytest.mark.parametrize("content", [b"", b"not an archive", b"NPRROWS1\x05"])
def test_a_broken_file_is_written_anew(tmp_path: Path, content: bytes) -> None:
    words = vocabulary(special=True)
    bound = nprdsl.load("npr").bind(words, cache=tmp_path)
    masks(bound.matcher(), spell(words))
    bound.save_rows()
    (file,) = tmp_path.iterdir()
    file.write_bytes(content)
    mended = nprdsl.load("npr").bind(words, cache=tmp_path)
    masks(mended.matcher(), spell(words))
    assert mended.save_rows() > 5
    assert [f.name for f in tmp_path.iterdir()] == [file.name]
