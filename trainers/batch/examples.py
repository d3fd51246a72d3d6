"""Rows to imitate: given traces as a model reads them.

A trace is laid out as its execution graph, in the very tokens that a generation would have
written, with loss on what a model would have chosen; or, as the baseline, as one causal sequence
with loss on every token. A trace that cannot be trained on is listed with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.runtime.prompts import Ids, PromptError
from nprdsl.structure.violations import TraceError
from nprdsl.tokens.vocabulary import UnspellableError
from nprdsl.trace.encoding import spell_text
from nprdsl.trainers.batch.packed_rows import Row, row, sequence
from nprdsl.trainers.data.problems import TraceExample


@dataclass(frozen=True, slots=True, eq=False)
class Prepared:
    """Rows in the order of their traces, and (id, reason) of the traces that are none."""

    rows: tuple[Row, ...]
    rejected: tuple[tuple[str, str], ...]


Encode = Callable[[str], Ids]  # a prompt to its ids
Lay = Callable[[BoundSchema, Ids, str], Row]


def prepare(
    examples: Sequence[TraceExample], bound: BoundSchema, encode: Encode, lay: Lay, longest: int
) -> Prepared:
    """The rows of all examples; `longest` is the most entries of one."""
    rows: list[Row] = []
    rejected: list[tuple[str, str]] = []
    for example in examples:
        try:
            made = lay(bound, encode(example.prompt), example.trace)
            if len(made) > longest:
                raise ValueError(f"it has {len(made)} tokens, prompt included; {longest} fit")
            rows.append(made)
        except TraceError as error:
            first, more = error.violations[0], len(error.violations) - 1
            others = f", and {more} more" if more else ""
            reason = f"line {first.line}, column {first.column}: {first.message}{others}"
            rejected.append((example.id, reason))
        except (UnspellableError, PromptError, ValueError) as error:
            rejected.append((example.id, str(error)))
    return Prepared(tuple(rows), tuple(rejected))


def as_graph(bound: BoundSchema, prompt: Ids, trace: str) -> Row:
    """The trace with branches that do not see each other. Raises TraceError, UnspellableError."""
    ids = (*prompt, *_ended(bound, bound.encode(trace)))
    return row(ids, bound.parse(ids, prompt=len(prompt)).layout)


def as_sequence(bound: BoundSchema, prompt: Ids, trace: str) -> Row:
    """The trace as causal text, every token of it chosen. Raises TraceError, UnspellableError."""
    return _causal(prompt, _ended(bound, bound.encode(trace)))


def as_text(bound: BoundSchema, prompt: Ids, trace: str) -> Row:
    """Like `as_sequence`, legal or not. Raises UnspellableError."""
    tags = bound.grammar.tags
    return _causal(prompt, _ended(bound, spell_text(bound.vocabulary, trace, tags)))


def _causal(prompt: Ids, ids: Ids) -> Row:
    return sequence((*prompt, *ids), [False] * len(prompt) + [True] * len(ids))


def _ended(bound: BoundSchema, ids: Ids) -> Ids:
    """With the end token, if the model has one."""
    end = bound.vocabulary.eos_id
    return ids if end is None else (*ids, end)
