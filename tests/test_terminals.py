"""Typed terminals: every text of the pattern converts, every value's JSON is in the pattern."""

from __future__ import annotations

import enum
import json
import random
import re
import typing
from datetime import date, datetime, time
from ipaddress import IPv4Address
from uuid import UUID

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field

from nprdsl.grammar.terminal_types import FreeText, TerminalTypeError, typed
from nprdsl.regular.dfa import compile_regex, whitespace_loop


class Team(enum.StrEnum):
    BILLING = "billing"
    INFRA = "infra+ops"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 10


class Note(BaseModel):
    text: str
    line: int | None = None


class Verdict(BaseModel):
    """All kinds of fields."""

    urgent: bool
    team: Team
    level: Level
    kind: typing.Literal["bug", 'a "quoted" é', 3]
    reason: str = Field(max_length=40)
    code: str = Field(pattern=r"^[A-Z]{2}-\d+$")
    score: int = Field(ge=-3, le=10)
    chance: float = Field(ge=0, lt=1)
    size: float = Field(gt=0)
    count: int = Field(gt=0)
    tags: list[str] = Field(max_length=3)
    pair: tuple[int, bool]
    notes: list[Note]
    best: Note | None
    by: dict[str, int]
    when: datetime
    day: date
    at: time
    uuid: UUID
    extra: int = 0


class Optionals(BaseModel):
    model_config = ConfigDict(extra="forbid")
    a: int = 1
    b: bool = True
    c: str | None = None


EXACT = [Verdict, Optionals, Note, list[Note], int, float, bool, int | None, dict[str, bool], date]
EXACT += [datetime, time, UUID, IPv4Address, pydantic.AnyHttpUrl]
TYPES = [(spec, typed("X", spec)) for spec in EXACT]
VERDICT = TYPES[0][1]
WALKS = st.lists(st.integers(0, 255), max_size=40)


def walk(pattern: str, choices: list[int], state: int | None = None) -> bytes:
    """The choices' way through the automaton of `pattern`, finished by the shortest."""
    dfa = compile_regex(pattern)
    text, state = b"", dfa.start if state is None else state
    for choice in choices:
        alive = dfa.table[state].nonzero()[0]
        if len(alive):
            text += bytes([alive[choice % len(alive)]])
            state = dfa.run(text[-1:], state)
    return text + dfa.completion(state)


@given(st.sampled_from(TYPES), WALKS)
def test_every_text_of_a_pydantic_type_converts(spec_and_type, choices):
    spec, terminal = spec_and_type
    text = walk(terminal.pattern, choices).decode()
    value = terminal.convert(text)
    assert value == pydantic.TypeAdapter(spec).validate_python(value, strict=True)


@given(st.integers(0, 400), st.integers(0, 2**32), WALKS)
def test_the_middle_of_a_long_object_converts_too(stop, seed, choices):
    """As above, but from states all along the object, where a walk from its start seldom comes."""
    generator, dfa = random.Random(seed), compile_regex(VERDICT.pattern)
    text, state = b"", dfa.start
    while len(text) < stop and dfa.table[state].any():
        alive = dfa.table[state].nonzero()[0]
        nearer = alive[dfa.distance[dfa.table[state, alive]] < dfa.distance[state]]
        text += bytes([generator.choice((nearer if len(nearer) else alive).tolist())])
        state = dfa.run(text[-1:], state)
    text += walk(VERDICT.pattern, choices[:8], state)
    assert isinstance(VERDICT.convert(text.decode()), Verdict)


PLAIN = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40)
NOTES = st.builds(Note, text=PLAIN, line=st.none() | st.integers())
VERDICTS = st.builds(
    Verdict,
    urgent=st.booleans(),
    team=st.sampled_from(Team),
    level=st.sampled_from(Level),
    kind=st.sampled_from(["bug", 'a "quoted" é', 3]),
    reason=PLAIN,
    code=st.from_regex(r"[A-Z]{2}-[0-9]+", fullmatch=True),
    score=st.integers(-3, 10),
    chance=st.integers(0, 999).map(lambda n: n / 1000),
    size=st.integers(1, 10_000).map(lambda n: n / 100),
    count=st.integers(1, 10**30),
    tags=st.lists(PLAIN, max_size=3),
    pair=st.tuples(st.integers(), st.booleans()),
    notes=st.lists(NOTES, max_size=3),
    best=st.none() | NOTES,
    by=st.dictionaries(PLAIN, st.integers(), max_size=3),
    when=st.datetimes(min_value=datetime(1000, 1, 1)),
    day=st.dates(min_value=date(1000, 1, 1)),
    at=st.times(),
    uuid=st.uuids(),
    extra=st.integers(),
)


@settings(max_examples=30)
@given(VERDICTS)
def test_every_json_of_a_value_is_in_the_pattern(verdict):
    assert VERDICT.convert(verdict.model_dump_json()) == verdict
    spaced = json.dumps(json.loads(verdict.model_dump_json()), ensure_ascii=False)
    assert VERDICT.convert(spaced) == verdict


def test_properties_are_optional_only_where_the_type_says_so():
    terminal = typed("X", Optionals)
    for text in ("{}", '{"b": false}', '{"a":2,"c":null}', '{ "a" : 2 , "b" : true }'):
        assert isinstance(terminal.convert(text), Optionals)
    for text in ('{"b":true,"a":1}', '{"d":1}', '{"a":1,}', '{\n"a":1}', '{"a":  1}', ""):
        with pytest.raises(ValueError, match="is not a value of X"):
            terminal.convert(text)


