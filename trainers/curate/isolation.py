"""Finds what in a branch depends on a sibling, as far as rules over its text can tell.

Five rules: the branch opens with a connective ("Similarly"); a phrase points at a sibling ("the
previous case"); a name is used that only a sibling introduced ("let $k$ be"); a number is used, in
whatever notation, that only a sibling computed; an expression is used, or within another, that only
an earlier sibling derived (`expressions`). The phrases are English. What is before the fork is
visible to all branches and may be used. The faults are worded for the model, which then rewrites
the sentences.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

_OPENING: Final = re.compile(
    r"\W*(?P<said>(?:(?:first|second|third|fourth|last|final)(?:ly)?(?=\s*,|\s+(?:we|let|note|i)\b)"
    r"|next(?!\s+(?:year|month|week|day|time|\w+day)\b)|then|finally|alternatively|similarly|likewise|also|additionally|moreover|furthermore"
    r"|however|otherwise|conversely|meanwhile|instead|again|and|but|or|nor|yet"
    r"|on the other hand|in (?:contrast|addition)|by (?:contrast|symmetry|analogy)|analogously"
    r"|as (?:above|before|we saw)|in the same way|(?:by|for) the same|the same|combining)\b(?!-))",
    re.I,
)
_POINTING: Final = re.compile(
    r"\b(?:(?:previous|preceding|prior|other|earlier) (?:case|branch|path|thread|option|approach"
    r"|attempt|method|possibility|scenario|part|subproblem)s?"
    r"|the (?:former|latter) (?:case|branch|path|option|approach|method)"
    r"|(?:path|branch|thread) \d+(?:\.\d+)*)\b",
    re.I,
)
_INTRODUCED: Final = re.compile(
    r"\b(?:let|denote|call|define|set|suppose|name)\b[^.$]{0,40}\$\s*"
    r"(?P<name>\\?[A-Za-z]+(?:_\{?\w+\}?)?)(?=\s*(?:\$|=|\\in|,|\())",
    re.I,
)
_DERIVED: Final = re.compile(r"(?:=|\\boxed\{|\bis|\bget|\bare|\bobtain)[\s$\\({-]*$")


@dataclass(frozen=True)
class BranchSentences:
    """A branch as its reader sees it. `before` is all that its fork can see; sentences have their
    numbers."""

    name: str
    before: str
    sentences: tuple[tuple[int, str], ...]

    @cached_property
    def text(self) -> str:
        return " ".join(text for _, text in self.sentences)

    @cached_property
    def introduced(self) -> frozenset[str]:
        return frozenset(match["name"] for match in _INTRODUCED.finditer(self.text))


def leaks(branches: Sequence[BranchSentences]) -> list[str]:
    """What leans on a sibling in the branches of one block, in words for the model."""
    faults: list[str] = []
    for branch in branches:
        siblings = [other for other in branches if other is not branch]
        faults += [*_openings(branch), *_pointers(branch)]
        faults += [*_names(branch, siblings), *_results(branch, siblings)]
        faults += _expressions(branch, branches[: branches.index(branch)])
    return faults


def _openings(branch: BranchSentences) -> Iterable[str]:
    number, text = branch.sentences[0]
    match = _OPENING.match(text)
    if match is not None:
        yield (
            f"sentence {number} opens {branch.name} with `{match['said']}`, "
            "as if something stood before it"
        )


def _pointers(branch: BranchSentences) -> Iterable[str]:
    for number, text in branch.sentences:
        for match in _POINTING.finditer(text):
            yield f"sentence {number} of {branch.name} points at a sibling: `{match[0]}`"


def _names(branch: BranchSentences, siblings: Sequence[BranchSentences]) -> Iterable[str]:
    theirs = {name for other in siblings for name in other.introduced} - branch.introduced
    for name in sorted(theirs):
        beside = "[A-Z]{0,3}" if len(name) == 1 and name.isupper() else ""  # `CM`, triangle `ABM`
        used = re.compile(rf"(?<![A-Za-z\\]){beside}{re.escape(name)}{beside}(?![A-Za-z])")
        if used.search(branch.before):
            continue
        for number, text in branch.sentences:
            if any(used.search(formula) for formula in _formulas(text)):
                yield (
                    f"sentence {number} of {branch.name} uses `{name}`, which only a sibling "
                    "introduces"
                )
                break


def _results(branch: BranchSentences, siblings: Sequence[BranchSentences]) -> Iterable[str]:
    # sympy takes longer to load than all the rest of a command
    from nprdsl.trainers.curate.expressions import numbers_of

    theirs = {one.value for other in siblings for one in numbers_of(other.text) if one.computed}
    theirs -= {one.value for one in numbers_of(branch.before)}
    for number, text in branch.sentences:
        for one in numbers_of(text) if theirs else ():
            if one.value not in theirs:
                continue
            theirs.discard(one.value)
            if not _DERIVED.search(one.before):
                yield (
                    f"sentence {number} of {branch.name} uses {one.shown}, which only a sibling "
                    "computed"
                )


def _expressions(branch: BranchSentences, siblings: Sequence[BranchSentences]) -> Iterable[str]:
    """What earlier siblings derived: a chain was written from its beginning on."""
    from nprdsl.trainers.curate.expressions import parts_of, results_of, written

    theirs = {key for other in siblings for key in results_of(other.text)}
    theirs -= results_of(branch.text)
    if not theirs:
        return
    theirs -= parts_of(branch.before)
    for number, text in branch.sentences:
        found = theirs & parts_of(text)
        theirs -= found
        for key in sorted(found):
            shown = next(filter(None, (written(other.text, key) for other in siblings)), key)
            yield (
                f"sentence {number} of {branch.name} uses `{shown}`, which only a sibling derived"
            )


def _formulas(text: str) -> list[str]:
    """The formulas of a sentence, or the sentence where it has none that are marked."""
    matches = re.findall(r"\$\$?(.*?)\$\$?|\\\[(.*?)\\\]|\\\((.*?)\\\)", text, re.S)
    return ["".join(groups) for groups in matches]
