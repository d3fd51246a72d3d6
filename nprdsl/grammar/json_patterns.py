"""From the shape of a JSON value to the regular expression of the texts that a model may write.

JSON is compact: fields in the shape's order, at most one blank wherever white space may stand, no
line breaks. The size of the expression is counted while it is written, so that a type which is too
large is refused before any automaton is built.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from nprdsl.grammar.json_numbers import number_pattern
from nprdsl.grammar.json_shapes import (
    JsonArray,
    JsonChoice,
    JsonMap,
    JsonNumber,
    JsonObject,
    JsonSchemaError,
    JsonShape,
    JsonString,
    JsonUnion,
)
from nprdsl.regular.codepoints import ByteTree, byte_tree
from nprdsl.regular.syntax import (
    STATE_LIMIT,
    Chars,
    Concat,
    Regex,
    RegexError,
    Times,
    Union,
    parse,
    quantifier,
)


def shape_pattern(shape: JsonShape) -> str:
    """The regex of the JSON texts of `shape`. Raises JsonSchemaError where it is too large, no
    text is left, or a `pattern` of it cannot be used."""
    return _Writer({}).part(shape).text


@dataclass(frozen=True, slots=True)
class _Part:
    """A piece of the expression; `size` is about the number of its states.

    Raises JsonSchemaError at birth if it is too large.
    """

    text: str
    size: int

    def __post_init__(self) -> None:
        if self.size > STATE_LIMIT:
            raise JsonSchemaError(
                f"its values need more than {STATE_LIMIT:,} states",
                "lower its `maxLength` and `maxItems`, make fields required, or leave some out",
            )


_EMPTY: Final = _Part("", 0)
_BLANK: Final = _Part(" ?", 1)
_COMMA: Final = _Part(" ?,", 2)
_COLON: Final = _Part(" ?: ?", 3)


@dataclass(frozen=True, slots=True)
class _Writer:
    """Writes each shape once; one that is used at several places keeps its identity."""

    made: dict[int, _Part]

    def part(self, shape: JsonShape) -> _Part:
        key = id(shape)
        if key not in self.made:
            self.made[key] = self.write(shape)
        return self.made[key]

    def write(self, shape: JsonShape) -> _Part:
        match shape:
            case JsonChoice(values=values):
                return _either([_value(value) for value in values])
            case JsonNumber():
                return _leaf(number_pattern(shape.interval, shape.step, shape.places))
            case JsonString(pattern=pattern):
                return _leaf(f'"(?:{pattern})"')
            case JsonUnion(options=options):
                return _either([self.part(option) for option in options])
            case JsonArray():
                return _bracketed("[]", self.items(shape))
            case JsonMap():
                entry = self.entry(self.part(shape.names), shape.values)
                return _bracketed("{}", _listed([], entry, shape.low, shape.high))
            case JsonObject():
                return _bracketed("{}", self.fields(shape))

    def items(self, array: JsonArray) -> _Part:
        rest = None if array.rest is None else self.part(array.rest)
        return _listed([self.part(i) for i in array.prefix], rest, array.low, array.high)

    def entry(self, name: _Part, value: JsonShape) -> _Part:
        return _joined(name, _COLON, self.part(value))

    def fields(self, shape: JsonObject) -> _Part:
        """In their order; pairs of those that may be left out count, too, because any of them may
        be followed by any later one."""
        entries = [
            _joined(_BLANK, self.entry(_value(field.name), field.shape)) for field in shape.fields
        ]
        needed = [i for i, field in enumerate(shape.fields) if field.required]
        loose = len(entries) - len(needed)
        pairs = _Part("", loose * loose // 4)
        if not needed:
            some = _some(entries)
            return _joined(pairs, some if shape.low else _optional(some))
        last = needed[-1]
        before = [
            _joined(e, _COMMA) if f.required else _optional(_joined(e, _COMMA))
            for e, f in zip(entries[:last], shape.fields, strict=False)
        ]
        behind = [_optional(_joined(_COMMA, e)) for e in entries[last + 1 :]]
        return _joined(pairs, *before, entries[last], *behind)


def _some(entries: list[_Part]) -> _Part:
    """At least one of the entries, in their order: the last one is in the second half, after any of
    the first, or in the first."""
    if len(entries) < 2:
        return _joined(*entries)
    half = len(entries) // 2
    first = [_optional(_joined(entry, _COMMA)) for entry in entries[:half]]
    return _either([_joined(*first, _some(entries[half:])), _some(entries[:half])])


def _listed(prefix: list[_Part], rest: _Part | None, low: int, high: int | None) -> _Part:
    """The items of `prefix`, as far as `high` allows, and `rest` until there are enough."""
    items = [_joined(_BLANK, item) for item in prefix[:high]]
    behind = [_joined(_COMMA, item) for item in items[1:]]
    least = max(low - len(items), 0)
    most = None if high is None else high - len(items)
    if rest is None or most == 0:
        return _joined(*items[:1], *behind)
    item = _joined(_BLANK, rest)
    if items:
        return _joined(items[0], *behind, _times(_joined(_COMMA, item), least, most))
    more = _times(_joined(_COMMA, item), max(least - 1, 0), most and most - 1)
    return _joined(item, more) if least else _optional(_joined(item, more))


def _value(value: Any) -> _Part:
    """One value, with blanks as elsewhere."""
    match value:
        case list():
            return _bracketed("[]", _listed([_value(item) for item in value], None, 0, None))
        case dict():
            entries = [_joined(_value(name), _COLON, _value(item)) for name, item in value.items()]
            return _bracketed("{}", _listed(entries, None, 0, None))
    text = json.dumps(value, ensure_ascii=False)
    pattern = re.escape(text)
    if isinstance(value, float) and text.endswith(".0"):  # 2.0 is 2
        pattern = rf"{re.escape(text[:-2])}(?:\.0)?"
    return _Part(pattern, len(text.encode()))


def _bracketed(brackets: str, inner: _Part) -> _Part:
    return _Part(rf"\{brackets[0]}{inner.text} ?\{brackets[1]}", inner.size + 3)


def _joined(*parts: _Part) -> _Part:
    return _Part("".join(part.text for part in parts), sum(part.size for part in parts))


def _either(options: Sequence[_Part]) -> _Part:
    texts = dict.fromkeys(option.text for option in options)
    return _Part(f"(?:{'|'.join(texts)})", sum(option.size for option in options))


def _optional(part: _Part) -> _Part:
    return _times(part, 0, 1) if part.text else part


def _times(part: _Part, low: int, high: int | None) -> _Part:
    return _Part(f"(?:{part.text}){quantifier(low, high)}", part.size * (high or max(low, 1)))


@lru_cache(maxsize=256)
def _leaf(pattern: str) -> _Part:
    try:
        return _Part(pattern, _positions(parse(pattern)))
    except RegexError as error:
        raise JsonSchemaError(f"its regex cannot be used: {error.message}", "simplify it") from None


def _positions(regex: Regex) -> int:
    """The bytes that an automaton of `regex` tells apart."""
    match regex:
        case Chars(ranges=ranges):
            return _leaves(byte_tree(ranges))
        case Concat(parts=parts):
            return sum(map(_positions, parts))
        case Union(options=options):
            return sum(map(_positions, options))
        case Times(regex=inner, low=low, high=high):
            return _positions(inner) * (high or max(low, 1))


def _leaves(tree: ByteTree) -> int:
    return sum(1 + _leaves(before) for before, _ in tree)