@pytest.mark.parametrize("spec", [*EXACT, {"type": "array", "items": {"type": "string"}}])
def test_no_pattern_allows_white_space_without_end(spec):
    assert whitespace_loop(compile_regex(typed("X", spec).pattern)) is None


@pytest.mark.parametrize(
    ("spec", "legal", "illegal"),
    [
        (
            date,
            ["2024-02-29", "2000-02-29", "1999-12-31"],
            ["2023-02-29", "1900-02-29", "1999-11-31"],
        ),
        (datetime, ["2024-02-29T23:59:59.999999Z", "1000-01-01T00:00:00+05:30"], ["2024-01-01"]),
        (IPv4Address, ["255.0.10.249"], ["256.0.0.0", "01.0.0.0", "1.1.1"]),
        (pydantic.AnyHttpUrl, ["http://a", "https://a-b.c9:80/x?y=z#q"], ["ftp://a", "http://1.2"]),
        (float, ["0", "-1.5", "12e+3"], ["01", ".5", "1.", "NaN"]),
    ],
)
def test_formats(spec, legal, illegal):
    terminal = typed("X", spec)
    quoted = str if spec is float else json.dumps
    for text in legal:
        assert isinstance(terminal.convert(quoted(text)), spec)
    for text in illegal:
        with pytest.raises(ValueError, match="is not a value of X"):
            terminal.convert(quoted(text))


def test_json_schemas():
    schema = {
        "type": "object",
        "properties": {
            "a.b": {"$ref": "#/$defs/part"},
            "ok": {"const": True},
            "mixed": {"enum": [1, "x", None]},
        },
        "required": ["a.b", "ok"],
        "additionalProperties": False,
        "$defs": {"part": {"anyOf": [{"type": "string"}, {"type": "integer", "minimum": 3}]}},
    }
    terminal = typed("X", schema)
    assert terminal.convert('{"a.b": 3, "ok": true}') == {"a.b": 3, "ok": True}
    assert terminal.convert('{"a.b":"","ok":true,"mixed":null}')["mixed"] is None
    assert terminal.description == (
        'JSON on one line: {"a.b": string | integer (≥ 3), "ok": true, "mixed"?: 1 | "x" | null}'
    )
    for text in ('{"a.b": 2, "ok": true}', '{"axb": 3, "ok": true}', '{"a.b": 3}'):
        with pytest.raises(ValueError, match="is not a value"):
            terminal.convert(text)


def test_regexes():
    assert typed("X", r"\d+").convert("12") == "12"
    assert typed("X", r"\d+").description == r"text that matches /\d+/"
    for pattern in ("a.c", re.compile("A.C", re.IGNORECASE | re.DOTALL), re.compile("(?is)A.C")):
        terminal = typed("X", pattern)
        assert terminal.convert("abc") == "abc"
        with pytest.raises(ValueError, match=r"'abcd' is not a value of X"):
            terminal.convert("abcd")
    assert typed("X", re.compile("(?is)A.C")).pattern == "(?is:A.C)"
    assert typed("X", re.compile("a b # c", re.VERBOSE)).convert("ab") == "ab"


def test_choices():
    team = typed("TEAM", Team)
    assert team.convert("infra+ops") is Team.INFRA
    assert team.description == "one of `billing`, `infra+ops`"
    assert typed("L", Level).convert("10") is Level.HIGH
    literal = typed("L", typing.Literal["a", "ab", -1])
    assert [literal.convert(text) for text in ("a", "ab", "-1")] == ["a", "ab", -1]
    with pytest.raises(ValueError, match="is not a value of L"):
        literal.convert("b")


def test_free_text():
    terminal = typed("GOAL", FreeText)
    assert terminal.free_text and terminal.convert("any thing") == "any thing"


class Tree(BaseModel):
    children: list[Tree]


class Empty(enum.Enum):
    pass


class Twice(enum.Enum):
    NUMBER = 1
    TEXT = "1"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (3, r"type of X, 3, is not supported; give a pydantic model"),
        (str, "is str; give FreeText"),
        (b"a", "is not supported"),
        (object(), "is not supported"),
        (typing.Callable[[], int], "`callable`, which no mask holds"),
        (re.compile(b"a"), "regex over bytes"),
        (r"(a)\1", r"regex of X: a backreference is not supported.* position 3"),
        ("(", "missing \\)"),
        (Empty, "no values"),
        (Twice, "two values that are written '1'"),
        (typing.Literal[True], "has the value True; use values"),
        (typing.Literal["", "a"], "has the value ''"),
        (Tree, r"`\$.children\[\*\]` is recursive through `.*Tree`.*rules may recurse"),
        (dict, "`any`, which no mask holds"),
        (list, "allows any array|`any`, which no mask holds"),
        ({}, r"`\$` of the JSON schema allows any value; name the type"),
        (True, "is not supported"),
    ],
)
def test_refused(spec, message):
    with pytest.raises(TerminalTypeError, match=f"(?s){message}") as caught:
        typed("X", spec)
    assert caught.value.suggestion and str(caught.value).endswith(caught.value.suggestion)
