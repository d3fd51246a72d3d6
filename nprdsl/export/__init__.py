"""A schema as a grammar of another library, for servers that know nothing of forks.

There the branches are decoded one after another, as a model that never forks would write them.
`linear` makes the grammar of such text, and one module for each library writes it in that library's
syntax. What the other library cannot state is said in `Export.lost`, never left out silently.
"""

from __future__ import annotations

from dataclasses import replace

from nprdsl.export.exported import Export, ExportError, ExportLimits, Special, Target
from nprdsl.export.linear import LinearGrammar, linearise
from nprdsl.export.llguidance import to_llguidance
from nprdsl.export.outlines import to_outlines
from nprdsl.export.xgrammar import to_xgrammar
from nprdsl.grammar.ir import Grammar

__all__ = ["Export", "ExportError", "ExportLimits", "Target", "export"]


def export(
    grammar: Grammar,
    target: Target | str,
    *,
    special: Special | None = None,
    limits: ExportLimits | None = None,
) -> Export:
    """The linear language of `grammar` in the syntax of `target`.

    `special` gives the token id of every special token by name: tags in it are written as these
    tokens, tags that are not in it as text. Raises `ValueError` for an unknown target,
    `ExportError` for a grammar that the target cannot state at all.
    """
    known, limits = special or {}, limits or ExportLimits()
    match _target(target):
        case Target.XGRAMMAR:
            return to_xgrammar(_linear(grammar, known, limits), known, limits)
        case Target.LLGUIDANCE:
            return to_llguidance(_linear(grammar, known, limits), known, limits)
        case Target.OUTLINES:
            return to_outlines(lambda lower: _linear(grammar, known, lower), known, limits)


def _target(name: Target | str) -> Target:
    try:
        return Target(name)
    except ValueError:
        known = ", ".join(target.value for target in Target)
        raise ValueError(f"no export to `{name}`; the targets are {known}") from None


def _linear(grammar: Grammar, special: Special, limits: ExportLimits) -> LinearGrammar:
    linear = linearise(grammar, limits)
    if not grammar.blocks or set(linear.tags) <= set(special):
        return linear
    lost = "a token may run past the end of an item, a list or a branch"
    return replace(linear, lost=(*linear.lost, lost))
