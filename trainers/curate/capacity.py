"""What a schema has room for, found by writing documents in it and checking them."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

from nprdsl.grammar import ir
from nprdsl.schema import Schema
from nprdsl.trainers.curate.document import Block, Kind, Node, Prose
from nprdsl.trainers.curate.forms import form_of

MOST_BRANCHES: Final = 16  # of one block that are tried; more would be no plan of a person
MOST_DEPTH: Final = 8


@dataclass(frozen=True, slots=True)
class Room:
    """Branches that a block may have, the most that can be written, and how deep blocks may lie in
    each other."""

    branches: int
    depth: int


def room_of(schema: Schema, depth: int) -> Room:
    """The room of a schema, `depth` at most. ValueError if no block can be written in it."""
    if depth < 1:
        raise ValueError(f"a depth of {depth} leaves no block; give 1 or more")
    if not _holds(schema, _wide(2)):
        raise ValueError(
            f"the schema `{schema.name}` has no room for a chain of thought{_why(schema)}"
        )
    most = 1 + bisect_left(
        range(2, MOST_BRANCHES + 1), 1, key=lambda n: not _holds(schema, _wide(n))
    )
    deep = 1
    while deep < min(depth, MOST_DEPTH) and _holds(schema, _deep(deep + 1)):
        deep += 1
    return Room(most, deep)


def _wide(branches: int) -> Block:
    return Block(Kind.COLLECTIVE, ((Prose(0, 0),),) * branches)


def _deep(depth: int) -> Block:
    block = _wide(2)
    for _ in range(depth - 1):
        block = Block(Kind.COLLECTIVE, ((Prose(0, 0), block, Prose(0, 0)), (Prose(0, 0),)))
    return block


def _holds(schema: Schema, block: Node) -> bool:
    """Whether the block can be written, with prose before it or none."""
    prose = Prose(0, 0)
    forms = (form_of(schema.grammar, nodes) for nodes in ((prose, block, prose), (block, prose)))
    return any(form is not None and not schema.check(form.fill(lambda _: "text")) for form in forms)


def _why(schema: Schema) -> str:
    bound = {name for block in schema.grammar.blocks for name in block.bound}
    valued = [
        f"`{name}`"
        for name, terminal in schema.grammar.terminals.items()
        if terminal.kind is ir.TerminalKind.TYPED
        or (terminal.kind is ir.TerminalKind.REGULAR and name not in bound)
    ]
    if valued:
        return f": it wants a value for {', '.join(valued)}, and a chain has texts only"
    return ": a branch needs a free text, and a map or a join at most one"
