"""Where one fault can be put into a legal trace: edits for every kind of mutation."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from nprdsl.grammar import ir
from nprdsl.structure.violations import ViolationCode as Code
from nprdsl.testing.places import Candidate, Edit, MutationKind, Work, is_field
from nprdsl.testing.reference import (
    WHITE_SPACE,
    Tree,
    bound_fields,
    label_field,
    value_of,
    value_pattern,
)

STRAY = "stray words"
NUMBERS = tuple(str(n) for n in range(1, 40))


def _codes(*codes: Code) -> frozenset[Code]:
    return frozenset(codes)


def _delete_tags(work: Work) -> Iterator[Candidate]:
    for tag in work.tags():
        yield Candidate((Edit(tag.start, tag.end, ""),))


def _duplicate_tags(work: Work) -> Iterator[Candidate]:
    for tag in work.tags():
        yield Candidate((Edit(tag.end, tag.end, work.spelled(tag)),))


def _swap_tags(work: Work) -> Iterator[Candidate]:
    tags = work.tags()
    for left, right in itertools.pairwise(tags):
        if work.spelled(left) != work.spelled(right):
            yield Candidate(
                (
                    Edit(left.start, left.end, work.spelled(right)),
                    Edit(right.start, right.end, work.spelled(left)),
                )
            )


def _delete_branches(work: Work) -> Iterator[Candidate]:
    for block, _, branches in work.forks():
        for branch in branches:
            codes = {Code.COUNT_MISMATCH}
            if block.item is None:
                codes.add(Code.MISSING_ELEMENT)
            if branch is not branches[-1] and block.bound:
                codes.add(Code.LABEL_MISMATCH)
            yield Candidate((Edit(branch.start, branch.end, ""),), frozenset(codes))


def _add_branches(work: Work) -> Iterator[Candidate]:
    for block, _, branches in work.forks():
        if not branches:
            continue
        last = branches[-1]
        copies = 1
        codes = _codes(Code.COUNT_MISMATCH)
        if block.item is None:
            if block.high is None or block.high > 2 * len(branches) + 6:
                continue
            copies = block.high + 1 - len(branches)
            codes = _codes(Code.TOO_MANY, Code.COUNT_MISMATCH)
        used = {work.spelled(label) for b in branches if (label := label_field(block, b))}
        copied = _relabelled_copies(work, block, last, copies, used)
        if copied is not None:
            yield Candidate((Edit(last.end, last.end, copied),), codes)


def _relabelled_copies(
    work: Work, block: ir.Block, element: Tree, copies: int, used: set[str]
) -> str | None:
    """Copies of an item or branch, each with a label that is not used yet."""
    label = label_field(block, element)
    written = ""
    for _ in range(copies):
        if label is None:
            written += work.spelled(element)
            continue
        fresh = _fresh(label, used)
        if fresh is None:
            return None
        used = used | {fresh}
        written += work.text[element.start : label.start] + fresh
        written += work.text[label.end : element.end]
    return written


def _fresh(label: Tree, used: set[str]) -> str | None:
    """Another value of a label's terminal, if a simple one can be found."""
    assert isinstance(label.node, ir.Field)
    pattern = value_pattern(label.node.terminal)
    letters = tuple("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
    longer = tuple(value + end for value in sorted(used) for end in ("1", "a", "x", ".1"))
    for value in (*NUMBERS, *letters, *longer):
        if value not in used and pattern.fullmatch(value):
            return value
    return None


def _delete_items(work: Work) -> Iterator[Candidate]:
    for block, items, _ in work.forks():
        if len(items) < 2:
            continue
        for item in items:
            codes = {Code.COUNT_MISMATCH}
            if item is not items[-1] and block.bound:
                codes.add(Code.LABEL_MISMATCH)
            whole = _turn_of(work, item)
            yield Candidate((Edit(whole.start, whole.end, ""),), frozenset(codes))


def _turn_of(work: Work, item: Tree) -> Tree:
    """The innermost turn of a repetition that holds the item: its glue goes with it."""
    around = (
        turn
        for repeat in work.repeats()
        for turn in repeat.children
        if any(inner is item for inner in turn.walk())
    )
    return min(around, key=lambda turn: turn.end - turn.start, default=item)


def _relabel_branches(work: Work) -> Iterator[Candidate]:
    for block, items, branches in work.forks():
        for branch in branches:
            for field in bound_fields(block, branch):
                if is_field(field, ir.TerminalKind.TEXT):
                    fresh: str | None = "other " + value_of(work.text, field)
                else:
                    used = {work.spelled(f) for e in items for f in bound_fields(block, e)}
                    fresh = _fresh(field, used)
                if fresh is not None:
                    edit = Edit(field.start, field.end, fresh)
                    yield Candidate((edit,), _codes(Code.LABEL_MISMATCH))


def _duplicate_labels(work: Work) -> Iterator[Candidate]:
    for block, items, branches in work.forks():
        for index in range(1, len(items)):
            for earlier in range(index):
                label = label_field(block, items[earlier])
                if label is None:
                    continue
                value = work.spelled(label)
                places = (label_field(block, e[index]) for e in (items, branches))
                edits = tuple(Edit(p.start, p.end, value) for p in places if p is not None)
                yield Candidate(edits, _codes(Code.DUPLICATE_LABEL))


def _stray_texts(work: Work) -> Iterator[Candidate]:
    """Words before the first tag, behind a tag and before a tag where only glue stands between
    tags.
    """
    field: list[Tree] = []
    places: list[int] = []
    for leaf in work.tree.leaves():
        if not isinstance(leaf.node, ir.Tag):
            field.append(leaf)
            continue
        if all(is_field(inner, ir.TerminalKind.GLUE) for inner in field):
            places += [inner.start for inner in field] + [leaf.start]
        field = []
    if all(is_field(inner, ir.TerminalKind.GLUE) for inner in field):
        places += [inner.start for inner in field] + [len(work.text)]
    for place in dict.fromkeys(places):
        yield Candidate((Edit(place, place, STRAY),), _codes(Code.STRAY_TEXT))


def _blank_texts(work: Work) -> Iterator[Candidate]:
    repeated = _repeated_fields(work)
    for field in work.fields(ir.TerminalKind.TEXT):
        codes = {Code.EMPTY_TEXT}
        if id(field) in repeated:
            codes.add(Code.LABEL_MISMATCH)
        for blank in ("", " \n"):
            yield Candidate((Edit(field.start, field.end, blank),), frozenset(codes))


def _repeated_fields(work: Work) -> set[int]:
    """The fields of branches that must repeat their item's value, by identity."""
    return {
        id(field)
        for block, _, branches in work.forks()
        for branch in branches
        for field in bound_fields(block, branch)
    }


def _break_values(work: Work) -> Iterator[Candidate]:
    repeated = _repeated_fields(work)
    for field in work.fields(ir.TerminalKind.REGULAR, ir.TerminalKind.TYPED):
        codes = {Code.BAD_VALUE}
        if id(field) in repeated:
            codes.add(Code.LABEL_MISMATCH)
        value = work.spelled(field)
        for broken in (f"§{value}", value[:-1] + "§"):
            yield Candidate((Edit(field.start, field.end, broken),), frozenset(codes))
        edit = Edit(field.start, field.end, "")
        yield Candidate((edit,), frozenset(codes | {Code.EMPTY_TEXT}))


def _drop_elements(work: Work) -> Iterator[Candidate]:
    """Whole elements, from their first tag to their last, that are neither items nor branches."""
    spared = {id(tree) for _, items, branches in work.forks() for tree in (*items, *branches)}
    for tree in work.refs():
        leaves = [leaf for leaf in tree.leaves() if leaf.end > leaf.start]
        while leaves and is_field(leaves[0], ir.TerminalKind.GLUE):
            leaves.pop(0)
        if (
            len(leaves) < 2
            or id(tree) in spared
            or (tree.start == 0 and tree.end == len(work.text))
        ):
            continue
        if isinstance(leaves[0].node, ir.Tag) and isinstance(leaves[-1].node, ir.Tag):
            yield Candidate((Edit(tree.start, tree.end, ""),))


def _truncations(work: Work) -> Iterator[Candidate]:
    """Cut right behind a tag, or in the middle of a free text."""
    for leaf in work.tree.leaves():
        if isinstance(leaf.node, ir.Tag):
            yield Candidate((Edit(leaf.end, len(work.text), ""),))
        elif is_field(leaf, ir.TerminalKind.TEXT):
            half = leaf.start + (leaf.end - leaf.start + 1) // 2
            if work.text[leaf.start : half].strip(WHITE_SPACE):
                cut = Edit(half, len(work.text), "")
                yield Candidate((cut,))


def _one_too_many(work: Work) -> Iterator[Candidate]:
    blocks = {block.item: block for block in work.grammar.blocks if block.item is not None}
    for tree in work.repeats():
        assert isinstance(tree.node, ir.Repeat)
        high, turns = tree.node.high, tree.children
        if high is None or high > 20 or not turns:
            continue
        copies = high + 1 - len(turns)
        element = _element_of(turns[-1], blocks)
        if element is None:
            copied: str | None = work.spelled(turns[-1]) * copies
        else:
            copied = _copies_of_turn(work, turns, copies, element, blocks)
        if copied is not None:
            edit = Edit(turns[-1].end, turns[-1].end, copied)
            yield Candidate((edit,), _codes(Code.TOO_MANY))


def _element_of(turn: Tree, blocks: dict[str, ir.Block]) -> Tree | None:
    """The item that one turn of a list holds, if it holds one; lists inside it do not count."""
    if isinstance(turn.node, ir.Ref) and turn.node.rule in blocks:
        return turn
    if isinstance(turn.node, ir.MapNode):
        return None
    found = (_element_of(child, blocks) for child in turn.children)
    return next((item for item in found if item is not None), None)


def _copies_of_turn(
    work: Work,
    turns: tuple[Tree, ...],
    copies: int,
    element: Tree,
    blocks: dict[str, ir.Block],
) -> str | None:
    assert isinstance(element.node, ir.Ref)
    block = blocks[element.node.rule]
    listed = [item for turn in turns if (item := _element_of(turn, blocks))]
    used = {work.spelled(label) for item in listed if (label := label_field(block, item))}
    written = ""
    for _ in range(copies):
        fresh = _relabelled_copies(work, block, element, 1, used)
        if fresh is None:
            return None
        before, behind = turns[-1].start, turns[-1].end
        written += work.text[before : element.start] + fresh + work.text[element.end : behind]
        label = label_field(block, element)
        if label is not None:
            start = label.start - element.start
            used = used | {fresh[start : len(fresh) - (element.end - label.end)]}
    return written


def _too_deep(work: Work) -> Iterator[Candidate]:
    """A legal trace that is deeper than the limit; nothing is edited."""
    if work.max_depth is not None:
        yield Candidate((), _codes(Code.TOO_DEEP))


MAKERS: dict[MutationKind, Callable[[Work], Iterator[Candidate]]] = {
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
