"""The pieces that random schemas are made of: words, brackets, terminals, types.

`nprdsl.testing.schemas` draws from these lists. They hold what has made trouble once, and what is
like it: labels that run out, values that hold tags or blanks, letters of several bytes, flags.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Final, Literal

from pydantic import BaseModel

from nprdsl.grammar.terminal_types import FreeText

WORDS = ("a", "step", "Path", "plan_b", "think", "x-1", "done", "Π", "步骤", "e")
BRACKETS = (("<", ">"), ("[", "]"), ("⟨", "⟩"), ("<|", "|>"))
FEW_LETTERS = ("ab", "abc", "<>b", "ab\n", ".\n", "步骤a", "a: ")
MARKERS = ("## {}\n", "- {} ", "**{}**", "{}:", "\n{}\n", "<{} k=1>", "【{}】", "{}。")
LABELS = (
    "/[1-9][0-9]*/",
    r"/[1-9][0-9]*(\.[1-9][0-9]*)*/",
    "/[a-z]{1,3}/",
    "/[A-Z][0-9]?/",
    "/[1-9]/",
    "/[a-z]{4,12}/",
    "/[0-9]{5}/",
    r"/[0-9]{4}-[0-9]{2}-[0-9]{2}/",
    "/[0-9a-f]{8}/",
    "/[A-Z][a-z]{3,20}/",
    "/[一-龥]{2,4}/",
    "/(ab|cd){1,3}/",
    "/[a-z]+/",
    '"x" | "y" | "z"',
    '"甲" | "乙" | "丙" | "丁"',
    '("a".."c") ["1" | "2"]',
    "/[ab]{1,2}/",
    r"/\S{1,5}/",
    "DIGIT+",
    "/[a-c]{1,3}/i",
)
VALUES = (
    "/yes|no/",
    "/[0-9]{1,3}/",
    r"/-?[0-9]+(\.[0-9]+)?/",
    '"maybe"',
    "/[a-c]+(,[a-c]+)*/",
    "/[ab]|cc/",
    "/[a-z ]{1,6}/",
    '"no" | "none" | "nothing"',
    "/(a|b)+c/",
    "/[^a]{1,3}/",
    "/b>|c/",
    "/[<>a-c]{1,4}/",
    r"/.{2}/",
    "/[是否]/",
    '"yes"i',
    r"/\d\d:\d\d/",
    "/x{20}|y/",
    "/(a+)+b/",
    "/(?i:ab?)c/",
    r"/[0-9]\$/",
    r"/^a$|^bb$/",
    r"/[^\n]{1,4}/",
    '"<" | ">"',
    r"/[\u4e00-\u4e03]{1,2}/",
    "/ab|c/i",
    "/./s",
    "/a b | c/x",
    'DIGIT ["." DIGIT~1..2]',
    '("a" | DIGIT)~2',
)
INLINE = ("/[0-9]{1,2}/", '"a".."c"', '"ok"i', '("x" | "y")')  # written where they are used
FIXED = ("/[0-9]{2}/", "/[A-Z]/", '"ok" | "no"', r"/\([0-9]+\)/")  # none begins another
SEPARATORS = ('":"', '": "', '")"', '" = "', '"|"', '"a"', '"。"')
LITERALS = ('"x"', '"<"', '"b>"', '" - "', '"a"', '"ab"', '".\\n"', '"."', '"好"', '"x>"')
GLUES = (r'"\n"', '" "', r'"\n\n"', r'"\n" | " "')
LISTS = ("+", "~1..3", "~2..4", "~3", "~1..12", "~9", "*", "~0..2", "~0..1", "?")
SHORT_LISTS = ("~2", "~2", "~3", "~1", "", "~0..2", "?")  # for those without tags of their own
REPEATS = ("*", "+", "~1..3", "~2", "~0..2", "~0..1", "~1", "~3", "~0..1000")


class _Kind(Enum):
    """An Enum of texts, one of which holds a blank."""

    GOOD = "good"
    BAD = "bad one"


class _Note(BaseModel):
    """A pydantic model."""

    sure: bool
    kind: Literal["a", "b"] = "a"


TYPES: Final[Mapping[str, object]] = {
    "YES_NO": Literal["yes", "no"],
    "GRADE": {"enum": ["good", "bad", 3]},
    "COUNT": {"type": "integer", "minimum": 0, "maximum": 99},
    "FOUND": {
        "type": "object",
        "properties": {"sure": {"type": "boolean"}, "why": {"type": "string", "maxLength": 4}},
        "required": ["sure", "why"],
    },
    "CODE": r"[A-C]-[0-9]{1,2}",
    "FLAG": bool,
    "KIND": _Kind,
    "NOTE": _Note,
    "PROSE": FreeText,
    "SIZES": list[Literal[1, 2]],
}
