"""Tags that are too long, and fields of too many parts: what would make automata too large.

A field is what stands between two tags, and an automaton holds all of its parts, repetitions
counted out. So `"1"~1000000000` is refused, while `("<a>" TEXT "</a>")~1000000000`, which is a
number in a state, is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

from nprdsl.grammar import load_limits
from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode
from nprdsl.grammar.ir import Alt, Field, Literal, Node, Ref, Repeat, Rule, Seq, Tag, children
from nprdsl.grammar.load_limits import too_large
from nprdsl.grammar.walk import Rules, Uses, all_nodes

_TAGGED = load_limits.FIELD_PARTS + 2  # in place of a number: a tag may stand inside


def too_large_parts(rules: Rules, uses: Uses) -> Iterator[Diagnostic]:
    """Every tag and every field of `rules` that passes a limit."""
    for node in all_nodes(rules):
        if isinstance(node, Tag) and len(node.text) > load_limits.TAG_LENGTH:
            what = f"this tag has {len(node.text):,} characters"
            way = "choose a shorter tag; what may differ in it is a field"
            yield too_large(node.span, what, load_limits.TAG_LENGTH, way)
    counts = uses.at_rest(0, lambda name, found: _parts(rules[name].node, found), "parts")
    for name, rule in rules.items():
        large = uses.once("too many parts", name, name, partial(_too_many, rule, counts))
        if large is not None:
            message = f"more than {load_limits.FIELD_PARTS:,} parts stand here without a tag"
            way = "lower the count, put tags between the parts, or write them as one terminal"
            yield Diagnostic(DiagnosticCode.TOO_LARGE, large.span, message, way)
            return


def _too_many(rule: Rule, counts: Mapping[str, int]) -> Node | None:
    """The first node of a rule that is written with too many parts; only some nodes add up."""
    adding = (node for node in rule.nodes if isinstance(node, (Seq, Repeat)))
    return next((n for n in adding if _parts(n, counts) == load_limits.FIELD_PARTS + 1), None)


def too_large_tags(rules: Rules) -> Diagnostic | None:
    """The fault of tags that are too long all together: their scanner has a state for each of their
    different beginnings, and a state knows all first letters."""
    tags = {node.text.encode(): node for node in all_nodes(rules) if isinstance(node, Tag)}
    before, count = b"", 0
    for text in sorted(tags):
        ends = zip(before, text, strict=False)
        alike = next((n for n, (one, other) in enumerate(ends) if one != other), len(before))
        count += len(text) - alike
        before = text
    firsts = len({text[0] for text in tags})
    most = load_limits.TAG_BEGINNINGS * 32 // (31 + firsts)
    if count <= most:
        return None
    longest = tags[max(tags, key=len)]
    what = f"the {len(tags):,} tags have {count:,} different beginnings"
    return too_large(longest.span, what, most, "choose shorter tags, or fewer")


def _parts(node: Node, counts: Mapping[str, int]) -> int:
    """The most literals and terminals that `node` is written with, one more than allowed where
    there are too many; `_TAGGED` where tags may stand in it."""
    match node:
        case Tag():
            return _TAGGED
        case Literal() | Field():
            return 1
        case Ref():
            return counts.get(node.rule, 0)
    inner = [_parts(part, counts) for part in children(node)]
    if _TAGGED in inner:
        return _TAGGED
    count = max(inner, default=0) if isinstance(node, Alt) else sum(inner)
    if isinstance(node, Repeat):
        count *= max(node.low, node.high or 1)
    return min(count, load_limits.FIELD_PARTS + 1)
