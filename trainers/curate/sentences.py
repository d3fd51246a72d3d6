"""Cuts a chain of thought into sentences, and measures how far it is from its rewritten form.

Joined, the sentences are the chain, character by character. A sentence ends behind a full stop, an
exclamation or question mark, also one inside a formula (`$x=3.$ Then`), at an empty line, and
before a line that looks like a new entry. Formulas, drawings, environments and code are never cut.
White space belongs to the sentence that it follows.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from itertools import pairwise
from typing import Final

from rapidfuzz.distance import Levenshtein

_WHOLE: Final = re.compile(
    r"```.*?```"
    r"|\[asy\].*?\[/asy\]"
    r"|\\begin\{(?P<env>[a-z]+\*?)\}.*?\\end\{(?P=env)\}"
    r"|\\\[.*?\\\]|\\\(.*?\\\)"
    r"|(?<!\\)\$\$.*?(?<!\\)\$\$"
    r"|(?<![\\$])\$(?!\$).*?(?<!\\)\$",
    re.S,
)
_STOP: Final = r"[.!?](?:[\"')\]*\u201d\u2019]|\$\$?|\\[\])])*(?P<gap>\s+)(?=[^\sa-z])"
_TIGHT: Final = r"[.!?](?:\\\]|\$\$)(?P<tight>)(?=[A-Z])"  # `.\]Thus`, as the MATH data set has it
_PARAGRAPH: Final = r"\n[ \t]*\n\s*"
_LINE: Final = r"(?<![,;:=+(])\n[ \t]*(?=[A-Z0-9*#•]|-\s)"  # wrapped prose is cut too often by it
_CUT: Final = re.compile(f"(?:{_PARAGRAPH})|(?:{_LINE})|(?:{_STOP})|(?:{_TIGHT})")
_UNFINISHED: Final = re.compile(
    r"e\.?g|i\.?e|cf|vs|resp|approx|dr|mrs?|ms|prof|st|figs?|eqn?s?|thm|nos?|ex|sec|ch"
)
_NUMBER: Final = re.compile(r"(?:^|\n)[ \t]*\d+\.$")


def sentences(text: str) -> tuple[str, ...]:
    """The sentences of `text` in order; joined they are `text`. None of them is blank."""
    spans = [match.span() for match in _WHOLE.finditer(text)]
    cuts = [0, *_cuts(text, spans), len(text)]
    pieces = [text[a:b] for a, b in pairwise(cuts) if a < b]
    whole: list[str] = []
    for piece in pieces:
        if whole and (not piece.strip() or not whole[-1].strip()):
            whole[-1] += piece
        else:
            whole.append(piece)
    return tuple(whole) if text.strip() else ()


def _cuts(text: str, spans: list[tuple[int, int]]) -> list[int]:
    cuts, at = [], 0
    starts = [start for start, _ in spans]
    while (match := _CUT.search(text, at)) is not None:
        gap = max(match.start(), match.start("gap"), match.start("tight"))
        inside = bisect_right(starts, gap) - 1
        if inside >= 0 and gap < spans[inside][1]:
            # from before the end of the formula: the full stop may stand in it
            at = max(spans[inside][1] - len(".\\]"), at + 1)
            continue
        if match["gap"] is None or not _goes_on(text, match):
            cuts.append(match.end())
        at = max(match.end() - 1, at + 1)
    return cuts


def _goes_on(text: str, match: re.Match[str]) -> bool:
    """Whether the full stop is that of an abbreviation or of a number in a list."""
    begin = text.rfind("\n", 0, match.start("gap")) + 1
    before = text[max(begin - 1, 0) : match.start("gap")]
    word = before.split()[-1].rstrip(".").lstrip("([\"'").lower() if before.split() else ""
    return bool(_UNFINISHED.fullmatch(word) or _NUMBER.search(before))


def distance(original: str, rewritten: str) -> float:
    """The normalised edit distance (arXiv 2506.09991): edits for each character of the longer text,
    from 0 (equal) to 1; white space counts as one blank."""
    return Levenshtein.normalized_distance(" ".join(original.split()), " ".join(rewritten.split()))
