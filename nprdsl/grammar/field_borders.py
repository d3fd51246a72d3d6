"""Checks of what meets inside a field: values, literals, free text, glue and the tag behind them.

Between two tags nothing but the characters shows where one part ends and the next begins, and a tag
is found wherever its text stands. So a schema is refused

- if a field has no text at all, because whatever may stand there spells another tag;
- if a value that a branch repeats may be written in the item, but would spell a tag in the branch;
- if a text of a field would be read with other values than it was written with (`[0-9]+ TEXT`): a
  reader gives each part as much as it can take, and takes any white space for glue;
- if a list asks for more items than its label has values that may be written in all of its fields.

All are decided exactly, by search. Glue beside free text is no fault, whichever of them the white
space falls to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np

from nprdsl.grammar.bindings import repeats
from nprdsl.grammar.diagnostics import Diagnostic, DiagnosticCode
from nprdsl.grammar.field_automata import FieldAutomaton, PartAutomaton, Place, field_automaton
from nprdsl.grammar.field_shapes import FieldShape, Leaf, field_shapes
from nprdsl.grammar.ir import Field, Grammar, Literal, TerminalKind
from nprdsl.grammar.item_counts import least_items
from nprdsl.grammar.label_values import label_values
from nprdsl.grammar.walk import Uses, bodies
from nprdsl.regular.dfa import Dfa
from nprdsl.regular.tag_free import tag_free
from nprdsl.regular.tag_scan import TagScan, tag_scan
from nprdsl.regular.words import words_of

_GLUE_AND_TEXT = {TerminalKind.GLUE, TerminalKind.TEXT}


def field_faults(grammar: Grammar, uses: Uses) -> Iterator[Diagnostic]:
    """The faults of the fields of a grammar that has no other faults, as they are found. `uses` are
    those of its rules."""
    scan, shapes = tag_scan(grammar.tags), field_shapes(grammar, uses)
    bound = [(written, repeated) for _, written, repeated in repeats(grammar.rules, uses)]
    fixed = frozenset(field for _, field in bound) - {item for item, _ in bound}
    found: set[tuple[object, object]] = set()
    sound: set[object] = set()  # what fields say that have no fault
    for shape in shapes:
        if (said := _said(shape, fixed)) in sound:
            continue
        faults = list(_shape_faults(shape, scan, fixed))
        if not faults:
            sound.add(said)
        for place, fault in faults:
            if place not in found:
                found.add(place)
                yield fault
    if not found:
        yield from _repeated_values(bound, shapes, scan)
        yield from _too_few_labels(grammar)


def _said(shape: FieldShape, fixed: frozenset[Field]) -> object:
    """What decides whether a field has faults: what each leaf says, whether a branch repeats it,
    and where it stood first; the tag behind them."""
    first: dict[Leaf, int] = {}
    leaves = (
        (
            leaf.text if isinstance(leaf, Literal) else leaf.terminal,
            leaf in fixed,
            first.setdefault(leaf, place),
        )
        for place, leaf in enumerate(shape.leaves)
    )
    return (*leaves, None if shape.tag is None else shape.tag.text)


def _shape_faults(
    shape: FieldShape, scan: TagScan, fixed: frozenset[Field]
) -> Iterator[tuple[tuple[object, object], Diagnostic]]:
    """The faults of one field, each with the leaves by which it is told once."""
    written = FieldAutomaton(shape, scan, fixed, loose=False)
    if not written.alive(written.begin):
        yield (shape.leaves[0], None), _no_text(written, shape)
    split = _split(shape, written, fixed)
    if split is not None:
        yield (split.part.leaf, split.other.leaf), _undecided(split)


# -- fields without any text ----------------------------------------------------------------------


def _no_text(field: FieldAutomaton, shape: FieldShape) -> Diagnostic:
    data = b"".join(part.dfa.completion() for part in field.parts) + field.tag.encode()
    first = next((tag for tag in _tags_in(field.scan, data) if tag != field.tag), field.tag)
    first = first.encode("unicode_escape").decode() if "\n" in first else first
    before = f"the tag `{field.tag}`" if field.tag else "the end"
    names = " ".join(part.name for part in field.parts)
    return Diagnostic(
        DiagnosticCode.SPELLS_TAG,
        shape.leaves[0].span,
        f"nothing can be written for {names} before {before}: it always spells the tag `{first}`",
        "rename that tag, or put a character between that breaks it: a tag is found wherever its "
        "text stands",
        () if shape.tag is None else ((shape.tag.span, "up to this tag"),),
    )


def _tags_in(scan: TagScan, data: bytes) -> Iterator[str]:
    for end in range(1, len(data) + 1):
        found = scan.last(data[:end])
        if found is not None:
            yield found[0]


# -- two ways to split one text -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Split:
    """Behind `text`, `part` may end or go on; if it ends, the next bytes are of `other`, or of
    `glue` before it."""

    part: PartAutomaton
    other: PartAutomaton
    text: str
    glue: bool


@dataclass(frozen=True, slots=True)
class _Pair:
    """Two readings of one text; `differ` once a value does."""

    one: Place
    other: Place
    differ: bool


def _split(shape: FieldShape, written: FieldAutomaton, fixed: frozenset[Field]) -> _Split | None:
    """A place where a text that is written is read with another value."""
    if len(shape.leaves) < 2:
        return None
    read = FieldAutomaton(shape, written.scan, fixed, loose=True)
    opens = {n: states for n in range(len(read.parts) - 1) if (states := _open(read, written, n))}
    if not opens:
        return None
    plain = FieldShape(shape.leaves, None)
    either = [FieldAutomaton(plain, tag_scan(()), fixed, loose=loose) for loose in (True, False)]
    if _read_otherwise(either[0], either[1], opens) is None:
        return None
    return _read_otherwise(read, written, opens)  # among texts that spell no tag


def _open(read: FieldAutomaton, written: FieldAutomaton, number: int) -> set[int]:
    """The states in which a reader gives a part one more byte, although what is written behind it
    may begin with that byte; none where no value differs, whichever part it falls to."""
    part = read.parts[number]
    if part.fixed:
        return set()
    glue = part.kind is TerminalKind.GLUE
    states = [part.dfa.start] if glue else part.open_ends().tolist()
    behind = np.zeros(256, np.bool_)
    for follower in written.parts[number + 1 :]:
        behind |= follower.dfa.table[follower.dfa.start] != 0
        if not follower.dfa.accepting[follower.dfa.start]:
            break
    open_states = {s for s in states if (behind & (part.dfa.table[s] != 0)).any()}
    if open_states and _GLUE_AND_TEXT.issuperset(kinds := [p.kind for p in read.parts[number:]]):
        return open_states if kinds.count(TerminalKind.TEXT) > 1 else set()
    return open_states


def _read_otherwise(
    read: FieldAutomaton, written: FieldAutomaton, opens: Mapping[int, Set[int]]
) -> _Split | None:
    """Where a part ends as it is written and a reader, who prefers longer parts, would go on."""
    for place in written.reached():
        number, state, node = place
        if number not in opens or not written.parts[number].dfa.accepting[state]:
            continue
        part = read.parts[number]
        further = part.dfa.start if part.kind is TerminalKind.GLUE else state
        if further in opens[number] and _differs_behind(
            read, (number, further, node), written, place
        ):
            text = _way_to(part.dfa, further).decode("utf-8", "replace")
            behind = [p for p in read.parts[number + 1 :] if p.kind is not TerminalKind.GLUE]
            other = behind[0] if behind else read.parts[number + 1]
            return _Split(part, other, text, glue=read.parts[number + 1].kind is TerminalKind.GLUE)
    return None


def _differs_behind(
    read: FieldAutomaton, further: Place, written: FieldAutomaton, place: Place
) -> bool:
    """Whether a text that is written with a part ending at `place` can be read with the part going
    on there, so that a value differs."""
    pairs = [_Pair(further, other, False) for other in written.ends(place)[1:]]
    seen = set(pairs)
    for pair in pairs:
        for after in _read_on(read, written, pair):
            if after.one == after.other and after.differ and read.alive(after.one):
                return True
            if after not in seen:
                seen.add(after)
                pairs.append(after)
    return False


def _read_on(read: FieldAutomaton, written: FieldAutomaton, pair: _Pair) -> Iterator[_Pair]:
    """Both readings behind one more byte, and behind parts that may end there."""
    (number, state, node), (other, twin, _) = pair.one, pair.other
    if number == len(read.parts) or other == len(read.parts):
        return
    differ = pair.differ or _differ(read.parts[number], read.parts[other])
    nodes = read.scan.table[node + 1]
    rows = (read.parts[number].dfa.table[state], written.parts[other].dfa.table[twin], nodes)
    alive = np.flatnonzero((rows[0] != 0) & (rows[1] != 0) & (nodes != 0))
    triples = {tuple(int(row[byte]) for row in rows) for byte in alive.tolist()}
    for led, led_twin, after in sorted(triples):
        for one in read.ends((number, led, after - 1)):
            for two in written.ends((other, led_twin, after - 1)):
                yield _Pair(one, two, differ)


def _differ(one: PartAutomaton, other: PartAutomaton) -> bool:
    """Whether a byte that belongs to either part makes a value differ."""
    if one.leaf is other.leaf or not (one.is_value or other.is_value):
        return False
    return {one.kind, other.kind} != _GLUE_AND_TEXT


def _way_to(dfa: Dfa, goal: int) -> bytes:
    """A shortest text that leads to a state."""
    texts = {dfa.start: b""}
    for state in (queue := [dfa.start]):
        if state == goal:
            break
        for after in np.unique(dfa.table[state]).tolist():
            if after and after not in texts:
                ways = np.flatnonzero(dfa.table[state] == after).tolist()
                byte = next((way for way in ways if chr(way).isalnum()), ways[-1])
                texts[after] = texts[state] + bytes((byte,))
                queue.append(after)
    return texts[goal]


def _undecided(split: _Split) -> Diagnostic:
    part, other = split.part, split.other
    behind = f", as behind {split.text!r}" if split.text else ""
    if not part.is_value:
        way = f"let {other.name} not begin with it"
    elif split.glue:
        way = f"let {part.name} hold none of the white space that follows it"
    else:
        way = f"put a literal between them that {part.name} cannot hold"
    return Diagnostic(
        DiagnosticCode.UNDECIDED_SPLIT,
        part.leaf.span,
        f"nothing shows where {part.name} ends and {other.name} begins{behind}",
        way,
        ((other.leaf.span, "this follows it"),),
    )


# -- values that a branch repeats -----------------------------------------------------------------


def _repeated_values(
    bound: list[tuple[Field, Field]], shapes: Sequence[FieldShape], scan: TagScan
) -> Iterator[Diagnostic]:
    touching = [pair for pair in bound if _touches(pair[0], scan)]
    leaves = {leaf for pair in touching for leaf in pair}
    holding: dict[object, list[FieldAutomaton]] = {}
    for shape in shapes:
        if not leaves.isdisjoint(shape.leaves):
            field = FieldAutomaton(shape, scan, frozenset(), loose=False)
            for leaf in shape.leaves:
                holding.setdefault(leaf, []).append(field)
    for item, branch in touching:
        ways = ((a, b) for a in holding.get(item, ()) for b in holding.get(branch, ()))
        values = (_spelling_value(a, item, b, branch) for a, b in ways)
        value = next((v for v in values if v is not None), None)
        if value is not None:
            yield _spelled_in_branch(item, branch, value)


def _touches(item: Field, scan: TagScan) -> bool:
    """Whether a value may be part of a tag; any other breaks off what was begun before it."""
    dfa = field_automaton(item, loose=False)
    return bool(dfa.accepting[dfa.start]) or not scan.touched.isdisjoint(
        np.flatnonzero(dfa.table.any(axis=0)).tolist()
    )


def _spelling_value(
    item: FieldAutomaton, written: Field, branch: FieldAutomaton, repeated: Field
) -> str | None:
    """A value that may stand in the item, and spells a tag in the branch."""
    begins = [
        field.beginnings(next(n for n, part in enumerate(field.parts) if part.leaf is leaf))
        for field, leaf in ((item, written), (branch, repeated))
    ]
    texts = {(one, other): b"" for one in begins[0] for other in begins[1]}
    for one, other in (queue := list(texts)):
        text = texts[one, other]
        if item.parts[one[0]].dfa.accepting[one[1]]:
            behind = item.ends(one)[1], branch.ends(other)[1]
            if item.alive(behind[0]) and not branch.alive(behind[1]):
                return text.decode("utf-8", "replace")
        for byte, after, twin in _steps(item, one, branch, other):
            if twin is None:
                if item.alive(after):
                    return (text + byte).decode("utf-8", "replace")
            elif (after, twin) not in texts:
                texts[after, twin] = text + byte
                queue.append((after, twin))
    return None


def _steps(
    item: FieldAutomaton, one: Place, branch: FieldAutomaton, other: Place
) -> Iterator[tuple[bytes, Place, Place | None]]:
    """One byte for every different way on of a value in both; None where it spells a tag in the
    branch."""
    (number, state, node), (twin, _, at) = one, other
    rows = item.parts[number].dfa.table[state], item.scan.table[node + 1], branch.scan.table[at + 1]
    ways = np.flatnonzero((rows[0] != 0) & (rows[1] != 0))
    step = [row[ways].astype(np.int64) for row in rows]
    sizes = len(item.scan.table) + 1, len(branch.scan.table) + 1
    _, firsts = np.unique((step[0] * sizes[0] + step[1]) * sizes[1] + step[2], return_index=True)
    for first in np.sort(firsts).tolist():
        value, own, others = (int(column[first]) for column in step)
        after = (twin, value, others - 1) if others else None
        yield bytes((int(ways[first]),)), (number, value, own - 1), after


def _spelled_in_branch(item: Field, branch: Field, value: str) -> Diagnostic:
    name = item.terminal.name
    return Diagnostic(
        DiagnosticCode.SPELLS_TAG,
        branch.span,
        f"`{name}` may be {value!r}, which spells a tag together with what stands beside it here",
        "put a literal between that breaks the tag, or rename the tag: the branch repeats what its "
        "item says",
        ((item.span, "it is written here"),),
    )


# -- labels that spell no tag ---------------------------------------------------------------------


def _too_few_labels(grammar: Grammar) -> Iterator[Diagnostic]:
    """Lists that ask for more items than labels can be written in."""
    rules = bodies(grammar.rules)
    for block, values in label_values(grammar).blocks.items():
        label = grammar.terminals[grammar.label_of(block) or ""]
        if values is tag_free(label.pattern, grammar.tags):
            continue  # looked at with the other faults
        least, number = least_items(block, rules), words_of(values).size
        if number < least:
            yield Diagnostic(
                DiagnosticCode.DEAD_END,
                block.span,
                f"the list of this block asks for {least:,} items whose `{label.name}` must "
                f"differ, and only {number:,} value{'s' * (number != 1)} of `{label.name}` "
                f"spell{'s' * (number == 1)} no tag with what may stand beside it",
                "put a literal between that breaks the tag, let it have more values, or ask for "
                "fewer items",
                ((label.span, f"`{label.name}` is defined here"),),
            )
