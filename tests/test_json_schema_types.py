"""JSON schemas as types: what loads is held by the mask, what no mask holds is refused by name."""

from __future__ import annotations

import json
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import nprdsl
from nprdsl.grammar.json_schema import JsonSchemaReader
from nprdsl.grammar.terminal_types import TerminalTypeError, typed
from nprdsl.regular.dfa import compile_regex
from nprdsl.testing.fuzzing import read_back

Schema = dict[str, Any]
DRAFT_7 = "http://json-schema.org/draft-07/schema#"
INTEGER, STRING, NULL = {"type": "integer"}, {"type": "string"}, {"type": "null"}


def record(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


def accepts(schema: Schema, *texts: str) -> list[bool]:
    dfa = compile_regex(typed("X", schema).pattern)
    return [dfa.accepts(text.encode()) for text in texts]


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"type": "string", "anyOf": [INTEGER, STRING]}, "$.anyOf"),
        ({"anyOf": [INTEGER, STRING], "enum": [1, 2]}, "$.anyOf"),
        ({"oneOf": [INTEGER, {"type": "number"}]}, "$.oneOf"),
        ({"oneOf": [{"const": 1}, {"const": 1.0}]}, "$.oneOf"),
        ({"oneOf": [record(a=NULL), record(b=NULL)]}, "$.oneOf"),
        ({"oneOf": [{"properties": {"a": NULL}}, STRING]}, "$.oneOf"),
        ({**record(b=INTEGER), "allOf": [record(a=INTEGER)]}, "$.allOf"),
        ({**record(b=INTEGER), "anyOf": [record(a=INTEGER)]}, "$.anyOf"),
        ({"allOf": [STRING, {"minLength": 1}]}, "$.allOf"),
        ({"$ref": "#/$defs/a", "properties": {"b": NULL}, "$defs": {"a": NULL}}, "$.$ref"),
        ({"type": "object", "properties": {"a": INTEGER}, "required": ["b"]}, "$.required"),
        ({"type": "object", "additionalProperties": NULL, "required": ["b"]}, "$.required"),
        ({**record(a=NULL), "patternProperties": {"^a": NULL}}, "$.patternProperties"),
        ({**record(a=NULL), "propertyNames": {"maxLength": 1}}, "$.propertyNames"),
        ({"properties": {"a": NULL, "b": NULL}, "minProperties": 2}, "$.minProperties"),
        ({"properties": {"a": NULL, "b": NULL}, "maxProperties": 1}, "$.maxProperties"),
        (
            {"properties": {"a": NULL, "b": NULL}, "dependentRequired": {"a": ["b"]}},
            "$.dependentRequired",
        ),
        ({"type": "array", "items": INTEGER, "uniqueItems": True}, "$.uniqueItems"),
        ({"type": "array", "items": INTEGER, "contains": {"const": 1}}, "$.contains"),
        ({"type": "array", "prefixItems": [INTEGER], "minItems": 2}, "$"),
        ({"type": "integer", "not": {"const": 1}}, "$.not"),
        ({"type": "integer", "if": {"const": 1}}, "$.if"),
        ({"type": "number", "multipleOf": 0.01}, "$.multipleOf"),
        ({"type": "integer", "multipleOf": 3}, "$"),
        ({"type": "integer", "minimum": 3, "maximum": 2}, "$"),
        ({"type": "string", "format": "color"}, "$.format"),
        ({"type": "string", "pattern": "^a", "format": "date"}, "$.format"),
        ({"type": "string", "pattern": "a", "maxLength": 3}, "$.pattern"),
        ({"type": "string", "pattern": "(?=a)"}, "$.pattern"),
        ({"type": "string", "pattern": "(^a)b"}, "$.pattern"),
        ({"type": "string", "pattern": r"^\W$"}, "$.pattern"),
        ({"type": "string", "pattern": "[a&&b]"}, "$.pattern"),
        ({"type": "string", "pattern": "(?i)a"}, "$.pattern"),
        ({"type": "array", "items": {"type": "object"}}, "$.items"),
        ({"type": "object", "properties": {"a b": True}}, "$.properties['a b']"),
        (
            {"type": "object", "properties": {"x": {"$ref": "#/$defs/t"}}, "$defs": {"t": True}},
            "$.$defs.t",
        ),
        ({"$ref": "https://example.org/schema.json"}, "$.$ref"),
        ({"$ref": "#name", "$defs": {"a": {"$anchor": "name"}}}, "$.$ref"),
        ({"type": "array", "items": {"$id": "inner", "type": "null"}}, "$.items.$id"),
        ({"$dynamicRef": "#a"}, "$.$dynamicRef"),
        ({"enum": ["a"], "type": "integer"}, "$"),
        ({"type": "object", "properties": 5}, "$.properties"),
        ({"type": "object", "properties": ["a"]}, "$.properties"),
        ({"type": "integer", "minimum": "3"}, "$.minimum"),
        ({**record(a=INTEGER), "required": True}, "$.required"),
        ({"$ref": None}, "$.$ref"),
        ({"oneOf": 3}, "$.oneOf"),
        ({"type": "array", "prefixItems": 5}, "$.prefixItems"),
        ({"type": "string", "maxLength": -1}, "$.maxLength"),
        ({"type": "string", "pattern": 5}, "$.pattern"),
        ({"type": "null", "$defs": {"a": {"type": 7}}}, "$.$defs.a.type"),
        ({"$ref": "#/examples/0", "examples": [{"type": 5}]}, "$.examples[0].type"),
        ({"$schema": "http://json-schema.org/draft-04/schema#", **INTEGER}, "$schema"),
    ],
)
def test_what_no_mask_holds_is_refused_by_its_place(schema, place):
    with pytest.raises(TerminalTypeError) as caught:
        typed("X", schema)
    assert f"`{place}`" in caught.value.message
    assert caught.value.suggestion


