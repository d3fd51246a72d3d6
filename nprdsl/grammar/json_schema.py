"""A JSON schema, checked against its meta-schema, to the shape of the values that it allows.

Every keyword of a schema has to be consumed by exactly one rule; one that is left over is refused
with its path (`$.properties.a.contains`). Annotations and words that no specification knows are
ignored, as the specification demands. References outside of the schema are never fetched. Where a
schema allows more than can be written (names beside `properties`, values of other types beside
`properties` without a `type`), the shape is what is stated: a part of what the schema allows.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import reduce
from itertools import combinations
from math import isfinite
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import unquote

from nprdsl.grammar.json_numbers import Interval, number_pattern
from nprdsl.grammar.json_shapes import (
    BOOLEAN,
    JsonArray,
    JsonChoice,
    JsonField,
    JsonMap,
    JsonNumber,
    JsonObject,
    JsonSchemaError,
    JsonShape,
    JsonString,
    JsonUnion,
    disjoint,
    is_text,
)
from nprdsl.grammar.json_strings import ANY_CHARACTER, FORMATS, bounded, encoded, searched
from nprdsl.regular.syntax import RegexError, parse, quantifier

if TYPE_CHECKING:
    from jsonschema.exceptions import SchemaError
    from jsonschema.protocols import Validator

_T = TypeVar("_T")

_KINDS: Final = {
    "null": frozenset[str](),
    "boolean": frozenset[str](),
    "number": frozenset(
        {"minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "multipleOf"}
    ),
    "string": frozenset({"minLength", "maxLength", "pattern", "format"}),
    "array": frozenset({"items", "prefixItems", "minItems", "maxItems", "uniqueItems"})
    | {"contains", "unevaluatedItems", "additionalItems"},
    "object": frozenset({"properties", "required", "additionalProperties", "patternProperties"})
    | {"propertyNames", "minProperties", "maxProperties", "dependentRequired"}
    | {"dependentSchemas", "dependencies", "unevaluatedProperties"},
}
_KINDS_OF: Final = _KINDS | {"integer": _KINDS["number"]}
_OF_A_KIND: Final = frozenset().union(*_KINDS.values())
_COMBINING: Final = frozenset({"$ref", "anyOf", "oneOf", "allOf"})
_CHOOSING: Final = frozenset({"enum", "const"})
# In no way a mask: `then` and `else` say nothing without `if`, nor the counts without `contains`.
_NEVER: Final = frozenset({"not", "if", "$dynamicRef", "$recursiveRef"}) | {
    "extends",
    "disallow",
    "divisibleBy",
}
_KEYWORDS: Final = _OF_A_KIND | _COMBINING | _CHOOSING | _NEVER | {"type"}
_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DIALECTS: Final = {
    _DIALECT: frozenset[str](),
    "https://json-schema.org/draft/2019-09/schema": frozenset({"prefixItems"}),
    "http://json-schema.org/draft-07/schema": frozenset({"prefixItems", "dependentRequired"}),
    "http://json-schema.org/draft-06/schema": frozenset({"prefixItems", "dependentRequired"}),
}
_AS_PREFIX: Final = f"call it `prefixItems`, and `$schema` {_DIALECT}"
_LOWER: Final = ("minimum", "exclusiveMinimum")
_UPPER: Final = ("maximum", "exclusiveMaximum")
_MOST_APART: Final = 256  # options of `oneOf`
# Each object and value takes states, if it is used, and time to check.
_MOST_SCHEMAS: Final = 5_000
_MOST_VALUES: Final = 10_000
_MOST_LEVELS: Final = 100
_GREATEST: Final = 10**300


class JsonSchemaReader:
    """Reads one schema; `shape` is what it allows, `convert` reads a text and validates it.

    Raises JsonSchemaError where the schema is malformed or says what no shape holds.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self.root: dict[str, Any] = _Copier().copy(schema)
        dialect = self.root.get("$schema", _DIALECT)
        if not isinstance(dialect, str) or dialect.rstrip("#") not in _DIALECTS:
            raise JsonSchemaError(f"`$schema` of the JSON schema is {dialect!r}", f"use {_DIALECT}")
        self._foreign = _DIALECTS[dialect.rstrip("#")]
        self._validator = _validator(self.root)
        self._named: dict[str, JsonShape] = {}
        self._inside: list[str] = []
        try:
            self.check(self.root, "$")
            self.shape = self.read(self.root, "$")
        except RecursionError:
            raise JsonSchemaError("the JSON schema is nested too deeply", "flatten it") from None

    def convert(self, text: str) -> object:
        """The value of a JSON text. Raises ValueError where the schema does not allow it."""
        value: object = json.loads(text)
        for error in self._validator.iter_errors(value):
            raise ValueError(f"{error.message[:200]} (at {error.json_path})")
        return value

    def check(self, schema: Any, path: str) -> None:
        """Raise JsonSchemaError unless `schema`, which stands at `path`, obeys the meta-schema."""
        from jsonschema.exceptions import SchemaError

        try:
            with warnings.catch_warnings():  # of patterns, which are read by rules of their own
                warnings.simplefilter("ignore", FutureWarning)
                self._validator.check_schema(schema)
        except SchemaError as error:
            place = reduce(_below, error.absolute_path, path)
            fault = f"is malformed: {error.message[:200]}"
            raise _refused(place, fault, _way_to_correct(error)) from None

    # -- any schema ------------------------------------------------------------------------------

    def read(self, schema: Any, path: str) -> JsonShape:
        """The shape of a schema that stands at `path`."""
        if schema is False:
            raise _refused(path, "allows no value", "leave it out")
        words = _keywords(schema)
        for word in words:
            if word in _NEVER or word in self._foreign:
                raise _not_held(path, word)
        if path != "$" and isinstance(schema, dict) and "$id" in schema:
            raise _refused(f"{path}.$id", "gives references another base", "leave it out")
        if _CHOOSING & words.keys():
            return self.chosen(schema, words, path)
        for word in sorted(_COMBINING & words.keys()):
            others = sorted(words.keys() - {word})
            if others:
                raise _refused(
                    f"{path}.{word}",
                    f"stands beside `{others[0]}`, and no mask holds both",
                    "make them one schema that says both",
                )
            return self.combined(word, words[word], path)
        return self.of_kinds(words, path)

    def combined(self, word: str, value: Any, path: str) -> JsonShape:
        place = f"{path}.{word}"
        if word == "$ref":
            return self.reference(value, place)
        numbered = list(enumerate(value))
        if word == "allOf":
            numbered = [(i, part) for i, part in numbered if part is False or _keywords(part)]
            if len(numbered) != 1:
                way = "make its parts one schema"
                raise _refused(place, f"has {len(numbered)} parts that say something", way)
            (i, part), *_ = numbered
            return self.read(part, f"{place}[{i}]")
        options = tuple(self.read(option, f"{place}[{i}]") for i, option in numbered)
        if word == "oneOf":
            _check_apart(options, place)
        return JsonUnion(options)

    def reference(self, name: str, path: str) -> JsonShape:
        if name in self._inside:
            raise JsonSchemaError(
                f"the JSON schema is recursive through {name!r}, and a regex cannot nest",
                "write its levels out, or put the nesting into the grammar: rules may recurse",
            )
        if name not in self._named:
            target, place = self.find(name, path)
            self.check(target, place)
            self._inside.append(name)
            self._named[name] = self.read(target, place)
            self._inside.pop()
        return self._named[name]

    def find(self, name: str, path: str) -> tuple[Any, str]:
        """What a reference names, and its path."""
        if name != "#" and not name.startswith("#/"):
            raise _refused(
                path,
                f"refers to {name!r}, and only paths inside the schema are followed",
                "copy it into `$defs`, and write `#/$defs/NAME`",
            )
        value, place = self.root, "$"
        for key in name.split("/")[1:]:
            key = unquote(key).replace("~1", "/").replace("~0", "~")
            if isinstance(value, list) and key.isdecimal() and int(key) < len(value):
                value, place = value[int(key)], f"{place}[{key}]"
            elif isinstance(value, dict) and key in value:
                value, place = value[key], _below(place, key)
            else:
                raise _refused(
                    path, f"refers to {name!r}, which it does not define", "define it in `$defs`"
                )
        return value, place

    def chosen(self, schema: Mapping[str, Any], words: Mapping[str, Any], path: str) -> JsonShape:
        """The values of `enum` and `const` that obey what stands beside them."""
        plain = _CHOOSING | {"type"} | _KINDS["number"] | _KINDS["string"]
        for word in sorted(words.keys() - plain):
            way = "leave only the values that it allows"
            raise _refused(f"{path}.{word}", "stands beside `enum` or `const`", way)
        form = words.get("format")
        if form is not None and form not in FORMATS:
            raise _unknown_format(path, form)
        values = words.get("enum", [words.get("const")])
        beside = {k: v for k, v in words.items() if k not in ("enum", "format")}
        validator = self._validator.evolve(schema=beside)
        kept = [v for v in values if validator.is_valid(v) and _is_of_format(v, form)]
        if not kept:
            raise _refused(path, "has no value that all of its keywords allow", "correct them")
        return JsonChoice(tuple(kept))

    # -- schemas with a type ---------------------------------------------------------------------

    def of_kinds(self, words: Mapping[str, Any], path: str) -> JsonShape:
        """Values of the types named; without a name, of objects or arrays if it describes any."""
        given = words.get("type")
        kinds = [given] if isinstance(given, str) else list(given or [])
        if not kinds:
            kinds = [kind for kind in ("object", "array") if words.keys() & _KINDS[kind]][:1]
        if not kinds:
            raise _refused(path, "allows any value", "name the type of every value")
        if "number" in kinds:
            kinds = [kind for kind in kinds if kind != "integer"]
        shapes = []
        for kind in kinds:
            own = {word: value for word, value in words.items() if word in _KINDS_OF[kind]}
            shapes.append(self.rule(kind)(own, path))
            for word in own:
                raise _not_held(path, word)
        if given is None:
            assert isinstance(shapes[0], JsonArray | JsonObject | JsonMap)
            shapes = [replace(shapes[0], certain=False)]
        return shapes[0] if len(shapes) == 1 else JsonUnion(tuple(shapes))

    def rule(self, kind: str) -> Callable[[dict[str, Any], str], JsonShape]:
        """The rule of a type: it removes from the keywords those that its shape holds."""
        return {
            "null": lambda own, path: JsonChoice((None,)),
            "boolean": lambda own, path: BOOLEAN,
            "integer": lambda own, path: _number(own, path, 1),
            "number": lambda own, path: _number(own, path, None),
            "string": _string,
            "array": self.array,
            "object": self.object,
        }[kind]

    def array(self, own: dict[str, Any], path: str) -> JsonShape:
        own.pop("unevaluatedItems", None)  # none is ever written
        listed, items = own.pop("prefixItems", []), own.pop("items", True)
        low, high = _counts(own, "Items", path)
        if isinstance(items, list):
            raise _refused(f"{path}.items", "is a list", _AS_PREFIX)
        if own.get("uniqueItems") is False or (high is not None and high < 2):
            own.pop("uniqueItems", None)
        prefix = tuple(
            self.read(item, f"{path}.prefixItems[{i}]") for i, item in enumerate(listed[:high])
        )
        rest = None
        if items is not False and _keywords(items) and (high is None or high > len(prefix)):
            rest = self.read(items, f"{path}.items")
        elif items is not False and not listed and high != 0:
            raise _refused(path, "allows any array", "give the type of its `items`")
        if rest is None:
            high = len(prefix)
        low = max(low, len(prefix))
        if high is not None and low > high:
            raise _refused(path, f"has a schema for {high} items and needs {low}", "give `items`")
        return JsonArray(prefix, rest, low, high)

    def object(self, own: dict[str, Any], path: str) -> JsonShape:
        own.pop("unevaluatedProperties", None)  # none is ever written
        for word in ("patternProperties", "dependentSchemas", "dependencies", "propertyNames"):
            if word in own and own[word] in (True, {}):
                del own[word]
        return self.fields(own, path) if own.get("properties") else self.map(own, path)

    def fields(self, own: dict[str, Any], path: str) -> JsonShape:
        required, place = set(own.pop("required", [])), f"{path}.properties"
        fields = tuple(
            JsonField(name, self.read(schema, _below(place, name)), name in required)
            for name, schema in own.pop("properties").items()
            if schema is not False
        )
        needed = {field.name for field in fields if field.required}
        if missing := sorted(required - needed):
            way = "give its schema in `properties`"
            raise _refused(f"{path}.required", f"names `{missing[0]}`, which has no schema", way)
        for name, others in own.pop("dependentRequired", {}).items():
            if name in {field.name for field in fields} and not set(others) <= needed:
                raise _not_held(path, "dependentRequired")
        low, high = own.pop("minProperties", 0), own.pop("maxProperties", len(fields))
        if high < len(fields):
            raise _not_held(path, "maxProperties")
        if low > max(len(needed), min(len(fields), 1)):
            raise _not_held(path, "minProperties")
        closed = own.pop("additionalProperties", True) is False
        return JsonObject(fields, int(low), closed)

    def map(self, own: dict[str, Any], path: str) -> JsonShape:
        own.pop("properties", None)
        for name in own.pop("required", []):
            way = "give its schema in `properties`"
            raise _refused(f"{path}.required", f"names `{name}`, which has no schema", way)
        low, high = _counts(own, "Properties", path)
        values, names = own.pop("additionalProperties", True), own.pop("propertyNames", True)
        place, given = f"{path}.additionalProperties", own.get("patternProperties", {})
        if values is False and len(given) == 1 and names is True:
            ((pattern, values),) = own.pop("patternProperties").items()
            names, place = {"pattern": pattern}, _below(f"{path}.patternProperties", pattern)
        if (values is False or high == 0) and not low:
            return JsonObject((), closed=True)
        if low > 1:  # a name that is written twice counts once
            raise _not_held(path, "minProperties")
        if values is not False and not _keywords(values):
            raise _refused(path, "allows any object", "name its `properties`")
        return JsonMap(self.names(names, path), self.read(values, place), low, high)

    def names(self, schema: Any, path: str) -> JsonShape:
        """The names of an object's fields, which are strings."""
        place = f"{path}.propertyNames"
        if schema is False:
            raise _refused(place, "allows no name", "leave it out")
        shape = self.read({"type": "string"} | ({} if schema is True else schema), place)
        if not is_text(shape):
            raise _refused(place, "describes no strings", "names are strings")
        return shape


