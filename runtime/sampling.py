"""The sampling settings of a request, with overrides for single rules of the schema.

They are checked when a `Sampling` is made; every message names the setting, its value and the range
that is allowed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Final

from nprdsl.grammar.diagnostics import did_you_mean
from nprdsl.machine.frozen_dict import FrozenDict

Overrides = Mapping[str, float]
_WHOLE_REQUEST = ("seed", "alternatives", "avoid", "rules")  # no rule has its own
GREEDY_BELOW: Final = 1e-6  # a temperature by which logits are not divided any more
_MOST_ALTERNATIVES: Final = 20
_MOST_AVOIDED: Final = 100_000  # characters, of all texts together
_RANGES = {  # lowest, highest, and what a message calls that
    "temperature": (0.0, 100.0, "0 (greedy) to 100, where all tokens are nearly alike"),
    "top_p": (0.0, 1.0, "above 0, at most 1 (off)"),
    "min_p": (0.0, 1.0, "0 (off) to 1"),
    "repetition_penalty": (0.01, 100.0, "0.01 to 100; 1 is off"),
    "frequency_penalty": (-2.0, 2.0, "-2 to 2; 0 is off"),
    "presence_penalty": (-2.0, 2.0, "-2 to 2; 0 is off"),
}


@dataclass(frozen=True)
class Sampling:
    """Sampling settings of a request.

    `temperature` 0 is greedy, and so is one below `GREEDY_BELOW`. `top_k` 0, `top_p` 1, `min_p` 0
    (arXiv 2407.01082) and `repetition_penalty` 1 (arXiv 1909.05858) are off, and so are
    `frequency_penalty` 0, taken off a token's logit as often as it stands there, and
    `presence_penalty` 0, taken off once. Penalties count the trace tokens that the branch sees, not
    the prompt. `rules` overrides settings where the innermost rule has that name, e.g.
    `{"step": {"repetition_penalty": 1.02}}`. `alternatives`: so many of the likeliest tokens, 20 at
    most, are kept beside each that was drawn. `avoid`: texts that a trace is not to copy, such as
    worked examples that the prompt shows: no run of five tokens of theirs is written where the
    schema leaves another choice. Equal seeds give equal tokens, whatever else runs beside, as far
    as the model's arithmetic does: in bf16 rounding may differ with the number of rows. Raises
    ValueError for values out of range and for unknown settings in `rules`.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    seed: int = 0
    alternatives: int = 0
    avoid: tuple[str, ...] = ()
    rules: Mapping[str, Overrides] = field(default_factory=FrozenDict)
    _by_rule: dict[str, Sampling] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self._check_numbers()
        self._check_rules()
        object.__setattr__(self, "avoid", _texts(self.avoid))
        frozen = {rule: FrozenDict(overrides) for rule, overrides in self.rules.items()}
        object.__setattr__(self, "rules", FrozenDict(frozen))
        by_rule = {rule: self._overridden(rule, over) for rule, over in self.rules.items()}
        object.__setattr__(self, "_by_rule", by_rule)

    @classmethod
    def from_dict(cls, settings: Mapping[str, object]) -> Sampling:
        """From JSON or the command line; an unknown key is refused with the nearest known one."""
        for key in settings:
            if key not in SETTINGS:
                raise ValueError(_unknown(key, SETTINGS, "sampling"))
        return cls(**settings)  # type: ignore[arg-type]

    def for_rule(self, rule: str) -> Sampling:
        """The settings where `rule` is the innermost rule; the same object for the same rule."""
        return self._by_rule.get(rule, self)

    @property
    def penalises(self) -> bool:
        """Some rule has a penalty, so that histories must be kept."""
        return any(s._penalty for s in (self, *self._by_rule.values()))

    @property
    def _penalty(self) -> bool:
        additive = self.frequency_penalty or self.presence_penalty
        return bool(additive) or self.repetition_penalty != 1.0

    def check_rules(self, known: Iterable[str]) -> None:
        """Raises ValueError where `rules` names a rule that the schema does not have."""
        names = list(known)
        for rule in self.rules:
            if rule not in names:
                hint = did_you_mean(rule, names) or f"its rules are {', '.join(sorted(names))}"
                raise ValueError(
                    f"sampling is set for `{rule}`, which is no rule of the schema; {hint}"
                )

    def _overridden(self, rule: str, overrides: Overrides) -> Sampling:
        for key in overrides:
            if key in _WHOLE_REQUEST:
                raise ValueError(f"`{key}` is set for a whole request, not for the rule `{rule}`")
            if key not in PER_RULE:
                raise ValueError(_unknown(key, PER_RULE, f"the rule `{rule}`"))
        merged = {name: getattr(self, name) for name in PER_RULE} | dict(overrides)
        try:
            return Sampling(seed=self.seed, alternatives=self.alternatives, **merged)
        except (TypeError, ValueError) as error:
            raise ValueError(f"sampling of the rule `{rule}`: {error}") from None

    def _check_rules(self) -> None:
        shape = 'it must map rules to their settings: {"step": {"temperature": 0.7}}'
        if not isinstance(self.rules, Mapping):
            raise ValueError(f"`rules` is {self.rules!r}, {shape}")
        for rule, overrides in self.rules.items():
            if not isinstance(rule, str) or not isinstance(overrides, Mapping):
                raise ValueError(f"`rules` has {rule!r}: {overrides!r}, {shape}")
            for key in overrides:
                if not isinstance(key, str):
                    raise ValueError(f"`rules` sets {key!r} for {rule!r}, {shape}")

    def _check_numbers(self) -> None:
        for name, (low, high, text) in _RANGES.items():
            _check(name, getattr(self, name), low, high, text)
        if self.top_p == 0.0:
            raise ValueError("`top_p` is 0, which keeps no token; use temperature=0 for greedy")
        for name in ("top_k", "seed", "alternatives"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ValueError(f"`{name}` is {value!r}, it must be an integer")
        if self.top_k < 0:
            raise ValueError(f"`top_k` is {self.top_k}, it must be 0 (off) or more")
        if not 0 <= self.alternatives <= _MOST_ALTERNATIVES:
            raise ValueError(
                f"`alternatives` is {self.alternatives}, it must be 0 to {_MOST_ALTERNATIVES}"
            )


SETTINGS = tuple(f.name for f in fields(Sampling) if f.init)
PER_RULE = tuple(name for name in SETTINGS if name not in _WHOLE_REQUEST)


def _check(name: str, value: object, low: float, high: float, text: str) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"`{name}` is {value!r}, it must be a number: {text}")
    if not (low <= value <= high and math.isfinite(value)):
        raise ValueError(f"`{name}` is {value}, it must be {text}")


def _texts(avoid: object) -> tuple[str, ...]:
    if isinstance(avoid, str) or not isinstance(avoid, Sequence):
        raise ValueError(f"`avoid` is {avoid!r}, it must be a list of texts")
    for text in avoid:
        if not isinstance(text, str):
            raise ValueError(f"`avoid` holds {text!r}, which is no text")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"`avoid` holds {text!r}, with half of a surrogate pair") from None
    length = sum(map(len, avoid))
    if length > _MOST_AVOIDED:
        raise ValueError(f"`avoid` has {length:,} characters, it may have {_MOST_AVOIDED:,}")
    return tuple(avoid)


def _unknown(key: str, known: Iterable[str], owner: str) -> str:
    names = list(known)
    hint = did_you_mean(key, names) or f"known settings: {', '.join(names)}"
    return f"unknown setting `{key}` for {owner}; {hint}"


DEFAULT = Sampling()
