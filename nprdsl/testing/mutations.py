"""One fault put into a legal trace, with the codes that a checker may report first for it.

The places come from the tree of the trace (`nprdsl.testing.reference`), and the same slow reader
says that the outcome is really outside the language; the checker under test is not asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from hypothesis import reject
from hypothesis import strategies as st

from nprdsl.grammar import ir
from nprdsl.grammar.walk import all_nodes
from nprdsl.structure.violations import ViolationCode as Code
from nprdsl.testing.faults import MAKERS
from nprdsl.testing.places import Candidate, MutationKind, Work, apply
from nprdsl.testing.reference import Found, Reading, Refusal, derive
from nprdsl.testing.traces import HasGrammar, traces

__all__ = ["Mutation", "MutationKind", "all_mutations", "mutated", "mutations"]


@dataclass(frozen=True, slots=True)
class Mutation:
    """A text with one fault. `expected` holds the codes of which the first violation must have one;
    `offset`, in characters, is the furthest place up to which the text could still become legal."""

    text: str
    kind: MutationKind
    expected: frozenset[Code]
    offset: int


def mutated(
    schema: HasGrammar,
    *,
    kinds: Iterable[MutationKind] = tuple(MutationKind),
    trace: st.SearchStrategy[str] | None = None,
    max_depth: int | None = None,
) -> st.SearchStrategy[Mutation]:
    """A drawn legal trace with one drawn fault. `trace` replaces the default `traces(schema)`.

    `max_depth` is the limit that the checker is given, needed for `MutationKind.TOO_DEEP`.
    """
    texts = traces(schema, max_items=3, max_blocks=2) if trace is None else trace
    return texts.flatmap(lambda t: mutations(schema, t, kinds=kinds, max_depth=max_depth))


def mutations(
    schema: HasGrammar,
    text: str,
    *,
    kinds: Iterable[MutationKind] = tuple(MutationKind),
    max_depth: int | None = None,
) -> st.SearchStrategy[Mutation]:
    """One-fault mutations of the legal `text`; ValueError when it is not legal."""
    work = _work(schema, text, max_depth)
    chosen = tuple(kinds)

    @st.composite
    def draw_one(draw: st.DrawFn) -> Mutation:
        left = list(chosen)
        while left:
            kind = left.pop(draw(st.integers(0, len(left) - 1)))
            candidates = list(MAKERS[kind](work))
            if not candidates:
                continue
            first = draw(st.integers(0, len(candidates) - 1))
            for candidate in candidates[first:] + candidates[:first]:
                mutation = _made(work, kind, candidate)
                if mutation is not None:
                    return mutation
        reject()

    return draw_one()


def all_mutations(
    schema: HasGrammar, text: str, *, max_depth: int | None = None
) -> Iterator[Mutation]:
    """Every mutation of the legal `text` that this module knows, in a fixed order."""
    work = _work(schema, text, max_depth)
    for kind in MutationKind:
        for candidate in MAKERS[kind](work):
            mutation = _made(work, kind, candidate)
            if mutation is not None:
                yield mutation


def _work(schema: HasGrammar, text: str, max_depth: int | None) -> Work:
    tree = derive(schema.grammar, text)
    if tree is None:
        raise ValueError("only a legal trace can be given one fault; this text is not legal")
    return Work(schema.grammar, text, tree, max_depth)


def _made(work: Work, kind: MutationKind, candidate: Candidate) -> Mutation | None:
    """The mutation, or None when the edited text is legal all the same."""
    text = apply(work.text, candidate.edits)
    refusal = Reading(work.grammar, text, work.max_depth).refusal
    if refusal is None:
        return None
    codes = candidate.codes
    explained = refusal.miscounted or refusal.mislabelled
    if codes is None or (kind is MutationKind.DELETE_ITEM and not explained):
        codes = told_by(work.grammar, refusal)
    return Mutation(text, kind, codes, refusal.offset)


def told_by(grammar: ir.Grammar, refusal: Refusal) -> frozenset[Code]:
    """The codes that fit a fault of structure, from what stands where reading stopped."""
    wanted = refusal.wanted
    tags = {node.text for node in wanted if isinstance(node, ir.Tag)}
    fields = [node for node in wanted if not isinstance(node, ir.Tag)]
    text_wanted = any(_is_text(node) for node in fields)
    closers = closing_tags(grammar)
    codes: set[Code] = set()
    if refusal.mislabelled:
        codes |= {Code.LABEL_MISMATCH, Code.DUPLICATE_LABEL}
    if refusal.miscounted:
        codes.add(Code.COUNT_MISMATCH)
    if refusal.surplus:
        codes.add(Code.TOO_MANY)
    if text_wanted:
        codes.add(Code.EMPTY_TEXT)
    if fields:
        codes.add(Code.BAD_VALUE)
    if not wanted or tags & closers:
        codes.add(Code.UNCLOSED)
    if not wanted or not all(map(looks_closing, tags)):
        codes.add(Code.MISSING_ELEMENT)
    if refusal.found is not Found.TEXT:
        codes |= {Code.MISSING_ELEMENT, Code.UNCLOSED}
    if refusal.found is Found.TAG:
        codes.add(Code.TAG_OUT_OF_PLACE)
    if refusal.blank and not fields:
        codes.add(Code.STRAY_TEXT)
    if refusal.found is Found.TEXT and (tags or not wanted):  # and the tag behind it may be wrong
        codes |= {Code.STRAY_TEXT, Code.TAG_OUT_OF_PLACE}
    return frozenset(codes)


def _is_text(node: ir.Node) -> bool:
    return isinstance(node, ir.Field) and node.terminal.kind is ir.TerminalKind.TEXT


def looks_closing(tag: str) -> bool:
    return tag[1:2] == "/"


def closing_tags(grammar: ir.Grammar) -> frozenset[str]:
    """Tags that stand behind another tag of the same sequence, or look like `</x>`."""
    found = set(filter(looks_closing, grammar.tags))
    for node in all_nodes(grammar.rules):
        if isinstance(node, ir.Seq):
            own = [item.text for item in node.items if isinstance(item, ir.Tag)]
            found |= set(own[1:])
    return frozenset(found)
