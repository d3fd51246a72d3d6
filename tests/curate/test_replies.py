"""Replies: fences, thoughts, broken JSON, and LaTeX that JSON would eat."""

from __future__ import annotations

import json

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nprdsl.trainers.curate.asking import ReplyError, read_reply


class Thing(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid")

    word: str
    numbers: tuple[int, ...]


@given(st.text(st.characters(exclude_categories=("Cc", "Cs"))), st.lists(st.integers()))
def test_json_is_read_as_it_is(word: str, numbers: list[int]) -> None:
    """But for control characters, which may be what JSON makes of a command of LaTeX."""
    thing = Thing(word=word, numbers=tuple(numbers))
    assert read_reply(thing.model_dump_json(), Thing) == thing
    assert read_reply(json.dumps(thing.model_dump()), Thing) == thing


@pytest.mark.parametrize(
    ("before", "behind"),
    [
        ("", ""),
        ("```json\n", "\n```"),
        ("<think>{} hm</think>\n", ""),
        ("Here you are:\n```\n", "\n```\nDone."),
    ],
)
@pytest.mark.parametrize(
    "said", ['{"word": "a", "numbers": [1, 2]}', "{'word': 'a', numbers: [1, 2,]}"]
)
def test_what_stands_around_it_and_small_faults(before: str, behind: str, said: str) -> None:
    assert read_reply(before + said + behind, Thing) == Thing(word="a", numbers=(1, 2))


def test_words_behind_the_object() -> None:
    assert read_reply('{"word": "a", "numbers": []} I hope this helps', Thing).word == "a"


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"\\frac{1}{2}", r"\frac{1}{2}"),
        (r"\boxed{3}", r"\boxed{3}"),
        (r"\sqrt2 \{a\} \( b \)", r"\sqrt2 \{a\} \( b \)"),
        (
            r"\theta \times \text{a} \nu \neq \rho \right)",
            r"\theta \times \text{a} \nu \neq \rho \right)",
        ),
        (r"a\nThen\tno\r\n", "a\nThen\tno\r\n"),
        (r"\u00e9 \underline{a}", "é \\underline{a}"),
        (r"a\\nb", r"a\nb"),
    ],
)
def test_latex_survives(written: str, meant: str) -> None:
    assert read_reply(f'{{"word": "{written}", "numbers": []}}', Thing).word == meant


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("", "holds no JSON object"),
        ("I cannot do that.", "holds no JSON object"),
        ('{"word": 1, "numbers": []}', "`word`: input should be a valid string"),
        ('{"word": "a"}', "`numbers`: field required"),
        ('{"word": "a", "numbers": [], "more": 1}', "`more`: extra inputs are not permitted"),
        ('{"word": "a", "numbers": ["x", "y", "z", "u", "v", "w", "t"]}', "and 2 more"),
    ],
)
def test_anything_else_is_told(said: str, told: str) -> None:
    with pytest.raises(ReplyError, match=told):
        read_reply(said, Thing)
