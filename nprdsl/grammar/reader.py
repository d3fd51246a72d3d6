"""The text of a schema file to its declarations, or to diagnostics of its syntax.

The syntax is Lark's own: the text is parsed with the grammar of Lark grammars that the `lark`
package ships, and Lark's tree becomes the values of `nprdsl.grammar.declarations`. Where it cannot
be parsed, each declaration is tried alone, so that one fault does not hide the next, and Lark's
errors are put into the words of a schema's author.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, lru_cache
from importlib import resources
from itertools import pairwise

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from nprdsl.grammar.declarations import (
    Alternatives,
    CharacterRange,
    Declaration,
    Declare,
    Definition,
    Directive,
    Expansion,
    Expression,
    Import,
    NameUse,
    RegexLiteral,
    Repetition,
    SourceFile,
    StringLiteral,
    TemplateUse,
)
from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, SchemaError, Span

# What plain Lark reads and its published grammar lacks.
_ADDITIONS = r"""
%extend statement: "%extend" (rule | token) -> extend
                 | "%override" token -> override_rule
%override RULE: /(!\??|\?!?)?_?[a-z][_a-z0-9]*/
_CONTINUED: /\\[ ]*\r?\n/
%ignore _CONTINUED
"""
_DECLARATION = re.compile(r"^(?:[?!]*_*[A-Za-z][\w]*[ \t]*[.{:=]|%)", re.M)
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.S)
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", '"': '"', "\\": "\\"}


@lru_cache(maxsize=64)
def read(text: str, file: str) -> SourceFile:
    """Read a schema's text. Raises `SchemaError` with every fault of syntax."""
    try:
        return SourceFile(file, text, _TreeReader(file).declarations(_parser().parse(text)))
    except UnexpectedInput as error:
        faults = _faults(text, file) or [_syntax_error(error, text, file)]
        raise SchemaError(faults, text) from None


@cache
def _parser() -> Lark:
    text = (resources.files("lark") / "grammars" / "lark.lark").read_text(encoding="utf-8")
    return Lark(
        text + _ADDITIONS, parser="lalr", propagate_positions=True, maybe_placeholders=False
    )


def _faults(text: str, file: str) -> list[Diagnostic]:
    """Read each declaration alone, so that one fault does not hide the next."""
    starts = [m.start() for m in _DECLARATION.finditer(text)]
    faults = []
    for start, end in pairwise([*starts, len(text)]):
        padding = "\n" * text.count("\n", 0, start)
        try:
            _parser().parse(padding + text[start:end])
        except UnexpectedInput as error:
            faults.append(_syntax_error(error, text, file))
    return faults


class _TreeReader:
    """Makes declarations of Lark's tree, with one method for each kind of expression."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.expressions: dict[str, Callable[[Tree[Token]], Expression]] = {
            "name": self._name,
            "literal": self._literal,
            "literal_range": self._range,
            "template_usage": self._template,
            "maybe": self._maybe,
            "expr": self._repetition,
            "expansion": self._sequence,
            "expansions": self._choice,
            "alias": lambda tree: self._expression(tree.children[0]),
        }

    def declarations(self, tree: Tree[Token]) -> tuple[Declaration, ...]:
        declarations: list[Declaration] = []
        for item in _trees(tree):
            if item.data in ("rule", "token"):
                declarations.append(self._definition(item))
            elif item.data == "import":
                declarations.append(self._import(item))
            elif item.data == "multi_import":
                declarations.extend(self._imports(item))
            elif item.data == "declare":
                declarations.extend(Declare(n.name, n.span) for n in map(self._name, _trees(item)))
            else:
                keyword = str(item.data).removesuffix("_rule")
                declarations.append(Directive(f"%{keyword}", self._span(item)))
        return tuple(declarations)

    def _definition(self, tree: Tree[Token]) -> Definition:
        name, parameters, *rest = tree.children
        assert isinstance(name, Token) and isinstance(parameters, Tree)
        priority = next((t for t in _trees(tree) if t.data == "priority"), None)
        body = rest[-1]
        assert isinstance(body, Tree)
        span = self._token_span(name)
        expression = Expansion((), span) if body.meta.empty else self._expression(body)
        return Definition(
            str(name).lstrip("?!"),
            tuple(str(p) for p in parameters.children),
            None if priority is None else self._span(priority),
            expression,
            span,
        )

    def _path(self, tree: Tree[Token]) -> tuple[tuple[str, ...], bool]:
        names = tuple(self._name(t).name for t in _trees(tree))
        return names, isinstance(tree.children[0], Token)

    def _import(self, tree: Tree[Token]) -> Import:
        path, *alias = _trees(tree)
        names, relative = self._path(path)
        new = self._name(alias[0]).name if alias else names[-1]
        return Import(names[:-1], relative, names[-1], new, self._span(tree))

    def _imports(self, tree: Tree[Token]) -> list[Import]:
        path, names = _trees(tree)
        parts, relative = self._path(path)
        uses = [self._name(t) for t in _trees(names)]
        return [Import(parts, relative, use.name, use.name, use.span) for use in uses]

    def _expression(self, node: Tree[Token] | Token) -> Expression:
        assert isinstance(node, Tree)
        return self.expressions[node.data](node)

    def _name(self, tree: Tree[Token]) -> NameUse:
        return NameUse(str(tree.children[0]).lstrip("?!"), self._span(tree))

    def _literal(self, tree: Tree[Token]) -> Expression:
        text, span = str(tree.children[0]), self._span(tree)
        if text[0] == '"':
            return StringLiteral(_unquote(text), text[-1] == "i", span)
        end = text.rindex("/")
        return RegexLiteral(_regex_text(text[1:end]), text[end + 1 :], span)

    def _range(self, tree: Tree[Token]) -> Expression:
        low, high = (_unquote(str(t)) for t in tree.children)
        return CharacterRange(low, high, self._span(tree))

    def _template(self, tree: Tree[Token]) -> Expression:
        name, *arguments = _trees(tree)
        values = tuple(self._expression(a) for a in arguments)
        return TemplateUse(self._name(name).name, values, self._span(tree))

    def _maybe(self, tree: Tree[Token]) -> Expression:
        return Repetition(self._expression(tree.children[0]), 0, 1, self._span(tree))

    def _repetition(self, tree: Tree[Token]) -> Expression:
        node, *marks = tree.children
        assert all(isinstance(m, Token) for m in marks)
        low, high = _bounds([str(m) for m in marks])
        return Repetition(self._expression(node), low, high, self._span(tree))

    def _sequence(self, tree: Tree[Token]) -> Expression:
        return Expansion(tuple(self._expression(t) for t in tree.children), self._span(tree))

    def _choice(self, tree: Tree[Token]) -> Expression:
        return Alternatives(tuple(self._option(t, tree) for t in _trees(tree)), self._span(tree))

    def _option(self, option: Tree[Token], parent: Tree[Token]) -> Expression:
        """An empty option has no place of its own: it takes its parent's."""
        if option.meta.empty:
            return Expansion((), self._span(parent))
        return self._expression(option)

    def _span(self, tree: Tree[Token]) -> Span:
        m = tree.meta
        if m.empty:
            return Span(self.file, 1, 1, 1, 1)
        return Span(self.file, m.line, m.column, m.end_line, m.end_column)

    def _token_span(self, token: Token) -> Span:
        line, column = token.line or 1, token.column or 1
        return Span(self.file, line, column, token.end_line or line, token.end_column or column)


