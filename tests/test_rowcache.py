"""Rows on disk: what was saved is found, is the same, and a broken file does no harm."""

from pathlib import Path

import numpy as np
import pytest

import nprdsl
from nprdsl.masks.mask_rows import Rows
from nprdsl.masks.matcher import Matcher

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

    monkeypatch.setattr(Rows, "_compute", never)
    again = masks(nprdsl.load("npr").bind(words, cache=tmp_path).matcher(), ids)
    assert all((a == b).all() for a, b in zip(wanted, again, strict=True))


def test_rows_belong_to_their_vocabulary_and_tags(tmp_path: Path) -> None:
    for special in (True, False):
        bound = nprdsl.load("npr").bind(vocabulary(special), cache=tmp_path)
        masks(bound.matcher(), spell(vocabulary(special)))
        bound.save_rows()
    assert len(list(tmp_path.glob("rows-*.bin"))) == 2


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