def _number(own: dict[str, Any], path: str, step: int | None) -> JsonShape:
    lows = [(own.pop(word), word != "minimum") for word in _LOWER if word in own]
    highs = [(-own.pop(word), word != "maximum") for word in _UPPER if word in own]
    low, low_open = max(lows, default=(None, False))
    high, high_open = max(highs, default=(None, False))
    interval = Interval(low, None if high is None else -high, low_open, high_open)
    if "multipleOf" in own and own["multipleOf"] == int(own["multipleOf"]):
        step = int(own.pop("multipleOf"))
    try:
        number_pattern(interval, step)
    except ValueError as error:
        raise _refused(path, f"cannot be held: {error}", "change its bounds") from None
    return JsonNumber(interval, step)


def _string(own: dict[str, Any], path: str) -> JsonShape:
    low, high = _counts(own, "Length", path)
    pattern, form = own.pop("pattern", None), own.get("format")
    if pattern is None and form is None:
        return JsonString(ANY_CHARACTER + quantifier(low, high))
    if pattern is None and form not in FORMATS:
        raise _unknown_format(path, form)
    try:
        regex = parse(FORMATS[own.pop("format")]) if pattern is None else searched(pattern)
    except RegexError as error:
        raise _refused(
            f"{path}.pattern", f"cannot be used: {error}", "write it otherwise"
        ) from None
    fitting = bounded(regex, low, high)
    if fitting is None:
        raise _refused(
            f"{path}.{'format' if pattern is None else 'pattern'}",
            "stands beside bounds of the length, and no mask holds both",
            "put the length into an anchored `pattern`: `^[a-z]{2,8}$`",
        )
    return JsonString(encoded(fitting), "string" if form is None else form)


