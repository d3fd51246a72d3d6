"""The shapes of JSON values that a mask can hold exactly, and what is known of them.

`json_schema` and `pydantic_types` read a type into a shape, `json_patterns` writes the shape as a
regular expression. A reader has to state all that its type demands with these few classes, or it
raises `JsonSchemaError`: what has no class here is refused, never dropped. `sketch` describes a
shape to a model, `disjoint` says whether no value is of two shapes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, TypeGuard

from nprdsl.grammar.json_numbers import Interval


class JsonSchemaError(ValueError):
    """A type of JSON values that no mask holds exactly; `suggestion` is the way out."""

    def __init__(self, message: str, suggestion: str) -> None:
        self.message, self.suggestion = message, suggestion
        super().__init__(f"{message}; {suggestion}")


@dataclass(frozen=True, slots=True)
class JsonChoice:
    """One of `values`."""

    values: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class JsonNumber:
    """A number of the interval; of whole ones the multiples of `step`, None for all numbers."""

    interval: Interval
    step: int | None = None
    places: int = 9  # most digits behind the point, where there is a bound


@dataclass(frozen=True, slots=True)
class JsonString:
    """`pattern` is the regex of what stands between the quotes, `name` is for sketches."""

    pattern: str
    name: str = "string"


@dataclass(frozen=True, slots=True)
class JsonArray:
    """Items of `prefix` first, then of `rest`; `low` to `high` of them, None without limit.

    `certain` is false where the type allows other kinds of values, too, which are never written.
    """

    prefix: tuple[JsonShape, ...]
    rest: JsonShape | None
    low: int
    high: int | None
    certain: bool = True


@dataclass(frozen=True, slots=True)
class JsonField:
    name: str
    shape: JsonShape
    required: bool


@dataclass(frozen=True, slots=True)
class JsonObject:
    """The fields in their order; `low` 1: not all of them are left out.

    `closed` says that the type allows no other names; they are never written in any case. `certain`
    is as in `JsonArray`.
    """

    fields: tuple[JsonField, ...]
    low: int = 0
    closed: bool = False
    certain: bool = True


@dataclass(frozen=True, slots=True)
class JsonMap:
    """An object of any names: `low` to `high` entries, None without limit."""

    names: JsonShape
    values: JsonShape
    low: int = 0
    high: int | None = None
    certain: bool = True


@dataclass(frozen=True, slots=True)
class JsonUnion:
    """A value of one of the shapes, or of several."""

    options: tuple[JsonShape, ...]


JsonShape = JsonChoice | JsonNumber | JsonString | JsonArray | JsonObject | JsonMap | JsonUnion
BOOLEAN = JsonChoice((True, False))


def is_text(shape: JsonShape) -> bool:
    """Whether all values are strings, as the names of an object's fields must be."""
    match shape:
        case JsonUnion(options=options):
            return all(map(is_text, options))
        case JsonChoice(values=values):
            return all(isinstance(value, str) for value in values)
    return isinstance(shape, JsonString)


# -- for people ----------------------------------------------------------------------------------


def sketch(shape: JsonShape) -> str:
    """The shape in a notation for people: `{"team": "a" | "b", "score": integer}`."""
    match shape:
        case JsonChoice(values=(True, False)):
            return "boolean"
        case JsonChoice(values=values):
            return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
        case JsonUnion(options=options):
            return " | ".join(dict.fromkeys(map(sketch, options)))
        case JsonNumber():
            return _sketched_number(shape)
        case JsonString(name=name):
            return name
        case JsonObject(fields=fields):
            return "{" + ", ".join(map(_sketched_field, fields)) + "}"
        case JsonMap(values=values):
            return f"{{string: {sketch(values)}, …}}"
        case JsonArray(prefix=prefix, rest=rest):
            items = [*map(sketch, prefix), *([] if rest is None else [f"{sketch(rest)}, …"])]
            return "[" + ", ".join(items) + "]"


def _sketched_field(field: JsonField) -> str:
    mark = "" if field.required else "?"
    return f"{json.dumps(field.name, ensure_ascii=False)}{mark}: {sketch(field.shape)}"


def _sketched_number(number: JsonNumber) -> str:
    kind = "number" if number.step is None else "integer"
    multiple = "" if number.step in (None, 1) else f"a multiple of {number.step}"
    limits = ", ".join(filter(None, (str(number.interval), multiple)))
    return f"{kind} ({limits})" if limits else kind


# -- values of two shapes ------------------------------------------------------------------------


def disjoint(one: JsonShape, other: JsonShape) -> bool:
    """Whether it is proved that no value, however it is written, is of both types."""
    return _Comparison({}).disjoint(one, other)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """Compares each pair of shapes once: a shape may be part of others many times."""

    known: dict[tuple[int, int], bool]

    def disjoint(self, one: JsonShape, other: JsonShape) -> bool:
        key = (id(one), id(other))
        if key not in self.known:
            self.known[key] = self.compare(one, other)
        return self.known[key]

    def compare(self, one: JsonShape, other: JsonShape) -> bool:
        match one, other:
            case (JsonUnion(options=options), _):
                return all(self.disjoint(option, other) for option in options)
            case (_, JsonUnion(options=options)):
                return all(self.disjoint(one, option) for option in options)
            case (JsonChoice(values=values), _):
                return all(_is_apart(value, other) for value in values)
            case (_, JsonChoice(values=values)):
                return all(_is_apart(value, one) for value in values)
        if _certain(one) and _certain(other) and _kind(one) != _kind(other):
            return True
        match one, other:
            case (JsonNumber(interval=interval), JsonNumber(interval=twin)):
                return interval.apart(twin)
            case (JsonObject(certain=True), JsonObject(certain=True)):
                return self.objects(one, other)
        return False

    def objects(self, one: JsonObject, other: JsonObject) -> bool:
        for here, there in ((one, other), (other, one)):
            names = {field.name for field in here.fields}
            if here.closed and any(f.required and f.name not in names for f in there.fields):
                return True
        needed = {field.name: field.shape for field in other.fields if field.required}
        return any(
            field.required
            and field.name in needed
            and self.disjoint(field.shape, needed[field.name])
            for field in one.fields
        )


def _is_apart(value: Any, shape: JsonShape) -> bool:
    """Whether it is proved that `value` is not of the shape, which is no union."""
    if isinstance(shape, JsonChoice):
        return _written(value) not in map(_written, shape.values)
    if isinstance(shape, JsonNumber) and _is_number(value):
        return shape.interval.apart(Interval(value, value))
    return _certain(shape) and _kind(shape) != _kind_of(value)


def _certain(shape: JsonShape) -> bool:
    return not isinstance(shape, JsonArray | JsonObject | JsonMap) or shape.certain


def _kind(shape: JsonShape) -> str:
    match shape:
        case JsonNumber():
            return "number"
        case JsonString():
            return "string"
        case JsonArray():
            return "array"
        case JsonObject() | JsonMap():
            return "object"
    raise AssertionError("choices and unions may be of several kinds")


def _kind_of(value: object) -> str:
    match value:
        case None | bool():
            return "constant"
        case str():
            return "string"
        case list():
            return "array"
        case dict():
            return "object"
    return "number"


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _written(value: Any) -> str:
    """One text for all values that are equal in JSON: 2.0 is 2, true is not 1."""
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    """`value` with equal numbers made one: 2.0 is 2."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_plain(item) for item in value]
        case dict():
            return {key: _plain(item) for key, item in value.items()}
    return value
