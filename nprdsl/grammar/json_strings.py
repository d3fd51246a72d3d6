"""What stands between the quotes of a JSON string: patterns, lengths and formats as regexes.

A `pattern` is searched for in the decoded text, as JSON Schema and pydantic do, and may use what
all dialects (ECMA-262, Python, Rust) read alike; anything else is refused. Lengths count characters
of the decoded text. A character is written plainly or, where JSON demands or has one, by its short
escape; `\\u` escapes and control characters are never written.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Final

from nprdsl.regular.codepoints import EVERYTHING, Ranges, complement, union
from nprdsl.regular.syntax import (
    EMPTY,
    Chars,
    Concat,
    Regex,
    RegexError,
    Times,
    Union,
    concat,
    parse,
    quantifier,
)
from nprdsl.regular.syntax import union as either

_SHORT: Final = dict(zip('"\\\\/\b\f\n\r\t', '"\\\\/bfnrt', strict=True))
# Control characters and what JSON escapes: not written plainly.
_NEVER_PLAIN: Ranges = ((0x00, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x9F))
ANY_CHARACTER: Final = r'(?:[^"\\\x00-\x1f\x7f-\x9f]|\\["\\/bfnrt])'

# White space of any dialect, so that what `\S` matches is none in all of them.
_SPACES: Final = r"\t-\r\x1c-\x20\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff"
_TOKEN: Final = re.compile(
    r"\\(?P<escape>.)|(?P<class>\[\^?(?P<empty>\])?(?:\\.|[^\]\\])*\])"
    r"|(?P<group>\((?:\?(?P<kind>:|P?<[A-Za-z_]\w*>)?)?)|\{[0-9]+(?:,[0-9]*)?\}|.",
    re.DOTALL,
)
_ANYTHING: Final = Times(Chars(EVERYTHING), 0, None)


# -- formats -------------------------------------------------------------------------------------

_MONTH_DAY = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_LEAP_YEAR = r"(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)"
DATE = rf"(?:[1-9][0-9]{{3}}-{_MONTH_DAY}|{_LEAP_YEAR}-02-29)"
TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?"
ZONE = r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_SECONDS = "[0-9]{1,4}S"
_MINUTES = f"[0-9]{{1,4}}M(?:{_SECONDS})?"
_HOURS = f"[0-9]{{1,4}}H(?:{_MINUTES})?"
_CLOCK = f"T(?:{_HOURS}|{_MINUTES}|{_SECONDS})"
DURATION = f"P(?:[0-9]{{1,4}}D(?:{_CLOCK})?|{_CLOCK})"
# Neither `xn--` nor a last label of digits: both change what a host means. Names stay below 254
# characters, their labels below 64.
_PIECE = "[A-Za-z0-9]{1,12}"
_LABEL = f"{_PIECE}(?:-{_PIECE}){{0,2}}"
_LAST_LABEL = f"[A-Za-z][A-Za-z0-9]{{0,11}}(?:-{_PIECE}){{0,2}}"
_HOST = rf"(?:{_LABEL}\.){{0,4}}{_LAST_LABEL}"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IPV4 = rf"{_OCTET}(?:\.{_OCTET}){{3}}"
_HEX = "[0-9a-fA-F]{1,4}"
_GROUPS_AND_GAP = "|".join(
    f"{f'{_HEX}(?::{_HEX}){{{before - 1}}}' if before else ''}::"
    f"{f'(?:{_HEX}(?::{_HEX}){{0,{6 - before}}})?' if before < 7 else ''}"
    for before in range(8)
)
IPV6 = f"(?:{_HEX}(?::{_HEX}){{7}}|{_GROUPS_AND_GAP})"
_NAME = "[A-Za-z0-9_+-]{1,16}"
_REST = (
    r"(?::[1-9][0-9]{0,3})?(?:/[A-Za-z0-9._~/&=+-]{0,512})?"
    r"(?:\?[A-Za-z0-9._~/?&=+-]{0,512})?(?:#[A-Za-z0-9._~/?&=+-]{0,64})?"
)


def url(schemes: tuple[str, ...] = ("http", "https")) -> str:
    """Addresses of at most 2,000 characters or so."""
    return rf"(?:{'|'.join(map(re.escape, schemes))})://{_HOST}{_REST}"


def uuid(version: str = "[0-9a-f]", variant: str = "[0-9a-f]") -> str:
    """A UUID whose digits of version and variant are of these classes."""
    return (
        rf"[0-9a-f]{{8}}-[0-9a-f]{{4}}-{version}[0-9a-f]{{3}}-{variant}[0-9a-f]{{3}}-[0-9a-f]{{12}}"
    )


FORMATS: Final = {
    "date": DATE,
    "time": TIME + ZONE,
    "date-time": f"{DATE}T{TIME}{ZONE}",
    "duration": DURATION,
    "email": rf"{_NAME}(?:\.{_NAME}){{0,2}}@(?:{_LABEL}\.){{1,4}}[A-Za-z]{{2,12}}",
    "hostname": _HOST,
    "uuid": uuid(),
    "ipv4": IPV4,
    "ipv6": IPV6,
    "uri": url(),
}


# -- patterns ------------------------------------------------------------------------------------


def searched(pattern: str) -> Regex:
    """The decoded texts in which `pattern` is found.

    Raises RegexError for what is malformed, not regular or read differently by the dialects.
    """
    options = []
    for tokens in _alternatives(pattern):
        begins, ends = tokens[:1] == ["^"], tokens[-1:] == ["$"]
        inner = tokens[begins : len(tokens) - ends]
        if {"^", "$"} & set(inner):
            way = "it stands at an end of an alternative, outside of groups"
            raise RegexError(f"this anchor is not supported: {way}", pattern)
        before, behind = (EMPTY if bound else _ANYTHING for bound in (begins, ends))
        options.append(concat(before, parse("".join(inner)), behind))
    return either(*options)


def _alternatives(pattern: str) -> list[list[str]]:
    """The alternatives outside of groups as tokens that Python reads like everybody else."""
    options: list[list[str]] = [[]]
    depth = 0
    for token in _TOKEN.finditer(pattern):
        text = token[0]
        depth += (text[0] == "(") - (text == ")")
        if text == "|" and not depth:
            options.append([])
        else:
            options[-1].append(_common(token, pattern))
    return options


def _common(token: re.Match[str], pattern: str) -> str:
    """The token in Python's syntax, its classes the part that all dialects agree on."""
    text, escape = token[0], token["escape"]
    if escape == "S":
        return f"[^{_SPACES}]"
    if text == ".":
        return r"[^\n\r\u2028\u2029]"
    if token["group"] is not None and token["kind"] is not None:
        return "(?:"
    refused = {
        "this group": token["group"] not in (None, "("),
        "an empty class": token["empty"] is not None,
        "this escape": escape is not None and not _is_common(escape),
        "a brace that is no count": text in "{}",
    }
    for name, is_here in refused.items():
        if is_here:
            raise RegexError(f"{name} is not read alike by all dialects", pattern, token.start())
    return text if token["class"] is None else _common_class(text, pattern, token.start())


