"""Writes a linear grammar in llguidance's dialect of Lark (as llguidance 1.9 reads it).

The lexer of llguidance takes the longest lexeme, so free text alone would run on over the tag that
ends it. Therefore all content before a tag is one lexeme, and the tag is part of it where it is
spelled as text (see `nprdsl.export.units`). A tag that is a special token is written `<[id]>`: no
lexeme of text ever matches such a token, so it may stand alone. Free text is valid UTF-8 and not
blank, and holds no tag that is spelled as text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Final

from nprdsl.export.exported import Export, ExportError, ExportLimits, Special, Target
from nprdsl.export.linear import LinearGrammar
from nprdsl.export.rust_regex import escape, to_rust
from nprdsl.export.units import Unit, Units, conflicting, gather, head
from nprdsl.grammar.ir import Alt, Field, Literal, Node, Ref, Repeat, Seq, TerminalKind
from nprdsl.regular.syntax import parse, quantifier
from nprdsl.regular.tag_scan import tag_scan

_HEADER: Final = "%llguidance {}"
_TEXT: Final = r"(?s:.)*[^ \t\n\r\x0b\x0c](?s:.)*"


def to_llguidance(linear: LinearGrammar, special: Special, limits: ExportLimits) -> Export:
    """`special`: token ids of the tags that are special tokens; every other tag is text."""
    spelled = {tag for tag in linear.tags if limits.exact_text or tag not in special}
    writer = _LLGuidanceWriter(linear, special, spelled)
    text = writer.text()
    lost = list(linear.lost)
    if writer.uses_text and len(spelled) < len(linear.tags):
        lost.append("free text may spell a special tag in letters (`exact_text` forbids it)")
    if 0 < sum(tag in special for tag in linear.tags) < len(linear.tags):
        lost.append("llguidance 1.9 fails where a special tag stands right behind a spelled one")
    return Export(text, Target.LLGUIDANCE, tuple(lost))


class _LLGuidanceWriter:
    def __init__(self, linear: LinearGrammar, special: Special, spelled: set[str]) -> None:
        self._linear = linear
        self._special = special
        self._units: Units = gather(linear.rules, linear.start)
        self._whole = conflicting(self._units)
        self._lexemes: dict[str, str] = {}  # definition -> name
        self._tags = "|".join(_quoted_regex(tag) for tag in linear.tags if tag in spelled)
        self._apart = tag_scan(tuple(tag for tag in linear.tags if tag in spelled)).apart
        self.uses_text = False

    def text(self) -> str:
        names = {name: name for name in self._units.rules}
        names[self._units.start], names["start"] = "start", self._units.start
        rules = [
            f"{names.get(name, name)}: {self._node(node, names)}"
            for name, node in self._units.rules.items()
        ]
        units = [f"{name}: {self._unit(unit)}" for name, unit in self._units.units.items()]
        lexemes = [f"{name}: {definition}" for definition, name in self._lexemes.items()]
        return "\n".join([_HEADER, *rules, *units, *lexemes, ""])

    def _node(self, node: Node, names: Mapping[str, str]) -> str:
        match node:
            case Ref(rule=rule):
                return names.get(rule, rule)
            case Seq(items=items):
                parts = [self._node(item, names) for item in items if not _is_empty(item)]
                return " ".join(parts) or '""'
            case Alt(options=options):
                return f"({' | '.join(self._node(option, names) for option in options)})"
            case Repeat(node=inner, low=low, high=high):
                return f"({self._node(inner, names)}){quantifier(low, high)}"
            case _:
                raise AssertionError(node)

    def _unit(self, unit: Unit) -> str:
        """One lexeme up to the tag, after leading literals where that is safe; a special tag."""
        first, content = ("", list(unit.content)) if unit in self._whole else head(unit)
        tag = unit.tag or ""
        token = self._special.get(tag)
        parts = [_quoted(first)] if first else []
        if content:
            parts.append(self._lexeme(content, "" if token is not None else tag))
        elif tag and token is None:
            parts.append(_quoted(tag))  # a literal of its own, so that tags are shared
        if token is not None:
            parts.append(f"<[{token}]>")
        return " ".join(parts) or '""'

    def _lexeme(self, content: list[Node], tag: str) -> str:
        body = "".join(f"(?:{self._regex(node)})" for node in content)
        definition = f"/{body}/"
        if tag and tag not in self._apart:  # text before it may begin a tag that ends in it
            definition = f"({definition} {_quoted(tag)}) & ~/(?s:.)*(?:{self._tags})(?s:.)+/"
        else:
            if self._tags:
                definition += f" & ~/(?s:.)*(?:{self._tags})(?s:.)*/"
            if tag:
                definition = f"({definition}) {_quoted(tag)}"
        return self._lexemes.setdefault(definition, f"T{len(self._lexemes) + 1}")

    def _regex(self, node: Node) -> str:
        match node:
            case Field(terminal=terminal) if terminal.kind is TerminalKind.TEXT:
                self.uses_text = True
                return _TEXT
            case Field(terminal=terminal):
                return to_rust(parse(terminal.pattern))
            case Literal(text=text):
                return _quoted_regex(text)
            case Seq(items=items):
                return "".join(f"(?:{self._regex(item)})" for item in items)
            case Alt(options=options):
                return "|".join(f"(?:{self._regex(option)})" for option in options)
            case Repeat(node=inner, low=low, high=high):
                return f"(?:{self._regex(inner)}){quantifier(low, high)}"
            case Ref(rule=rule):
                return self._rule_regex(rule)
            case _:
                raise AssertionError(node)

    def _rule_regex(self, rule: str) -> str:
        try:
            return self._regex(self._linear.rules[rule])
        except RecursionError as error:
            raise ExportError(
                f"`{rule}` uses itself without a tag in between; llguidance needs a regular field"
            ) from error


def _is_empty(node: Node) -> bool:
    return isinstance(node, Seq) and all(_is_empty(item) for item in node.items)


def _quoted_regex(text: str) -> str:
    return "".join(escape(letter) for letter in text)


def _quoted(text: str) -> str:
    r"""A string literal of Lark: JSON's escapes."""
    return json.dumps(text, ensure_ascii=False)
