"""The account of token budgets: the whole trace, each branch, each rule.

A branch may spend its allotment and no more; what a legal end costs is always left. At a fork the
slack is shared out evenly between the branches and what follows the join, so that no branch depends
on how fast its siblings are; what a branch leaves unspent returns at the join.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Final

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.machine.frozen_dict import FrozenDict
from nprdsl.structure.stack import Bounds


class LimitError(ValueError):
    """Limits that make no sense, or that no trace can meet."""


_LEAST: Final = {  # or None
    "max_positions": 1, "branch_tokens": 1, "depth": 0, "branches": 1, "blocks": 0, "spawn": 1,
}  # fmt: skip


def check_count(name: str, value: object, least: int = 1) -> None:
    """Raises LimitError, which names the setting, for what is no integer from `least` up."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise LimitError(f"{name} is {value!r}, it must be an integer of at least {least}")
    if value < least:
        raise LimitError(f"{name} must be at least {least}, not {value}")


@dataclass(frozen=True, slots=True)
class TextTokens:
    """The most tokens of one free text or value, by where it stands: in an `item` of a list, else
    in a `branch`, else on the `trunk`, where joins and answers are. What else the field holds is
    not counted. `kept` are kept back for every text that is still to come, as far as the budget
    has them. Texts under such caps have a `<` of spelled tags only where a tag follows, and a trace
    has a block where the schema and the budget allow one."""

    item: int
    branch: int
    trunk: int
    kept: int = 1

    def __post_init__(self) -> None:
        for name in ("item", "branch", "trunk", "kept"):
            check_count(f"text_tokens.{name}", getattr(self, name))


@dataclass(frozen=True, slots=True)
class Limits:
    """What one generation may use; None is without limit.

    `max_tokens` counts every token of the trace, forced ones included, the prompt not.
    `max_positions` bounds the positions that they take, which branches that run side by side share:
    the critical path where joins merge, all tokens where branches are read again.
    `branch_tokens` caps one branch with all that forks from it, `rule_tokens` one use of a rule
    without its branches, from its first tag (or, without tags, from the tag before it) on; what a
    legal end needs is allowed in any case. `depth`, `branches`, `blocks` bound forks inside forks,
    branches of a fork, and blocks one after another on one branch. `spawn` is the number of
    branches of a fork by count (default: the fewest), for schemas that have one. `text_tokens` caps
    single texts and keeps something back for each (`nprdsl.machine.shares` works them out). Raises
    LimitError, a ValueError, for what is no integer or too small.
    """

    max_tokens: int = 2048
    branch_tokens: int | None = None
    rule_tokens: Mapping[str, int] = field(default_factory=FrozenDict)
    depth: int | None = None
    branches: int | None = None
    blocks: int | None = None
    spawn: int | None = None
    text_tokens: TextTokens | None = None
    max_positions: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.rule_tokens, Mapping):
            raise LimitError(f"rule_tokens is {self.rule_tokens!r}, it must map rules to numbers")
        object.__setattr__(self, "rule_tokens", FrozenDict(self.rule_tokens))
        for name in self.rule_tokens:
            if not isinstance(name, str):
                raise LimitError(f"rule_tokens names {name!r}, it must name a rule")
        check_count("max_tokens", self.max_tokens)
        for name, value in self.rule_tokens.items():
            check_count(f"rule_tokens[{name!r}]", value)
        for name, least in _LEAST.items():
            value = getattr(self, name)
            if value is not None:
                check_count(name, value, least)
        if not isinstance(self.text_tokens, TextTokens | None):
            raise LimitError(f"text_tokens is {self.text_tokens!r}, it must be a TextTokens")

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> Limits:
        """From JSON, as results tell them; an unknown key is refused with the nearest known one."""
        given = dict(_known(values, cls, "limits"))
        texts = given.get("text_tokens")
        if isinstance(texts, Mapping):
            parts: dict[str, Any] = dict.fromkeys(_TEXTS)
            parts.update(_known(texts, TextTokens, "text_tokens"))
            given["text_tokens"] = TextTokens(**parts)
        return cls(**given)

    @property
    def bounds(self) -> Bounds:
        """The limits on structure."""
        return Bounds(self.depth, self.branches, self.blocks)


DEFAULT_LIMITS: Final = Limits()
_TEXTS: Final = ("item", "branch", "trunk")  # of TextTokens, which have no default


def _known(values: object, kind: type, owner: str) -> dict[str, Any]:
    """The values of a JSON object. Raises LimitError where it is none, or has a key that `kind`
    does not know."""
    if not isinstance(values, Mapping):
        raise LimitError(f'{owner} are {values!r}, they must be an object: {{"max_tokens": 600}}')
    names = [field.name for field in fields(kind)]
    for key in values:
        if key not in names:
            hint = did_you_mean(str(key), names) or f"known: {', '.join(names)}"
            raise LimitError(f"{owner} have no `{key}`; {hint}")
    return dict(values)


def check_limits(limits: object) -> None:
    """Raises TypeError for what is no Limits."""
    if not isinstance(limits, Limits):
        raise TypeError(f"`limits` is {limits!r}, it must be Limits(max_tokens=…)")


@dataclass(slots=True)
class TokenAccount:
    """What a branch may still spend: `left` tokens, and `positions` where those are bounded.
    Invariant: both are at least the cost of a legal end."""

    left: int
    positions: int | None = None
    spent: int = 0

    @property
    def free(self) -> int:
        """How many tokens more may be written here."""
        return self.left if self.positions is None else min(self.left, self.positions)

    def spend(self, tokens: int) -> None:
        assert tokens <= self.free, f"{tokens} tokens spent of {self.free}"
        self.left -= tokens
        self.spent += tokens
        if self.positions is not None:
            self.positions -= tokens


def share_out(left: int, costs: Sequence[int], rest: int, cap: int | None) -> list[int]:
    """The allotments of branches with these costs, where what follows the join costs `rest`."""
    slack = left - sum(costs) - rest
    assert slack >= 0, "the cost of a fork is reserved before it begins"
    share = slack // (len(costs) + 1)
    if cap is None:
        return [cost + share for cost in costs]
    return [max(cost, min(cost + share, cap)) for cost in costs]
