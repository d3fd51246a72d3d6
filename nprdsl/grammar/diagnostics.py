"""Faults of a schema, as values: a stable code, the place, the rule that was broken, the way out.

Every pass returns all the diagnostics it finds; `SchemaError` carries them together. Text for
people is made in `nprdsl.pictures.messages`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Final

_COMPARED: Final = 1_000  # names that a misspelt one is compared with


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a schema file: lines and columns count from 1, the end is exclusive."""

    file: str
    line: int
    column: int
    end_line: int
    end_column: int


class DiagnosticCode(StrEnum):
    """Stable codes; each is documented in docs/errors.md and tested in tests/schemas/."""

    SYNTAX = "syntax"
    UNSUPPORTED = "unsupported"
    TOO_LARGE = "too-large"
    IMPORT_NOT_FOUND = "import-not-found"
    NO_START = "no-start"
    DUPLICATE_NAME = "duplicate-name"
    UNDEFINED_RULE = "undefined-rule"
    UNDEFINED_TERMINAL = "undefined-terminal"
    UNUSED_RULE = "unused-rule"
    UNUSED_TERMINAL = "unused-terminal"
    UNTYPED_TERMINAL = "untyped-terminal"
    BAD_TERMINAL_TYPE = "bad-terminal-type"
    BAD_EXAMPLE = "bad-example"
    BAD_REGEX = "bad-regex"
    UNBOUNDED_WHITESPACE = "unbounded-whitespace"
    TEMPLATE_ARGUMENTS = "template-arguments"
    PROCESS_WITHOUT_MAP = "process-without-map"
    MAP_WITHOUT_PROCESS = "map-without-process"
    FORK_WITHOUT_JOIN = "fork-without-join"
    JOIN_WITHOUT_FORK = "join-without-fork"
    BETWEEN_FORK_AND_JOIN = "between-fork-and-join"
    ITEM_NOT_LISTED = "item-not-listed"
    UNDECIDED_BINDING = "undecided-binding"
    UNDECIDED_END = "undecided-end"
    TAG_OVERLAP = "tag-overlap"
    SPELLS_TAG = "spells-tag"
    UNDECIDED_SPLIT = "undecided-split"
    TEXT_NEXT_TO_TEXT = "text-next-to-text"
    TEXT_NOT_CLOSED = "text-not-closed"
    UNDECIDED_CHOICE = "undecided-choice"
    LEFT_RECURSION = "left-recursion"
    EMPTY_LOOP = "empty-loop"
    ENDLESS_RULE = "endless-rule"
    UNSPELLABLE_TAG = "unspellable-tag"
    END_TOKEN_TAG = "end-token-tag"
    DEAD_END = "dead-end"


@dataclass(frozen=True, slots=True)
class Fix:
    """An edit of the schema's text that carries out a suggestion: `text` in place of a span."""

    span: Span
    text: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One fault. `message` is lower case, without a full stop, and names things in backticks.

    `fix` is there where the suggestion is one edit that nobody has to think about.
    """

    code: DiagnosticCode
    span: Span
    message: str
    suggestion: str = ""
    related: tuple[tuple[Span, str], ...] = ()
    fix: Fix | None = None


class SchemaWarning(UserWarning):
    """A schema that can be used, and may mean something else than its author thinks."""


class SchemaError(ValueError):
    """A schema that cannot be used; `diagnostics` holds every fault found, in file order."""

    def __init__(self, diagnostics: Iterable[Diagnostic], source: str = "") -> None:
        shown = map(_in_reach, diagnostics)
        self.diagnostics = tuple(sorted(shown, key=lambda d: (d.span.line, d.span.column)))
        self.source = source
        super().__init__("\n".join(summary(d) for d in self.diagnostics))


def summary(diagnostic: Diagnostic) -> str:
    """One line: file:line:column: message [code]; suggestion."""
    s = diagnostic.span
    hint = f"; {diagnostic.suggestion}" if diagnostic.suggestion else ""
    file = _without_install_path(s.file)
    return f"{file}:{s.line}:{s.column}: {diagnostic.message} [{diagnostic.code}]{hint}"


def _in_reach(diagnostic: Diagnostic) -> Diagnostic:
    """With a suggestion that an author can follow: no one edits Lark's own grammars."""
    if not Path(diagnostic.span.file).is_relative_to(_package_folders()[0]):
        return diagnostic
    way = f"write a terminal of your own in place of Lark's; {diagnostic.suggestion}"
    return replace(diagnostic, suggestion=way, fix=None)


def _without_install_path(file: str) -> str:
    """Of a grammar that a package ships its name alone: where it is installed is nobody's business
    where a schema came from another machine."""
    path = Path(file)
    return path.name if any(path.is_relative_to(p) for p in _package_folders()) else file


@cache
def _package_folders() -> tuple[Path, ...]:
    return tuple(Path(str(resources.files(name))) for name in ("lark.grammars", "nprdsl.grammars"))


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean `x`?`` for the nearest known name, or an empty string."""
    near = nearest(name, known)
    return f"did you mean `{near}`?" if near else ""


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that is most like this one, or an empty string."""
    likely = [other for other in known if abs(len(other) - len(name)) <= 1 + len(name) // 2]
    return next(iter(difflib.get_close_matches(name, likely[:_COMPARED], n=1, cutoff=0.5)), "")
