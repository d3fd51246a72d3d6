"""Regular expressions as values, read from Python's syntax.

`parse` is the one place that knows how Python writes a regex: the standard library takes the
pattern apart, what is not regular is refused, and character classes become sets of code points.
The automaton over bytes is built from the value, and exports write it in the syntax of others.
Flags are those of `re.ASCII`: ASCII classes and, with `(?i)`, ASCII letters only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final

from nprdsl.regular import codepoints
from nprdsl.regular.codepoints import DIGIT, EVERYTHING, SPACE, WORD, Ranges

# The standard library's parser has no public name (`sre_parse` until Python 3.10).
_parser: Any = import_module("re._parser")
op: Any = import_module("re._constants")

_CATEGORIES: Final[dict[Any, Ranges]] = {
    op.CATEGORY_DIGIT: DIGIT,
    op.CATEGORY_SPACE: SPACE,
    op.CATEGORY_WORD: WORD,
    op.CATEGORY_NOT_DIGIT: codepoints.complement(DIGIT),
    op.CATEGORY_NOT_SPACE: codepoints.complement(SPACE),
    op.CATEGORY_NOT_WORD: codepoints.complement(WORD),
}
# What a regular language cannot state: how it is written, its name, the way out.
_REFUSED: Final[dict[Any, tuple[str, str, str]]] = {
    op.ASSERT: (r"\(\?<?=", "lookaround", "write the alternatives out, or check the value later"),
    op.ASSERT_NOT: (r"\(\?<?!", "lookaround", "write the alternatives out, or use `[^…]`"),
    op.FAILURE: (r"\(\?!", "lookaround", "leave the alternative out"),
    op.GROUPREF: (r"\\[1-9]|\(\?P=", "a backreference", "repeat the group's pattern"),
    op.GROUPREF_EXISTS: (r"\(\?\((?!\?)", "a conditional group", "write both cases out with `|`"),
    op.ATOMIC_GROUP: (r"\(\?>", "an atomic group", "use `(?:…)`"),
    op.POSSESSIVE_REPEAT: (r"(?<=[*+?}])\+", "a possessive quantifier", "drop its `+`"),
}
# A class that looks like one of Unicode's set operations, which Python reads as plain characters.
_SET_OPERATION = r"\[\^?(?:\[|\]?(?:\\.|[^\]\\])(?:\\.|[^\]\\])*?(?:--|&&|~~|\|\|))"
_BOUNDARIES = (op.AT_BOUNDARY, op.AT_NON_BOUNDARY)
_ANCHOR = r"[\^$]|\\[AZbB]"
_STARTS = (op.AT_BEGINNING, op.AT_BEGINNING_STRING)
_ENDS = (op.AT_END, op.AT_END_STRING)

STATE_LIMIT = 20_000
TOO_LARGE = (
    f"the regex needs more than {STATE_LIMIT:,} states; use smaller counts in `{{m,n}}`, "
    "or `*` where there need be no limit"
)


class RegexError(ValueError):
    """A regex that is malformed or not regular; `position` counts characters from 0."""

    def __init__(self, message: str, pattern: str, position: int | None = None) -> None:
        self.message, self.pattern, self.position = message, pattern, position
        where = "" if position is None else f" at position {position}"
        super().__init__(f"{message}{where} of /{pattern}/")


# -- values -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of `ranges`."""

    ranges: Ranges


@dataclass(frozen=True, slots=True)
class Concat:
    """One part after the other; no part is itself a `Concat`."""

    parts: tuple[Regex, ...]


@dataclass(frozen=True, slots=True)
class Union:
    """One of two options or more."""

    options: tuple[Regex, ...]


@dataclass(frozen=True, slots=True)
class Times:
    """`regex` from `low` to `high` times; `high` None is without limit."""

    regex: Regex
    low: int
    high: int | None


Regex = Chars | Concat | Union | Times
EMPTY: Final = Concat(())


def one_of(text: str) -> Chars:
    """One of the characters of `text`."""
    return Chars(codepoints.union((ord(c), ord(c)) for c in text))


def either(options: Iterable[Chars]) -> Chars:
    """The classes as one."""
    return Chars(codepoints.union(r for option in options for r in option.ranges))


def complement(excluded: Chars) -> Chars:
    """Every character that is not in `excluded`."""
    return Chars(codepoints.complement(excluded.ranges))


def literal(text: str) -> Regex:
    """`text` itself."""
    return concat(*(one_of(c) for c in text))


def concat(*parts: Regex) -> Regex:
    """One part after the other."""
    flat: list[Regex] = []
    for part in parts:
        flat.extend(part.parts if isinstance(part, Concat) else [part])
    return flat[0] if len(flat) == 1 else Concat(tuple(flat))


def union(*options: Regex) -> Regex:
    """A choice, nothing last; single characters become one class.

    The order matters to outlines-core, whose automata stop at the first option that is complete.
    """
    singles = [option for option in options if isinstance(option, Chars)]
    others: list[Regex] = [o for o in options if not isinstance(o, Chars) and o != EMPTY]
    if singles:
        others = [either(singles), *others]
    if not others:
        return EMPTY
    whole = others[0] if len(others) == 1 else Union(tuple(others))
    return Times(whole, 0, 1) if EMPTY in options else whole


