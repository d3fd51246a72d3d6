"""What Lark says of a text that it cannot read -> diagnostics in the schema author's words."""

from __future__ import annotations

import re

from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Span


def syntax_error(error: UnexpectedInput, text: str, file: str) -> Diagnostic:
    """The diagnostic of one error: what cannot stand where, and what the author may have meant."""
    lines = text.split("\n")
    line, column, width = error.line, error.column, 1
    found = "the text"
    if isinstance(error, UnexpectedToken) and error.token.type not in ("$END", "_NL"):
        found, width = f"`{error.token}`", max(1, len(error.token))
    elif isinstance(error, UnexpectedCharacters):
        found = f"`{error.char}`"
    ends = isinstance(error, UnexpectedEOF) or found == "the text"
    if ends:
        line, column = _last_place(lines, error)
    span = Span(file, line, column, line, column + width)
    rest = lines[line - 1][column - 1 :] if line <= len(lines) else ""
    message = "the declaration ends too early" if ends else f"{found} cannot stand here"
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
