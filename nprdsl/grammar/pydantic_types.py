"""A type that pydantic validates to the shape of the JSON values that it accepts.

pydantic's core schema says what the validator does, so it is what is read here: the JSON schema
leaves out validators, versions, time zones and bounds of decimals. Every key of a core schema has
to be known; one that is not, and every function that may refuse a value, is refused by name and by
the place of the value (`$.low`). A type may accept more than its shape: other names with
`extra="allow"`, numbers written as strings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

from pydantic_core import SchemaValidator

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
    is_text,
)
from nprdsl.grammar.json_strings import (
    ANY_CHARACTER,
    DATE,
    DURATION,
    IPV4,
    IPV6,
    TIME,
    ZONE,
    bounded,
    encoded,
    searched,
    url,
    uuid,
    width,
)
from nprdsl.regular.syntax import RegexError, parse, quantifier

Core = Mapping[str, Any]

# What does not change which JSON is accepted. In strict mode JSON keeps its forms of every type.
_HARMLESS: Final = frozenset({"type", "ref", "metadata", "serialization", "strict"}) | {
    "custom_error_type",
    "custom_error_message",
    "custom_error_context",
}
_ADDRESSES: Final = {IPv4Address: (IPV4, "ipv4"), IPv6Address: (IPV6, "ipv6")}
_TEXT_SETTINGS: Final = {  # key of a string -> key of a model's configuration
    "min_length": "str_min_length",
    "max_length": "str_max_length",
    "strip_whitespace": "str_strip_whitespace",
}
_FORMS: Final = {"date": (DATE, "date"), "timedelta": (DURATION, "duration")}
_SCHEMES: Final = ("http", "https", "ftp", "ws", "wss")
_NETWORKS: Final = "pydantic.networks"
_VISIBLE: Final = encoded(searched(r"^\S$"))
_UNBUILT: Final = ("ref", "metadata", "serialization")
_FIELD_KEYS: Final = frozenset({"schema", "name", "required", "validation_alias", "init"}) | {
    "kw_only",
    "init_only",
    "frozen",
    "serialization_alias",
    "serialization_exclude",
    "serialization_exclude_if",
}
_EXACT: Final = 2**53  # the first whole number that a float may miss
_FLOAT_DIGITS: Final = 15  # significant ones that a float always keeps


def pydantic_shape(core: Core) -> JsonShape:
    """The shape of the JSON that a core schema accepts. Raises JsonSchemaError."""
    try:
        return _Reader({}, {}, {}, ()).read(core, "$")
    except RecursionError:
        raise JsonSchemaError("the type is nested too deeply", "flatten it") from None


@dataclass(frozen=True, slots=True)
class _Reader:
    """`config` is the configuration of the model around the value, `definitions` the core schemas
    that others name, `named` those that were read, `inside` those that are being read."""

    config: Core
    definitions: dict[str, Core]
    named: dict[tuple[str, int], JsonShape]
    inside: tuple[str, ...]

    def read(self, core: Core, path: str) -> JsonShape:
        kind = core["type"]
        rule = _RULES.get(kind)
        if rule is None:
            raise _not_held(path, _function(core) or f"is of pydantic's type `{kind}`")
        for key in core:
            if key not in rule.known and key not in _HARMLESS:
                raise _not_held(path, f"has the constraint `{key}`")
        return rule.read(self.within(core, path), core, path)

    def within(self, core: Core, path: str) -> _Reader:
        """The reader of what lies inside `core`: a model has a configuration of its own."""
        if "config" not in core:
            return self
        for key in core["config"]:
            if key not in _CONFIG_KEYS:
                raise _not_held(path, f"has the setting `{key}`")
        return replace(self, config=core["config"])

    def inner(self, core: Core, path: str) -> JsonShape:
        return self.read(core["schema"], path)

    def as_json(self, core: Core, path: str) -> JsonShape:
        return self.read(core["json_schema"], path)

    # -- references and choices ------------------------------------------------------------------

    def defined(self, core: Core, path: str) -> JsonShape:
        self.definitions.update({part["ref"]: part for part in core["definitions"]})
        return self.inner(core, path)

    def reference(self, core: Core, path: str) -> JsonShape:
        name = core["schema_ref"]
        if name in self.inside:
            raise JsonSchemaError(
                f"`{path}` is recursive through `{name.split(':')[0]}`, and a regex cannot nest",
                "write its levels out, or put the nesting into the grammar: rules may recurse",
            )
        key = (name, id(self.config))
        if key not in self.named:
            within = replace(self, inside=(*self.inside, name))
            self.named[key] = within.read(self.definitions[name], path)
        return self.named[key]

    def nullable(self, core: Core, path: str) -> JsonShape:
        return JsonUnion((self.inner(core, path), JsonChoice((None,))))

    def union(self, core: Core, path: str) -> JsonShape:
        choices = [c[0] if isinstance(c, tuple) else c for c in core["choices"]]
        return JsonUnion(tuple(self.read(choice, path) for choice in choices))

    def tagged_union(self, core: Core, path: str) -> JsonShape:
        """Each choice with its tag written out: a default does not tell which choice is meant."""
        names = _plain_names(core["discriminator"])
        if not names:
            raise _not_held(path, "has a discriminator that is not the name of a field")
        tags: dict[int, tuple[JsonShape, list[Any]]] = {}
        for tag, choice in core["choices"].items():
            shape = self.read(choice, path)
            tags.setdefault(id(shape), (shape, []))[1].append(_as_json(tag))
        options = (_with_tag(shape, names, marks, path) for shape, marks in tags.values())
        return JsonUnion(tuple(options))

    def null(self, core: Core, path: str) -> JsonShape:
        return JsonChoice((None,))

    def boolean(self, core: Core, path: str) -> JsonShape:
        return BOOLEAN

    def text(self, core: Core, path: str) -> JsonShape:
        """Strings of one form."""
        pattern, name = _FORMS[core["type"]]
        return JsonString(pattern, name)

    def one_of(self, core: Core, path: str) -> JsonShape:
        """The values of a Literal or Enum that are accepted as they are written in JSON."""
        values = [_as_json(value) for value in core.get("expected", core.get("members", ()))]
        validator = SchemaValidator({k: v for k, v in core.items() if k not in _UNBUILT})
        for value in values:
            try:
                validator.validate_json(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError):
                raise _refused(path, f"has the value {value!r}, which no JSON stands for") from None
        if not values:
            raise _refused(path, "has no values")
        return JsonChoice(tuple(values))

    # -- numbers and strings ---------------------------------------------------------------------

    def integer(self, core: Core, path: str) -> JsonShape:
        return _number(_interval(core), core.get("multiple_of", 1), path)

    def real(self, core: Core, path: str) -> JsonShape:
        step, interval = core.get("multiple_of"), _interval(core)
        if step is not None and (step != int(step) or _beyond(interval, _EXACT)):
            raise _not_held(path, "has the constraint `multiple_of`")
        return _number(interval, None if step is None else int(step), path)

    def decimal(self, core: Core, path: str) -> JsonShape:
        """Written as a number, of so few digits that a float on the way keeps them all."""
        digits = min(core.get("max_digits") or _FLOAT_DIGITS, _FLOAT_DIGITS)
        places = min(core.get("decimal_places", min(digits // 2, 6)), digits, 9)
        most = Decimal(10) ** (digits - places) - Decimal(10) ** -places
        if digits == places:
            raise _refused(path, "has no digit left before the point by `max_digits`")
        interval, limits = _interval(core), Interval(-most, most)
        if interval.low is None or interval.low < -most:
            interval = replace(interval, low=limits.low, low_open=False)
        if interval.high is None or interval.high > most:
            interval = replace(interval, high=limits.high, high_open=False)
        return _number(interval, None if places else 1, path, places)

    def string(self, core: Core, path: str) -> JsonShape:
        low, high, strips = (core.get(k, self.config.get(c)) for k, c in _TEXT_SETTINGS.items())
        low, pattern = low or 0, core.get("pattern")
        if high is not None and low > high:
            raise _refused(path, "has a `min_length` above its `max_length`")
        if pattern is None:
            return JsonString(_stripped(low, high) if strips else _counted(low, high))
        if strips:
            raise _not_held(path, "has `strip_whitespace` beside `pattern`")
        if isinstance(pattern, re.Pattern):
            if pattern.flags & ~re.UNICODE or not isinstance(pattern.pattern, str):
                raise _not_held(path, "has a `pattern` with flags")
            pattern = pattern.pattern
        try:
            fitting = bounded(searched(pattern), low, high)
        except RegexError as error:
            raise _refused(path, f"has a `pattern` that cannot be used: {error}") from None
        if fitting is None:
            way = "put the length into an anchored `pattern`: `^[a-z]{2,8}$`"
            raise _refused(
                path, "has a `pattern` beside bounds of its length, and no mask holds both", way
            )
        return JsonString(encoded(fitting))

    def url(self, core: Core, path: str) -> JsonShape:
        schemes = tuple(s for s in _SCHEMES if s in core.get("allowed_schemes", _SCHEMES[:2]))
        if not schemes:
            raise _not_held(path, f"has none of the schemes {', '.join(_SCHEMES)}")
        pattern = url(schemes)
        longest = width(parse(pattern))[1]
        if longest is None or longest > core.get("max_length", longest):
            raise _not_held(path, "has the constraint `max_length`")
        return JsonString(pattern, "uri")

    def wrapped(self, core: Core, path: str) -> JsonShape:
        """pydantic wraps a function around its own URLs, which refuses nothing."""
        if core["schema"]["type"] == "url" and core["function"]["function"].__module__ == _NETWORKS:
            return self.inner(core, path)
        raise _not_held(path, _function(core))

    def address(self, core: Core, path: str) -> JsonShape:
        """IP addresses: a function of the class itself is all that their core schema has."""
        strict = core["strict_schema"]
        function = strict.get("json_schema", {}).get("function", {}).get("function")
        if function not in (IPv4Address, IPv6Address):
            raise _not_held(path, "is of a type that a function of pydantic validates")
        pattern, name = _ADDRESSES[function]
        return JsonString(pattern, name)

    def uuid(self, core: Core, path: str) -> JsonShape:
        version = core.get("version")
        return JsonString(uuid() if version is None else uuid(str(version), "[89ab]"), "uuid")

    def clock(self, core: Core, path: str) -> JsonShape:
        zone = {None: f"{ZONE}?", "aware": ZONE, "naive": ""}.get(core.get("tz_constraint"))
        if zone is None:
            raise _not_held(path, "has the constraint `tz_constraint`")
        is_time = core["type"] == "time"
        return JsonString(
            (TIME if is_time else f"{DATE}T{TIME}") + zone, "time" if is_time else "date-time"
        )

    # -- collections -----------------------------------------------------------------------------

    def array(self, core: Core, path: str) -> JsonShape:
        low, high = core.get("min_length") or 0, core.get("max_length")
        if "items_schema" not in core:
            raise _refused(path, "allows any array", "give the type of its items")
        if (
            core["type"] in ("set", "frozenset") and low > 1
        ):  # an item that is written twice counts once
            raise _not_held(path, "has the constraint `min_length`")
        return _array((), self.read(core["items_schema"], f"{path}[*]"), low, high, path)

    def tuple(self, core: Core, path: str) -> JsonShape:
        items = [self.read(item, f"{path}[{i}]") for i, item in enumerate(core["items_schema"])]
        variadic: int | None = core.get("variadic_item_index")
        if variadic is None:
            return _array(tuple(items), None, 0, None, path)
        if variadic != len(items) - 1:
            raise _not_held(path, "has items behind those without limit")
        low, high = core.get("min_length") or 0, core.get("max_length")
        return _array(tuple(items[:-1]), items[-1], low, high, path)

    def named_tuple(self, core: Core, path: str) -> JsonShape:
        items = (self.read(f["schema"], _below(path, f["name"])) for f in core["fields"])
        return _array(tuple(items), None, 0, None, path)

    def map(self, core: Core, path: str) -> JsonShape:
        if not {"keys_schema", "values_schema"} <= core.keys():
            raise _refused(path, "allows any object", "name the properties in a model")
        low, high = core.get("min_length") or 0, core.get("max_length")
        if low > 1:  # a name that is written twice counts once
            raise _not_held(path, "has the constraint `min_length`")
        names = self.read(core["keys_schema"], f"{path}.keys")
        if isinstance(names, JsonNumber) and names.step is not None:
            names = JsonString(number_pattern(names.interval, names.step), "integer")
        if not is_text(names):
            raise _refused(f"{path}.keys", "are no strings")
        if high is not None and low > high:
            raise _refused(path, "has a `min_length` above its `max_length`")
        return JsonMap(names, self.read(core["values_schema"], f"{path}[*]"), low, high)

    # -- models ----------------------------------------------------------------------------------

    def model(self, core: Core, path: str) -> JsonShape:
        hook = core.get("post_init")
        if core.get("custom_init"):
            raise _refused(path, "has an `__init__` of its own, which may refuse values")
        if hook and core["type"] == "dataclass":
            raise _refused(path, "has a `__post_init__`, which may refuse values")
        if hook and getattr(core["cls"], hook).__name__ != "init_private_attributes":
            raise _refused(path, f"has a `{hook}`, which may refuse values")
        return self.inner(core, path)

    def fields(self, core: Core, path: str) -> JsonShape:
        given = core["fields"]
        listed = given.items() if isinstance(given, Mapping) else ((f["name"], f) for f in given)
        found = [self.field(n, f, path) for n, f in listed if f.get("init", True)]
        names = [field.name for field in found]
        for name in names:
            if names.count(name) > 1:
                raise _refused(path, f"has two fields that are called `{name}`")
        return JsonObject(tuple(found))

    def field(self, name: str, field: Core, path: str) -> JsonField:
        for key in field:
            if key not in _FIELD_KEYS and key not in _HARMLESS:
                raise _not_held(_below(path, name), f"has the setting `{key}`")
        alias = field.get("validation_alias")
        names = [name] if alias is None or not self.by_alias() else _plain_names(alias)
        if not names:
            raise _not_held(_below(path, name), "has an alias that is no name")
        written, schema = names[0], field["schema"]
        omitted = schema["type"] == "default" and not schema.get(
            "validate_default", self.config.get("validate_default")
        )
        required = field.get("required", not omitted)
        return JsonField(written, self.read(schema, _below(path, written)), required)

    def by_alias(self) -> bool:
        return self.config.get("validate_by_alias") is not False


# -- parts of shapes -------------------------------------------------------------------------------


def _interval(core: Core) -> Interval:
    lows = [(core[key], key == "gt") for key in ("ge", "gt") if core.get(key) is not None]
    highs = [(-core[key], key == "lt") for key in ("le", "lt") if core.get(key) is not None]
    low, low_open = max(lows, default=(None, False))
    high, high_open = max(highs, default=(None, False))
    return Interval(low, None if high is None else -high, low_open, high_open)


def _beyond(interval: Interval, most: int) -> bool:
    """Whether it holds numbers greater than `most`, or has no bound."""
    low, high = interval.low, interval.high
    return low is None or high is None or low < -most or high > most


def _number(interval: Interval, step: int | None, path: str, places: int = 9) -> JsonShape:
    try:
        number_pattern(interval, step, places)
    except ValueError as error:
        raise _refused(path, f"cannot be held: {error}", "change its bounds") from None
    return JsonNumber(interval, step, places)


def _counted(low: int, high: int | None) -> str:
    return ANY_CHARACTER + quantifier(low, high)


def _stripped(low: int, high: int | None) -> str:
    """Text that begins and ends with no white space, so that stripping does not shorten it."""
    if not low:
        return _counted(low, high)
    if high == 1:
        return _VISIBLE
    between = _counted(max(low - 2, 0), None if high is None else high - 2)
    rest = f"{between}{_VISIBLE}"
    return _VISIBLE + (rest if low > 1 else f"(?:{rest})?")


def _array(
    prefix: tuple[JsonShape, ...], rest: JsonShape | None, low: int, high: int | None, path: str
) -> JsonShape:
    low = max(low, len(prefix))
    high = len(prefix) if rest is None else high
    if high is not None and low > high:
        raise _refused(path, f"needs {low} items and allows {high}")
    return JsonArray(prefix, rest, low, high)


def _with_tag(shape: JsonShape, names: list[str], tags: list[Any], path: str) -> JsonShape:
    """`shape` with its field of one of `names` required, and with one of `tags` in it."""
    if isinstance(shape, JsonUnion):
        return JsonUnion(tuple(_with_tag(o, names, tags, path) for o in shape.options))
    fields = list(shape.fields) if isinstance(shape, JsonObject) else []
    for i, field in enumerate(fields):
        if field.name in names and isinstance(field.shape, JsonChoice):
            marks = {(type(tag), tag) for tag in tags}
            kept = tuple(value for value in field.shape.values if (type(value), value) in marks)
            if kept:
                fields[i] = JsonField(field.name, JsonChoice(kept), True)
                return JsonObject(tuple(fields))
    raise _refused(path, f"has a choice whose `{names[0]}` is none of {tags}")


def _plain_names(alias: Any) -> list[str]:
    """Those of the names that are one key, not a path through values."""
    paths = [alias] if isinstance(alias, str) or not isinstance(alias, list) else alias
    paths = [paths] if paths and not isinstance(paths[0], list) else paths
    return [p[0] for p in paths if len(p) == 1 and isinstance(p[0], str)]


def _as_json(value: Any) -> Any:
    return value.value if isinstance(value, Enum) else value


def _function(core: Core) -> str:
    """What is said of a validator function, "" where there is none."""
    if not core["type"].startswith("function-"):
        return ""
    function = core["function"]["function"]
    try:
        return f"has the validator `{function.__qualname__}`"
    except AttributeError:
        return f"has the validator {function!r}"


def _below(path: str, name: str) -> str:
    return f"{path}.{name}" if name.isidentifier() else f"{path}[{name!r}]"


def _refused(path: str, fault: str, way: str = "") -> JsonSchemaError:
    way = way or "leave it out of the type, and check the value after parsing"
    return JsonSchemaError(f"`{path}` {fault}", way)


def _not_held(path: str, what: str) -> JsonSchemaError:
    return _refused(path, f"{what}, which no mask holds")


@dataclass(frozen=True, slots=True)
class _Rule:
    """How core schemas of one type are read; `known` are the keys that it takes up."""

    read: Callable[[_Reader, Core, str], JsonShape]
    known: frozenset[str]


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _rule(read: Callable[[_Reader, Core, str], JsonShape], known: str = "") -> _Rule:
    return _Rule(read, _words(known))


_CONFIG_KEYS: Final = _words(
    "title strict extra_fields_behavior from_attributes loc_by_alias revalidate_instances "
    "validate_default validate_by_alias validate_by_name populate_by_name serialize_by_alias "
    "typed_dict_total str_min_length str_max_length str_strip_whitespace str_to_lower str_to_upper "
    "coerce_numbers_to_str regex_engine allow_inf_nan cache_strings hide_input_in_errors "
    "validation_error_cause val_json_bytes val_temporal_unit ser_json_bytes ser_json_inf_nan "
    "ser_json_temporal ser_json_timedelta polymorphic_serialization url_preserve_empty_path"
)
_BOUNDS: Final = "ge gt le lt"
_COUNTS: Final = "items_schema min_length max_length fail_fast"
_MODEL: Final = (
    "cls cls_name fields schema config custom_init root_model post_init frozen slots "
    "extra_behavior revalidate_instances generic_origin"
)
_EXTRA: Final = (
    "computed_fields extra_behavior extras_schema extras_keys_schema from_attributes config"
)
_RULES: Final = {
    "none": _rule(_Reader.null),
    "bool": _rule(_Reader.boolean),
    "int": _rule(_Reader.integer, f"{_BOUNDS} multiple_of"),
    "float": _rule(_Reader.real, f"{_BOUNDS} multiple_of allow_inf_nan"),
    "decimal": _rule(_Reader.decimal, f"{_BOUNDS} max_digits decimal_places allow_inf_nan"),
    "str": _rule(
        _Reader.string,
        "min_length max_length pattern regex_engine strip_whitespace to_lower to_upper "
        "coerce_numbers_to_str",
    ),
    "literal": _rule(_Reader.one_of, "expected"),
    "enum": _rule(_Reader.one_of, "cls members sub_type missing"),
    "date": _rule(_Reader.text),
    "timedelta": _rule(_Reader.text, "microseconds_precision"),
    "datetime": _rule(_Reader.clock, "microseconds_precision tz_constraint"),
    "time": _rule(_Reader.clock, "microseconds_precision tz_constraint"),
    "uuid": _rule(_Reader.uuid, "version"),
    "url": _rule(
        _Reader.url,
        "allowed_schemes max_length host_required default_host default_port default_path "
        "preserve_empty_path",
    ),
    "function-wrap": _rule(_Reader.wrapped, "function schema"),
    "lax-or-strict": _rule(_Reader.address, "lax_schema strict_schema"),
    "json-or-python": _rule(_Reader.as_json, "json_schema python_schema"),
    "list": _rule(_Reader.array, _COUNTS),
    "deque": _rule(_Reader.array, _COUNTS),
    "set": _rule(_Reader.array, _COUNTS),
    "frozenset": _rule(_Reader.array, _COUNTS),
    "tuple": _rule(_Reader.tuple, f"{_COUNTS} variadic_item_index"),
    "named-tuple": _rule(_Reader.named_tuple, "cls fields config"),
    "dict": _rule(_Reader.map, "keys_schema values_schema min_length max_length fail_fast"),
    "nullable": _rule(_Reader.nullable, "schema"),
    "default": _rule(
        _Reader.inner,
        "schema default default_factory default_factory_takes_data on_error validate_default "
        "copy_default",
    ),
    "custom-error": _rule(_Reader.inner, "schema"),
    "union": _rule(_Reader.union, "choices mode auto_collapse"),
    "tagged-union": _rule(_Reader.tagged_union, "choices discriminator from_attributes"),
    "definitions": _rule(_Reader.defined, "schema definitions"),
    "definition-ref": _rule(_Reader.reference, "schema_ref"),
    "model": _rule(_Reader.model, _MODEL),
    "dataclass": _rule(_Reader.model, _MODEL),
    "model-fields": _rule(_Reader.fields, f"fields model_name {_EXTRA}"),
    "dataclass-args": _rule(_Reader.fields, f"fields dataclass_name collect_init_only {_EXTRA}"),
    "typed-dict": _rule(_Reader.fields, f"fields cls cls_name total {_EXTRA}"),
}
