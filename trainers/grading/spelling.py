"""One spelling of an expression that stands in a box, freed of what only changes its looks.

`plain` takes away delimiters, spacing commands and full stops, and writes degrees, grouped digits,
powers of ten, repeating decimals and Unicode in one way; the value is never changed. `words` is
what a text says. `is_large` says that a value must not be worked out.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from math import prod
from typing import Final

from nprdsl.trainers.grading.answers import balanced

_LONGEST: Final = 2000  # characters; a longer expression is compared as text only
_DEEPEST: Final = 40  # brackets in brackets, for the same
_POWER: Final = 9999  # an exponent beyond is not worked out
_FACTORIAL: Final = 20  # beside a factorial
_SUPERSCRIPTS: Final = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ", "0123456789-+n")
_VULGAR: Final = {
    "½": "12", "⅓": "13", "⅔": "23", "¼": "14", "¾": "34", "⅕": "15", "⅖": "25", "⅗": "35",
    "⅘": "45", "⅙": "16", "⅚": "56", "⅛": "18", "⅜": "38", "⅝": "58", "⅞": "78",
}  # fmt: skip
_SIGNS: Final = {
    "\u2212": "-", "\u2013": "-", "\u2014": "-", "\u03c0": r"\pi ", "\u221e": r"\infty ",
    "\u2264": r"\le ", "\u2265": r"\ge ", "\u2a7d": r"\le ", "\u2a7e": r"\ge ", "\u2260": r"\ne ",
    "\u00d7": r"\times ", "\u00b7": r"\cdot ", "\u00f7": r"\div ", "\u00b1": r"\pm ",
    "\u222a": r"\cup ", "\u2229": r"\cap ", "\u2208": r"\in ", "\u2205": r"\emptyset ",
    "\u2026": r"\dots ", "\u03b8": r"\theta ", "\u03b1": r"\alpha ", "\u03b2": r"\beta ",
    "\u2261": r"\equiv ", "\u211d": r"\mathbb{R}", "\u2124": r"\mathbb{Z}",
    "\u00a0": " ", "\u2009": " ", "\u202f": " ", "\uff0c": ",", "\uff1a": ":", "\uff08": "(",
    "\uff09": ")", "\u2032": "'", "\u2019": "'",
}  # fmt: skip
# What is written in several ways, and the one way; applied in this order.
_SPELLINGS: Final = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\(?:displaystyle|textstyle|scriptstyle|limits|nolimits)(?![A-Za-z])\s*", ""),
        (r"\\(?:bf|it|sf|tt|rm(?!\s*\{))(?![A-Za-z])\s*", ""),
        (r"\\(?:textcolor|colorbox|color)\s*\{[^{}]*\}", ""),
        (r"\\(?:[hv]space\*?|[hv]?phantom)\s*\{[^{}]*\}", " "),
        (r"\\[Bb]igg?[lrm]?(?=[()\[\]|\\])", ""),
        (r"(?i:^\\text\s*\{\s*(?:the\s+)?(?:final\s+)?answer(?:\s+is)?\s*:?\s*\}\s*(?=\S))", ""),
        (r"(?i:^(?:the\s+)?(?:final\s+)?answer\s*(?:is\s|:)\s*(?=\S))", ""),
        (r"^(?:\\approx(?![A-Za-z])|\u2248)\s*", ""),
        (r"\\text\s*\{\s*\\?\$\s*\}", r"\\$"),
        (r"\+\s*/\s*-", r"\\pm "),
        (r"\*\*", "^"),
        (r"\^\s*-\s*(\d+|[A-Za-z])", r"^{-\1}"),
        (r"(?<=[)\]])\s*U\s*(?=[(\[])", r"\\cup "),
        (r"^<([^<>=|]+,[^<>=|]+)>$", r"\\langle \1\\rangle"),
        (r"\\(?:left|right|middle)\s*(?=[()\[\]|/.\\<>])(?:\.)?", ""),
        (r"\\lbrace(?![A-Za-z])", r"\\{"),
        (r"\\rbrace(?![A-Za-z])", r"\\}"),
        (r"\\lbrack(?![A-Za-z])", "["),
        (r"\\rbrack(?![A-Za-z])", "]"),
        (r"\\(?:lvert|rvert|vert|mid)(?![A-Za-z])", "|"),
        (r"\\varnothing(?![A-Za-z])|\\(?:empty\b|O\b(?=$))|^\\\{\s*\\\}$", r"\\emptyset"),
        (r"\\(?:ldots|cdots|dotsc|dotsb|dotsm|hdots)(?![A-Za-z])|(?<!\.)\.{3}(?!\.)", r"\\dots"),
        (r"\\(?:dfrac|tfrac|cfrac)(?![A-Za-z])", r"\\frac"),
        (r"\\(?:d|t)?binom\s*(\d)\s*(\d)", r"\\binom{\1}{\2}"),
        (r"\\(?:leqslant|leq)(?![A-Za-z])", r"\\le"),
        (r"\\(?:geqslant|geq)(?![A-Za-z])", r"\\ge"),
        (r"\\neq(?![A-Za-z])", r"\\ne"),
        (r"\\mathbb\s*([A-Z])(?![A-Za-z])", r"\\mathbb{\1}"),
        (r"\\backslash(?![A-Za-z])", r"\\setminus"),
        (r"\\text\s*\{\s*\}", " "),
        (r"\u221a\s*(\d+|[A-Za-z])", r"\\sqrt{\1}"),
        (r"\u221a\s*(?=[({])", r"\\sqrt"),
        (r"\u221b\s*(\d+|[A-Za-z])", r"\\sqrt[3]{\1}"),
        (r"\\sqrt\s*\{\s*-\s*1\s*\}|\\imath(?![A-Za-z])|\\mathrm\s*\{\s*i\s*\}", "i"),
        (r"\^?\s*(?:\u00b0|\\degrees?\b)", r"^\\circ"),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ"),
        (r"(?<=\d),?(?:\\[,!;: ]\s*)+(?=\d{3}(?!\d))", ","),
        (r"(?<=\d)\{,\}(?=\d{3}(?!\d))", ","),
        (r"\{([:,])\}", r"\1"),
        (r"(?:\\[,;: ]|~|\s)*\\?%", r"\\%"),
        (r"(?<!\\)\\[,;: ]|~", " "),
        (r"(?<!\\)\\!", ""),
        (r"_\s*\{?\s*\\text\s*\{\s*(\d+)\s*\}\s*\}?", r"_{\1}"),
        (r"(\d)\s*(?:\\cdot|\\times|\*)\s*i\b", r"\1i"),
        (r"(?<=\d)\s+i\b", "i"),
        (r"(\\(?:sin|cos|tan|cot|sec|csc))\s*(?:\(\s*(\d+(?:\.\d+)?)\s*\^\\circ\s*\)"
         r"|\{\s*(\d+(?:\.\d+)?)\s*\^\\circ\s*\}|(\d+(?:\.\d+)?)\s*\^\\circ)",
         r"\1(\\frac{\2\3\4 \\pi}{180})"),
        (r"^(\d+)\s+to\s+(\d+)$", r"\1:\2"),
        (r"\\quad(?![A-Za-z])|\\qquad(?![A-Za-z])", " "),
        (r"(?:\\\\|\\)$", ""),
    )
)  # fmt: skip
_SCIENTIFIC: Final = re.compile(r"([+-]?(?:\d+(?:\.\d*)?|\.\d+))\s*[eE]\s*([+-]?\d{1,6})")
_SPACED: Final = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_MIXED: Final = re.compile(
    r"([+-]?)\s*(\d+)\s*(?:\\[ ,;!]\s*|\s+(?=\d))?"
    r"(?:\s*\\frac\s*(?:\{\s*(\d+)\s*\}|(\d))\s*(?:\{\s*(\d+)\s*\}|(\d))|(?<=[\s])(\d+)\s*/\s*(\d+))"
)
_SEXAGESIMAL: Final = re.compile(
    r"(-?)\s*(\d+)\s*\^\\circ\s*(\d{1,2})\s*(?:'|\^\s*\{?\s*\\prime\s*\}?)"
    r"(?:\s*(\d{1,2})\s*(?:''|\"|\^\s*\{\s*\\prime\s*\\prime\s*\}))?"
)
_REPEATING: Final = re.compile(r"(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{\s*(\d+)\s*\}|(\d))")
_SUPERSCRIPT: Final = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺ⁿ]+")
_STOP: Final = re.compile(r"(?<![.\s])\s*\.\s*$")
_DELIMITERS: Final = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("{", "}"))
_STYLED: Final = re.compile(
    r"\\(?:text|textbf|textit|textrm|textsf|texttt|mathrm|mathbf|mathit|mathsf|bf|rm|bm|boldsymbol"
    r"|mbox|operatorname|underline|emph)\s*\{([^{}]*)\}"
)
_WHOLE_STYLED: Final = re.compile(
    r"\\(?:mathbf|mathit|bm|boldsymbol|underline|boxed|fbox|(?:text|mathrm)(?=\s*\{\s*-?\d))\s*\{"
)
_SPACING: Final = re.compile(r"\\[,;:! ]|~|\\q?quad\b")
_EXPONENT: Final = re.compile(
    r"(?:\^|\*\*)\s*(?:\{((?:[^{}]|\{[^{}]*\})*)\}|([+-]?\d+|\\?[A-Za-z]+))"
)
_REPEATED: Final = re.compile(r"(?:\\(?:sum|prod|binom|int)\b|!)")


@lru_cache(maxsize=8192)
def plain(expression: str) -> str:
    """The expression in one spelling."""
    spelling = _STOP.sub("", _undelimited(expression.strip()))
    for sign, replacement in _SIGNS.items():
        spelling = spelling.replace(sign, replacement)
    spelling = re.sub(f"[{''.join(_VULGAR)}]", _vulgar, spelling)
    spelling = _SUPERSCRIPT.sub(lambda m: f"^{{{m[0].translate(_SUPERSCRIPTS)}}}", spelling)
    for pattern, replacement in _SPELLINGS:
        spelling = pattern.sub(replacement, spelling)
    spelling = _REPEATING.sub(_repeating, _undelimited(spelling.strip()))
    scientific = _SCIENTIFIC.fullmatch(spelling.strip())
    if scientific is not None:
        return rf"{scientific[1]} \times 10^{{{int(scientific[2])}}}"
    angle = _SEXAGESIMAL.fullmatch(spelling)
    if angle is not None:
        return _degrees(angle)
    if _SPACED.fullmatch(spelling):
        return spelling.replace(" ", ",")
    return _MIXED.sub(_improper, spelling) if _MIXED.fullmatch(spelling) else spelling


def _vulgar(match: re.Match[str]) -> str:
    digits = _VULGAR[match[0]]
    return rf"\frac{{{digits[0]}}}{{{digits[1]}}}"


def _improper(match: re.Match[str]) -> str:
    """A mixed number as a fraction."""
    sign, whole = match[1], int(match[2])
    above, below = int(match[3] or match[4] or match[7]), int(match[5] or match[6] or match[8])
    if not below:
        return match[0]
    return rf"{sign.strip('+')}\frac{{{whole * below + above}}}{{{below}}}"


def _degrees(match: re.Match[str]) -> str:
    """Degrees, minutes and seconds as a fraction of degrees."""
    value = int(match[2]) + Fraction(int(match[3]), 60) + Fraction(int(match[4] or 0), 3600)
    return rf"{match[1]}\frac{{{value.numerator}}}{{{value.denominator}}}^\circ"


def _repeating(match: re.Match[str]) -> str:
    """A repeating decimal as a fraction."""
    whole, fixed, period = match[1] or "0", match[2], match[3] or match[4]
    if len(fixed + period) > _DEEPEST:
        return match[0]
    once = int(f"{whole}{fixed}{period}") - int(f"{whole}{fixed}")
    value = Fraction(once, (10 ** len(period) - 1) * 10 ** len(fixed))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"


def words(expression: str) -> str:
    """The expression as words: without commands of style and space, with single spaces."""
    text = plain(expression)
    for _ in range(3):
        text = _STYLED.sub(r"\1", text)
    text = _SPACING.sub(" ", text)
    return " ".join(text.replace("$", "").split()).rstrip(".").strip()


def is_long(expression: str) -> bool:
    """Whether the expression is too long, or too deep, to be read."""
    return len(expression) > _LONGEST or _depth(expression) > _DEEPEST


def is_large(expression: str) -> bool:
    """Whether to work the value out would take too long, or the expression is too long to read."""
    if is_long(expression):
        return True
    exponents = [a or b for a, b in _EXPONENT.findall(expression)]
    if any(_EXPONENT.search(exponent) and not _is_small(exponent) for exponent in exponents):
        return True
    numbers = [n for exponent in exponents for n in re.findall(r"\d+", exponent)]
    if any(len(n) > 6 or int(n) > _POWER for n in numbers) or len(exponents) > _LONGEST // 20:
        return True
    if re.search(r"[)}]\s*(?:\^|\*\*)", expression) and prod(map(int, numbers)) > _POWER:
        return True  # a power of a power
    if "!" in expression and any(int(n) > _FACTORIAL for n in numbers):
        return True
    if re.search(r"!\s*!|!\s*[)}]+\s*!|\^\s*\{[^{}]*!", expression):
        return True
    return bool(_REPEATED.search(expression)) and bool(re.search(r"\d{5}", expression))


def _is_small(exponent: str) -> bool:
    """Whether a power that is an exponent itself has at most three digits."""
    match = re.fullmatch(r"\s*(\d)\s*\^\s*\{?\s*(\d)\s*\}?\s*", exponent)
    return match is not None and int(match[1]) ** int(match[2]) <= _POWER


def _depth(expression: str) -> int:
    depth = most = 0
    for sign in expression:
        depth += (sign in "({[") - (sign in ")}]")
        most = max(most, depth)
    return most


def _undelimited(expression: str) -> str:
    """Without `$…$`, `\\(…\\)`, braces or a box around the whole."""
    for left, right in _DELIMITERS:
        inner = expression[len(left) : -len(right)]
        whole = expression.startswith(left) and expression.endswith(right)
        if whole and inner.strip() and left not in inner and not inner.endswith("\\"):
            return _undelimited(inner.strip())
        if whole and left == "{" and inner.strip() and balanced(expression, 1) == inner:
            return _undelimited(inner.strip())
    styled = _WHOLE_STYLED.match(expression)
    inside = None if styled is None else balanced(expression, styled.end())
    if styled is None or inside is None or not inside.strip():
        return expression
    whole = styled.end() + len(inside) + 1 == len(expression)
    return _undelimited(inside.strip()) if whole else expression
