"""How large a schema may be, so that one of any text is loaded or refused within two seconds.

The limits are far above what schemas need: the largest that is shipped has 120 words. Each fault
names the number that is too large, and what to lower.
"""

from __future__ import annotations

from typing import Final

from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode, Span

CHARACTERS: Final = 1_000_000  # of a file
WORDS: Final = 25_000  # names, strings and signs of a schema and all files that it imports
WORD_LENGTH: Final = 10_000  # characters of one string or regex
NAME_LENGTH: Final = 200
TAG_LENGTH: Final = 1_000
TAG_BEGINNINGS: Final = 100_000  # different ones in bytes, of tags with one first letter
BRACKETS: Final = 40  # inside one another
PARTS: Final = 60_000  # of all rules, templates expanded
DEPTH: Final = 90  # of a rule's parts inside one another, templates expanded
PATTERN_LENGTH: Final = 50_000  # characters of the regex that a terminal becomes
STATES: Final = 30_000  # of the automata of all terminals
FIELD_PARTS: Final = 1_000  # literals and terminals between two tags
FAULTS: Final = 50  # that are reported

WAY_OUT_OF_WORDS: Final = (
    "write alternatives without tags as one terminal, or as the type of a declared one"
)


def too_large(span: Span, what: str, limit: int, way: str) -> Diagnostic:
    """The fault of a schema that passes a limit: `what` says what is too large."""
    message = f"{what}, more than the {limit:,} that are read"
    return Diagnostic(DiagnosticCode.TOO_LARGE, span, message, way)
