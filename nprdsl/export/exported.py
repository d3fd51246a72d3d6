"""What an export is asked for, and what it gives: targets and limits, a text and what it loses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

Special = Mapping[str, int]  # the token ids of special tokens, by name


class Target(StrEnum):
    XGRAMMAR = "xgrammar"  # EBNF, for `GrammarCompiler.compile_grammar` and servers' `ebnf`
    LLGUIDANCE = "llguidance"  # Lark, for `LLMatcher.grammar_from_lark`
    OUTLINES = "outlines"  # a regular expression, for `outlines_core.Index`


@dataclass(frozen=True, slots=True)
class ExportLimits:
    """Bounds that keep an exported grammar small; each that cuts something off is named in `lost`.

    `items`: branches of one map that are spelled out, or as many as its list has at least. For
    outlines only: `depth` of blocks inside blocks, and `repeats`, the highest upper bound of a
    repetition. `exact_text` states all of what free text is: not blank, valid UTF-8, no tag spelled
    out where tags are special tokens. It is dear: xgrammar compiles 20 times longer, llguidance
    masks 10 times slower where a tag may begin.
    """

    items: int = 8
    depth: int = 1
    repeats: int = 4
    exact_text: bool = False


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
