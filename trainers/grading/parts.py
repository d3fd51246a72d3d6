"""An answer of several parts: a list, set, tuple, interval, matrix or ratio, the two values of ±.

`parts_of` tells the kind and the parts of an expression in one spelling (`spelling.plain`); parts
are compared one by one, in order where the order counts. A value alone has no kind.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import product
from typing import Final

from nprdsl.trainers.grading.quantities import OR


class Kind(StrEnum):
    """What parts are to each other."""

    ONE = "one"
    LIST = "list"  # several, without brackets
    SET = "set"
    TUPLE = "tuple"  # (1,2), an open interval too
    CLOSED = "closed"  # [1,2]
    LEFT_OPEN = "left_open"
    RIGHT_OPEN = "right_open"
    MATRIX = "matrix"
    DETERMINANT = "determinant"
    RATIO = "ratio"  # 3:4:5, as what each is of the first


IN_ANY_ORDER: Final = frozenset((Kind.LIST, Kind.SET))
_CLOSES: Final = {"(": ")", "[": "]", r"\{": r"\}", r"\langle": r"\rangle"}
_KINDS: Final = {
    ("(", ")"): Kind.TUPLE, ("[", "]"): Kind.CLOSED, ("(", "]"): Kind.LEFT_OPEN,
    ("[", ")"): Kind.RIGHT_OPEN, (r"\{", r"\}"): Kind.SET, (r"\langle", r"\rangle"): Kind.TUPLE,
}  # fmt: skip
_TOKEN: Final = re.compile(r"\\(?:[A-Za-z]+|.)|.", re.S)
_OPENING: Final = frozenset(("(", "[", "{", r"\{", r"\langle", r"\begin"))
_CLOSING: Final = frozenset((")", "]", "}", r"\}", r"\rangle", r"\end"))
_AND: Final = re.compile(
    r"\s*,?\s*(?:\\(?:text|mathrm|mbox|textrm)\s*\{\s*,?\s*(?:and|or)\s*\}|\b(?:and|or)\b|\\lor\b"
    r"|\\vee\b)\s*(?:\\ \s*)?"
)
_MATRIX: Final = re.compile(
    r"\s*\[?\(?\s*\\begin\s*\{(?P<name>[pbBvV]?matrix|smallmatrix|array)\}(?:\s*\{[lcr|\s]*\})?"
    r"(?P<cells>.*?)\\end\s*\{(?P=name)\}\s*\)?\]?\s*",
    re.S,
)
_GROUPED: Final = re.compile(r"[^,\d]*\d{1,3}(?:,\d{3})+(?!\d)[^,]*")
_RATIO: Final = re.compile(r"(?!.*\d\s*[ap]\.?m)[^:,;=<>|]+(?::[^:,;=<>|]+){2,}", re.I)
_MOST_SIGNS: Final = 3


@dataclass(frozen=True, slots=True)
class Parts:
    """`shape` is that of a matrix, rows and columns; (number of parts, 1) of any other kind."""

    kind: Kind
    parts: tuple[str, ...]
    shape: tuple[int, int]


def parts_of(expression: str) -> Parts:
    """The kind and the parts of an expression."""
    text = expression.strip()
    matrix = _MATRIX.fullmatch(text)
    if matrix is not None and r"\begin" not in matrix["cells"]:
        return _matrix(matrix["name"], matrix["cells"])
    enclosed = _enclosed(text)
    if enclosed is not None:
        kind, inside = enclosed
        parts = _commas(inside)
        grouped = _GROUPED.fullmatch(inside.strip()) and re.search(r",0\d\d", inside)
        if kind is Kind.CLOSED and (rows := _rows(parts)):
            return rows
        if kind is Kind.SET or (len(parts) > 1 and not grouped):
            values = tuple(chain_signs(parts)) if kind is Kind.SET else tuple(parts)
            return Parts(kind, values, (len(values), 1))
        if kind is Kind.TUPLE:  # brackets around one value
            return parts_of(inside)
    if _RATIO.fullmatch(text):
        first, *others = map(str.strip, text.split(":"))
        values = tuple(rf"\frac{{{other}}}{{{first}}}" for other in others)
        return Parts(Kind.RATIO, values, (len(values), 1))
    if _GROUPED.fullmatch(text):
        return Parts(Kind.ONE, (text,), (1, 1))
    values = tuple(_groups(text) or chain_signs(_commas(_without_and(text))))
    kind = Kind.ONE if len(values) == 1 else Kind.LIST
    return Parts(kind, values, (len(values), 1))


def chain_signs(parts: list[str]) -> Iterator[str]:
    """The parts, of each with ± both values."""
    for part in parts:
        yield from _both_signs(part)


def _both_signs(part: str) -> list[str]:
    tokens = re.split(r"\\(pm|mp)(?![A-Za-z])\s*", part)
    signs = tokens[1::2]
    if (
        not signs
        or len(signs) > _MOST_SIGNS
        or re.search(r"[\[({][^\])}]*\\(?:pm|mp)(?![A-Za-z])[^\])}]*,", part)
    ):
        return [part]
    linked = "mp" in signs
    choices = (
        [("+",) * len(signs), ("-",) * len(signs)] if linked else product("+-", repeat=len(signs))
    )
    values = []
    for choice in choices:
        value = tokens[0]
        for sign, chosen, rest in zip(signs, choice, tokens[2::2], strict=True):
            shown = chosen if sign == "pm" else "-+"["+-".index(chosen)]
            bare = not value.strip() or value.rstrip()[-1] in "=({,"
            value += ("" if bare and shown == "+" else shown) + rest
        values.append(value.strip())
    return values


def _matrix(name: str, cells: str) -> Parts:
    rows = re.split(r"\\\\(?:\[[^\]]*\])?|\\cr\b", cells)
    if rows and not rows[-1].replace(r"\hline", "").strip():
        rows.pop()
    table = [[cell.replace(r"\hline", "").strip() for cell in row.split("&")] for row in rows]
    width = max(map(len, table), default=0)
    kind = Kind.DETERMINANT if name in ("vmatrix", "Vmatrix") else Kind.MATRIX
    values = tuple(cell for row in table for cell in row)
    shape = (len(table), width) if all(len(row) == width for row in table) else (-1, len(values))
    return Parts(kind, values, shape)


def _rows(parts: list[str]) -> Parts | None:
    """A matrix that is written as a list of rows: `[[1,2],[3,4]]`."""
    rows = [_enclosed(part) for part in parts]
    table = [_commas(row[1]) for row in rows if row is not None and row[0] is Kind.CLOSED]
    if len(table) < len(rows) or len({len(row) for row in table}) != 1:
        return None
    values = tuple(cell for row in table for cell in row)
    return Parts(Kind.MATRIX, values, (len(table), len(table[0])))


def _enclosed(text: str) -> tuple[Kind, str] | None:
    """The kind of brackets around the whole, and what they enclose."""
    tokens = _TOKEN.findall(text)
    if len(tokens) < 2 or tokens[0] not in _CLOSES or (tokens[0], tokens[-1]) not in _KINDS:
        return None
    depth = 0
    for place, token in enumerate(tokens):
        depth += (token in _OPENING) - (token in _CLOSING)
        if not depth and place < len(tokens) - 1:
            return None
    return _KINDS[tokens[0], tokens[-1]], "".join(tokens[1:-1])


def _without_and(text: str) -> str:
    """The parts with commas between them, where words stand."""
    return _AND.sub(", ", text).strip() if _AND.search(text) else text


def _groups(text: str) -> list[str]:
    """What stands between semicolons or `or` in `x=1, y=2; x=3, y=4`, where all are lists of one
    length; nothing else."""
    groups = _commas(OR.sub(";", text), signs=";")
    lengths = {len(_commas(_without_and(group))) for group in groups}
    return groups if len(groups) > 1 and len(lengths) == 1 and lengths != {1} else []


def _commas(text: str, signs: str = ",;") -> list[str]:
    """What stands between commas and semicolons that no bracket encloses."""
    parts, depth, part = [], 0, ""
    for token in _TOKEN.findall(text):
        depth += (token in _OPENING) - (token in _CLOSING)
        if token in signs and depth <= 0:
            parts.append(part)
            part = ""
        else:
            part += token
    cleaned = [p.strip().removeprefix("\\ ").strip() for p in (*parts, part)]
    return [p for p in cleaned if p] or [text]
