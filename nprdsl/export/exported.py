"""What `export` gives: a grammar as text for one target, and what that text cannot say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Target(StrEnum):
    XGRAMMAR = "xgrammar"  # EBNF, for `GrammarCompiler.compile_grammar` and servers' `ebnf`
    LLGUIDANCE = "llguidance"  # Lark, for `LLMatcher.grammar_from_lark`
    OUTLINES = "outlines"  # a regular expression, for `outlines_core.Index`


@dataclass(frozen=True, slots=True)
class Export:
    """`text` states the linear language; `lost` says, a sentence each, where the two differ.

    `stand_ins` (outlines with special tags only): the character that stands for each tag in the
    expression; the target's vocabulary must give the tag's token id this character as its bytes.
    """

    text: str
    target: Target
    lost: tuple[str, ...]
    stand_ins: Mapping[str, str] = field(default_factory=dict)


class ExportError(ValueError):
    """A grammar that a target cannot state at all."""
