"""Random traces of a linear language, and the places in them where tokens must end."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from random import Random

from nprdsl.export.linear import LinearGrammar
from nprdsl.grammar.ir import Alt, Field, Literal, Node, Ref, Repeat, Seq, Tag, TerminalKind
from nprdsl.tokens.vocabulary import Vocabulary

PIECES = (
    "Let $x<3$ and", " compute \\frac{a}{b}", "\n\nif a < b:", "</pla", "<", "1: ", "世界 é",
    "🙂", " ", ":", "\n", "<ste", "<P", "\t- ",
)  # fmt: skip
VALUES = ("1", "7", "0.5", "ok", "A")  # tried for regular terminals


def sample(linear: LinearGrammar, numbers: Random, *, depth: int = 12) -> str:
    """A trace; below `depth` rules the shortest way is taken."""
    return "".join(_write(linear.rules[linear.start], linear.rules, numbers, depth))


def _write(node: Node, rules: Mapping[str, Node], numbers: Random, depth: int) -> Iterator[str]:
    match node:
        case Tag(text=text) | Literal(text=text):
            yield text
        case Field(terminal=terminal) if terminal.kind is TerminalKind.TEXT:
            yield free_text(numbers)
        case Field(terminal=terminal):
            yield value_of(terminal.pattern)
        case Ref(rule=rule):
            yield from _write(rules[rule], rules, numbers, depth - 1)
        case Seq(items=items):
            for item in items:
                yield from _write(item, rules, numbers, depth)
        case Alt(options=options):
            chosen = options[0] if depth < 0 else numbers.choice(options)
            yield from _write(chosen, rules, numbers, depth)
        case Repeat(node=inner, low=low, high=high):
            most = low if depth < 0 else low + 2
            for _ in range(numbers.randint(low, most if high is None else min(most, high))):
                yield from _write(inner, rules, numbers, depth)
        case _:
            raise AssertionError("a linear language has no forks")


def free_text(numbers: Random) -> str:
    while True:
        text = "".join(numbers.choice(PIECES) for _ in range(numbers.randint(1, 6)))
        if text.strip():
            return text


def value_of(pattern: str) -> str:
    return next(value for value in VALUES if re.fullmatch(pattern, value, re.ASCII))


def spell(vocabulary: Vocabulary, text: str, tags: tuple[str, ...]) -> list[int]:
    """Token ids of a trace: special tags by id; where tags are text no token runs past one."""
    ids: list[int] = []
    at = 0
    while at < len(text):
        ends = [(text.index(tag, at), tag) for tag in tags if tag in text[at:]]
        start, tag = min(ends, default=(len(text), ""))
        special = vocabulary.special.get(tag)
        end = start if special is not None else start + len(tag)
        spelled = vocabulary.spell(text[at:end].encode("utf-8", "surrogateescape"))
        assert spelled is not None
        ids += [*spelled, *([special] if special is not None else [])]
        at = start + len(tag)
    return ids
