"""Writes a linear grammar in xgrammar's EBNF (as xgrammar 0.2.8 reads it).

Every rule stays a rule of its own: xgrammar computes masks faster for these than for a structural
tag, its own format for tagged text. Free text becomes a `TagDispatch`, xgrammar's construct for
text without certain strings, which allows blank text too; with `exact_text` it becomes right-linear
rules that state free text exactly. A tag that is a special token is written `Token(id)`.

Compile with `cache_enabled=False` where several grammars differ in token ids only: the cache of
xgrammar 0.2.8 takes them for one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nprdsl.export.exported import Export, ExportLimits, Special, Target
from nprdsl.export.freetext import START, FreeTextState, free_text
from nprdsl.export.linear import LinearGrammar
from nprdsl.export.rust_regex import bracketed
from nprdsl.grammar.ir import Alt, Field, Literal, Node, Ref, Repeat, Seq, Tag, TerminalKind
from nprdsl.regular.syntax import Chars, Concat, Regex, Times, Union, parse, quantifier

_TEXT = "TEXT"
_ROOT = "root"
_SYNTAX = frozenset('"\\[]^-')
_CONTROL = {"\n": "\\n", "\t": "\\t", "\r": "\\r"}
_LOOSE = ("free text may be blank or empty, and may be broken UTF-8 (`exact_text` forbids both)",)


def to_xgrammar(linear: LinearGrammar, special: Special, limits: ExportLimits) -> Export:
    """`special`: token ids of special tokens: tags become ids, the names of all are not text."""
    writer = _XGrammarWriter(linear, special)
    excluded = tuple(dict.fromkeys([*linear.tags, *special]))
    text = writer.exact_text(excluded) if limits.exact_text else [_dispatch(excluded)]
    lost = list(linear.lost)
    if writer.uses_text and not limits.exact_text:
        lost += _LOOSE
    if writer.uses_text and any(tag in special for tag in linear.tags):
        lost.append("a special token that `special` does not name may stand in free text")
        if any(name not in linear.tags for name in special):
            lost.append("free text cannot spell the name of a special token")
    rules = writer.rules()
    return Export(
        "\n".join([*rules, *(text if writer.uses_text else []), ""]), Target.XGRAMMAR, tuple(lost)
    )


class _XGrammarWriter:
    def __init__(self, linear: LinearGrammar, special: Special) -> None:
        self._linear = linear
        self._special = special
        self._terminals: dict[str, str] = {}
        self.uses_text = False
        self._body = {name: self._node(node) for name, node in linear.rules.items()}

    def rules(self) -> list[str]:
        named = [f"{self._name(name)} ::= {body}" for name, body in self._body.items()]
        return named + [f"{name} ::= {body}" for name, body in self._terminals.items()]

    def _name(self, rule: str) -> str:
        if rule == self._linear.start:
            return _ROOT
        return rule if rule != _ROOT else "ROOT"

    def _node(self, node: Node) -> str:
        match node:
            case Tag(text=text):
                token = self._special.get(text)
                return quoted(text) if token is None else f"Token({token})"
            case Literal(text=text):
                return quoted(text)
            case Field(terminal=terminal) if terminal.kind is TerminalKind.TEXT:
                self.uses_text = True
                return _TEXT
            case Field(terminal=terminal):
                self._terminals[terminal.name] = _ebnf(parse(terminal.pattern))
                return terminal.name
            case Ref(rule=rule):
                return self._name(rule)
            case Seq(items=items):
                return " ".join(self._node(item) for item in items) or '""'
            case Alt(options=options):
                return f"({' | '.join(self._node(option) for option in options)})"
            case Repeat(node=inner, low=low, high=high):
                return f"({self._node(inner)}){quantifier(low, high)}"
            case _:
                raise AssertionError(node)

    def exact_text(self, excluded: tuple[str, ...]) -> list[str]:
        """One rule for every state of the automaton of free text."""
        steps = free_text(excluded)
        names = {state: f"{_TEXT}_{number}" for number, state in enumerate(steps)}
        names[START] = _TEXT
        return [f"{names[state]} ::= {_options(state, out, names)}" for state, out in steps.items()]


def _options(
    state: FreeTextState, out: Mapping[FreeTextState, Chars], names: Mapping[FreeTextState, str]
) -> str:
    options = [] if state.blank else ['""']
    options += [f"{_ebnf(letters)} {names[follow]}" for follow, letters in out.items()]
    return " | ".join(options)


def _dispatch(excluded: tuple[str, ...]) -> str:
    texts = ", ".join(quoted(text) for text in excluded)
    return f"{_TEXT} ::= TagDispatch(loop_after_dispatch=false, excludes=({texts},))"


def _ebnf(regex: Regex) -> str:
    match regex:
        case Chars(ranges=((low, high),)) if low == high:
            return quoted(chr(low))
        case Chars():
            return bracketed(regex, _letter)
        case Concat(parts=parts):
            return " ".join(_runs(parts)) or '""'
        case Union(options=options):
            return f"({' | '.join(_ebnf(option) for option in options)})"
        case Times(regex=inner, low=low, high=high):
            return f"({_ebnf(inner)}){quantifier(low, high)}"


def _runs(parts: tuple[Regex, ...]) -> Iterator[str]:
    """The parts, single characters in a row as one literal."""
    run = ""
    for part in parts:
        match part:
            case Chars(ranges=((low, high),)) if low == high:
                run += chr(low)
            case _:
                if run:
                    yield quoted(run)
                run = ""
                yield _ebnf(part)
    if run:
        yield quoted(run)


def _letter(letter: str) -> str:
    if letter in _CONTROL:
        return _CONTROL[letter]
    if letter in _SYNTAX:
        return "\\" + letter
    if letter.isascii() and letter.isprintable():
        return letter
    code = ord(letter)
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def quoted(text: str) -> str:
    """A string literal of the EBNF."""
    escaped = "".join(c if c in "[]^-" else _letter(c) for c in text)
    return f'"{escaped}"'