def _counts(own: dict[str, Any], what: str, path: str) -> tuple[int, int | None]:
    low, high = int(own.pop(f"min{what}", 0)), own.pop(f"max{what}", None)
    if high is not None and low > high:
        raise _refused(path, f"has a `min{what}` above its `max{what}`", "correct them")
    return low, None if high is None else int(high)


# -- what is said of a schema ----------------------------------------------------------------------


def _keywords(schema: Any) -> dict[str, Any]:
    """What it demands, without annotations and unknown words; nothing of a schema that is true."""
    return {k: v for k, v in schema.items() if k in _KEYWORDS} if schema is not True else {}


def _is_of_format(value: Any, form: str | None) -> bool:
    if form is None or not isinstance(value, str):
        return True
    return re.fullmatch(FORMATS[form], value, re.ASCII) is not None


def _check_apart(options: tuple[JsonShape, ...], path: str) -> None:
    if len(options) > _MOST_APART:
        raise _refused(path, f"has more than {_MOST_APART} options", "use `enum` or `anyOf`")
    for (i, one), (j, other) in combinations(enumerate(options), 2):
        if not disjoint(one, other):
            raise _refused(
                path,
                f"has options {i} and {j}, and nothing shows that no value is of both",
                "use `anyOf`, or give the options a required field with different `const`s",
            )


