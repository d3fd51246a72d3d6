"""Faults of a trace, as values: what is wrong, where, in which rule, and the way out.

`schema.check` and `bound.check` return lists of these; `TraceError` carries them. Rewards read the
codes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class ViolationCode(StrEnum):
    """Stable codes; each is documented in docs/errors.md."""

    COUNT_MISMATCH = "count-mismatch"
    LABEL_MISMATCH = "label-mismatch"
    DUPLICATE_LABEL = "duplicate-label"
    MISSING_ELEMENT = "missing-element"
    STRAY_TEXT = "stray-text"
    EMPTY_TEXT = "empty-text"
    BAD_VALUE = "bad-value"
    TAG_OUT_OF_PLACE = "tag-out-of-place"
    UNCLOSED = "unclosed"
    TOO_DEEP = "too-deep"
    TOO_MANY = "too-many"
    TOKEN_BOUNDARY = "token-boundary"
    NOT_UTF8 = "not-utf8"
    UNKNOWN_TOKEN = "unknown-token"


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault. `line` and `column` count from 1; `offset` counts characters (or tokens) from
    0."""

    code: ViolationCode
    message: str
    line: int
    column: int
    rule: str
    offset: int
    suggestion: str = ""


class TraceError(ValueError):
    """A trace that is not legal; `violations` holds what `check` returns for it."""

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__(
            "\n".join(f"{v.line}:{v.column}: {v.message} [{v.code}]" for v in self.violations)
        )