@pytest.mark.parametrize(
    ("schema", "way"),
    [
        (
            {"type": "strng"},
            "a type is one of null, boolean, number, string, array, object, integer",
        ),
        ({**record(a={"type": ["string", 5]})}, "a type is one of null"),
        (record(type=5), "correct it"),
        ({"type": "array", "items": [NULL]}, "call it `prefixItems`"),
        ({"type": "string", "pattern": r"\p{L}+"}, "write what Python's `re` reads"),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "type": "array",
                "items": [NULL],
            },
            "call it `prefixItems`, and `$schema` https://json-schema.org/draft/2020-12/schema",
        ),
    ],
)
def test_a_way_out_is_one(schema, way):
    with pytest.raises(TerminalTypeError) as caught:
        typed("X", schema)
    assert caught.value.suggestion.startswith(way)


@pytest.mark.parametrize(
    ("schema", "inside", "outside"),
    [
        ({"type": ["string", "null"], "pattern": "^[a-z]{3}$"}, ['"abc"', "null"], ['"abcd"']),
        ({"type": ["string", "null"], "format": "date"}, ['"2024-02-29"', "null"], ['"x"']),
        ({"enum": ["ab", "cd"], "pattern": "^a"}, ['"ab"'], ['"cd"']),
        ({"type": "string", "enum": ["ab", 1]}, ['"ab"'], ["1"]),
        ({"enum": [1, 2.0, True], "type": "integer"}, ["1", "2.0", "2"], ["true", "1.0"]),
        ({"const": {"a": [-1.0, 0.5]}}, ['{"a":[-1,0.5]}', '{"a":[-1.0,0.5]}'], ['{"a":[-1.,1]}']),
        ({"const": {"a": [1, "x"]}}, ['{"a":[1,"x"]}', '{ "a" : [ 1, "x" ] }'], ['{"a":[1]}']),
        (
            {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 1, "maxItems": 1},
            ["[1]"],
            ['[1,"x"]', "[]"],
        ),
        ({"type": "array", "items": INTEGER, "minItems": 2.0}, ["[1,2]"], ["[1]"]),
        ({"type": "array", "items": False}, ["[]"], ["[1]"]),
        ({"type": "array", "items": NULL, "uniqueItems": True, "maxItems": 1}, ["[null]"], ["[1]"]),
        ({"type": "string", "maxLength": 2.0}, ['"ab"', r'"\\\\"'], ['"abc"']),
        ({"type": "string", "minLength": 1}, ['"😀"', r'"\n"'], ['""', r'"\u0041"']),
        ({"type": "string", "pattern": "a"}, ['"a"', '"xay"'], ['"xy"']),
        ({"type": "string", "pattern": "^a|b$"}, ['"ax"', '"xb"'], ['"xa"', '"bx"']),
        ({"type": "string", "pattern": r'^["\\/]$'}, [r'"\""', r'"\\"', '"/"', r'"\/"'], ['"""']),
        ({"type": "string", "pattern": r"^\S$"}, ['"a"'], ['" "', '"\u00a0"', r'"\t"']),
        ({"type": "string", "pattern": "^[a-z]+$", "maxLength": 2}, ['"ab"'], ['"abc"', '""']),
        ({"type": "string", "pattern": "^x[0-9]*y$", "minLength": 4}, ['"x12y"'], ['"x1y"']),
        ({"type": "number", "exclusiveMinimum": 0.5}, ["0.51", "1"], ["0.5", "0.4"]),
        ({"type": "number", "minimum": 1, "exclusiveMinimum": 1}, ["1.1"], ["1", "1.0"]),
        ({"type": "number", "multipleOf": 1}, ["1", "-7"], ["1.5"]),
        ({"type": "integer", "multipleOf": 4, "minimum": 0, "maximum": 9}, ["0", "4", "8"], ["2"]),
        ({"type": "string", "format": "time"}, ['"00:00:00Z"'], ['"00:00:00"']),
        ({"type": "string", "format": "uri"}, ['"http://a/b?c?d#e"'], ['"http://a#b#c"', '"a"']),
        ({"type": "string", "format": "ipv6"}, ['"::1"', '"1:2:3:4:5:6:7:8"'], ['"1:2"', '":::"']),
        ({"type": "string", "format": "duration"}, ['"P1DT2H"', '"PT3M4S"'], ['"P"', '"PT"']),
        ({"type": "integer", "maxLength": 1, "format": "int64"}, ["12"], ['"a"']),
        ({**record(a=NULL), "patternProperties": {}, "propertyNames": True}, ['{"a":null}'], []),
        ({"properties": {"a": NULL, "b": NULL}, "minProperties": 1}, ['{"b":null}'], ["{}"]),
        ({"type": "object", "properties": {"$ref": INTEGER}}, ['{"$ref":1}', "{}"], ['{"a":1}']),
        ({"type": "object", "properties": {"allOf": STRING}}, ['{"allOf":"x"}'], ['{"allOf":1}']),
        (
            {"type": "object", "additionalProperties": INTEGER, "propertyNames": {"maxLength": 1}},
            ['{"a":1,"b":2}'],
            ['{"ab":1}'],
        ),
        (
            {"type": "object", "patternProperties": {"^a": NULL}, "additionalProperties": False},
            ['{"ab":null}', "{}"],
            ['{"b":null}'],
        ),
        ({"oneOf": [record(k={"const": "a"}), record(k={"const": "b"})]}, ['{"k":"b"}'], ["{}"]),
        (
            {"oneOf": [{**INTEGER, "maximum": 3}, {"type": "number", "exclusiveMinimum": 3}]},
            ["3", "3.5"],
            ["2.5"],
        ),
        ({"allOf": [{"title": "a"}, INTEGER], "title": "b"}, ["1"], ["null"]),
        ({"$ref": "#/$defs/a~1b%20c", "$defs": {"a/b c": NULL}, "title": "c"}, ["null"], ["1"]),
        ({"$schema": DRAFT_7, "$ref": "#/definitions/a", "definitions": {"a": NULL}}, ["null"], []),
        ({**INTEGER, "x-unit": 1, "$comment": "c", "nullable": True}, ["1"], ["null"]),
        (types.MappingProxyType(INTEGER), ["1"], ["null"]),
    ],
)  # fmt: skip
def test_what_loads_is_held(schema, inside, outside):
    assert accepts(schema, *inside, *outside) == [True] * len(inside) + [False] * len(outside)


