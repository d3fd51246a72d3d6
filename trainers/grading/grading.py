"""Whether an answer is right: the boxed expression of a text against the benchmark's own answer.

Two expressions in one spelling are compared part by part, then as choices, words, numerals,
residues, quantities with units and exact numbers; what is left is mathematics, and there
`math-verify` decides. It reads as much of an expression as it understands, so it is asked only
about those that hold nothing else. What takes too long, or cannot be read, is not right.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from nprdsl.trainers.grading.answers import Fallback, answer_of
from nprdsl.trainers.grading.limit import within
from nprdsl.trainers.grading.parts import IN_ANY_ORDER, Kind, Parts, parts_of
from nprdsl.trainers.grading.quantities import (
    EXACT,
    Tolerance,
    as_interval,
    counted,
    exact,
    is_rounding,
    residue,
    same_base,
)
from nprdsl.trainers.grading.spelling import is_large, is_long, plain, words
from nprdsl.trainers.grading.symbolic import equal
from nprdsl.trainers.grading.units import Measure, split

SECONDS: Final = 5.0  # for one comparison
_MOST_PARTS: Final = 200
_CHOICE: Final = re.compile(r"\(?([A-Za-z])(?:\)|[.:](?!\d)|$)")  # `B`, `(B) 42`, `B. 42`
_OPTION: Final = re.compile(r"^(?:option|choice|answer)\s+(?=\(?[A-Z]\b)", re.I)
_SEVERAL: Final = re.compile(
    r"^\(?[A-Z]\)?\s+\(?[A-Z]\)?(?:\s|$)|(?:\b(?:or|and|nor|not)\b|[,;/&|+]|\s-)\s*\(?[A-Z]\)?(?![A-Za-z])|[.:?)]\s*\(?[B-Z](?:[.:)]|$)|\s\([A-Z]\)"
)  # letters
_MORE: Final = re.compile(r"[a-z]{3}|^[A-Za-z]\s+[A-Za-z]$")  # than a letter
_CHOICES: Final = re.compile(r"\(?[A-J]\)?(?:(?:\s*[,;&]\s*|\s*,?\s(?:and|or)\s+|\s*)\(?[A-J]\)?)+")
_GLUED: Final = re.compile(r"[A-J]{2,10}")
_PROSE: Final = re.compile(r"(?=.*[A-Za-z]{2})[A-Za-z][A-Za-z' .,:&/()-]*")
_COMMAND: Final = re.compile(r"\\(?!text|mathrm|mbox|textbf|textrm|textit| |,|;|!)")
_WITHOUT: Final = re.compile(r"^(?:the|an?)\s+(?=\w\w)")
_MULTIPLE: Final = re.compile(r"-?\d+(?:\.\d+)?\s*[a-z]\s*=")  # `2x = 4` does not say what x is
_CLOCK: Final = re.compile(r"\d{1,2}:\d\d(?::\d\d)?\s*(?:[ap]\.?m\.?)?", re.I)
_TIME: Final = re.compile(r"(\d{1,2})(?::(\d\d))?(?::(\d\d))?\s*([ap]?)\.?m?\.?")
_HOUR: Final = re.compile(r"\d{1,2}\s*([ap])\.?m\.?")  # where both are one: 7 pm may be a length
_HOURS: Final = {"noon": "12pm", "12 noon": "12pm", "midnight": "12am", "12 midnight": "12am"}
_NAMED: Final = re.compile(r"(?:[A-Za-z]\w?|\\[a-z]+)(?:_\{?\w+\}?)?(?:\([a-z]\))?")
_RUN: Final = re.compile(r"\d+(?:-\d+)+|\d+(?:/\d+){2,}")  # a date, a score, pages from and to
_UNREAD: Final = re.compile(  # what computer algebra leaves out
    r"\\(?:dots|pmod|bmod|equiv|neg|triangle|angle|not|ne|vec|hat|bar|overrightarrow|partial)(?![A-Za-z])"
    r"|\\(?:text|mathrm|mbox|operatorname)\s*\{[^{}]*[A-Za-z]"
    r"|'|\?|#|&|\d\s*_|\\frac\s*\{\s*d(?:\s*\^\s*\d)?\s*[A-Za-z]?\s*\}"
    r"|\^\s*\{?\s*(?:T(?![A-Za-z])|\\top|\\dagger|\\perp|\\prime|\*)"
)
_TEXT: Final = re.compile(r"(?=.*[a-z]{3})[a-z][a-z' .&/()-]*[a-z)]")
_SAME_WORDS: Final = {
    "dne": "does not exist", "no solutions": "no solution",
    "no real solutions": "no real solution", "t": "true", "f": "false",
}  # fmt: skip


def is_right(
    text: str,
    wanted: str,
    fallback: Fallback = Fallback.NONE,
    choices: Sequence[str] = (),
    marked: str = "",
    tolerance: Tolerance = EXACT,
    unit: str = "",
) -> bool:
    """Whether the answer of `text` equals `wanted`, which stands as the benchmark has it.

    `marked` is the part of it that its schema marks as the answer, as for `answer_of`. Where there
    are `choices`, `wanted` is the letter of one; its text is as good as the letter. `tolerance` and
    `unit` are what the benchmark states beside its answer.
    """
    given = answer_of(text, fallback, marked)
    if given is None:
        return False
    if choices:
        return same_choice(given, wanted, choices)
    return same(given, wanted, tolerance, unit)


def same(given: str, wanted: str, tolerance: Tolerance = EXACT, unit: str = "") -> bool:
    """Whether two expressions, as they stand in a box, are equal."""
    if is_long(given) or is_long(wanted):
        return given.split() == wanted.split()
    return within(SECONDS, lambda: _Comparison(tolerance, unit).same(given, wanted), late=False)


def same_choice(given: str, wanted: str, choices: Sequence[str]) -> bool:
    """Whether `given` is the choice under the letter `wanted`, by its letter or by its text."""
    right = choices[ord(wanted) - ord("A")]
    said = words(given).casefold()
    if said in [words(choice).casefold() for choice in choices]:
        return said == words(right).casefold()
    letter = _letter(given)
    if letter:
        return letter.upper() == wanted and not _SEVERAL.search(_chosen(given))
    return same(given, right) and sum(same(given, choice) for choice in choices) == 1


def _letter(expression: str) -> str:
    """The letter of a choice that an expression begins with; "" if it begins with none."""
    match = _CHOICE.match(_chosen(expression))
    return match[1] if match else ""


def _chosen(expression: str) -> str:
    """The words of an expression; `option C` is `C`."""
    return _OPTION.sub("", words(expression))


class _Comparison:
    """Compares one answer with the one that is wanted."""

    def __init__(self, tolerance: Tolerance, unit: str) -> None:
        self._tolerance = tolerance
        name = unit.strip().strip("$").strip()
        written = f"1 {name}" if "\\" in name else rf"1\text{{ {name} }}"
        self._unit = split(plain(written))[1] if name else Measure()

    def same(self, given: str, wanted: str, inner: bool = False) -> bool:
        given, wanted = plain(given), plain(wanted)
        if given == wanted:
            return bool(given)
        if not words(given) or not words(wanted):
            return False
        decided = _as_choices(given, wanted)
        if decided is not None:
            return decided
        given, wanted = _prose(counted(given)), _prose(counted(wanted))
        sides = [parts_of(as_interval(side)) for side in (given, wanted)]
        if any(side.kind is not Kind.ONE for side in sides):
            return self._same_parts(sides[0], sides[1], inner)
        return self._same_one(sides[0].parts[0], sides[1].parts[0])

    def _same_parts(self, given: Parts, wanted: Parts, inner: bool) -> bool:
        alone = not inner and _is_alone(given, wanted)
        if not (alone or _comparable(given, wanted)) or len(wanted.parts) > _MOST_PARTS:
            return False
        one, other = list(given.parts), list(wanted.parts)
        if given.kind is wanted.kind is Kind.SET:
            one, other = (list(dict.fromkeys(map(plain, side))) for side in (one, other))
        if {given.kind, wanted.kind} <= IN_ANY_ORDER and r"\dots" not in one + other:
            return self._same_in_any_order(one, other)
        return len(one) == len(other) and all(map(self._same_inner, one, other))

    def _same_in_any_order(self, given: list[str], wanted: list[str]) -> bool:
        if len(given) != len(wanted):
            return False
        for part in given:
            exactly = [other for other in wanted if plain(part) == plain(other)]
            found = next(iter(exactly), None) or next(
                (other for other in wanted if self._same_inner(part, other)), None
            )
            if found is None:
                return False
            wanted.remove(found)
        return True

    def _same_inner(self, given: str, wanted: str) -> bool:
        return self.same(given, wanted, inner=True)

    def _same_one(self, given: str, wanted: str) -> bool:
        given, wanted = plain(given), plain(wanted)
        if given == wanted:
            return True
        if "=" not in wanted and (sides := _chained(given)):
            return all(self._same_one(side, wanted) for side in sides)
        for compare in (_same_text, same_base, _same_residue):
            decided = compare(given, wanted)
            if decided is not None:
                return decided
        return self._same_quantity(given, wanted)

    def _same_quantity(self, given: str, wanted: str) -> bool:
        (value, unit, letter), (other, known, other_letter) = split(given), split(wanted)
        if not known.powers and self._unit.powers:
            known = Measure(self._unit.factor, self._unit.powers, known.times)
        if letter and not known.powers:
            value, unit = given, Measure()
        if other_letter and not unit.powers:
            other, known = wanted, Measure()
        angles = _in_radians(value, unit), _in_radians(other, known)
        if unit.powers != known.powers and all(angles) and self._same_value(*angles, Fraction(1)):
            return True
        scale = Fraction(unit.times, known.times)
        if unit.powers and known.powers:
            if not unit.measures(known):
                return False
            scale *= unit.over(known)
        elif _is_percent(unit) != _is_percent(known):
            hundredth = scale / 100 if _is_percent(unit) else scale * 100
            if self._same_value(value, other, hundredth):
                return True
        return self._same_value(value, other, scale)

    def _same_value(self, given: str, wanted: str, scale: Fraction) -> bool:
        """Whether `scale` times the first value is the second."""
        given, wanted = plain(given), plain(wanted)
        one, other = exact(_assigned(given, wanted)), exact(_assigned(wanted, given))
        if one is not None and other is not None:
            value = one * scale
            if value == other or self._tolerance.allows(value, other):
                return True
            return scale == 1 and is_rounding(_assigned(given, wanted), _assigned(wanted, given))
        if scale == 1 and given == wanted:
            return True
        if len(words(given)) == len(words(wanted)) == 1 and (given + wanted).isalpha():
            return scale == 1 and given == wanted
        if any(is_large(side) or _UNREAD.search(side) for side in (given, wanted)):
            return scale == 1 and _tight(given) == _tight(wanted)
        if any(_MULTIPLE.match(a) and "=" not in b for a, b in ((given, wanted), (wanted, given))):
            return False
        if scale != 1:
            given = rf"\left({given}\right) \cdot \frac{{{scale.numerator}}}{{{scale.denominator}}}"
        return equal(given, wanted, self._tolerance)


def _as_choices(given: str, wanted: str) -> bool | None:
    """Whether both name the same choices; None where none is wanted."""
    right, said = words(wanted), words(given)
    letter = _letter(wanted)
    if letter.isupper() and letter == _letter(given).upper():
        return not _SEVERAL.search(_chosen(given))
    if letter.isupper() and len(right.strip("().")) == 1 and _MORE.search(said):
        return False
    if len(right) > 1 and _CHOICES.fullmatch(right) and _CHOICES.fullmatch(said):
        if ("or" in said.split()) != ("or" in right.split()):
            return False
        letters = [sorted(re.findall("[A-J]", text)) for text in (right, said)]
        if any(len(set(found)) < len(found) for found in letters):  # `I and II` are numerals
            return None
        if _GLUED.fullmatch(right) and _GLUED.fullmatch(said):
            return None
        ordered = all([*text] == sorted(text) for text in (right, said) if _GLUED.fullmatch(text))
        return letters[0] == letters[1] and ordered
    return None


def _prose(expression: str) -> str:
    """An expression that is words only, as words; any other as it is."""
    said = words(expression)
    return said if not _COMMAND.search(expression) and _PROSE.fullmatch(said) else expression


def _same_text(given: str, wanted: str) -> bool | None:
    """Whether two texts say the same; None where one of them is mathematics."""
    said, right = (_WITHOUT.sub("", words(side).casefold()) for side in (given, wanted))
    said, right = _SAME_WORDS.get(said, said), _SAME_WORDS.get(right, right)
    if said == right and not re.search(r"\d", said):
        return True
    times = _time(said), _time(right)
    sure = ":" in said + right or not {said, right}.isdisjoint(_HOURS)  # `5 pm` is a length too
    if sure and "m" in said + right and None not in times:
        return times[0] == times[1]
    hours = [_HOUR.fullmatch(side) for side in (said, right)]
    if hours[0] and hours[1] and hours[0][1] != hours[1][1]:
        return False
    if any(map(_CLOCK.fullmatch, (said, right))) and all(":" in side for side in (said, right)):
        clocks = [re.sub(r"[\s.]", "", side) for side in (said, right)]
        return True if clocks[0] == clocks[1] else (False if "m" in "".join(clocks) else None)
    if all(map(_RUN.fullmatch, (said, right))):
        return [*map(int, re.findall(r"\d+", said))] == [*map(int, re.findall(r"\d+", right))]
    long = [bool(_TEXT.fullmatch(side)) for side in (said, right)]
    if any(long) and all(not re.search(r"[\\^_=<>]", side) for side in (said, right)):
        letters = [re.sub(r"[^a-z]", "", side) for side in (said, right)]
        return all(_is_run(one) for one in letters) and sorted(letters[0]) == sorted(letters[1])
    return None


def _time(said: str) -> int | None:
    """The second of the day that a time with `am`, `pm` or an hour from 13 names."""
    match = _TIME.fullmatch(_HOURS.get(said, said))
    if match is None:
        return None
    hour, half = int(match[1]), match[4]
    if not (0 < hour < 13 if half else 12 < hour < 24 and match[2]):
        return None
    hour = hour % 12 + 12 * (half == "p") if half else hour
    return 3600 * hour + 60 * int(match[2] or 0) + int(match[3] or 0)


def _is_run(letters: str) -> bool:
    """Whether letters are those of neighbours in the alphabet, as in the product `abc`."""
    codes = sorted(map(ord, letters))
    return bool(codes) and codes == list(range(codes[0], codes[0] + len(codes)))


def _same_residue(given: str, wanted: str) -> bool | None:
    """Whether two congruences state the same; None where none is one."""
    one, other = residue(given), residue(wanted)
    if one is None and other is None:
        return None
    if one is None or other is None or one[2] != other[2]:
        return False
    if one[0] and other[0] and one[0] != other[0]:
        return False
    values = [exact(value) for value in (one[1], other[1], one[2])]
    if None in values or not values[2]:
        return _tight(one[1]) == _tight(other[1])
    return (values[0] - values[1]) % values[2] == 0  # type: ignore[operator]


def _is_alone(given: Parts, wanted: Parts) -> bool:
    """Whether one value stands in a set on one side."""
    values = {*given.parts, *wanted.parts}
    alone = {given.kind, wanted.kind} == {Kind.ONE, Kind.SET} and r"\emptyset" not in values
    return alone and len(given.parts) == len(wanted.parts) == 1


def _comparable(given: Parts, wanted: Parts) -> bool:
    """Whether parts of these kinds can be the same answer: what is written without brackets may be
    any list, a column of a matrix a tuple."""
    if given.kind is wanted.kind:
        return given.shape == wanted.shape or given.kind in IN_ANY_ORDER
    kinds = {given.kind, wanted.kind}
    if kinds == {Kind.MATRIX, Kind.TUPLE}:
        return given.shape == wanted.shape
    return kinds in ({Kind.LIST, Kind.SET}, {Kind.LIST, Kind.TUPLE})


def _assigned(expression: str, other: str) -> str:
    """What a name is set to, where the other side states a value only: `x = 3`, `3 = x`."""
    match = re.fullmatch(rf"{_NAMED.pattern}\s*(?:=|\\approx)\s*([^=]+)", expression)
    match = match or re.fullmatch(rf"([^=]+?)\s*=\s*{_NAMED.pattern}", expression)
    return match[1].strip() if match is not None and "=" not in other else expression


def _chained(expression: str) -> list[str]:
    """The sides of `3/4 = 0.75`, without a name that they are given to; none where a side has
    names in it, or nothing is chained."""
    sides = [side.strip() for side in expression.split("=")]
    if len(sides) > 2 and _NAMED.fullmatch(sides[0]):
        sides = sides[1:]
    letters = re.search(
        r"[A-Za-z<>!]|\\(?:text|mathrm)", re.sub(r"\\(?!text|mathrm)[a-z]+", "", "".join(sides))
    )
    return [] if letters or len(sides) < 2 or not all(sides) else sides


def _in_radians(value: str, unit: Measure) -> str:
    """An angle in radians; "" for what is none. A number with π in it may be one."""
    if unit.powers == (("deg", 1),):
        return rf"\frac{{\left({value}\right) \pi}}{{180}}"
    return value if unit.powers == (("rad", 1),) or (not unit.powers and r"\pi" in value) else ""


def _is_percent(unit: Measure) -> bool:
    return unit.powers == (("%", 1),)


def _tight(expression: str) -> str:
    return re.sub(r"[\s{}]|\\[,;! ]", "", expression)
