"""The definitions of terminals, each made one regular expression in the syntax of Python's `re`.

A definition may use other terminals, alternatives, repetition, ranges and the flags `i` and `s`.
What no automaton can follow token by token (lookaround, backreferences) is refused. Here it is
decided, too, which literals are tags: those in brackets, and terminals named `TAG_…`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from nprdsl.grammar import load_limits
from nprdsl.grammar.declarations import (
    Alternatives,
    CharacterRange,
    Construct,
    Definition,
    Expansion,
    Expression,
    NameUse,
    RegexLiteral,
    Repetition,
    StringLiteral,
    TemplateUse,
    inside,
)
from nprdsl.grammar.diagnostics import DiagnosticCode, Span, did_you_mean
from nprdsl.grammar.ir import Terminal, TerminalKind
from nprdsl.grammar.load_limits import too_large
from nprdsl.grammar.namespaces import Linked
from nprdsl.grammar.tag_shapes import PREFIX
from nprdsl.grammar.terminal_types import TerminalType
from nprdsl.regular.syntax import quantifier

WHITESPACE = frozenset(" \t\n\r\f\v")
FREE_TEXT = frozenset({"TEXT", "GOAL"})  # free text where declared without a type
_SPECIAL = re.compile(r"[\\.^$*+?{}\[\]|()]")
_CONTROL = {"\n": r"\n", "\t": r"\t", "\r": r"\r", "\f": r"\f", "\v": r"\v"}
_LOOK = re.compile(
    r"\\[0-7]{3}|\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|(?P<look>\(\?<?[=!])|(?P<group>\(\?P=)", re.S
)
_WHOLE_FLAGS = re.compile(r"\(\?([a-zA-Z]+)\)")  # for all of a regex
_BACKREFERENCE = re.compile(r"\\[1-9]")


def escape(text: str) -> str:
    """A pattern that matches `text`."""
    escaped = _SPECIAL.sub(lambda m: "\\" + m[0], text)
    return "".join(_CONTROL.get(c, c) for c in escaped)


KeptTerminal = tuple[Definition | TerminalType | None, Terminal]  # what it was made of, and it


class Terminals:
    """Makes terminals on demand, so that an unused one costs nothing; faults go to `linked`. One
    that is like another that is `kept` is that one; `keep` are those of this reading."""

    def __init__(
        self,
        linked: Linked,
        types: Mapping[str, TerminalType],
        kept: Mapping[str, KeptTerminal] = MappingProxyType({}),
    ) -> None:
        self.kept = kept
        self.keep: dict[str, KeptTerminal] = {}
        self.linked = linked
        self.types = types
        self.made: dict[str, Terminal] = {}
        self._patterns: dict[str, str] = {}
        self._anonymous: dict[str, Terminal] = {}

    def named(self, use: NameUse) -> Terminal:
        """The terminal of a name; of an undefined name (already reported) a stand-in."""
        if use.name not in self.made:
            source = self.linked.terminals.get(use.name) or self.types.get(use.name)
            self.made[use.name] = self._known(self._make(use), source)
        return self.made[use.name]

    def _known(self, made: Terminal, source: Definition | TerminalType | None) -> Terminal:
        """The terminal that is kept in place of one that is like it and made of the same."""
        before = self.kept.get(made.name)
        if before is not None and before[0] == source and _says(before[1]) == _says(made):
            made = before[1]
        self.keep[made.name] = source, made
        return made

    def anonymous(self, node: RegexLiteral | StringLiteral | CharacterRange) -> Terminal:
        """A regex, range or case-blind string in a rule: equal ones are one terminal."""
        pattern = self.pattern(node)
        if pattern not in self._anonymous:
            name = f"ANONYMOUS_{len(self._anonymous) + 1}"
            terminal = self._known(Terminal(name, TerminalKind.REGULAR, node.span, pattern), None)
            self._anonymous[pattern] = self.made[name] = terminal
        return self._anonymous[pattern]

    def check_types(self) -> None:
        """Report types for names that are not declared, and declared names without a type."""
        for name in self.types:
            if name not in self.linked.declared:
                self._stray_type(name)
        for name, span in self.linked.declared.items():
            if name.startswith(PREFIX):
                message = f"`{name}` is declared, and a tag is a fixed string"
                self.linked.unsupported(span, message, f'define it: `{name}: "…"`')
            elif name not in self.types and name not in FREE_TEXT and not name.startswith("_"):
                self.linked.report(
                    DiagnosticCode.UNTYPED_TERMINAL,
                    span,
                    f"`{name}` is declared but has no type",
                    f'give it one: `nprdsl.load(…, terminals={{"{name}": …}})`, or define it here; '
                    "free text is `TEXT`, or has the type `nprdsl.FreeText`",
                )

    def _stray_type(self, name: str) -> None:
        definition = self.linked.terminals.get(name)
        file = self.linked.sources[0].file
        span = definition.span if definition is not None else Span(file, 1, 1, 1, 1)
        if definition is not None:
            message = f"`{name}` has a type and a definition too"
            way = f"remove one: `%declare {name}` leaves it to the type"
        else:
            message = f"a type is given for `{name}`, which the schema does not declare"
            way = did_you_mean(name, self.linked.declared) or f"add `%declare {name}`"
        self.linked.report(DiagnosticCode.BAD_TERMINAL_TYPE, span, message, way)

    def _make(self, use: NameUse) -> Terminal:
        name, definition = use.name, self.linked.terminals.get(use.name)
        if name.startswith("_"):
            return self._glue(use, definition)
        if definition is not None:
            pattern = self._definition_pattern(definition)
            return Terminal(name, TerminalKind.REGULAR, definition.span, pattern)
        span = self.linked.declared.get(name, use.span)
        given = self.types.get(name)
        if given is None:
            return Terminal(name, TerminalKind.TEXT, span)
        kind = TerminalKind.TEXT if given.free_text else TerminalKind.TYPED
        return Terminal(name, kind, span, given.pattern, "", given.convert, given.description)

    def _glue(self, use: NameUse, definition: Definition | None) -> Terminal:
        """Glue is written as its first literal; what else its definition says is not needed."""
        span = definition.span if definition is not None else use.span
        parts = inside(definition.body) if definition is not None else iter(())
        literal = next((p.value for p in parts if isinstance(p, StringLiteral)), "")
        undefined = definition is None and use.name not in self.linked.declared
        if (not literal or set(literal) - WHITESPACE) and not undefined:
            self.linked.unsupported(
                span,
                f"the glue `{use.name}` has no literal of white space to write",
                f'begin its definition with one: `{use.name}: "\\n"`; '
                "a terminal that is not glue has a name without `_` in front",
            )
        return Terminal(use.name, TerminalKind.GLUE, span, "[ \\t\\n\\r\\f\\v]*", literal)

    def _definition_pattern(self, definition: Definition) -> str:
        """The pattern of a definition; those of the terminals that it uses are made before it."""
        pending, active = [definition], list[str]()
        while pending:
            current = pending[-1]
            if current.name in self._patterns:
                pending.pop()
            elif active[-1:] == [current.name]:
                active.pop()
                self._patterns[current.name] = self._bounded(current)
            else:
                active.append(current.name)
                pending += self._used_unmade(current, active)
        return self._patterns[definition.name]

    def _used_unmade(self, definition: Definition, active: list[str]) -> list[Definition]:
        unmade = []
        for part in inside(definition.body):
            used = self.linked.terminals.get(part.name) if isinstance(part, NameUse) else None
            if used is None or used.name in self._patterns:
                continue
            if used.name in active:
                message = f"the terminal `{used.name}` uses itself"
                way = "make it a rule, or a regex with repetition"
                self.linked.unsupported(used.span, message, way)
                self._patterns[used.name] = ""
            else:
                unmade.append(used)
        return unmade

    def _bounded(self, definition: Definition) -> str:
        pattern = self.pattern(definition.body)
        if len(pattern) > load_limits.PATTERN_LENGTH:
            what = f"the regex of `{definition.name}` has {len(pattern):,} characters"
            way = "use fewer terminals inside it; many fixed values are better typed at load"
            self.linked.add(too_large(definition.span, what, load_limits.PATTERN_LENGTH, way))
        return pattern

    def pattern(self, node: Expression) -> str:
        """One regular expression for `node`."""
        match node:
            case StringLiteral():
                if not node.value:
                    self.refuse_empty(node)
                return f"(?i:{escape(node.value)})" if node.ignore_case else escape(node.value)
            case RegexLiteral():
                return self._regex(node)
            case CharacterRange():
                return f"[{_class_member(node.low)}-{_class_member(node.high)}]"
            case Expansion():
                return "".join(self._grouped(i, in_sequence=True) for i in node.items)
            case Alternatives():
                return "|".join(self.pattern(o) for o in node.options)
            case Repetition():
                return self._grouped(node.node, in_sequence=False) + quantifier(node.low, node.high)
            case NameUse():
                return self._used(node)
            case TemplateUse() | Construct():
                raise AssertionError("templates in terminals are refused before")

    def _grouped(self, node: Expression, *, in_sequence: bool) -> str:
        pattern = self.pattern(node)
        if in_sequence and isinstance(node, (StringLiteral, CharacterRange, Repetition)):
            return pattern
        atomic = isinstance(node, CharacterRange) or len(pattern) == 1
        return pattern if atomic else f"(?:{pattern})"

    def _used(self, use: NameUse) -> str:
        definition = self.linked.terminals.get(use.name)
        if definition is not None:
            return self._patterns[definition.name]
        if use.name in self.types and not self.types[use.name].free_text:
            return self.types[use.name].pattern
        if use.name in self.linked.declared:
            message = f"the free text `{use.name}` cannot be part of another terminal"
            self.linked.unsupported(use.span, message, "use it in a rule")
        return ""

    def _regex(self, node: RegexLiteral) -> str:
        for part in _LOOK.finditer(node.pattern):
            if part["look"]:
                way = "say what may stand there as a character class"
                return self._refuse(node, "lookaround", way)
            if part["group"] or _BACKREFERENCE.fullmatch(part[0]):
                return self._refuse(node, "backreferences", "a repeated value is a bound terminal")
        if refused := set(node.flags) - {"i", "s"}:
            flag = min(refused)
            way = "the flags `i` and `s` are understood"
            return self._refuse(node, f"the flag `{flag}`", way)
        flags, pattern = set(node.flags), node.pattern
        while whole := _WHOLE_FLAGS.match(pattern):  # other parts of the terminal keep theirs
            flags |= set(whole[1])
            pattern = pattern[whole.end() :]
        end = "\n" if "x" in flags else ""  # a comment may be open
        return f"(?{''.join(sorted(flags))}:{pattern}{end})" if flags else pattern

    def _refuse(self, node: RegexLiteral, what: str, way: str) -> str:
        """Report `node`; its pattern is empty."""
        self.linked.unsupported(node.span, f"{what} cannot be constrained token by token", way)
        return ""

    def refuse_empty(self, node: StringLiteral) -> None:
        """Report a string without characters."""
        way = "for something optional write `[x]`"
        self.linked.unsupported(node.span, "a string cannot be empty", way)


def _says(terminal: Terminal) -> tuple[object, ...]:
    return terminal.kind, terminal.span, terminal.pattern, terminal.literal, terminal.description


def _class_member(character: str) -> str:
    return "\\" + character if character in "\\]^-[" else _CONTROL.get(character, character)