def _trees(tree: Tree[Token]) -> list[Tree[Token]]:
    return [child for child in tree.children if isinstance(child, Tree)]


def _bounds(marks: list[str]) -> tuple[int, int | None]:
    signs: dict[str, tuple[int, int | None]] = {"?": (0, 1), "*": (0, None), "+": (1, None)}
    if marks[0] in signs:
        return signs[marks[0]]
    return int(marks[0]), int(marks[-1])


def _unquote(text: str) -> str:
    """The value of a string as Lark reads it: an unknown escape keeps its backslash."""

    def value(match: re.Match[str]) -> str:
        code = match[1]
        if code[0] in "xuU" and len(code) > 1:
            return chr(int(code[1:], 16))
        return _CONTROL.get(code, match[0])

    return _ESCAPE.sub(value, text[1 : text.rindex('"')])


def _regex_text(text: str) -> str:
    r"""`\/` stands for `/` between slashes; every other escape belongs to the regex."""
    return re.sub(r"\\(.)", lambda m: "/" if m[1] == "/" else m[0], text, flags=re.S)


# -- faults of syntax ---------------------------------------------------------------------------


def _syntax_error(error: UnexpectedInput, text: str, file: str) -> Diagnostic:
    """The diagnostic of one error: what cannot stand where, and what the author may have meant."""
    lines = text.split("\n")
    line, column, width = error.line, error.column, 1
    what = "the text"
    if isinstance(error, UnexpectedToken) and error.token.type not in ("$END", "_NL"):
        what, width = f"`{error.token}`", max(1, len(error.token))
    elif isinstance(error, UnexpectedCharacters):
        what = f"`{error.char}`"
    ends = isinstance(error, UnexpectedEOF) or what == "the text"
    if ends:
        line, column = _last_place(lines, error)
    span = Span(file, line, column, line, column + width)
    rest = lines[line - 1][column - 1 :] if line <= len(lines) else ""
    message = "the declaration ends too early" if ends else f"{what} cannot stand here"
    if isinstance(error, UnexpectedCharacters) and rest[:1] in ('"', "/"):
        kind = "string" if rest[0] == '"' else "regex"
        message = f"this {kind} is not closed on its line"
    return Diagnostic(DiagnosticCode.SYNTAX, span, message, _hint(message, rest))


def _last_place(lines: list[str], error: UnexpectedInput) -> tuple[int, int]:
    """The end of the last line with text, at or before the place of the error."""
    line = error.line if error.line > 0 else len(lines)
    for number in range(min(line, len(lines)), 0, -1):
        if stripped := re.sub(r"(^|\s)//.*", "", lines[number - 1]).rstrip():
            return number, len(stripped) + 1
    return 1, 1


def _hint(message: str, rest: str) -> str:
    """The way out, by the kind of the first character that did not fit."""
    if "not closed" in message:
        return f"close it with `{rest[0]}`"
    if "too early" in message:
        return "close the open bracket, or finish the definition"
    hints = {
        "'": 'write strings in double quotes: `"x"`',
        "=": "a definition is `name: expansion`",
        ";": "a definition ends with its line; remove the `;`",
        "<": 'write tags in double quotes: `"<step>"`',
        "%": "the directives are `%import` and `%declare`",
        ")": "no bracket is open here; remove it",
        "]": "no bracket is open here; remove it",
        "}": "no template is open here; remove it",
        "~": "repetition is `x~2` or `x~2..5`",
        "{": "a template is used as `name{argument, argument}`, without a space before `{`",
    }
    if rest[:1] in hints:
        return hints[rest[0]]
    if rest[:1].isupper() or rest[:1].islower():
        return (
            "names are all lower case (rules) or all upper case (terminals), letters, digits, `_`"
        )
    return "a declaration is `name: expansion`, `%import`, `%declare` or a `//` comment"