def quantifier(low: int, high: int | None) -> str:
    """`?`, `*`, `+` or `{low,high}`, which all dialects write alike."""
    match low, high:
        case 0, 1:
            return "?"
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case _:
            return f"{{{low}}}" if low == high else f"{{{low},{'' if high is None else high}}}"


# -- reading ----------------------------------------------------------------------------------


def parse(pattern: str) -> Regex:
    """The value of `pattern`, read with `re.ASCII`.

    Raises RegexError for a pattern that is malformed or not regular: lookaround, backreferences,
    anchors inside, which would match nothing.
    """
    _reject_set_operations(pattern)
    try:
        tree = _parser.parse(pattern, re.ASCII)
        _reject_irregular(tree, pattern)
        return _sequence(tree, tree.state.flags)
    except re.error as error:
        raise RegexError(error.msg, pattern, error.pos) from None
    except RegexError:
        raise
    except ValueError as error:
        raise RegexError(f"{error}; drop the flag, classes are ASCII", pattern) from None
    except OverflowError:
        raise RegexError(TOO_LARGE, pattern) from None
    except RecursionError:
        raise RegexError("groups are nested too deeply; flatten them", pattern) from None


def _sequence(tree: Any, flags: int) -> Regex:
    return concat(*(_item(kind, value, flags) for kind, value in tree))


def _item(kind: Any, value: Any, flags: int) -> Regex:
    if kind is op.AT:
        return EMPTY  # only redundant anchors are left
    if kind is op.BRANCH:
        return union(*(_sequence(option, flags) for option in value[1]))
    if kind is op.SUBPATTERN:
        _, added, removed, inner = value
        if added & re.UNICODE:
            raise ValueError("the flag `u` is not supported")
        return _sequence(inner, (flags | added) & ~removed)
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
        low, high, inner = value
        most = None if high is op.MAXREPEAT else int(high)
        return Times(_sequence(inner, flags), int(low), most)
    return Chars(_code_points(kind, value, flags))


def _code_points(kind: Any, value: Any, flags: int) -> Ranges:
    if kind is op.ANY:
        return EVERYTHING if flags & re.DOTALL else complement(one_of("\n")).ranges
    members = value if kind is op.IN else [(op.LITERAL, value)]
    negated = kind is op.NOT_LITERAL or (op.NEGATE, None) in members
    ranges = codepoints.union(r for member in members for r in _member(*member))
    if flags & re.IGNORECASE:
        ranges = codepoints.ignore_case(ranges)
    return codepoints.complement(ranges) if negated else ranges


def _member(kind: Any, value: Any) -> Ranges:
    if kind is op.NEGATE:
        return ()
    if kind is op.CATEGORY:
        return _CATEGORIES[value]
    low, high = value if kind is op.RANGE else (value, value)
    return ((low, high),)


def _reject_set_operations(pattern: str) -> None:
    position = next(_places(pattern, _SET_OPERATION), None)
    if position is not None:
        message = (
            "set operations and nested classes are not supported: write `\\[`, `\\-`, `\\&`, "
            "`\\~` or `\\|` for the character itself"
        )
        raise RegexError(message, pattern, position)


def _reject_irregular(tree: Any, pattern: str) -> None:
    """Raise RegexError for the first construct that is not regular."""
    anchors = _places(pattern, _ANCHOR)

    def visit(items: Any, at_start: bool, at_end: bool) -> None:
        items = list(items)
        solid = [i for i, item in enumerate(items) if _takes(*item)]
        for i, (kind, value) in enumerate(items):
            begins = at_start and (not solid or i <= solid[0])
            ends = at_end and (not solid or i >= solid[-1])
            if kind in _REFUSED:
                spelling, name, way_out = _REFUSED[kind]
                position = next(_places(pattern, spelling), None)
                raise RegexError(f"{name} is not supported: {way_out}", pattern, position)
            if kind is op.AT:
                _check_anchor(value, begins, ends, pattern, next(anchors, None))
            elif kind is op.BRANCH:
                for option in value[1]:
                    visit(option, begins, ends)
            elif kind is op.SUBPATTERN:
                visit(value[3], begins, ends)
            elif kind in (op.MAX_REPEAT, op.MIN_REPEAT):
                once = value[1] == 1
                visit(value[2], begins and once, ends and once)

    visit(tree, at_start=True, at_end=True)


def _takes(kind: Any, value: Any) -> bool:
    """Whether an item may take a character. (Of `^a$|^a$` Python makes `^a$` and an empty
    choice.)"""
    if kind is op.BRANCH:
        return any(_takes(*item) for option in value[1] for item in option)
    if kind is op.SUBPATTERN:
        return any(_takes(*item) for item in value[3])
    return kind is not op.AT


def _check_anchor(kind: Any, begins: bool, ends: bool, pattern: str, position: int | None) -> None:
    if kind in _BOUNDARIES:
        raise RegexError(
            "a word boundary is not supported: write out which characters stand there",
            pattern,
            position,
        )
    if (kind in _STARTS and not begins) or (kind in _ENDS and not ends):
        raise RegexError(
            "an anchor inside a pattern is not supported: drop it, or escape it "
            "(a pattern matches the whole text without anchors)",
            pattern,
            position,
        )


def _places(pattern: str, spelling: str) -> Iterator[int]:
    """Where `spelling` stands outside of classes, and not as an escaped character."""
    token = re.compile(rf"(?P<hit>{spelling})|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
    return (m.start() for m in token.finditer(pattern) if m["hit"])
