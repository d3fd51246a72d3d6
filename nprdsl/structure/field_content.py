"""The content of a field: the text between two tags, matched against the symbols that must stand
there.

A content is split among the symbols (`nprdsl.structure.field_split`); when it cannot be, it is read
once more without regard to values, so that the fault can be named. White space is ASCII white space
everywhere in the language.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from textwrap import shorten
from typing import Final

from nprdsl.grammar.ir import Field, Literal, TerminalKind
from nprdsl.regular.dfa import compile_regex
from nprdsl.structure.field_split import (
    ANY,
    BLANKS,
    GLUE,
    TEXT,
    FixedPiece,
    Piece,
    encoded,
    split,
    value_piece,
)
from nprdsl.structure.stack import BoundField, BoundValue, CapturedField, Symbol
from nprdsl.structure.violations import ViolationCode

_LONGEST_WAY = 300  # characters of what is said of a type
MOST_SHOWN: Final = 200  # characters of a value in a message
_Named = Field | CapturedField | BoundField


@dataclass(frozen=True, slots=True)
class FieldValue:
    """The value of one terminal in a field, converted to its type; `start` and `end` count
    characters from the start of the field."""

    symbol: _Named
    start: int
    end: int
    value: object


@dataclass(frozen=True, slots=True)
class ContentFault:
    code: ViolationCode
    offset: int
    message: str
    suggestion: str = ""


def shown(text: str) -> str:
    """A piece of a trace as messages quote it: a value may be as long as the trace."""
    return text if len(text) <= MOST_SHOWN else f"{text[: MOST_SHOWN - 1]}…"


def field_of(symbol: _Named) -> Field:
    return symbol if isinstance(symbol, Field) else symbol.field


def is_glue(symbol: Symbol) -> bool:
    return isinstance(symbol, Field) and symbol.terminal.kind is TerminalKind.GLUE


def is_text(symbol: Symbol) -> bool:
    """Free text that is not bound to a value."""
    if isinstance(symbol, (Literal, BoundField)):
        return False
    return field_of(symbol).terminal.kind is TerminalKind.TEXT


def _is_unknown_text(symbol: _Named) -> bool:
    """Free text, a repeated one included if its item's could not be read."""
    known = isinstance(symbol, BoundField) and symbol.value.text
    return not known and field_of(symbol).terminal.kind is TerminalKind.TEXT


def describe(symbols: tuple[Symbol, ...]) -> str:
    """The field as its author would write it, glue left out."""
    words = []
    for symbol in symbols:
        if isinstance(symbol, Literal):
            words.append(f'"{shown(symbol.text)}"')
        elif isinstance(symbol, BoundField):
            words.append(f'"{shown(symbol.value.text)}"')
        elif not is_glue(symbol):
            words.append(field_of(symbol).terminal.name)
    return " ".join(words) or "nothing"