@pytest.mark.parametrize(
    "schema",
    [
        {"const": float("nan")},
        {"enum": {1, 2}},
        {"minLength": -(10**5000), "type": "string"},
        {1: 2},
        {"const": "\ud800"},
        {"type": "string", "pattern": "(" * 3000 + ")" * 3000},
    ],
)
def test_what_is_no_json_is_refused(schema):
    with pytest.raises(TerminalTypeError):
        typed("X", schema)


def nested(levels: int, width: int) -> Schema:
    schema = STRING
    for _ in range(levels):
        schema = {"type": "object", "properties": {f"p{n}": schema for n in range(width)}}
    return schema


def doubled(levels: int) -> Schema:
    parts = {"d0": NULL}
    for n in range(levels):
        parts[f"d{n + 1}"] = record(a={"$ref": f"#/$defs/d{n}"}, b={"$ref": f"#/$defs/d{n}"})
    return {"$ref": f"#/$defs/d{levels}", "$defs": parts}


def mixed() -> Schema:
    """Optional fields of a shared definition, used often: 29 s before sizes were counted."""
    value = {"type": ["integer", "string"]}
    part = {"type": "object", "properties": {f"field{n}": value for n in range(15)}}
    uses = {f"part{n}": {"type": "array", "items": {"$ref": "#/$defs/part"}} for n in range(40)}
    return {"type": "object", "properties": uses, "$defs": {"part": part}}