def _common_class(text: str, pattern: str, position: int) -> str:
    escapes = {found[1] for found in re.finditer(r"\\(.)", text, re.DOTALL)}
    plain = re.sub(r"\\.", "", text[1:-1], flags=re.DOTALL)
    negated = text.startswith("[^")
    if "[" in plain or re.search(r"&&|\|\||~~|--", plain):
        way = "a set operation in a class is not read alike by all dialects: escape it"
        raise RegexError(way, pattern, position)
    if not all(map(_is_common, escapes)) or "S" in escapes or (negated and escapes & {"d", "w"}):
        way = "this class is not read alike by all dialects: write its characters out"
        raise RegexError(way, pattern, position)
    return re.sub(r"\\(.)", lambda m: _SPACES if m[1] == "s" else m[0], text) if negated else text


def _is_common(escape: str) -> bool:
    return escape in "dwsSxutnrfv" or (
        escape.isascii() and not escape.isalnum() and escape > " " and escape not in "<>"
    )


def width(regex: Regex) -> tuple[int, int | None]:
    """The least and the greatest number of characters; None is no limit."""
    match regex:
        case Chars():
            return 1, 1
        case Concat(parts=parts):
            return sum(width(part)[0] for part in parts), _limit(parts, sum)
        case Union(options=options):
            return min(width(option)[0] for option in options), _limit(options, max)
        case Times(regex=inner, low=least, high=most):
            low, high = width(inner)
            limited = high == 0 or (high is not None and most is not None)
            return low * least, (high or 0) * (most or 0) if limited else None


def _limit(parts: tuple[Regex, ...], combine: Callable[[Iterable[int]], int]) -> int | None:
    limits = [width(part)[1] for part in parts]
    return None if None in limits else combine(limit or 0 for limit in limits)


def bounded(regex: Regex, low: int, high: int | None) -> Regex | None:
    """The texts of `regex` of `low` to `high` characters; None where no regex is found for them."""
    least, most = width(regex)
    if least >= low and (high is None or (most is not None and most <= high)):
        return regex
    match regex:
        case Times(regex=Chars() as inner, low=count, high=limit):
            most = min((n for n in (limit, high) if n is not None), default=None)
            count = max(count, low)
            return None if most is not None and count > most else Times(inner, count, most)
        case Concat(parts=parts):
            return _bounded_part(parts, low, high)
        case Union(options=options):
            found = [bounded(option, low, high) for option in options]
            return None if None in found else either(*(option for option in found if option))
    return None


def _bounded_part(parts: tuple[Regex, ...], low: int, high: int | None) -> Regex | None:
    """The one part whose length may vary takes up the bounds."""
    loose = [i for i, part in enumerate(parts) if len(set(width(part))) > 1]
    if len(loose) != 1:
        return None
    (i,) = loose
    rest = sum(width(part)[0] for part in (*parts[:i], *parts[i + 1 :]))
    inner = bounded(parts[i], max(low - rest, 0), None if high is None else high - rest)
    return None if inner is None else concat(*parts[:i], inner, *parts[i + 1 :])


def encoded(regex: Regex) -> str:
    """The regex of how JSON writes the texts of `regex`."""
    match regex:
        case Chars(ranges=ranges):
            return _character(ranges)
        case Concat(parts=parts):
            return "".join(
                _grouped(part) if isinstance(part, Union) else encoded(part) for part in parts
            )
        case Union(options=options):
            return "|".join(map(encoded, options))
        case Times(regex=inner, low=low, high=high):
            return (encoded(inner) if isinstance(inner, Chars) else _grouped(inner)) + quantifier(
                low, high
            )


def _grouped(regex: Regex) -> str:
    return f"(?:{encoded(regex)})"


def _character(ranges: Ranges) -> str:
    plain = complement(union((*complement(ranges), *_NEVER_PLAIN)))
    escapes = [e for c, e in _SHORT.items() if any(a <= ord(c) <= b for a, b in ranges)]
    options = [f"[{_members(plain)}]"] if plain or not escapes else []
    if escapes:
        options.append(rf"\\[{re.escape(''.join(escapes))}]")
    return options[0] if options == options[:1] and plain else f"(?:{'|'.join(options)})"


def _members(ranges: Ranges) -> str:
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)
