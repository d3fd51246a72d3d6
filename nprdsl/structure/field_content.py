"""The content of a field: the text between two tags, matched against the symbols that must stand
there.

A field's symbols become one regular expression; when it does not match, the fault is named. White
space is ASCII white space everywhere in the language.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Final

from nprdsl.grammar.ir import Field, Literal, TerminalKind
from nprdsl.structure.stack import BoundField, BoundValue, CapturedField, Symbol
from nprdsl.structure.violations import ViolationCode

BLANKS: Final = " \t\n\r\f\v"
_GLUE: Final = r"[ \t\n\r\f\v]*"
_TEXT: Final = r"(?s:.*)"


@dataclass(frozen=True, slots=True)
class FieldValue:
    """The value of one terminal in a field, converted to its type; `start` and `end` count
    characters from the start of the field."""

    symbol: Field | CapturedField | BoundField
    start: int
    end: int
    value: object


@dataclass(frozen=True, slots=True)
class ContentFault:
    code: ViolationCode
    offset: int
    message: str
    suggestion: str = ""


@lru_cache(maxsize=4096)
def _compile(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.ASCII)


def field_of(symbol: Field | CapturedField | BoundField) -> Field:
    return symbol if isinstance(symbol, Field) else symbol.field


def is_glue(symbol: Symbol) -> bool:
    return isinstance(symbol, Field) and symbol.terminal.kind is TerminalKind.GLUE


def is_text(symbol: Symbol) -> bool:
    """Free text that is not bound to a value."""
    if isinstance(symbol, (Literal, BoundField)):
        return False
    return field_of(symbol).terminal.kind is TerminalKind.TEXT


def describe(symbols: tuple[Symbol, ...]) -> str:
    """The field as its author would write it, glue left out."""
    words = []
    for symbol in symbols:
        if isinstance(symbol, Literal):
            words.append(f'"{symbol.text}"')
        elif isinstance(symbol, BoundField):
            words.append(f'"{symbol.value.text}"')
        elif not is_glue(symbol):
            words.append(field_of(symbol).terminal.name)
    return " ".join(words) or "nothing"


class FieldContent:
    """The matcher of one field."""

    def __init__(self, symbols: tuple[Symbol, ...]) -> None:
        self.symbols = symbols
        self._named = [s for s in symbols if not isinstance(s, Literal) and not is_glue(s)]
        self._plain = not symbols
        self._only_glue = bool(symbols) and all(is_glue(s) for s in symbols)
        self._only_text = (
            len(self._named) == 1 and is_text(symbols[-1]) and all(is_glue(s) for s in symbols[:-1])
        )

    @cached_property
    def _regex(self) -> re.Pattern[str]:
        return _compile(self._pattern(strict=True))

    @cached_property
    def _loose(self) -> re.Pattern[str]:
        return _compile(self._pattern(strict=False))

    def _pattern(self, *, strict: bool) -> str:
        numbers = {id(s): n for n, s in enumerate(self._named)}
        parts = []
        for symbol in self.symbols:
            part, number = _part(symbol, strict=strict), numbers.get(id(symbol))
            parts.append(part if number is None else f"(?P<_{number}>{part})")
        return "".join(parts)

    def accepts(self, content: str) -> bool:
        """Whether the content is legal, without finding out where its parts are."""
        if self._plain:
            return not content
        if self._only_glue:
            return not content.strip(BLANKS)
        if self._only_text:
            return bool(content.strip(BLANKS)) and _valid(content)
        return self.match(content) is not None

    def match(self, content: str) -> list[FieldValue] | None:
        """The terminals in order, or None if the content is not legal."""
        matched = self._regex.fullmatch(content)
        if matched is None or not _valid(content):
            return None
        values = []
        for number, symbol in enumerate(self._named):
            start, end = matched.span(f"_{number}")
            text = content[start:end]
            if is_text(symbol) and not text.strip(BLANKS):
                return None
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
        captures = [s for s in self.symbols if isinstance(s, CapturedField)]
        if not captures:
            return ()
        matched = self._loose.fullmatch(content)
        if matched is None:
            return tuple(BoundValue("") for _ in captures)
        return tuple(
            BoundValue(matched[f"_{number}"])
            for number, symbol in enumerate(self._named)
            if isinstance(symbol, CapturedField)
        )

    def fault(self, content: str) -> ContentFault:
        """Why the content is not legal."""
        first = len(content) - len(content.lstrip(BLANKS))
        if not _valid(content):
            bad = next(i for i, c in enumerate(content) if _broken(c))
            return ContentFault(ViolationCode.NOT_UTF8, bad, "text is not valid UTF-8")
        if self._plain or self._only_glue:
            stray = content[first : first + 20].strip() or "white space"
            at = first if content.strip(BLANKS) else 0
            return ContentFault(
                ViolationCode.STRAY_TEXT, at, f"`{stray}` stands where no text may stand"
            )
        matched = self._loose.fullmatch(content)
        if matched is not None:
            return self._wrong_value(matched)
        if not content.strip(BLANKS) and any(is_text(s) for s in self.symbols):
            return ContentFault(ViolationCode.EMPTY_TEXT, 0, f"{describe(self.symbols)} is missing")
        return ContentFault(
            ViolationCode.BAD_VALUE,
            first,
            f"`{content.strip()[:30]}` is not of the form {describe(self.symbols)}",
        )

    def _wrong_value(self, matched: re.Match[str]) -> ContentFault:
        for number, symbol in enumerate(self._named):
            text, at = matched[f"_{number}"], matched.start(f"_{number}")
            name = field_of(symbol).terminal.name
            if is_text(symbol) and not text.strip(BLANKS):
                return ContentFault(ViolationCode.EMPTY_TEXT, at, f"{name} is blank")
            if isinstance(symbol, CapturedField) and text in symbol.taken:
                return ContentFault(
                    ViolationCode.DUPLICATE_LABEL, at, f"{name} `{text}` is used twice in this list"
                )
            if isinstance(symbol, BoundField) and symbol.value.text not in ("", text):
                return ContentFault(
                    ViolationCode.LABEL_MISMATCH,
                    at,
                    f"{name} `{text}` differs from its item's `{symbol.value.text}`",
                    f"write `{symbol.value.text}`: branches follow the items in order",
                )
            fault = _conversion_fault(symbol, text, at)
            if fault is not None:
                return fault
        raise AssertionError("the content is legal")


def _conversion_fault(symbol: Symbol, text: str, at: int) -> ContentFault | None:
    assert not isinstance(symbol, Literal)
    terminal = field_of(symbol).terminal
    if terminal.kind in (TerminalKind.REGULAR, TerminalKind.TYPED):
        if _compile(terminal.pattern).fullmatch(text) is None:
            message = f"`{text[:30]}` is not a {terminal.name}"
            return ContentFault(ViolationCode.BAD_VALUE, at, message, terminal.description)
        try:
            _ = terminal.convert(text) if terminal.convert is not None else None
        except ValueError as error:
            message = f"`{text[:30]}` is not a {terminal.name}: {error}"
            return ContentFault(ViolationCode.BAD_VALUE, at, message)
    return None


def _part(symbol: Symbol, *, strict: bool) -> str:
    """The expression of one symbol; loose ones take any label and leave values to be judged
    later."""
    if isinstance(symbol, Literal):
        return re.escape(symbol.text)
    if is_glue(symbol):
        return _GLUE
    if isinstance(symbol, BoundField) and strict and symbol.value.text:
        return re.escape(symbol.value.text)
    terminal = field_of(symbol).terminal
    if terminal.kind is TerminalKind.TEXT or (terminal.kind is TerminalKind.TYPED and not strict):
        return _TEXT
    return terminal.pattern


def _broken(character: str) -> bool:
    return "\ud800" <= character <= "\udfff"


def _valid(content: str) -> bool:
    return content.isascii() or not any(_broken(c) for c in content)


class ArcContent:
    """The matcher of all the fields that may stand before one tag."""

    def __init__(self, fields: tuple[tuple[Symbol, ...], ...]) -> None:
        self._fields = tuple(FieldContent(symbols) for symbols in fields)

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

    def captured(self, content: str) -> tuple[BoundValue, ...]:
        """The values that the branch of this item must repeat."""
        return self._fields[0].captured(content)

    def fault(self, content: str) -> ContentFault:
        """Why no field takes the content."""
        return self._fields[0].fault(content)
