"""Puts one fault into a legal trace, and says which codes a checker may report first for it.

The tree of the trace (`nprdsl.testing.reference`) says where a fault can be put; for every kind of
mutation a function lists the edits. The same slow reader then says that the outcome is really
outside the language, and which codes fit; the checker under test is not asked.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from operator import itemgetter
from typing import Final

from hypothesis import reject
from hypothesis import strategies as st

from nprdsl.grammar import ir
from nprdsl.grammar.first_follow import FirstFollow, by_tag
from nprdsl.grammar.ir import nodes
from nprdsl.grammar.walk import all_nodes, bodies
from nprdsl.prompting.instructions import example_value
from nprdsl.structure.violations import ViolationCode as Code
from nprdsl.testing.reference import (
    WHITE_SPACE,
    Reading,
    Refusal,
    Tree,
    Unread,
    bound_fields,
    derive,
    is_field,
    items_of,
    label_field,
    tag_pattern,
    value_of,
)
from nprdsl.testing.traces import HasGrammar, traces

__all__ = ["Mutation", "MutationKind", "all_mutations", "mutated", "mutations"]

_TRIED_LABELS: Final = 40
STRAY = "stray words"
MISPLACED = frozenset(set(Code) - {Code.LABEL_MISMATCH, Code.DUPLICATE_LABEL, Code.TOO_DEEP})


class MutationKind(StrEnum):
    DELETE_TAG = "delete-tag"
    DUPLICATE_TAG = "duplicate-tag"
    SWAP_TAGS = "swap-tags"
    DELETE_BRANCH = "delete-branch"
    ADD_BRANCH = "add-branch"
    DELETE_ITEM = "delete-item"
    RELABEL_BRANCH = "relabel-branch"
    DUPLICATE_LABEL = "duplicate-label"
    STRAY_TEXT = "stray-text"
    BLANK_TEXT = "blank-text"
    DROP_ELEMENT = "drop-element"
    TRUNCATE = "truncate"
    ONE_TOO_MANY = "one-too-many"
    BREAK_VALUE = "break-value"
    TOO_DEEP = "too-deep"


COUNTED = frozenset({MutationKind.DELETE_ITEM, MutationKind.DELETE_BRANCH})


@dataclass(frozen=True, slots=True)
class Mutation:
    """A text with one fault. `expected` holds the codes of which the first violation must have one;
    `offset`, in characters, is the furthest place up to which the text could still become legal."""

    text: str
    kind: MutationKind
    expected: frozenset[Code]
    offset: int


@dataclass(frozen=True, slots=True)
class TextEdit:
    """Replace `text[start:end]`."""

    start: int
    end: int
    text: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """Edits that should leave the language. `codes` is None where they follow from the place at
    which the reference stops reading (`fitting_codes`)."""

    edits: tuple[TextEdit, ...]
    codes: frozenset[Code] | None = None


@dataclass(frozen=True, slots=True)
class LegalTrace:
    """A legal trace that is to be given a fault."""

    grammar: ir.Grammar
    text: str
    tree: Tree
    max_depth: int | None = None

    def tags(self) -> list[Tree]:
        return [leaf for leaf in self.tree.leaves() if isinstance(leaf.node, ir.Tag)]

    def fields(self, *kinds: ir.TerminalKind) -> list[Tree]:
        return [leaf for leaf in self.tree.leaves() if is_field(leaf.node, *kinds)]

    def refs(self) -> list[Tree]:
        return [tree for tree in self.tree.walk() if isinstance(tree.node, ir.Ref)]

    def repeats(self) -> list[Tree]:
        return [tree for tree in self.tree.walk() if isinstance(tree.node, ir.Repeat)]

    def spelled(self, tree: Tree) -> str:
        return self.text[tree.start : tree.end]

    def forks(self) -> Iterator[tuple[ir.Block, list[Tree], list[Tree]]]:
        """Every fork with its block, the items listed for it and its branches."""
        for tree in self.tree.walk():
            if not isinstance(tree.node, ir.Seq):
                continue
            items: dict[int, list[Tree]] = {}  # by the index of the block
            for child in tree.children:
                if isinstance(child.node, ir.MapNode):
                    items[child.node.block.index] = items_of(child.node.block, child)
                elif isinstance(child.node, ir.ForkNode):
                    block = child.node.block
                    yield block, items.get(block.index, []), list(child.children)


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
    legal = _legal(schema, text, max_depth)
    chosen = tuple(kinds)

    @st.composite
    def draw_one(draw: st.DrawFn) -> Mutation:
        left = list(chosen)
        while left:
            kind = left.pop(draw(st.integers(0, len(left) - 1)))
            candidates = list(MAKERS[kind](legal))
            if not candidates:
                continue
            first = draw(st.integers(0, len(candidates) - 1))
            for candidate in candidates[first:] + candidates[:first]:
                mutation = _made(legal, kind, candidate)
                if mutation is not None:
                    return mutation
        reject()

    return draw_one()


def all_mutations(
    schema: HasGrammar, text: str, *, max_depth: int | None = None
) -> Iterator[Mutation]:
    """Every mutation of the legal `text` that this module knows, in a fixed order."""
    legal = _legal(schema, text, max_depth)
    for kind in MutationKind:
        for candidate in MAKERS[kind](legal):
            mutation = _made(legal, kind, candidate)
            if mutation is not None:
                yield mutation


def _legal(schema: HasGrammar, text: str, max_depth: int | None) -> LegalTrace:
    tree = derive(schema.grammar, text)
    if tree is None:
        raise ValueError("only a legal trace can be given one fault; this text is not legal")
    return LegalTrace(schema.grammar, text, tree, max_depth)


def _made(legal: LegalTrace, kind: MutationKind, candidate: Candidate) -> Mutation | None:
    """The mutation, or None when the edited text is legal all the same."""
    text = apply(legal.text, candidate.edits)
    refusal = Reading(legal.grammar, text, legal.max_depth).refusal
    if refusal is None:
        return None
    codes = candidate.codes
    explained = refusal.miscounted or refusal.mislabelled
    if codes is None or (kind in COUNTED and not explained):
        codes = fitting_codes(legal.grammar, refusal)
    if content_decides(legal.grammar) or _spells_anew(legal, candidate.edits, text):
        codes |= fitting_codes(legal.grammar, refusal) | MISPLACED
    found = tag_pattern(legal.grammar.tags).finditer(text)
    at_tag = any(tag.start() == refusal.offset for tag in found)
    if at_tag and candidate.codes is None:  # glue may begin as a tag does
        codes |= {Code.TAG_OUT_OF_PLACE}
    return Mutation(text, kind, codes, refusal.offset)


def _spells_anew(legal: LegalTrace, edits: Iterable[TextEdit], text: str) -> bool:
    """Whether what the edits put in, or brought together, spells tags with its neighbours."""
    pattern, kept = tag_pattern(legal.grammar.tags), legal.tags()
    expected: list[tuple[int, str]] = []
    for edit in edits:
        kept = [tag for tag in kept if tag.end <= edit.start or tag.start >= edit.end]
        expected += ((edit.start, tag) for tag in pattern.findall(edit.text))
    expected += ((tag.start, legal.spelled(tag)) for tag in kept)
    return [tag for _, tag in sorted(expected, key=itemgetter(0))] != pattern.findall(text)


@lru_cache(maxsize=64)
def content_decides(grammar: ir.Grammar) -> bool:
    """Whether literals or values, not tags alone, tell what is read, so that a fault can be named
    in several ways: an element begins with them, or as what follows it, or they may be missing."""
    sets = FirstFollow(bodies(grammar.rules), grammar.start, by_tag)
    for node in all_nodes(grammar.rules):
        if isinstance(node, ir.Repeat | ir.ForkNode):
            first = sets.first(node.node if isinstance(node, ir.Repeat) else node.branch)
            alike = first.any & sets.after(node).any
            if alike or (first.full and not first.passes):
                return True
        optional = isinstance(node, ir.Repeat | ir.Alt) and sets.first(node).passes_full
        if optional and any(map(_is_form, nodes(node))):
            return True
    return False


def _is_form(node: ir.Node) -> bool:
    values = (ir.TerminalKind.REGULAR, ir.TerminalKind.TYPED)
    return isinstance(node, ir.Literal) or is_field(node, *values)


def apply(text: str, edits: Iterable[TextEdit]) -> str:
    """`text` with all edits made; their offsets are those of the original."""
    for edit in sorted(edits, key=lambda e: e.start, reverse=True):
        text = text[: edit.start] + edit.text + text[edit.end :]
    return text


# -- codes -----------------------------------------------------------------------------------------


def fitting_codes(grammar: ir.Grammar, refusal: Refusal) -> frozenset[Code]:
    """The codes that fit a fault of structure, from what stands where reading stopped."""
    wanted = refusal.wanted
    tags = {node.text for node in wanted if isinstance(node, ir.Tag)}
    fields = [node for node in wanted if not isinstance(node, ir.Tag)]
    text_wanted = any(is_field(node, ir.TerminalKind.TEXT) for node in fields)
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
    if refusal.unread is not Unread.TEXT:
        codes |= {Code.MISSING_ELEMENT, Code.UNCLOSED}
    if refusal.unread is Unread.TAG:
        codes.add(Code.TAG_OUT_OF_PLACE)
    if refusal.blank and not fields:
        codes.add(Code.STRAY_TEXT)
    if refusal.unread is Unread.TEXT and (tags or not wanted):  # and the tag behind it may be wrong
        codes |= {Code.STRAY_TEXT, Code.TAG_OUT_OF_PLACE}
    return frozenset(codes)


def looks_closing(tag: str) -> bool:
    return tag[1:2] == "/"


def closing_tags(grammar: ir.Grammar) -> frozenset[str]:
    """Tags that stand behind another tag of the same sequence, or look like `</x>`."""
    closing = set(filter(looks_closing, grammar.tags))
    for node in all_nodes(grammar.rules):
        if isinstance(node, ir.Seq):
            own = [item.text for item in node.items if isinstance(item, ir.Tag)]
            closing |= set(own[1:])
    return frozenset(closing)


# -- edits -----------------------------------------------------------------------------------------


def _instead(tree: Tree, text: str, *codes: Code) -> Candidate:
    """`text` instead of what the tree covers."""
    return Candidate((TextEdit(tree.start, tree.end, text),), frozenset(codes) or None)


def _inserted(offset: int, text: str, *codes: Code) -> Candidate:
    return Candidate((TextEdit(offset, offset, text),), frozenset(codes) or None)


def _delete_tags(legal: LegalTrace) -> Iterator[Candidate]:
    for tag in legal.tags():
        yield _instead(tag, "")


def _duplicate_tags(legal: LegalTrace) -> Iterator[Candidate]:
    for tag in legal.tags():
        yield _inserted(tag.end, legal.spelled(tag))


def _swap_tags(legal: LegalTrace) -> Iterator[Candidate]:
    for left, right in itertools.pairwise(legal.tags()):
        first, second = legal.spelled(left), legal.spelled(right)
        if first != second:
            yield Candidate(_instead(left, second).edits + _instead(right, first).edits)


def _delete_branches(legal: LegalTrace) -> Iterator[Candidate]:
    for block, _, branches in legal.forks():
        for branch in branches:
            codes = {Code.COUNT_MISMATCH}
            if block.item is None:
                codes.add(Code.MISSING_ELEMENT)
            if branch is not branches[-1] and block.bound:
                codes.add(Code.LABEL_MISMATCH)
            yield _instead(branch, "", *codes)


def _add_branches(legal: LegalTrace) -> Iterator[Candidate]:
    for block, _, branches in legal.forks():
        if not branches:
            continue
        last = branches[-1]
        copies = 1
        codes = {Code.COUNT_MISMATCH}
        if block.item is None:
            if block.high is None or block.high > 2 * len(branches) + 6:
                continue
            copies = block.high + 1 - len(branches)
            codes.add(Code.TOO_MANY)
        used = {legal.spelled(label) for b in branches if (label := label_field(block, b))}
        copied = _copies(legal, last, label_field(block, last), copies, used)
        if copied is not None:
            yield _inserted(last.end, copied, *codes)


def _copies(
    legal: LegalTrace, whole: Tree, label: Tree | None, count: int, used: set[str]
) -> str | None:
    """Copies of a stretch of the trace, with labels that are not used; None where none are left."""
    if label is None:
        return legal.spelled(whole) * count
    copies = ""
    for _ in range(count):
        fresh = _fresh(legal, label, used)
        if fresh is None:
            return None
        used = used | {fresh}
        copies += legal.text[whole.start : label.start] + fresh
        copies += legal.text[label.end : whole.end]
    return copies


def _fresh(legal: LegalTrace, label: Tree, used: set[str]) -> str | None:
    """Another value of a label's terminal that spells no tag with what stands around it, if one is
    soon found."""
    assert isinstance(label.node, ir.Field)
    tags, taken = tag_pattern(legal.grammar.tags), set(used)
    before, behind = legal.text[: label.start], legal.text[label.end :]
    for _ in range(_TRIED_LABELS):
        value = example_value(label.node.terminal, legal.grammar.tags, taken)
        if value in taken:
            return None
        if tags.findall(before + value + behind) == tags.findall(legal.text):
            return value
        taken.add(value)
    return None


def _delete_items(legal: LegalTrace) -> Iterator[Candidate]:
    for block, items, _ in legal.forks():
        if len(items) < 2:
            continue
        for item in items:
            codes = {Code.COUNT_MISMATCH}
            if item is not items[-1] and block.bound:
                codes.add(Code.LABEL_MISMATCH)
            yield _instead(_turn_of(legal, item), "", *codes)


def _turn_of(legal: LegalTrace, item: Tree) -> Tree:
    """The innermost turn of a repetition that holds the item: its glue goes with it."""
    around = (
        turn
        for repeat in legal.repeats()
        for turn in repeat.children
        if any(inner is item for inner in turn.walk())
    )
    return min(around, key=lambda turn: turn.end - turn.start, default=item)


def _relabel_branches(legal: LegalTrace) -> Iterator[Candidate]:
    for block, items, branches in legal.forks():
        for branch in branches:
            for field in bound_fields(block, branch):
                if is_field(field.node, ir.TerminalKind.TEXT):
                    fresh: str | None = "other " + value_of(legal.text, field)
                else:
                    used = {legal.spelled(f) for e in items for f in bound_fields(block, e)}
                    fresh = _fresh(legal, field, used)
                if fresh is not None:
                    yield _instead(field, fresh, Code.LABEL_MISMATCH)


def _duplicate_labels(legal: LegalTrace) -> Iterator[Candidate]:
    for block, items, branches in legal.forks():
        for index in range(1, len(items)):
            for earlier in range(index):
                label = label_field(block, items[earlier])
                if label is None:
                    continue
                value = legal.spelled(label)
                others = (label_field(block, e[index]) for e in (items, branches))
                edits = tuple(TextEdit(o.start, o.end, value) for o in others if o is not None)
                yield Candidate(edits, frozenset({Code.DUPLICATE_LABEL}))


def _stray_texts(legal: LegalTrace) -> Iterator[Candidate]:
    """Words before the first tag, behind a tag and before a tag where only glue stands between
    tags.
    """
    content: list[Tree] = []  # what stands behind the last tag
    offsets: dict[int, None] = {}
    for leaf in (*legal.tree.leaves(), None):
        if leaf is not None and not isinstance(leaf.node, ir.Tag):
            content.append(leaf)
            continue
        if all(is_field(inner.node, ir.TerminalKind.GLUE) for inner in content):
            end = len(legal.text) if leaf is None else leaf.start
            offsets |= dict.fromkeys([*(inner.start for inner in content), end])
        content = []
    for offset in offsets:
        yield _inserted(offset, STRAY, Code.STRAY_TEXT)


def _blank_texts(legal: LegalTrace) -> Iterator[Candidate]:
    repeated = _repeated_fields(legal)
    # blanks may be a tag of their own, or part of one
    begun = any(tag[0] in WHITE_SPACE or tag[-1] in WHITE_SPACE for tag in legal.grammar.tags)
    for field in legal.fields(ir.TerminalKind.TEXT):
        codes = {Code.EMPTY_TEXT}
        if id(field) in repeated:
            codes.add(Code.LABEL_MISMATCH)
        for blank in ("", " \n")[: 1 if begun else 2]:
            yield _instead(field, blank, *codes)


def _repeated_fields(legal: LegalTrace) -> set[int]:
    """The fields of branches that must repeat their item's value, by identity."""
    return {
        id(field)
        for block, _, branches in legal.forks()
        for branch in branches
        for field in bound_fields(block, branch)
    }


