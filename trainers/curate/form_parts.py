"""The parts of a form: text that the schema gives, slots for other texts, and marks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from nprdsl.trainers.curate.document import Block

Path = tuple[int, ...]  # of a block: its node in the trunk, then branch and node, and so on


class Source(StrEnum):
    """Where a written text comes from."""

    TAG = "tag"
    LITERAL = "literal"
    GLUE = "glue"
    LABEL = "label"


@dataclass(frozen=True, slots=True)
class Written:
    """A text that follows from the schema."""

    text: str
    source: Source


@dataclass(frozen=True, slots=True)
class ProseSlot:
    """The sentences of the leaves from `first` to `last`."""

    first: int
    last: int


@dataclass(frozen=True, slots=True)
class ItemSlot:
    """What the map lists for a branch of the block at `path`."""

    path: Path
    branch: int


@dataclass(frozen=True, slots=True)
class ConclusionSlot:
    """What the join of the block at `path` says."""

    path: Path


@dataclass(frozen=True, slots=True)
class ExtraSlot:
    """A text that the schema wants and the chain does not have; numbered from 1."""

    number: int


@dataclass(frozen=True, slots=True)
class OpenMark:
    """A block begins: its map, or its first branch."""

    path: Path
    block: Block


@dataclass(frozen=True, slots=True)
class BranchMark:
    """Branch number `index` begins."""

    path: Path
    index: int


@dataclass(frozen=True, slots=True)
class JoinMark:
    """The last branch has ended."""

    path: Path


Slot = ProseSlot | ItemSlot | ConclusionSlot | ExtraSlot
Mark = OpenMark | BranchMark | JoinMark
Piece = Written | Slot | Mark