class FieldContent:
    """The matcher of one field."""

    def __init__(self, symbols: tuple[Symbol, ...]) -> None:
        self.symbols = symbols
        self._named = [
            (number, symbol)
            for number, symbol in enumerate(symbols)
            if not isinstance(symbol, Literal) and not is_glue(symbol)
        ]
        self._captures = sum(isinstance(symbol, CapturedField) for symbol in symbols)
        self._plain = not symbols
        self._only_glue = bool(symbols) and all(is_glue(s) for s in symbols)
        self._only_text = (
            len(self._named) == 1 and is_text(symbols[-1]) and all(is_glue(s) for s in symbols[:-1])
        )

    @cached_property
    def _strict(self) -> tuple[Piece, ...]:
        return tuple(_piece(symbol, strict=True) for symbol in self.symbols)

    @cached_property
    def _loose(self) -> tuple[Piece, ...]:
        return tuple(_piece(symbol, strict=False) for symbol in self.symbols)

    def _named_spans(self, ends: list[int]) -> Iterator[tuple[_Named, int, int]]:
        """Every symbol that has a name, and the stretch of the content that it takes."""
        for number, symbol in self._named:
            yield symbol, ends[number - 1] if number else 0, ends[number]

    def accepts(self, content: str) -> bool:
        """Whether the content is legal, without finding out where its parts are."""
        if self._plain:
            return not content
        if self._only_glue:
            return not content.strip(BLANKS)
        if self._only_text:
            return bool(content.strip(BLANKS)) and encoded(content) is not None
        return self.match(content) is not None

    def match(self, content: str) -> list[FieldValue] | None:
        """The terminals in order, or None if the content is not legal."""
        if self._plain:
            return None if content else []
        ends = split(content, self._strict)
        if ends is None:
            return None
        values = []
        for symbol, start, end in self._named_spans(ends):
            text = content[start:end]
            if isinstance(symbol, CapturedField) and text in symbol.taken:
                return None
            convert = field_of(symbol).terminal.convert
            try:
                value = convert(text) if convert is not None else text
            except ValueError:
                return None
            values.append(FieldValue(symbol, start, end, value))
        return values

    def captured(self, content: str) -> tuple[BoundValue, ...]:
        """The values that the branch of this item must repeat; empty text where they cannot be
        read."""
        if not self._captures:
            return ()
        ends = split(content, self._strict) or split(content, self._loose)
        if ends is None:
            return (BoundValue(""),) * self._captures
        return tuple(
            BoundValue(content[start:end])
            for symbol, start, end in self._named_spans(ends)
            if isinstance(symbol, CapturedField)
        )

    def fault(self, content: str) -> ContentFault:
        """Why the content is not legal."""
        first = len(content) - len(content.lstrip(BLANKS))
        if encoded(content) is None:
            bad = next(i for i, c in enumerate(content) if _broken(c))
            return ContentFault(ViolationCode.NOT_UTF8, bad, "text is not valid UTF-8")
        if self._plain or self._only_glue:
            stray = content[first : first + 20].strip() or "white space"
            at = first if content.strip(BLANKS) else 0
            return ContentFault(
                ViolationCode.STRAY_TEXT, at, f"`{stray}` stands where no text may stand"
            )
        ends = split(content, self._loose)
        if ends is not None:
            return self._wrong_value(content, ends)
        if not content.strip(BLANKS) and any(is_text(s) for s in self.symbols):
            return ContentFault(ViolationCode.EMPTY_TEXT, 0, f"{describe(self.symbols)} is missing")
        return ContentFault(
            ViolationCode.BAD_VALUE,
            first,
            f"`{content.strip()[:30]}` is not of the form {describe(self.symbols)}",
        )

    def _wrong_value(self, content: str, ends: list[int]) -> ContentFault:
        for symbol, at, end in self._named_spans(ends):
            text = content[at:end]
            name = field_of(symbol).terminal.name
            if _is_unknown_text(symbol) and not text.strip(BLANKS):
                return ContentFault(ViolationCode.EMPTY_TEXT, at, f"{name} is blank")
            if isinstance(symbol, CapturedField) and text in symbol.taken:
                return ContentFault(
                    ViolationCode.DUPLICATE_LABEL,
                    at,
                    f"{name} `{shown(text)}` is used twice in this list",
                )
            if isinstance(symbol, BoundField) and symbol.value.text not in ("", text):
                wanted = shown(symbol.value.text)
                return ContentFault(
                    ViolationCode.LABEL_MISMATCH,
                    at,
                    f"{name} `{shown(text)}` differs from its item's `{wanted}`",
                    f"write `{wanted}`: branches follow the items in order",
                )
            fault = _conversion_fault(symbol, text, at)
            if fault is not None:
                return fault
        raise AssertionError("the content is legal")


def _conversion_fault(symbol: _Named, text: str, at: int) -> ContentFault | None:
    terminal = field_of(symbol).terminal
    if terminal.kind in (TerminalKind.REGULAR, TerminalKind.TYPED):
        if not compile_regex(terminal.pattern).accepts(text.encode()):
            message = f"`{text[:30]}` is not a {terminal.name}"
            way = shorten(terminal.description, _LONGEST_WAY, placeholder=" …")
            return ContentFault(ViolationCode.BAD_VALUE, at, message, way)
        try:
            _ = terminal.convert(text) if terminal.convert is not None else None
        except ValueError as error:
            message = f"`{text[:30]}` is not a {terminal.name}: {shown(str(error))}"
            return ContentFault(ViolationCode.BAD_VALUE, at, message)
    return None


def _piece(symbol: Symbol, *, strict: bool) -> Piece:
    """How a symbol is read; loosely, any label is taken and values are judged later."""
    if isinstance(symbol, Literal):
        return FixedPiece(symbol.text)
    if is_glue(symbol):
        return GLUE
    if isinstance(symbol, BoundField) and strict and symbol.value.text:
        return FixedPiece(symbol.value.text)
    terminal = field_of(symbol).terminal
    if terminal.kind is TerminalKind.TEXT:
        return TEXT if strict else ANY
    if terminal.kind is TerminalKind.TYPED and not strict:
        return ANY
    return value_piece(terminal.pattern)


def _broken(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


class ArcContent:
    """The matcher of all the fields that may stand before one tag."""

    def __init__(self, fields: tuple[tuple[Symbol, ...], ...]) -> None:
        self._fields = tuple(FieldContent(symbols) for symbols in fields)
        self._captures = any(isinstance(s, CapturedField) for symbols in fields for s in symbols)

    def accepts(self, content: str) -> bool:
        """Whether the content is legal in one of the fields."""
        return any(field.accepts(content) for field in self._fields)

    def match(self, content: str) -> tuple[int, list[FieldValue]] | None:
        """The number of the field that takes the content, and its terminals."""
        for number, field in enumerate(self._fields):
            values = field.match(content)
            if values is not None:
                return number, values
        return None

    def way(self, content: str) -> int:
        """The number of the field that takes the content; 0 where none does."""
        if len(self._fields) == 1:
            return 0
        return next((n for n, field in enumerate(self._fields) if field.accepts(content)), 0)

    def captured(self, content: str) -> tuple[BoundValue, ...]:
        """The values that the branch of this item must repeat."""
        return self._fields[self.way(content)].captured(content) if self._captures else ()

    def fault(self, content: str) -> ContentFault:
        """Why no field takes the content."""
        return self._fields[0].fault(content)