def _break_values(legal: LegalTrace) -> Iterator[Candidate]:
    repeated = _repeated_fields(legal)
    for field in legal.fields(ir.TerminalKind.REGULAR, ir.TerminalKind.TYPED):
        codes = {Code.BAD_VALUE}
        if id(field) in repeated:
            codes.add(Code.LABEL_MISMATCH)
        value = legal.spelled(field)
        for broken in (f"§{value}", value[:-1] + "§"):
            yield _instead(field, broken, *codes)
        yield _instead(field, "", *codes, Code.EMPTY_TEXT)


def _drop_elements(legal: LegalTrace) -> Iterator[Candidate]:
    """Whole elements, from their first tag to their last, that are neither items nor branches."""
    spared = {id(tree) for _, items, branches in legal.forks() for tree in (*items, *branches)}
    for tree in legal.refs():
        leaves = [leaf for leaf in tree.leaves() if leaf.end > leaf.start]
        while leaves and is_field(leaves[0].node, ir.TerminalKind.GLUE):
            leaves.pop(0)
        whole = tree.start == 0 and tree.end == len(legal.text)
        if len(leaves) < 2 or id(tree) in spared or whole:
            continue
        if isinstance(leaves[0].node, ir.Tag) and isinstance(leaves[-1].node, ir.Tag):
            yield _instead(tree, "")


