"""The text of a schema file to its declarations, or to diagnostics of its syntax.

The syntax is Lark's own: the text is parsed with the grammar of Lark grammars that the `lark`
package ships, and Lark's tree becomes the values of `nprdsl.grammar.declarations`. That is done
declaration by declaration, and what one came to is kept: while a text is typed, the others are as
they were, or further down. A fault of one does not hide the next, and Lark's errors are put into
the words of a schema's author.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib import resources
from itertools import islice, pairwise
from pathlib import Path

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from nprdsl.grammar import load_limits
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
    below,
    lines_below,
)
from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Fix, SchemaError, Span
from nprdsl.grammar.load_limits import WAY_OUT_OF_WORDS, too_large
from nprdsl.grammar.tag_shapes import TAG_SHAPE

# What plain Lark reads and its published grammar lacks, and line ends found in linear time.
_ADDITIONS = r"""
%extend statement: "%extend" (rule | token) -> extend
                 | "%override" token -> override_rule
%override RULE: /(!\??|\?!?)?_?[a-z][_a-z0-9]*/
_CONTINUED: /\\[ ]*\r?\n/
%override _NL: /\r?\n\s*/
%override _VBAR: /(\r?\n\s*)?\|/
%ignore _CONTINUED
"""
_DECLARATION = re.compile(r"^(?:[?!]*_*[^\W\d]\w*[ \t]*[.{:=]|%)", re.M)
_GOES_ON = re.compile(r"\\[ ]*\r?\n")
_SHORT = 400  # characters of a declaration of which many are kept
_ESCAPE = re.compile(r"\\(x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.S)
_SURROGATE = re.compile("[\ud800-\udfff]")
_OPENING, _CLOSING = frozenset("([{"), frozenset(")]}")
_SINGLE_QUOTED = re.compile(r"'((?:[^'\\\n]|\\[^'\n])*)'")
_DEFINES = re.compile(r":?=")  # as in BNF
_STRAY = re.compile(r"[;)\]]")
_DIGITS = 18  # of a number
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "f": "\f", '"': '"', "\\": "\\"}


def is_file(path: Path) -> bool:
    """Whether there is such a file; a path that the machine cannot have names none."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def read_text(path: Path) -> str:
    """The text of a schema file, not much more of it than `read` takes. Raises OSError and
    UnicodeDecodeError."""
    with path.open(encoding="utf-8") as file:
        return file.read(load_limits.CHARACTERS + 2)  # a byte order mark, and one too many


@lru_cache(maxsize=16)
def read(text: str, file: str) -> SourceFile:
    """Read a schema's text; a byte order mark is skipped. Raises `SchemaError` with the faults of
    syntax."""
    text = text.removeprefix("\ufeff")
    if (fault := _unreadable(text, file)) is not None:
        raise SchemaError([fault], text)
    try:
        return _read_in_pieces(text, file) or _read_whole(text, file)
    except UnexpectedInput as error:
        faults = _faults(text, file) or [_syntax_error(error, text, file)]
        raise SchemaError(faults, text) from None


def _read_whole(text: str, file: str) -> SourceFile:
    """Raises UnexpectedInput, SchemaError."""
    reading = _Reading(file)
    tree = reading.tree(text)
    reader = _TreeReader(file)
    declarations = reader.declarations(tree)
    if reader.faults:
        raise SchemaError(reader.faults, text)
    return SourceFile(file, text, declarations, reading.words)


def _read_in_pieces(text: str, file: str) -> SourceFile | None:
    """The same declaration by declaration; None where `_read_whole` has to say it.

    A piece begins with a line that begins a declaration. Only a regex, and a line that goes on in
    the next one, can hold such a line inside.
    """
    declarations: list[Declaration] = []
    words = line = 0
    for start, end in pairwise([0, *(start for start in _starts(text) if start), len(text)]):
        try:
            piece = _piece(text[start:end], file, line)
        except UnexpectedCharacters as error:
            if error.char == "/":
                return None
            raise
        except SchemaError:
            return None
        if piece.faults or _GOES_ON.search(text, start, end) is not None:
            return None
        declarations += piece.declarations
        words, line = words + piece.words, line + text.count("\n", start, end)
    if words > load_limits.WORDS:
        return None
    return SourceFile(file, text, tuple(declarations), words)


@dataclass(frozen=True, slots=True)
class _Piece:
    """What stands in a part of a text, read alone."""

    declarations: tuple[Declaration, ...]
    faults: tuple[Diagnostic, ...]
    words: int


def _piece(text: str, file: str, above: int) -> _Piece:
    """Of a part with so many lines above it. Raises UnexpectedInput, and SchemaError at a limit."""
    return (_known_piece if len(text) <= _SHORT else _known_long_piece)(text, file, above)


def _new_piece(text: str, file: str, above: int) -> _Piece:
    piece = (_read_short if len(text) <= _SHORT else _read_long)(text, file)
    if not above:
        return piece
    return replace(piece, declarations=tuple(below(one, above) for one in piece.declarations))