@pytest.mark.parametrize(
    "make",
    [
        lambda: nested(12, 4),
        lambda: nested(500, 1),
        lambda: doubled(60),
        lambda: {"oneOf": [doubled(60), {"$ref": "#/oneOf/0"}]},
        mixed,
        lambda: nested(1, 1000),
        lambda: {"enum": [f"v{n}" for n in range(10_001)]},
        lambda: {"type": "string", "maxLength": 10**9},
        lambda: {"type": "array", "items": NULL, "minItems": 10**9},
        lambda: {"type": "string", "pattern": "^((a{1000}){1000}){1000}$"},
        lambda: {"oneOf": [{"const": n} for n in range(500)]},
    ],
)
def test_what_is_too_large_is_refused_at_once(make: Callable[[], Schema]):
    """Sizes are counted before anything is built: most of these would take minutes, or for ever."""
    with pytest.raises(TerminalTypeError):
        typed("X", make())


def test_a_hundred_optional_fields_load():
    text = '{"p3":"x","p99":""}'
    assert accepts(nested(1, 100), text, '{"p99":"","p3":"x"}', "{}") == [True, False, True]


def test_the_diagnostic_names_the_declaration_and_the_keyword(tmp_path: Path):
    path = tmp_path / "typed.lark"
    path.write_text('start: "<v>" VALUE "</v>"\n%declare VALUE\n')
    with pytest.raises(nprdsl.SchemaError) as caught:
        nprdsl.load(path, terminals={"VALUE": {"type": "array", "items": NULL, "contains": NULL}})
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.span.line) == ("bad-terminal-type", 2)
    assert "`$.contains`" in diagnostic.message