def _truncations(legal: LegalTrace) -> Iterator[Candidate]:
    """Cut right behind a tag, or in the middle of a free text."""
    for leaf in legal.tree.leaves():
        if isinstance(leaf.node, ir.Tag):
            yield Candidate((TextEdit(leaf.end, len(legal.text), ""),))
        elif is_field(leaf.node, ir.TerminalKind.TEXT):
            half = leaf.start + (leaf.end - leaf.start + 1) // 2
            if legal.text[leaf.start : half].strip(WHITE_SPACE):
                yield Candidate((TextEdit(half, len(legal.text), ""),))


def _one_too_many(legal: LegalTrace) -> Iterator[Candidate]:
    blocks = {block.item: block for block in legal.grammar.blocks if block.item is not None}
    for tree in legal.repeats():
        assert isinstance(tree.node, ir.Repeat)
        high, turns = tree.node.high, tree.children
        if high is None or high > 20 or not turns:
            continue
        copies = high + 1 - len(turns)
        element, label, used = _element_of(turns[-1], blocks), None, set[str]()
        if element is not None:
            assert isinstance(element.node, ir.Ref)
            block = blocks[element.node.rule]
            label = label_field(block, element)
            items = [item for turn in turns if (item := _element_of(turn, blocks))]
            used = {legal.spelled(other) for e in items if (other := label_field(block, e))}
        copied = _copies(legal, turns[-1], label, copies, used)
        if copied is not None:
            inside = _is_inside_itself(legal.grammar, tree.node)  # the copy may be a turn in there
            codes = () if inside else (Code.TOO_MANY,)
            yield _inserted(turns[-1].end, copied, *codes)