def _below(path: str, key: str | int) -> str:
    if isinstance(key, int):
        return f"{path}[{key}]"
    return f"{path}.{key}" if re.fullmatch(r"[$\w-]+", key) else f"{path}[{key!r}]"


def _refused(path: str, fault: str, way: str) -> JsonSchemaError:
    return JsonSchemaError(f"`{path}` of the JSON schema {fault}", way)


def _way_to_correct(error: SchemaError) -> str:
    """What is right where the meta-schema is not obeyed."""
    word = error.absolute_path[-1] if error.absolute_path else ""
    if word == "type" and error.validator == "anyOf":
        return f"a type is one of {', '.join(_KINDS_OF)}"
    if word == "items" and isinstance(error.instance, list):
        return _AS_PREFIX
    if error.validator == "format":
        return "write what Python's `re` reads, such as `[A-Za-z]` in place of `\\p{L}`"
    return "correct it"


def _not_held(path: str, word: str) -> JsonSchemaError:
    way = "leave it out, and check the value afterwards"
    return _refused(f"{path}.{word}", "is a keyword that no mask holds here", way)


def _unknown_format(path: str, form: Any) -> JsonSchemaError:
    way = f"leave it out, or use one of {', '.join(FORMATS)}"
    return _refused(f"{path}.format", f"is {form!r}, which no mask holds", way)


