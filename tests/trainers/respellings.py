"""Usual other spellings of an answer: what people write for the same thing.

Each spelling is made by a rule from the answer as it stands; a rule that does not fit gives none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction

Rule = Callable[[str], Iterator[str]]

_INTEGER = re.compile(r"-?\d+")
_DECIMAL = re.compile(r"-?\d*\.\d+")
_FRACTION = re.compile(r"(-?)\\d?frac\s*(?:\{(-?\d+)\}|(\d))\s*(?:\{(\d+)\}|(\d))")
_MIXED = re.compile(r"(\d+) ?\\frac\{(\d+)\}\{(\d+)\}")
_WORD = re.compile(r"\\text\{([A-Za-z]+)\}")
_LETTER = re.compile(r"\\text\{\(([A-E])\)\}")
_UNIT = re.compile(r"(.+?) ?\\(?:text|mbox)\{ ?([a-z]+)\}(\^2)?")
_DEGREES = re.compile(r"(-?\d+)\^\\circ")
_MONEY = re.compile(r"\\\$(\d[\d,\\!]*(?:\.\d+)?)")
_BASE = re.compile(r"(\d+)_\{?(\d)\}?")
_PM = re.compile(r"(\S+) \\pm (.+)")
_LIST = re.compile(r"[^,(){}\[\]]+(?:,[^,(){}\[\]]+)+")
_GROUPED = re.compile(r"\d{1,3}(?:,(?:\\!)? ?\d{3})+")
_CLOSED = re.compile(r"(?:\\left)?([(\[])(.+?)(?:\\right)?([)\]])")
_EQUATION = re.compile(r"x ?= ?(-?\d+)")


def delimiters(answer: str) -> Iterator[str]:
    yield f"${answer}$"
    yield f"\\({answer}\\)"
    yield f" {answer} "
    yield f"{answer}."
    yield f"\\displaystyle {answer}"
    yield f"{{{answer}}}"


def spaces(answer: str) -> Iterator[str]:
    if "text" not in answer and "mbox" not in answer and not _MONEY.fullmatch(answer):
        tight = re.sub(r"\s+(?![A-Za-z])", "", answer)
        if tight != answer:
            yield tight
        if re.search(r"[+,=]", answer) and not _GROUPED.fullmatch(answer):
            yield re.sub(r"\s*([+=,])\s*", r" \1 ", answer).strip()
            yield re.sub(r",\s*", r",\\ ", answer)


def integers(answer: str) -> Iterator[str]:
    if not _INTEGER.fullmatch(answer):
        return
    yield f"{answer}.0"
    yield f"{answer}.00"
    yield f"x = {answer}"
    yield f"n={answer}"
    yield rf"{answer}\text{{ cm}}"
    yield rf"{answer} \text{{ units}}"
    yield rf"{answer}\,\mathrm{{cm}}"
    yield rf"\text{{{answer}}}"
    yield rf"\mathbf{{{answer}}}"
    yield rf"\frac{{{int(answer) * 2}}}{{2}}"
    if answer.startswith("-"):
        yield f"- {answer[1:]}"
        yield f"\u2212{answer[1:]}"
        yield f"({answer})"
    if len(answer.lstrip("-")) > 3:
        yield f"{int(answer):,}"
        yield f"{int(answer):,}".replace(",", "{,}")
        yield f"{int(answer):,}".replace(",", r",\!")
        yield f"{int(answer):,}".replace(",", r"\,")


def decimals(answer: str) -> Iterator[str]:
    if _DECIMAL.fullmatch(answer):
        value = Fraction(answer)
        yield f"{answer}0"
        yield re.sub(r"^(-?)\.", r"\g<1>0.", answer)
        yield f"{value.numerator}/{value.denominator}"
        yield rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def fractions(answer: str) -> Iterator[str]:
    match = _FRACTION.fullmatch(answer)
    if match is None:
        return
    sign, top, short_top, bottom, short_bottom = match.groups()
    above, below = top or short_top, bottom or short_bottom
    yield f"{sign}{above}/{below}"
    yield rf"{sign}\dfrac{{{above}}}{{{below}}}"
    yield rf"{sign}\tfrac{{{above}}}{{{below}}}"
    yield rf"{sign}\frac {{{above}}} {{{below}}}"
    yield rf"{sign}{above} \div {below}"
    yield rf"{sign}\frac{{{int(above) * 3}}}{{{int(below) * 3}}}"
    yield rf"x = {sign}\frac{{{above}}}{{{below}}}"
    if sign:
        yield rf"\frac{{-{above}}}{{{below}}}"
        yield rf"\frac{{{above}}}{{-{below}}}"
    value = Fraction(f"{sign}{above}") / int(below)
    if len(above) == len(below) == 1:
        yield rf"{sign}\frac{above}{below}"
    if _terminates(value):
        yield str(Decimal(value.numerator) / Decimal(value.denominator))
    if value > 1:
        whole, rest = divmod(value.numerator, value.denominator)
        yield rf"{whole}\frac{{{rest}}}{{{value.denominator}}}"


def mixed(answer: str) -> Iterator[str]:
    match = _MIXED.fullmatch(answer)
    if match is not None:
        whole, above, below = map(int, match.groups())
        value = whole + Fraction(above, below)
        yield rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
        yield f"{value.numerator}/{value.denominator}"
        yield rf"{whole} \frac{{{above}}}{{{below}}}"
        yield str(float(value))


def words(answer: str) -> Iterator[str]:
    match = _WORD.fullmatch(answer)
    if match is not None:
        word = match[1]
        yield word
        yield rf"\textbf{{{word}}}"
        yield rf"\mathrm{{{word}}}"
        yield rf"\text{{ {word} }}"
        yield f"\\text{{{word}}}."
        yield word.upper()
        yield word.capitalize()


def letters(answer: str) -> Iterator[str]:
    match = _LETTER.fullmatch(answer)
    if match is not None:
        letter = match[1]
        for spelling in ("{}", "({})", r"\text{{{}}}", r"\textbf{{({})}}", r"\mathrm{{{}}}", "{}."):
            yield spelling.format(letter)
        yield rf"\textbf{{({letter})}}\ 42"
        yield rf"\textbf{{({letter}) }} 42"
        yield f"({letter}) 42"


def units(answer: str) -> Iterator[str]:
    match = _UNIT.fullmatch(answer)
    if match is not None:
        value, unit, power = match[1], match[2], match[3] or ""
        yield value
        yield rf"{value}\text{{ {unit}}}{power}"
        yield rf"{value}\ \mathrm{{{unit}}}{power}"
        yield f"{value} {unit}{power}"
    match = _DEGREES.fullmatch(answer)
    if match is not None:
        for spelling in (r"{}", r"{}^{{\circ}}", r"{}°", r"{} \text{{ degrees}}", r"{}\degree"):
            yield spelling.format(match[1])
    match = _MONEY.fullmatch(answer)
    if match is not None:
        plain = re.sub(r"[,\\!]", "", match[1])
        yield plain
        yield rf"\${plain}"
        yield f"${plain}"
        yield f"{plain} dollars"
        yield rf"{plain}\text{{ dollars}}"
        yield rf"\$ {float(plain):,.2f}"


def grouped(answer: str) -> Iterator[str]:
    if _GROUPED.fullmatch(answer):
        plain = re.sub(r"\D", "", answer)
        yield plain
        yield f"{int(plain):,}"
        yield f"{int(plain):,}".replace(",", "{,}")


def bases(answer: str) -> Iterator[str]:
    match = _BASE.fullmatch(answer)
    if match is not None:
        digits, base = match.groups()
        yield f"{digits}_{{{base}}}"
        yield f"{digits}_{base}"
        yield rf"{digits}_{{\text{{{base}}}}}"
        yield digits


def roots(answer: str) -> Iterator[str]:
    if r"\sqrt" in answer:
        yield re.sub(r"\\sqrt(\d)", r"\\sqrt{\1}", answer)
        yield re.sub(r"\\sqrt\{(\d)\}", r"\\sqrt\1", answer)
        yield re.sub(r"(\d) ?\\sqrt", r"\1 \\sqrt", answer)
        yield re.sub(r"(\d) ?\\sqrt", r"\1\\cdot\\sqrt", answer)
        yield re.sub(r"(\d) ?\\sqrt", r"\1 \\times \\sqrt", answer)
        squared = re.fullmatch(r"(\d+) ?\\sqrt\{?(\d+)\}?", answer)
        if squared is not None:
            yield rf"\sqrt{{{int(squared[1]) ** 2 * int(squared[2])}}}"
    if r"\pi" in answer and r"\pi}" not in answer:
        yield re.sub(r"(\d) ?\\pi", r"\1 \\cdot \\pi", answer)
        yield re.sub(r"\\pi", "π", answer)


def plus_minus(answer: str) -> Iterator[str]:
    match = _PM.fullmatch(answer)
    if match is not None:
        one, other = f"{match[1]}+{match[2]}", f"{match[1]}-{match[2]}"
        yield f"{one}, {other}"
        yield f"{other}, {one}"
        yield rf"\{{{one}, {other}\}}"


def lists(answer: str) -> Iterator[str]:
    if not _LIST.fullmatch(answer) or _GROUPED.fullmatch(answer) or _MONEY.fullmatch(answer):
        return
    parts = [part.strip() for part in answer.split(",")]
    back = parts[::-1]
    yield ", ".join(back)
    yield ",".join(parts)
    yield r"\{" + ", ".join(back) + r"\}"
    yield ", ".join(parts[:-1]) + r" \text{ and } " + parts[-1]
    yield ", ".join(parts[:-1]) + " and " + parts[-1]
    yield ", ".join(f"x = {part}" for part in parts)
    yield r" \text{ or } ".join(f"x = {part}" for part in parts)


def brackets(answer: str) -> Iterator[str]:
    match = _CLOSED.fullmatch(answer)
    if match is not None and r"\cup" not in answer and ")(" not in answer:
        left, inside, right = match.groups()
        inside = inside.strip()
        yield rf"\left{left}{inside}\right{right}"
        yield rf"\left{left} {inside} \right{right}"
        yield f"{left}{inside}{right}"
        yield re.sub(r"\s*,\s*", ", ", f"{left} {inside} {right}")
        yield rf"\big{left}{inside}\big{right}"
    if r"\cup" in answer:
        yield answer.replace(r" \cup ", r"\cup")
        first, second = answer.split(r" \cup ")
        yield rf"{second} \cup {first}"
        yield rf"x \in {answer}"
    if r"\in" in answer and r"\infty" not in answer:
        yield answer.split(r"\in")[1].strip()


def matrices(answer: str) -> Iterator[str]:
    if "pmatrix" in answer:
        yield answer.replace("pmatrix", "bmatrix")
        yield answer.replace(" ", "").replace(r"\begin{pmatrix}", r"\begin{pmatrix} ")
        yield re.sub(r"(-?)(\d+)/(\d+)", r"\1\\frac{\2}{\3}", answer)
        yield re.sub(r"(-?)(\d+)/(\d+)", r"\\frac{\1\2}{\3}", answer)


def equations(answer: str) -> Iterator[str]:
    match = _EQUATION.fullmatch(answer)
    if match is not None:
        yield match[1]
        yield f"x={match[1]}"
        yield f"x = {match[1]}"
    if answer.startswith("y = "):
        yield answer.replace(" ", "")
        left, right = answer.split(" = ")
        yield f"{right} = {left}"


def complex_numbers(answer: str) -> Iterator[str]:
    match = re.fullmatch(r"(-?\d+) ?([+-]) ?(\d*)i", answer)
    if match is not None:
        real, sign, imaginary = match.groups()
        yield f"{real} {sign} {imaginary}i"
        yield f"{'' if sign == '+' else '-'}{imaginary}i + {real}"
        if imaginary:
            yield rf"{real} {sign} {imaginary} \cdot i"


RULES: dict[str, Rule] = {
    rule.__name__: rule
    for rule in (
        delimiters,
        spaces,
        integers,
        decimals,
        fractions,
        mixed,
        words,
        letters,
        units,
        grouped,
        bases,
        roots,
        plus_minus,
        lists,
        brackets,
        matrices,
        equations,
        complex_numbers,
    )
}


def _terminates(value: Fraction) -> bool:
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return rest == 1