def _is_inside_itself(grammar: ir.Grammar, repeat: ir.Repeat) -> bool:
    seen, pending = set[str](), [repeat.node]
    while pending:
        for node in nodes(pending.pop()):
            if node is repeat:
                return True
            if isinstance(node, ir.Ref) and node.rule not in seen:
                seen.add(node.rule)
                pending.append(grammar.rules[node.rule].node)
    return False


def _element_of(turn: Tree, blocks: dict[str, ir.Block]) -> Tree | None:
    """The item that one turn of a list holds, if it holds one; lists inside it do not count."""
    if isinstance(turn.node, ir.Ref) and turn.node.rule in blocks:
        return turn
    if isinstance(turn.node, ir.MapNode):
        return None
    items = (_element_of(child, blocks) for child in turn.children)
    return next((item for item in items if item is not None), None)


def _too_deep(legal: LegalTrace) -> Iterator[Candidate]:
    """A legal trace that is deeper than the limit; nothing is edited."""
    if legal.max_depth is not None:
        yield Candidate((), frozenset({Code.TOO_DEEP}))


MAKERS: dict[MutationKind, Callable[[LegalTrace], Iterator[Candidate]]] = {
    MutationKind.DELETE_TAG: _delete_tags,
    MutationKind.DUPLICATE_TAG: _duplicate_tags,
    MutationKind.SWAP_TAGS: _swap_tags,
    MutationKind.DELETE_BRANCH: _delete_branches,
    MutationKind.ADD_BRANCH: _add_branches,
    MutationKind.DELETE_ITEM: _delete_items,
    MutationKind.RELABEL_BRANCH: _relabel_branches,
    MutationKind.DUPLICATE_LABEL: _duplicate_labels,
    MutationKind.STRAY_TEXT: _stray_texts,
    MutationKind.BLANK_TEXT: _blank_texts,
    MutationKind.DROP_ELEMENT: _drop_elements,
    MutationKind.TRUNCATE: _truncations,
    MutationKind.ONE_TOO_MANY: _one_too_many,
    MutationKind.BREAK_VALUE: _break_values,
    MutationKind.TOO_DEEP: _too_deep,
}