def test_a_value_is_validated_when_it_is_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Should a mask let through what the type refuses, that is a violation with its place."""

    def refuse(reader: JsonSchemaReader, text: str) -> object:
        raise ValueError("7 is not 8 (at $)")

    monkeypatch.setattr(JsonSchemaReader, "convert", refuse)
    path = tmp_path / "typed.lark"
    path.write_text('start: "<v>" VALUE "</v>"\n%declare VALUE\n')
    schema = nprdsl.load(path, terminals={"VALUE": INTEGER})
    (violation,) = schema.check("<v>7</v>")
    assert (violation.code, violation.line, violation.column) == ("bad-value", 1, 4)
    assert violation.message == "`7` is not a VALUE: 7 is not 8 (at $)"


def test_a_violation_does_not_print_a_whole_type(tmp_path: Path):
    path = tmp_path / "typed.lark"
    path.write_text('start: "<v>" VALUE "</v>"\n%declare VALUE\n')
    schema = nprdsl.load(path, terminals={"VALUE": {"enum": [f"word {n}" for n in range(500)]}})
    (violation,) = schema.check("<v>x</v>")
    assert len(violation.suggestion) <= 300 and violation.suggestion.endswith("…")


def test_null_is_a_value_of_a_field(tmp_path: Path):
    """The fuzzer took a field whose value is None for a rule, and reported that it was not read."""
    path = tmp_path / "typed.lark"
    path.write_text('start: "<v>" VALUE "</v>"\n%declare VALUE\n')
    schema = nprdsl.load(path, terminals={"VALUE": {"type": ["integer", "null"]}})
    read_back(schema, "<v>null</v>")
    assert schema.parse("<v>null</v>").find("VALUE")[0].value is None


def test_the_schema_itself_judges_a_parsed_value():
    reader = JsonSchemaReader({"type": "integer", "minimum": 5})
    assert reader.convert("7") == 7
    with pytest.raises(ValueError, match=r"4 is less than the minimum of 5 \(at \$\)"):
        reader.convert("4")


# -- random schemas --------------------------------------------------------------------------------

VALUES = [0, 1, 2, -1, 5, 1.5, 2.0, True, False, None, "", "a", "ab", "abc", "1", "a b", "\n", '"']
VALUES += [[], [1], [1, "a"], [1, 1], {}, {"a": 1}, {"a": 1, "b": "x"}, {"b": 2}, {"c": None}]
PATTERNS = [
    "^a",
    "b$",
    "^[a-z]+$",
    "^a|b$",
    "^[^a]{1,3}$",
    r"^\S+$",
    ".",
    "^.{2}$",
    "^(ab|c)*$",
    "",
]
BOUNDS = [-5, 0, 1, 1.5, 2.0, 10, 0.1, 1e8, -0.25, 1e-7, 2**53 + 1, 1e15]
NAMES = ["a", "b", "c", "$ref", "type"]


def optional(**keywords: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    return st.fixed_dictionaries({}, optional=keywords)


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def leaves() -> st.SearchStrategy[Schema]:
    number = optional(
        **{f"{a}{b}": some(*BOUNDS) for a in ("m", "exclusiveM") for b in ("inimum", "aximum")},
        multipleOf=some(1, 2, 3, 0.5),
    )
    text = optional(
        minLength=some(0, 1, 2, 3.0),
        maxLength=some(0, 1, 3, 5),
        pattern=some(*PATTERNS),
        format=some("date", "email", "color"),
    )
    kinds = some("string", "integer", "number", "boolean", "null")
    kinds |= st.lists(kinds, min_size=1, max_size=3, unique=True)
    words = st.builds(lambda *parts: parts[0] | parts[1], number, text)
    chosen = optional(
        enum=st.lists(st.sampled_from(VALUES), min_size=1, max_size=4), const=some(*VALUES)
    )
    return (
        st.builds(lambda kind, words, more: {"type": kind, **words, **more}, kinds, words, chosen)
        | st.builds(lambda kind, words: {"type": kind, **words}, kinds, words)
        | st.builds(lambda kind: {"type": kind}, kinds)
    )


def containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Schema]:
    array = optional(
        items=inner,
        prefixItems=st.lists(inner, min_size=1, max_size=2),
        minItems=some(0, 1, 2, 3),
        maxItems=some(0, 1, 2, 3.0),
        uniqueItems=st.booleans(),
        unevaluatedItems=st.booleans(),
    )
    properties = st.dictionaries(some(*NAMES), inner, max_size=3)
    mapping = optional(
        properties=properties,
        required=st.lists(some("a", "b"), unique=True, max_size=2),
        additionalProperties=st.booleans() | inner,
        minProperties=some(0, 1, 2),
        maxProperties=some(1, 2, 3),
        propertyNames=some({"maxLength": 1}, {"enum": ["a", "b"]}, True),
        dependentRequired=some({"a": ["b"]}),
    )
    several = st.lists(inner, min_size=1, max_size=3)
    return (
        st.builds(lambda words: {"type": "object", **words}, mapping)
        | st.builds(lambda words: {"type": "array", **words}, array)
        | st.builds(lambda p: {"type": "object", "properties": p}, properties)
        | st.builds(lambda word, parts: {word: parts}, some("anyOf", "oneOf", "allOf"), several)
        | st.builds(lambda words, more: {**words, **more}, mapping, optional(anyOf=several))
    )


SCHEMAS = st.recursive(
    leaves() | st.booleans() | some({"$ref": "#/$defs/p"}), containers, max_leaves=6
)


@settings(max_examples=80, deadline=None)
@given(SCHEMAS, leaves(), st.lists(st.lists(st.integers(0, 255), max_size=25), max_size=6))
def test_every_text_of_a_random_schema_is_valid(schema, shared, walks):
    """What the automaton accepts, `jsonschema` accepts: texts that walks through it write, and JSON
    of values that are near the schema's own."""
    assume(isinstance(schema, dict))
    schema = {**schema, "$defs": {"p": shared}}
    try:
        terminal = typed("X", schema)
    except TerminalTypeError:
        return
    dfa, validator = compile_regex(terminal.pattern), jsonschema.Draft202012Validator(schema)
    for choices in walks:
        text, state = b"", dfa.start
        for choice in choices:
            alive = dfa.table[state].nonzero()[0]
            if len(alive):
                text += bytes([alive[choice % len(alive)]])
                state = dfa.run(text[-1:], state)
        text += dfa.completion(state)
        assert validator.is_valid(json.loads(text)), text
        terminal.convert(text.decode())
    for value in VALUES:
        if dfa.accepts(json.dumps(value, ensure_ascii=False).encode()):
            assert validator.is_valid(value), value
