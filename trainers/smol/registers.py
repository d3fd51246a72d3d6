"""How a person types a word problem: with dollars or euros, in small letters, with units cut short.

In go a source of chance and a problem as it is told; out comes the same problem as one of many
people would type it. `Register` is drawn once for a problem, so that its text and its plans agree.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from typing import Final

_SIGNS: Final = {"dollar": "$", "euro": "€", "pound": "£"}
_VERBS: Final = (("Are", "Is"), ("are", "is"), ("were", "was"), ("have", "has"))
_SHORT: Final = (
    (re.compile(r"(?<=\d) miles (?:per|an) hour\b"), " mph"),
    (re.compile(r"(?<=\d) hours\b"), " hrs"),
    (re.compile(r"(?<=\d) minutes\b"), " min"),
    (re.compile(r"(?<=\d) kilograms\b"), " kg"),
    (re.compile(r"(?<=\d) kilometers\b"), " km"),
    (re.compile(r"(?<=\d) pounds\b"), " lb"),
    (re.compile(r"(?<=\d) grams\b"), " g"),
    (re.compile(r"(?<=\d) feet\b"), " ft"),
    (re.compile(r"(?<=\d) millimeters\b"), " mm"),
)
_HAILS: Final = (
    "Hi!", "Hello.", "Quick question:", "Help me with this:", "Please help.", "Hey, quick one:",
    "Can you work this out?", "Question:", "Problem:", "Math homework:",
)  # fmt: skip
_THANKS: Final = ("Thanks!", "Thank you.", "Please.", "thx", "Explain briefly.", "Show your work.")


@dataclass(frozen=True, slots=True)
class Register:
    """What one person does with every text. `currency`: the word for a dollar; `sign`: it is
    written before numbers; `short`: units are cut; `small`: no capitals; `bare`: no last mark."""

    currency: str = "dollar"
    sign: bool = False
    short: bool = False
    small: bool = False
    bare: bool = False

    def typed(self, text: str) -> str:
        """The text of a question."""
        if self.short:  # before the currency, as pounds may be either
            for long, cut in _SHORT:
                text = long.sub(cut, text)
        text = self.worked(text)
        if self.sign:
            sign = _SIGNS[self.currency]
            text = re.sub(rf"(?<![\d.])(\d+) {self.currency}s?\b", rf"{sign}\1", text)
            for many, one in _VERBS:
                text = re.sub(rf"\b{many} (?=\{sign}\d+ (?:enough|left|before)\b)", f"{one} ", text)
        if self.small:
            text = text.lower()
        return text.rstrip("?.") if self.bare else text

    def named(self, name: str) -> str:
        """The name of a plan, as it stands in the question."""
        return name.lower() if self.small else name

    def worked(self, text: str) -> str:
        """A step, in the question's currency."""
        return text.replace("dollar", self.currency)


def drawn_register(rng: random.Random, text: str) -> Register:
    """A register that suits a text: pounds are money only where they are not weights."""
    currency = "dollar"
    if rng.random() < 0.15:
        currency = rng.choice(("euro", "euro", "pound"))
    if "pound" in text or "$" in text:
        currency = "dollar"
    small = rng.random() < 0.15
    return Register(
        currency=currency,
        sign=rng.random() < 0.65,
        short=rng.random() < 0.2,
        small=small,
        bare=small and rng.random() < 0.3,
    )


def hailed(rng: random.Random, text: str) -> str:
    """A text with a greeting or thanks around it, now and then."""
    draw = rng.random()
    if draw < 0.05:
        return f"{rng.choice(_HAILS)} {text}"
    return f"{text} {rng.choice(_THANKS)}" if draw > 0.97 else text
