"""The format reward: what the violations of a trace cost; 0 exactly if it is legal.

A preset is data: penalties in order, of which the first that fits a violation counts. They name the
role of the rule in its block (list, item, branch, join), not the rule, so one preset serves every
schema. Preset `npr` holds the constants of NPR-Zero (arXiv:2512.07461, section 2.2, and its public
checker), and its least lengths: 3 characters of a plan, 6 of a step and of a takeaway, labels
counted and white space not. It differs where that checker is blind or goes another way; a test
holds each difference on 200 mutated texts, against the checker as we describe it, not its own code
(`tests/trainers/test_public_checker.py`):

- it sees what the checker does not: labels that differ or stand twice, prose that stands between
  tags, tags that open twice or are not closed beside a legal block;
- faults add up, to -2 at most; the checker returns at the first grave one, and has no bound;
- a tag that is not closed, or an element that is missing, costs 1.0; the checker finds no block
  then, for 1.5. Prose among plans costs 0.4, there 0.6;
- lengths are those of legal traces only;
- an answer that is not boxed is a matter of accuracy; `NPR_BOXED` takes the checker's 1 for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final

from nprdsl.grammar.ir import Grammar
from nprdsl.schema import Schema
from nprdsl.structure.violations import Violation, ViolationCode
from nprdsl.trainers.grading.answers import answer_of
from nprdsl.trainers.rewards import NO_REWARD, Reason, Reward
from nprdsl.trainers.rewards.branches import last_words, short_elements
from nprdsl.trainers.rewards.roles import RuleRole, roles_of


class Counting(StrEnum):
    """How often a penalty counts in one trace."""

    ONCE = "once"
    EACH = "each"


@dataclass(frozen=True, slots=True)
class Penalty:
    """What a violation of this code costs; `role` None is any. Scores are negative."""

    code: ViolationCode
    score: float
    role: RuleRole | None = None
    counting: Counting = Counting.ONCE

    def __post_init__(self) -> None:
        if self.score >= 0:
            raise ValueError(f"a penalty must be negative; {self.code} has {self.score}")

    def fits(self, violation: Violation, role: RuleRole) -> bool:
        return violation.code is self.code and self.role in (None, role)


@dataclass(frozen=True, slots=True)
class FormatPreset:
    """`empty` is the score of a blank trace, `no_block` that of prose without any tag; `other` of a
    violation that no penalty fits; no sum is below `least`. A legal trace pays `short` for each
    element that holds fewer characters than `shortest` asks of its role, and `no_box` where no box,
    or an empty one, stands behind its last tag."""

    penalties: tuple[Penalty, ...]
    empty: float
    no_block: float
    other: float
    least: float
    shortest: Mapping[RuleRole, int] = field(default_factory=dict)
    short: float = -0.4
    no_box: float = 0.0


_EMPTY_BOX: Final = re.compile(r"\\boxed\s*\{\s*\}")
_CODE, _ROLE, _EACH = ViolationCode, RuleRole, Counting.EACH

NPR: Final = FormatPreset(
    penalties=(
        Penalty(_CODE.COUNT_MISMATCH, -1.0),
        Penalty(_CODE.LABEL_MISMATCH, -1.0),
        Penalty(_CODE.DUPLICATE_LABEL, -1.0),
        Penalty(_CODE.MISSING_ELEMENT, -1.0),
        Penalty(_CODE.TAG_OUT_OF_PLACE, -1.5, _ROLE.OTHER),
        Penalty(_CODE.TAG_OUT_OF_PLACE, -1.0),
        Penalty(_CODE.UNCLOSED, -1.0),
        Penalty(_CODE.TOO_DEEP, -1.0),
        Penalty(_CODE.TOO_MANY, -1.0),
        Penalty(_CODE.STRAY_TEXT, -0.4, _ROLE.LIST, _EACH),
        Penalty(_CODE.STRAY_TEXT, -0.2, None, _EACH),
        Penalty(_CODE.EMPTY_TEXT, -0.4, None, _EACH),
        Penalty(_CODE.BAD_VALUE, -0.4, None, _EACH),
        Penalty(_CODE.NOT_UTF8, -0.4),
        Penalty(_CODE.UNKNOWN_TOKEN, -0.4),
        Penalty(_CODE.TOKEN_BOUNDARY, -0.2),
    ),
    empty=-2.0,
    no_block=-1.5,
    other=-1.0,
    least=-2.0,
    shortest={_ROLE.ITEM: 3, _ROLE.BRANCH: 6, _ROLE.JOIN: 6},
)

NPR_BOXED: Final = replace(NPR, no_box=-1.0)

# arXiv:2509.07980: a fixed amount for any fault.
PARALLEL_R1: Final = FormatPreset(penalties=(), empty=-0.3, no_block=-0.3, other=-0.3, least=-0.3)


def format_reward(
    language: Grammar | Schema,
    text: str,
    violations: Sequence[Violation] | None = None,
    preset: FormatPreset = NPR,
) -> Reward:
    """The reward of a trace with these violations, as `check` gives them for text or ids; without
    them the text is checked."""
    grammar = language.grammar if isinstance(language, Schema) else language
    if violations is None:
        violations = Schema(grammar).check(text)
    if not violations:
        return _of_legal(grammar, text, preset)
    if not text.strip():
        return _one("empty", preset.empty, "there is no text")
    if not any(tag in text for tag in grammar.tags):
        return _one("no-block", preset.no_block, f"there is no {grammar.tags[0]} in the text")
    roles, reasons, counted = roles_of(grammar), list[Reason](), set[Penalty | None]()
    for violation in violations:
        role = roles.get(violation.rule, RuleRole.OTHER)
        penalty = next((p for p in preset.penalties if p.fits(violation, role)), None)
        if penalty in counted and (penalty is None or penalty.counting is Counting.ONCE):
            continue
        counted.add(penalty)
        score = preset.other if penalty is None else penalty.score
        why = f"line {violation.line}, column {violation.column}: {violation.message}"
        reasons.append(Reason(violation.code.value, score, why))
    reasons += _missing_box(grammar, text, preset)
    return Reward(max(preset.least, sum(r.score for r in reasons)), tuple(reasons))


def _of_legal(grammar: Grammar, text: str, preset: FormatPreset) -> Reward:
    """What elements cost that hold next to nothing, and a missing box."""
    reasons = [
        Reason("short", preset.short, f"`{element.name}` holds {length} characters")
        for element, length in short_elements(grammar, text, preset.shortest)
    ]
    reasons += _missing_box(grammar, text, preset)
    if not reasons:
        return NO_REWARD
    return Reward(max(preset.least, sum(r.score for r in reasons)), tuple(reasons))


def _missing_box(grammar: Grammar, text: str, preset: FormatPreset) -> list[Reason]:
    if not preset.no_box or _is_boxed(last_words(grammar, text)):
        return []
    return [Reason("no-box", preset.no_box, "no answer is boxed behind the last tag")]


def _is_boxed(text: str) -> bool:
    return answer_of(text) is not None and not _EMPTY_BOX.search(text)


def _one(name: str, score: float, why: str) -> Reward:
    return Reward(score, (Reason(name, score, why),))
