"""A JSON schema to a regular expression of the JSON that a model writes, and a sketch for prompts.

`outlines_core.json_schema` translates the structure: properties in the schema's order, at most one
blank wherever JSON allows white space, no line breaks. What it states loosely is put in by this
module: bounds of numbers, formats, patterns, references. A constraint that no regex states is
reported in `loose`, to be checked on the value.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from math import ceil, floor
from typing import Any

from outlines_core.json_schema import build_regex_from_schema

from nprdsl.regular.dfa import Dfa, beyond, compile_regex, whitespace_loop
from nprdsl.regular.syntax import RegexError

JsonSchema = Mapping[str, Any]

_SHAPES = {"type", "properties", "required", "additionalProperties", "items", "prefixItems"}
_CHOICES = {"enum", "const", "anyOf", "oneOf"}
_LENGTHS = {"minItems", "maxItems", "minLength", "maxLength"}
_STRUCTURE = _SHAPES | _CHOICES | _LENGTHS
_ANNOTATIONS = {"title", "description", "default", "examples", "deprecated", "discriminator"} | {
    "readOnly",
    "writeOnly",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
}
_BOUNDS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum")
_MARK = "\ue000{}\ue001"

_FRACTION = r"(?:\.[0-9]{1,9})?"
_ZERO_FRACTION = r"(?:\.0{1,9})?"
# at least one digit that is not 0, at most nine digits
_NONZERO_FRACTION = r"\.(?:" + "|".join(f"0{{{n}}}[1-9][0-9]{{0,{8 - n}}}" for n in range(9)) + ")"

_MONTH_DAY = (
    r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)"
    r"|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
_LEAP_YEAR = r"(?:[1-9][0-9](?:0[48]|[2468][048]|[13579][26])|(?:[2468][048]|[13579][26])00)"
_DATE = rf"(?:[1-9][0-9]{{3}}-{_MONTH_DAY}|{_LEAP_YEAR}-02-29)"
_ZONE = r"(?:Z|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?"
_TIME = rf"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{{1,6}})?{_ZONE}"
# Neither `xn--` nor a last label of digits: both change what a host means.
_LABEL = "[A-Za-z0-9]+(?:-[A-Za-z0-9]+)*"
_LAST_LABEL = "[A-Za-z][A-Za-z0-9]*(?:-[A-Za-z0-9]+)*"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
FORMATS = {
    "date": _DATE,
    "time": _TIME,
    "date-time": rf"{_DATE}T{_TIME}",
    "email": rf"[A-Za-z0-9_+-]+(?:\.[A-Za-z0-9_+-]+)*@(?:{_LABEL}\.)+[A-Za-z]{{2,}}",
    "uuid": r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
    "ipv4": rf"{_OCTET}(?:\.{_OCTET}){{3}}",
    "uri": rf"https?://(?:{_LABEL}\.)*{_LAST_LABEL}(?::[1-9][0-9]{{0,3}})?"
    r"(?:/[A-Za-z0-9._~/?&=#+-]*)?",
}
_STRING = r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*"'
_NUMBER = r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_JSON_TOKENS = rf"(?:[ \t\r\n{{}}\[\]:,]|true|false|null|{_STRING}|{_NUMBER})*"


class JsonSchemaError(ValueError):
    """A JSON schema that no regex can stand for; `suggestion` is the way out."""

    def __init__(self, message: str, suggestion: str) -> None:
        self.message, self.suggestion = message, suggestion
        super().__init__(f"{message}; {suggestion}")


@dataclass(frozen=True, slots=True)
class SchemaRegex:
    """`pattern` is in Python syntax; `loose` names the constraints that it does not state."""

    pattern: str
    loose: tuple[str, ...]
    sketch: str


def schema_regex(schema: JsonSchema) -> SchemaRegex:
    """The regex of the JSON texts of `schema`. Raises JsonSchemaError."""
    translation = _Translation(schema)
    resolved = translation.resolve(schema, ())
    structure = translation.structure(resolved)
    try:
        pattern = build_regex_from_schema(json.dumps(structure))
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise JsonSchemaError(
            f"the JSON schema is not supported: {reason}", "write it with simpler keywords"
        ) from None
    for mark, part in translation.parts.items():
        pattern = pattern.replace(f'"{mark}"', part)
    _check(pattern)
    return SchemaRegex(pattern, tuple(sorted(translation.loose)), _sketch(resolved))


@lru_cache(maxsize=64)
def _check(pattern: str) -> None:
    try:
        dfa: Dfa = compile_regex(pattern)
    except RegexError as error:
        raise JsonSchemaError(
            f"the JSON schema gives a regex that cannot be used: {error.message}",
            "simplify its `pattern`, or bound its lengths more tightly",
        ) from None
    broken = beyond(dfa, compile_regex(_JSON_TOKENS))
    if broken is not None:
        raise JsonSchemaError(
            f"a `pattern` of the JSON schema allows text that is not JSON, such as {broken!r}",
            r'exclude the quote, the backslash and control characters: `[^"\\\x00-\x1f]`',
        )
    loop = whitespace_loop(dfa)
    if loop is not None:
        raise JsonSchemaError(
            f"a `pattern` of the JSON schema allows white space without end, as after {loop!r}",
            "bound it, for example ` ?` or `[ ]{0,4}`",
        )


@dataclass(slots=True)
class _Translation:
    root: JsonSchema
    loose: set[str] = field(default_factory=set)
    parts: dict[str, str] = field(default_factory=dict)

    def resolve(self, schema: Any, inside: tuple[str, ...]) -> Any:
        """`schema` with every reference replaced by what it names, and `allOf` of one dissolved."""
        if isinstance(schema, list):
            return [self.resolve(item, inside) for item in schema]
        if not isinstance(schema, Mapping):
            return schema
        if "$ref" in schema:
            name = schema["$ref"]
            if name in inside:
                raise JsonSchemaError(
                    f"the JSON schema is recursive through {name!r}, and a regex cannot nest",
                    "write its levels out, or put the nesting into the grammar, whose rules may "
                    "recurse",
                )
            rest = {key: value for key, value in schema.items() if key != "$ref"}
            return {**self.resolve(self.find(name), (*inside, name)), **rest}
        if len(schema.get("allOf", ())) == 1:
            rest = {key: value for key, value in schema.items() if key != "allOf"}
            return self.resolve({**schema["allOf"][0], **rest}, inside)
        return {
            key: value
            if key in ("enum", "const", "default", "examples")
            else self.resolve(value, inside)
            for key, value in schema.items()
            if key not in ("$defs", "definitions")
        }

    def find(self, name: str) -> JsonSchema:
        value: Any = self.root
        for key in name.removeprefix("#/").split("/") if name != "#" else []:
            if not isinstance(value, Mapping) or key not in value:
                raise JsonSchemaError(
                    f"the JSON schema refers to {name!r}, which it does not define",
                    "define it under `$defs`",
                )
            value = value[key]
        named: JsonSchema = value
        return named

    def structure(self, schema: Any) -> Any:
        """`schema` as outlines_core reads it, with the parts that this module states marked."""
        if not isinstance(schema, Mapping):
            raise JsonSchemaError(
                "the JSON schema allows any value at one place", "name the type of every value"
            )
        part = self.part(schema)
        if part is not None:
            mark = _MARK.format(len(self.parts))
            self.parts[mark] = part
            return {"const": mark}
        _reject_open_ended(schema)
        kept = {key: value for key, value in schema.items() if key in _STRUCTURE}
        handled = {"pattern", "format"}
        self.loose |= {
            key
            for key in schema.keys() - _STRUCTURE - _ANNOTATIONS - handled
            if not key.startswith("$")
        }
        for key in ("anyOf", "oneOf", "prefixItems"):
            if key in kept:
                kept[key] = [self.structure(option) for option in kept[key]]
        if "properties" in kept:
            kept["properties"] = {
                name: self.structure(value) for name, value in kept["properties"].items()
            }
        if "items" in kept and not isinstance(kept["items"], bool):
            kept["items"] = self.structure(kept["items"])
        if isinstance(kept.get("additionalProperties"), Mapping):
            kept["additionalProperties"] = self.structure(kept["additionalProperties"])
        return kept

    def part(self, schema: JsonSchema) -> str | None:
        """The regex of a bounded number, a format or a pattern; None for everything else."""
        match schema:
            case {"enum": _} | {"const": _}:
                return None
            case {"type": "integer" | "number" as kind} if any(key in schema for key in _BOUNDS):
                return self.number(kind, schema)
            case {"type": "string", "pattern": str(pattern)}:
                self.loose |= schema.keys() & {"minLength", "maxLength", "format"}
                return f'"(?:{pattern.removeprefix("^").removesuffix("$")})"'
            case {"type": "string", "format": str(name)} if name in FORMATS:
                # minLength 1 says nothing of a format
                self.loose |= {"maxLength"} & schema.keys()
                self.loose |= {"minLength"} if schema.get("minLength", 0) > 1 else set()
                return f'"{FORMATS[name]}"'
            case {"type": "string", "format": _}:
                self.loose.add("format")
        return None

    def number(self, kind: str, schema: JsonSchema) -> str:
        self.loose |= schema.keys() & {"multipleOf"}
        interval = self.interval(kind, schema)
        pattern = integers(interval) if kind == "integer" else decimals(interval)
        if pattern is None:
            bounds = ", ".join(f"{key} {schema[key]}" for key in _BOUNDS if key in schema)
            raise JsonSchemaError(f"no {kind} satisfies {bounds}", "correct the bounds")
        return pattern

    def interval(self, kind: str, schema: JsonSchema) -> Interval:
        """The whole bounds of `schema`, widened where they are not whole."""
        lows = [(schema[k], k != "minimum") for k in _BOUNDS[:2] if k in schema]
        highs = [(-schema[k], k != "maximum") for k in _BOUNDS[2:] if k in schema]
        low, low_open = max(lows, default=(None, False))
        high, high_open = max(highs, default=(None, False))
        if kind == "number" and any(bound is not None and bound % 1 for bound in (low, high)):
            self.loose.add("minimum" if low is not None and low % 1 else "maximum")
        widen = ceil if kind == "integer" else floor
        return Interval(
            None if low is None else widen(low),
            None if high is None else -widen(high),
            low_open and low is not None and low % 1 == 0,
            high_open and high is not None and high % 1 == 0,
        )


def _reject_open_ended(schema: JsonSchema) -> None:
    way_out = "name the properties (or the type of the items, of the values)"
    if not schema.keys() & {"type", "enum", "const", "anyOf", "oneOf", "properties", "allOf"}:
        raise JsonSchemaError("the JSON schema allows any value at one place", way_out)
    if "allOf" in schema:
        raise JsonSchemaError("`allOf` of several schemas is not supported", "merge them into one")
    kind = schema.get("type")
    named = schema.get("properties") or isinstance(schema.get("additionalProperties"), Mapping)
    closed = schema.get("additionalProperties") is False
    if kind == "object" and not named and not closed:
        raise JsonSchemaError("the JSON schema allows any object at one place", way_out)
    if kind == "array" and not schema.keys() & {"items", "prefixItems"}:
        raise JsonSchemaError("the JSON schema allows any array at one place", way_out)


def _sketch(schema: JsonSchema) -> str:
    """The shape of the values in a notation for people: `{"team": "a" | "b", "score": integer}`."""
    match schema:
        case {"enum": list(values)}:
            return " | ".join(json.dumps(value, ensure_ascii=False) for value in values)
        case {"const": value}:
            return json.dumps(value, ensure_ascii=False)
        case {"anyOf": list(options)} | {"oneOf": list(options)}:
            return " | ".join(_sketch(option) for option in options)
        case {"properties": Mapping() as properties} if properties:
            required = schema.get("required", ())
            inner = (
                f"{json.dumps(name, ensure_ascii=False)}{'' if name in required else '?'}: "
                f"{_sketch(value)}"
                for name, value in properties.items()
            )
            return "{" + ", ".join(inner) + "}"
        case {"additionalProperties": Mapping() as values}:
            return f"{{string: {_sketch(values)}, …}}"
        case {"prefixItems": list(items)}:
            return "[" + ", ".join(map(_sketch, items)) + "]"
        case {"items": Mapping() as items}:
            return f"[{_sketch(items)}, …]"
        case {"format": str(name)}:
            return name
        case {"type": list(kinds)}:
            return " | ".join(kinds)
    return str(schema.get("type", "value")) + _sketched_bounds(schema)


def _sketched_bounds(schema: JsonSchema) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{signs[key]} {schema[key]}" for key in _BOUNDS if key in schema]
    return f" ({', '.join(bounds)})" if bounds else ""


# -- numbers between two bounds ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """Numbers between whole bounds; None is no bound, an open bound is not itself included."""

    low: int | None = None
    high: int | None = None
    low_open: bool = False
    high_open: bool = False


def integers(interval: Interval) -> str | None:
    """The integers of `interval`, written without leading zeros or `-0`; None where it is empty."""
    low, high = interval.low, interval.high
    if low is not None and interval.low_open:
        low += 1
    if high is not None and interval.high_open:
        high -= 1
    options: list[str] = []
    if low is None or low < 0:
        least = 1 if high is None or high >= 0 else -high
        options.extend(f"-{part}" for part in _naturals(least, None if low is None else -low))
    if high is None or high >= 0:
        options.extend(_naturals(0 if low is None else max(low, 0), high))
    return _either(options)


def decimals(interval: Interval) -> str | None:
    """The numbers of `interval` with up to nine digits after the point; None where it is empty.

    With more digits, reading them as binary floats could carry them over a bound.
    """
    low, high = interval.low, interval.high
    options: list[str] = []
    if low is None or low < 0:
        mirrored = Interval(
            0 if high is None or high > 0 else -high,
            None if low is None else -low,
            True if high is None or high >= 0 else interval.high_open,
            interval.low_open,
        )
        options.extend(f"-{part}" for part in _magnitudes(mirrored))
    if high is None or high >= 0:
        if low is None or low < 0:
            interval = replace(interval, low=0, low_open=False)
        options.extend(_magnitudes(interval))
    return _either(options)


def _magnitudes(interval: Interval) -> list[str]:
    """Options for the numbers of an interval that has a low bound of at least 0."""
    low, high = interval.low or 0, interval.high
    if high is not None and low > high:
        return []
    options: list[str] = []
    if low == high:
        return [] if interval.low_open or interval.high_open else [f"{low}{_ZERO_FRACTION}"]
    options.append(f"{low}{_NONZERO_FRACTION if interval.low_open else _FRACTION}")
    options.extend(
        f"{part}{_FRACTION}" for part in _naturals(low + 1, None if high is None else high - 1)
    )
    if high is not None and not interval.high_open:
        options.append(f"{high}{_ZERO_FRACTION}")
    return options


def _naturals(low: int, high: int | None) -> list[str]:
    """Options for the natural numbers low..high, by number of digits."""
    if high is None:
        digits = len(str(low))
        return [*_naturals(low, 10**digits - 1), f"[1-9][0-9]{{{digits},}}"]
    options: list[str] = []
    for digits in range(len(str(low)), len(str(high)) + 1):
        least = max(low, 10 ** (digits - 1) if digits > 1 else 0)
        greatest = min(high, 10**digits - 1)
        if least <= greatest:
            options.append(_same_length(str(least), str(greatest)))
    return options


def _same_length(low: str, high: str) -> str:
    rest = len(low) - 1
    if low[1:] == "0" * rest and high[1:] == "9" * rest:
        return _digit(int(low[0]), int(high[0])) + (f"[0-9]{{{rest}}}" if rest else "")
    if low[0] == high[0]:
        return low[0] + _same_length(low[1:], high[1:])
    options = [low[0] + _same_length(low[1:], "9" * rest)]
    if int(low[0]) + 1 < int(high[0]):
        options.append(_digit(int(low[0]) + 1, int(high[0]) - 1) + f"[0-9]{{{rest}}}")
    options.append(high[0] + _same_length("0" * rest, high[1:]))
    return f"(?:{'|'.join(options)})"


def _digit(low: int, high: int) -> str:
    return str(low) if low == high else f"[{low}-{high}]"


def _either(options: list[str]) -> str | None:
    return f"(?:{'|'.join(options)})" if options else None
