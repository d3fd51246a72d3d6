"""Types that pydantic validates: every text of the mask is a value; the rest is refused by name."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import ipaddress
import re
import uuid
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, NamedTuple, NewType, Required, TypeVar

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter
from typing_extensions import TypedDict

from nprdsl.grammar.terminal_types import TerminalTypeError, typed
from nprdsl.regular.dfa import compile_regex


class Word(enum.StrEnum):
    A = "a"
    B = "b c"


class Mixed(enum.Enum):
    HALF = 1.5
    TEXT = "y"
    THREE = 3


class Cat(BaseModel):
    model_config = ConfigDict(str_max_length=5, str_strip_whitespace=True, str_min_length=2)
    k: Literal["cat"] = "cat"
    x: float = Field(alias="X", gt=0.5)
    name: str = "Tom"
    _seen: int = 0


class Dog(BaseModel):
    model_config = ConfigDict(extra="allow")
    k: Literal["dog", "wolf"] = "dog"
    y: str | None = None

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def z(self) -> int:
        return 1


class Lion(Cat):
    k: Literal["lion"] = Field("lion", alias="kind")


class Bear(Dog):
    k: Literal["bear"] = Field("bear", alias="kind")


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)
    day: dt.date
    id: uuid.UUID
    word: Word
    pair: tuple[int, str]
    few: set[int]
    by: dict[int, dt.time]
    at: ipaddress.IPv4Address


class Eager(BaseModel):
    x: int = Field("bad", validate_default=True)  # type: ignore[assignment]


class Root(pydantic.RootModel[Annotated[list[int], Field(max_length=2)]]):
    pass


@dataclasses.dataclass
class Point:
    a: int
    b: str = "x"
    c: int = dataclasses.field(init=False, default=3)


class Named(NamedTuple):
    a: int
    b: str = "x"


class Partial(TypedDict, total=False):
    a: Required[int]
    b: str


T = TypeVar("T")


class Box(BaseModel, Generic[T]):
    value: T
    values: list[T]


UUID_4 = "00000000-0000-4000-8000-000000000000"
Text = StringConstraints
HELD: list[Any] = [
    Annotated[float, Field(gt=0.5)],
    Annotated[float, Field(gt=1e8)],
    Annotated[float, Field(gt=-1, lt=1e-7)],
    Annotated[float, Field(multiple_of=2, ge=0, le=9)],
    pydantic.FiniteFloat,
    Annotated[int, Field(multiple_of=7, ge=100, le=999)],
    Annotated[Decimal, Field(max_digits=5, decimal_places=2)],
    Annotated[Decimal, Field(ge=Decimal("0.1"), le=Decimal("0.3"), decimal_places=1)],
    Annotated[Decimal, Field(gt=3, decimal_places=0)],
    Decimal,
    list[Word],
    list[Mixed],
    list[Literal["a", 1, None, True]],
    ipaddress.IPv4Address,
    ipaddress.IPv6Address,
    pydantic.UUID4,
    pydantic.AwareDatetime,
    pydantic.NaiveDatetime,
    dt.timedelta,
    Annotated[str, Text(pattern="^a", to_lower=True)],
    Annotated[str, Text(strip_whitespace=True, min_length=1)],
    Annotated[str, Text(strip_whitespace=True, min_length=2, max_length=3)],
    Annotated[str, Text(pattern=r"a|^b|c$")],
    Annotated[str, Text(pattern=r"^[a-z]+$", min_length=2, max_length=4)],
    Annotated[str, Text(pattern=r'^["\\/\n\t]{2}$')],
    pydantic.HttpUrl,
    Cat,
    Dog,
    Annotated[Cat | Dog, Field(discriminator="k")],
    list[Annotated[Lion | Bear, Field(discriminator="k")]],
    Cat | Dog | None,
    Strict,
    Eager,
    Root,
    Point,
    Named,
    Partial,
    Box[int],
    dict[Word, int],
    dict[Annotated[str, Text(pattern="^[a-c]$")], int],
    Annotated[dict[str, int], Field(min_length=1, max_length=2)],
    tuple[int, ...],
    Annotated[set[int], Field(min_length=1)],
    list[int] | int | str,
]
TYPES = [(spec, typed("X", spec).pattern) for spec in HELD]
WALKS = st.lists(st.integers(0, 255), max_size=40)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(TYPES), WALKS)
def test_every_text_is_a_value(spec_and_pattern, choices):
    spec, pattern = spec_and_pattern
    dfa = compile_regex(pattern)
    text, state = b"", dfa.start
    for choice in choices:
        alive = dfa.table[state].nonzero()[0]
        if len(alive):
            text += bytes([alive[choice % len(alive)]])
            state = dfa.run(text[-1:], state)
    TypeAdapter(spec).validate_json(text + dfa.completion(state))


@pytest.mark.parametrize(
    ("spec", "inside", "outside"),
    [
        (Annotated[int, Field(multiple_of=7, ge=1, le=20)], ["7", "14"], ["8", "21"]),
        (Annotated[float, Field(gt=0.5)], ["0.6", "2"], ["0.5"]),
        (Annotated[Decimal, Field(max_digits=3, decimal_places=1)], ["99.9", "-1"], ["100"]),
        (pydantic.UUID4, [f'"{UUID_4}"'], [f'"{UUID_4.replace("-4", "-1")}"']),
        (pydantic.AwareDatetime, ['"2024-01-01T00:00:00Z"'], ['"2024-01-01T00:00:00"']),
        (ipaddress.IPv6Address, ['"::1"', '"1::8"'], ['"1.2.3.4"']),
        (Annotated[str, Text(strip_whitespace=True, min_length=1)], ['"a b"'], ['" a"', '""']),
        (Cat, ['{"X":1,"name":"Tom"}'], ['{"x":1}', '{"X":1,"name":"Thomas"}', '{"X":0.5}']),
        (Annotated[Cat | Dog, Field(discriminator="k")], ['{"k":"wolf"}'], ["{}", '{"X":1}']),
        (Annotated[Lion | Bear, Field(discriminator="k")], ['{"kind":"bear"}'], ["{}"]),
        (Eager, ['{"x":1}'], ["{}"]),
        (Named, ['[1,"x"]'], ["[1]", "[]"]),
        (Point, ['{"a":1}', '{"a":1,"b":"y"}'], ['{"a":1,"b":"y","c":2}']),
    ],
)  # fmt: skip
def test_constraints_are_held(spec, inside, outside):
    dfa = compile_regex(typed("X", spec).pattern)
    assert all(dfa.accepts(text.encode()) for text in inside)
    assert not any(dfa.accepts(text.encode()) for text in outside)


class Range(BaseModel):
    low: int
    high: int

    @pydantic.model_validator(mode="after")
    def ordered(self) -> Range:
        assert self.low <= self.high
        return self


class Odd(BaseModel):
    n: int

    @pydantic.field_validator("n")
    @classmethod
    def not_six(cls, value: int) -> int:
        assert value != 6
        return value


class Hooked(BaseModel):
    n: int

    def model_post_init(self, context: object) -> None:
        assert self.n


class Built(BaseModel):
    n: int

    def __init__(self, **values: Any) -> None:
        super().__init__(**values)


class Deep(BaseModel):
    path: int = Field(validation_alias=pydantic.AliasPath("a", 0))


@dataclasses.dataclass
class Checked:
    n: int

    def __post_init__(self) -> None:
        assert self.n


class Tree(BaseModel):
    children: list[Tree]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (Annotated[int, pydantic.AfterValidator(abs)], "`$` has the validator `abs`"),
        (Annotated[int, pydantic.BeforeValidator(abs)], "the validator `abs`"),
        (Annotated[int, pydantic.PlainValidator(abs)], "the validator `abs`"),
        (Range, "`$` has the validator `Range.ordered`"),
        (list[Odd], "`$[*].n` has the validator `Odd.not_six`"),
        (Hooked, "`model_post_init`"),
        (Built, "`__init__`"),
        (Checked, "`__post_init__`"),
        (Deep, "`$.path` has an alias"),
        (Tree, "`$.children[*]` is recursive"),
        (Annotated[int, Field(multiple_of=7)], "1,000 multiples of 7"),
        (Annotated[float, Field(multiple_of=0.5)], "`multiple_of`"),
        (Annotated[Decimal, Field(multiple_of=Decimal("0.1"))], "`multiple_of`"),
        (Annotated[Decimal, Field(max_digits=2, decimal_places=2)], "`max_digits`"),
        (Annotated[dt.date, Field(ge=dt.date(2020, 1, 1))], "`ge`"),
        (pydantic.PastDate, "`now_op`"),
        (Annotated[str, Text(pattern="^a", strip_whitespace=True)], "`strip_whitespace`"),
        (Annotated[str, Text(pattern=re.compile("a", re.IGNORECASE))], "`pattern` with flags"),
        (Annotated[str, Text(pattern="a", max_length=3)], "beside bounds of its length"),
        (Annotated[set[int], Field(min_length=2)], "`min_length`"),
        (Annotated[dict[str, int], Field(min_length=2)], "`min_length`"),
        (dict[float, int], "`$.keys` are no strings"),
        (list[Literal[Mixed.HALF]], "which no JSON stands for"),
        (pydantic.SecretStr, "a function of pydantic"),
        (pydantic.Json, "`json`"),
        (bytes, "`bytes`"),
    ],
)
def test_what_no_mask_holds_is_refused_by_name(spec, message):
    with pytest.raises(TerminalTypeError, match=re.escape(message)) as caught:
        typed("X", spec)
    assert caught.value.suggestion


class Unfinished(BaseModel):
    a: Nowhere  # type: ignore[name-defined]  # noqa: F821


class Failing:
    @classmethod
    def __get_pydantic_core_schema__(cls, source, handler):
        raise KeyError(source)


def test_what_pydantic_cannot_build_is_refused():
    nested: Any = int
    for _ in range(400):
        nested = list[nested]
    for spec, message in (
        (Annotated[str, Field(pattern="(")], "regex parse error"),
        (Annotated[str, Field(pattern="(?=a)b")], "look-around"),
        (Annotated[int, Field(gt=1.5)], "'gt' must be coercible"),
        (Annotated[int, Field(multiple_of=0)], "'multiple_of' must be"),
        (Annotated[list[int], Field(min_length=-1)], "negative"),
        (Annotated[int | str, Field(discriminator="x")], "discriminated union"),
        (Unfinished, "not fully defined"),
        (list["Nowhere"], "not fully defined"),  # type: ignore[name-defined]  # noqa: F821
        (Failing, "Failing"),
        (nested, "recursion depth"),
    ):
        with pytest.raises(TerminalTypeError, match=f"cannot be built by pydantic: .*{message}"):
            typed("X", spec)


def test_a_new_name_of_a_type_is_that_type():
    number = NewType("number", int)  # type: ignore[valid-newtype]
    assert typed("X", number).convert("12") == 12
