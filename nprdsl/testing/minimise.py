"""Makes the source of a schema as small as it gets while something still holds of it.

A source and a condition go in; pieces of the source are left out, one after another and in runs,
as long as the condition holds of what is left. Definitions that nothing uses any more go with what
used them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_PIECE = re.compile(r'"(?:\\.|[^"\\\n])*"i?|/(?:\\.|[^/\\\n])+/|%?[\w.]+|~[\d.]+|->|\n|\S')
_NAMED = re.compile(r"\w+")
_BRACKETS = {"(": ")", "[": "]"}


def minimised(source: str, holds: Callable[[str], bool], *, tries: int = 600) -> str:
    """The smallest source found that `holds`; it is asked at most `tries` times."""
    tried = {source}
    again = True
    while again:
        again = False
        for smaller in _smaller(source):
            if smaller in tried:
                continue
            if len(tried) > tries:
                return source
            tried.add(smaller)
            if holds(smaller):
                source, again = smaller, True
                break
    return source


def _smaller(source: str) -> Iterator[str]:
    """Sources with something left out, much first."""
    pieces = [match[0] for match in _PIECE.finditer(source)]
    for rule, body in _definitions(source):
        inlined = f"({body})".join(re.split(rf"(?<![\w%]){rule}(?![\w{{])", source))
        if rule.islower() and rule != "start" and rule not in _NAMED.findall(body):
            yield _used(re.sub(rf"(?m)^\({re.escape(body)}\):.*\n", "", inlined))
    size = max(1, len(pieces) // 4)
    while size:
        for at in range(0, len(pieces), max(1, size // 2)):
            cut = pieces[at : at + size]
            if _balanced(cut) and "\n" not in cut[:-1]:
                yield _used(_joined(pieces[:at] + pieces[at + size :]))
        size //= 2
    for at, piece in enumerate(pieces):
        if piece in _BRACKETS:
            end = _closing(pieces, at)
            if end is not None:
                yield _used(_joined(pieces[:at] + pieces[at + 1 : end] + pieces[end + 1 :]))


def _definitions(source: str) -> list[tuple[str, str]]:
    lines = (line.partition(": ") for line in source.splitlines())
    return [(name, body) for name, _, body in lines if _NAMED.fullmatch(name) and body]


def _balanced(pieces: list[str]) -> bool:
    return all(pieces.count(o) == pieces.count(c) for o, c in (*_BRACKETS.items(), ("{", "}")))


def _closing(pieces: list[str], at: int) -> int | None:
    """The index of the bracket that closes the one at `at`."""
    depth = 0
    for index in range(at, len(pieces)):
        depth += (pieces[index] == pieces[at]) - (pieces[index] == _BRACKETS[pieces[at]])
        if not depth:
            return index
    return None


def _joined(pieces: list[str]) -> str:
    """The pieces as a source, with blanks where they help to read it."""
    text, before = "", "\n"
    for piece in pieces:
        apart = piece not in "){}]*+?:,\n" and piece[0] != "~" and before not in "([{\n"
        text += " " * (apart or (piece == "(" and before == "import")) + piece
        before = piece
    return text.strip() + "\n"


def _used(source: str) -> str:
    """Without the definitions, imports and declarations that nothing uses."""
    while True:
        lines = [line for line in source.splitlines() if line.strip()]
        kept = []
        for line in lines:
            others = set(_NAMED.findall("\n".join(other for other in lines if other is not line)))
            name = re.match(r"(\w+)(\{\w+\})?:", line)
            if name and name[1] != "start" and name[1] not in others:
                continue
            declared = re.match(r"%declare (.*)|%import \S+ \((.*)\)|%import \S+ -> (.*)", line)
            if declared:
                names = re.findall(r"\w+", declared[1] or declared[2] or declared[3] or "")
                left = [n for n in names if n in others]
                if not left:
                    continue
                if declared[2]:
                    line = f"{line[: line.index('(')]}({', '.join(left)})"
            kept.append(line)
        smaller = "\n".join(kept) + "\n"
        if smaller == source:
            return source
        source = smaller