# -- before it is read -----------------------------------------------------------------------------


class _Copier:
    """Copies a schema as JSON would give it back, and counts how much it holds."""

    def __init__(self) -> None:
        self.objects = 0

    def copy(self, value: Any, depth: int = 0) -> Any:
        """Raises JsonSchemaError where it is no JSON, too large or nested too deeply."""
        if depth > _MOST_LEVELS:
            raise JsonSchemaError(
                f"the JSON schema has more than {_MOST_LEVELS} levels", "flatten it"
            )
        match value:
            case Mapping():
                return {
                    self.name(k): self.copy(v, depth + 1) for k, v in self.counted(value.items())
                }
            case list() | tuple():
                return [self.copy(item, depth + 1) for item in self.counted(value)]
            case str():
                return self.name(value)
            case None | bool():
                return value
            case int() if abs(value) < _GREATEST:
                return value
            case float() if isfinite(value):
                return value
            case int() | float():
                raise JsonSchemaError(
                    "the JSON schema holds a number that is none, or too large", "lower it"
                )
        raise JsonSchemaError(f"the JSON schema holds {value!r}, which is no JSON", "leave it out")

    def counted(self, values: Collection[_T]) -> Collection[_T]:
        self.objects += 1
        if self.objects > _MOST_SCHEMAS or len(values) > _MOST_VALUES:
            raise JsonSchemaError(
                f"the JSON schema holds more than {_MOST_SCHEMAS:,} objects and lists, or one of "
                f"more than {_MOST_VALUES:,} values",
                "leave some out, or make several terminals of it",
            )
        return values

    def name(self, text: Any) -> str:
        if not isinstance(text, str) or not _is_unicode(text):
            raise JsonSchemaError(f"the JSON schema holds {text!r}, which is no text", "correct it")
        return text


def _is_unicode(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _validator(schema: Mapping[str, Any]) -> Validator:
    from jsonschema.validators import Draft202012Validator, validator_for
    from referencing import Registry

    made: Validator = validator_for(schema, Draft202012Validator)(schema, registry=Registry())
    return made