def _read_alone(text: str, file: str) -> _Piece:
    reading, reader = _Reading(file), _TreeReader(file)
    declarations = reader.declarations(reading.tree(text))
    return _Piece(declarations, tuple(reader.faults), reading.words)


_read_short = lru_cache(maxsize=1024)(_read_alone)  # wherever it stands
_read_long = lru_cache(maxsize=16)(_read_alone)
_known_piece = lru_cache(maxsize=1024)(_new_piece)
_known_long_piece = lru_cache(maxsize=16)(_new_piece)


def _starts(text: str) -> list[int]:
    return [found.start() for found in _DECLARATION.finditer(text)]


def readable(text: str, file: str) -> SourceFile:
    """What can be read of a text that has faults of syntax."""
    text = text.removeprefix("\ufeff")
    if _unreadable(text, file) is not None:
        return SourceFile(file, text, ())
    read = _one_by_one(text, file)
    return SourceFile(file, text, tuple(one for one in read if not isinstance(one, Diagnostic)))


def _unreadable(text: str, file: str) -> Diagnostic | None:
    """The fault of a text that is not looked into."""
    if len(text) > load_limits.CHARACTERS:
        message = f"the text has more than the {load_limits.CHARACTERS:,} characters that are read"
        way = "leave out what is not grammar, such as data"
        return Diagnostic(DiagnosticCode.TOO_LARGE, Span(file, 1, 1, 1, 1), message, way)
    if text.isascii() or (bad := _SURROGATE.search(text)) is None:
        return None
    line = text.count("\n", 0, bad.start()) + 1
    column = bad.start() - text.rfind("\n", 0, bad.start())
    span = Span(file, line, column, line, column + 1)
    message = f"U+{ord(bad[0]):04X} is half of a character"
    return Diagnostic(DiagnosticCode.SYNTAX, span, message, "write the whole character")


class _Reading:
    """Lark's parser at work on a text: it is stopped where the text passes a limit."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.words = 0

    def tree(self, text: str) -> Tree[Token]:
        """Raises UnexpectedInput, and SchemaError at a limit."""
        parser, brackets, token = _parser().parse_interactive(text), 0, None
        for token in parser.iter_parse():
            self.words += 1
            if len(token) == 1:
                brackets += (token in _OPENING) - (token in _CLOSING)
            suspect = len(token) > _DIGITS or brackets > load_limits.BRACKETS
            if suspect or self.words > load_limits.WORDS:
                fault = self._fault(token, brackets)
                if fault is not None:
                    raise SchemaError([fault], text)
        tree: Tree[Token] = parser.feed_eof(token)  # type: ignore[no-untyped-call]
        return tree

    def _fault(self, token: Token, brackets: int) -> Diagnostic | None:
        span = _token_span(token, self.file)
        if len(token) > load_limits.NAME_LENGTH and token.type in ("RULE", "TOKEN"):
            what = f"this name has {len(token):,} characters"
            return too_large(span, what, load_limits.NAME_LENGTH, "choose a shorter one")
        if len(token) > load_limits.WORD_LENGTH and token.type != "_NL":
            kind = "string" if token[0] == '"' else "regex"
            what = f"this {kind} has {len(token):,} characters"
            return too_large(span, what, load_limits.WORD_LENGTH, "cut it into several")
        if token.type == "NUMBER" and len(token) > _DIGITS:
            return too_large(span, f"this number has {len(token):,} digits", _DIGITS, "lower it")
        if brackets > load_limits.BRACKETS:
            way = "give what stands inside a rule of its own"
            what = f"{brackets} brackets stand inside one another"
            return too_large(span, what, load_limits.BRACKETS, way)
        if self.words > load_limits.WORDS:
            what = f"the schema has {self.words:,} names, strings and signs"
            return too_large(span, what, load_limits.WORDS, WAY_OUT_OF_WORDS)
        return None


@cache
def _parser() -> Lark:
    text = (resources.files("lark") / "grammars" / "lark.lark").read_text(encoding="utf-8")
    return Lark(
        text + _ADDITIONS, parser="lalr", propagate_positions=True, maybe_placeholders=False
    )


def _faults(text: str, file: str) -> list[Diagnostic]:
    """Read each declaration alone, so that one fault does not hide the next."""
    faults = (read for read in _one_by_one(text, file) if isinstance(read, Diagnostic))
    return list(islice(faults, load_limits.FAULTS))


def _one_by_one(text: str, file: str) -> Iterator[Declaration | Diagnostic]:
    """What each declaration says alone, or its fault; no more where the text is too large."""
    line = counted = words = 0
    for start, end in pairwise([*_starts(text), len(text)]):
        line, counted = line + text.count("\n", counted, start), start
        try:
            piece = _piece(text[start:end], file, line)
        except UnexpectedInput as error:
            yield _below(_syntax_error(error, text[start:end], file), line)
        except SchemaError:
            return
        else:
            words += piece.words
            if words > load_limits.WORDS:
                return
            yield from piece.declarations


def _below(fault: Diagnostic, lines: int) -> Diagnostic:
    """The fault of a text that begins so many lines further down."""
    fix = fault.fix and replace(fault.fix, span=lines_below(fault.fix.span, lines))
    return replace(fault, span=lines_below(fault.span, lines), fix=fix)


class _TreeReader:
    """Makes declarations of Lark's tree, with one method for each kind of expression."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.faults: list[Diagnostic] = []
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
        span = _token_span(name, self.file)
        expression = Expansion((), span) if body.meta.empty else self._expression(body)
        own_name = str(name).lstrip("?!")
        return Definition(
            own_name,
            tuple(str(p) for p in parameters.children),
            None if priority is None else self._span(priority),
            expression,
            span,
            own_name,
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
            return StringLiteral(self._unquote(text, span), text[-1] == "i", span)
        end = text.rindex("/")
        return RegexLiteral(_regex_text(text[1:end]), text[end + 1 :], span)

    def _range(self, tree: Tree[Token]) -> Expression:
        span = self._span(tree)
        low, high = (self._unquote(str(t), span) for t in tree.children)
        if len(low) != 1 or len(high) != 1 or low > high:
            message = f"the range `{low}` to `{high}` is not one of characters in their order"
            self._refuse(span, message, 'write it from one character to a later one: `"a".."z"`')
        return CharacterRange(low, high, span)

    def _unquote(self, text: str, span: Span) -> str:
        """The value of a string as Lark reads it: an unknown escape keeps its backslash."""

        def value(match: re.Match[str]) -> str:
            code = match[1]
            if code[0] not in "xuU" or len(code) == 1:
                return _CONTROL.get(code, match[0])
            number = int(code[1:], 16)
            if number > sys.maxunicode or 0xD800 <= number < 0xE000:
                self._refuse(span, f"`{match[0]}` is no character", "write the character itself")
                return ""
            return chr(number)

        return _ESCAPE.sub(value, text[1 : text.rindex('"')])

    def _refuse(self, span: Span, message: str, way: str) -> None:
        self.faults.append(Diagnostic(DiagnosticCode.SYNTAX, span, message, way))

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
        if low < 0 or (high is not None and high < max(low, 1)):
            message = f"nothing can be repeated {low} to {high} times"
            self._refuse(self._span(tree), message, "count up, to 1 at least: `x~2`, `x~2..5`")
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


def _token_span(token: Token, file: str) -> Span:
    line, column = token.line or 1, token.column or 1
    return Span(file, line, column, token.end_line or line, token.end_column or column)


def _trees(tree: Tree[Token]) -> list[Tree[Token]]:
    return [child for child in tree.children if isinstance(child, Tree)]


def _bounds(marks: list[str]) -> tuple[int, int | None]:
    signs: dict[str, tuple[int, int | None]] = {"?": (0, 1), "*": (0, None), "+": (1, None)}
    if marks[0] in signs:
        return signs[marks[0]]
    return int(marks[0]), int(marks[-1])


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
        what = f"`{error.char}`" if error.char.isprintable() else f"U+{ord(error.char):04X}"
    ends = isinstance(error, UnexpectedEOF) or what == "the text"
    if ends:
        line, column = _last_place(lines, error)
    span = Span(file, line, column, line, column + width)
    rest = lines[line - 1][column - 1 :] if line <= len(lines) else ""
    message = "the declaration ends too early" if ends else f"{what} cannot stand here"
    if isinstance(error, UnexpectedCharacters) and rest[:1] in ('"', "/"):
        kind = "string" if rest[0] == '"' else "regex"
        message = f"this {kind} is not closed on its line"
    fix = None if ends else _edit(span, lines[line - 1])
    return Diagnostic(DiagnosticCode.SYNTAX, span, message, _hint(message, rest), fix=fix)


def _edit(span: Span, line: str) -> Fix | None:
    """The edit that a hint asks for, where it is one."""
    before, rest = line[: span.column - 1], line[span.column - 1 :]
    if (match := _SINGLE_QUOTED.match(rest)) is not None:
        new = '"' + match[1].replace('"', '\\"') + '"'
    elif (match := TAG_SHAPE.match(rest)) is not None and rest[0] == "<":
        new = f'"{match[0]}"'
    elif (match := _DEFINES.match(rest)) is not None:
        new = "" if before.rstrip().endswith(":") else ":"
    elif (match := _STRAY.match(rest)) is not None:
        new = ""
    else:
        return None
    return Fix(replace(span, end_line=span.line, end_column=span.column + match.end()), new)


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
        ":": "a definition is `name: expansion`",
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
    if rest[:1].isalpha() and not rest[0].isascii():
        return (
            "names are ASCII, as in Lark: letters, digits, `_`; strings may hold any character: "
            f'`plan: "<{rest[0]}…>"`'
        )
    if rest[:1] in hints:
        return hints[rest[0]]
    if rest[:1].isupper() or rest[:1].islower():
        return (
            "names are all lower case (rules) or all upper case (terminals), letters, digits, `_`"
        )
    return "a declaration is `name: expansion`, `%import`, `%declare` or a `//` comment"
