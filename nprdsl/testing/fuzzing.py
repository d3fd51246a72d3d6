"""Runs the properties that every schema must have on many random traces: `nprdsl fuzz`.

The machine writes traces at random, as `nprdsl.testing.properties` says. Besides, each example is a
legal trace and one mutation of it. The schema must accept, read back and tokenise the trace, and
refuse the mutation with a code that fits; its automaton must agree with its checker on both. No
engine and no model takes part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable

from nprdsl.grammar import ir
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.schema import Schema
from nprdsl.testing.mutations import Mutation, MutationKind, mutations
from nprdsl.testing.properties import (
    FuzzFailure,
    Property,
    PropertyError,
    property_failure,
    raising,
    written_failure,
)
from nprdsl.testing.reference import WHITE_SPACE, Tree, derive
from nprdsl.testing.tokens import bound_to, byte_vocabulary, straddling_merges, tokenise
from nprdsl.testing.traces import Spacing, traces
from nprdsl.tokens.bitmask import allows
from nprdsl.trace.lexemes import text_lexemes
from nprdsl.trace.trace import Element

FuzzProgress = Callable[[int, int], None]

EXAMPLES_A_SEED = 100  # for so many, the machine writes a dozen traces


@dataclass(frozen=True, slots=True)
class FuzzReport:
    """What was run. `examples` can be fewer than asked for: a failure ends the run, and a small
    language has no more. `refused` counts the mutations of each kind."""

    schema: str
    examples: int
    characters: int
    refused: dict[MutationKind, int] = field(default_factory=dict)
    failure: FuzzFailure | None = None

    @property
    def ok(self) -> bool:
        return self.failure is None


def fuzz(
    schema: Schema, examples: int = 1000, progress: FuzzProgress | None = None, *, start: int = 0
) -> FuzzReport:
    """Run all properties of `schema` on that many random traces; the first failure is shrunk.

    `progress` is called with the examples done and asked for. `start` seeds the run.
    """
    end = next((tag for tag in schema.tags if schema.skeleton().endswith(tag)), None)
    failure = property_failure(schema, start, end=end)
    if failure is not None:
        return FuzzReport(schema.name, 0, 0, failure=failure)
    run = _FuzzRun(schema, examples, progress)
    strategy = st.one_of(
        traces(schema), traces(schema, max_items=3, max_blocks=2, spacing=Spacing.ANY)
    )

    @seed(start)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        print_blob=False,
        report_multiple_bugs=False,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=tuple(HealthCheck),
    )
    @given(st.data())
    def one(data: st.DataObject) -> None:
        text = data.draw(strategy)
        with raising(Property.ACCEPTED, text):
            mutation = data.draw(mutations(schema, text))
        run.example(text, mutation, data.draw(st.integers(0, 99)))

    try:
        one()
    except PropertyError as error:
        failure = FuzzFailure(error.broken, error.text, error.message)
    except Unsatisfiable:  # no trace of the language is short enough, or can have a fault
        pass
    seeds = range(start + 1, start + examples // EXAMPLES_A_SEED)
    for number in seeds:
        failure = failure or written_failure(schema, number, end=end)
    return FuzzReport(schema.name, run.done, run.characters, dict(run.refused), failure)


class _FuzzRun:
    """The counts of one run and the bound schemas that it needs."""

    def __init__(self, schema: Schema, examples: int, progress: FuzzProgress | None) -> None:
        self._schema = schema
        self._examples = examples
        self._progress = progress
        tags = schema.tags
        self._bound = (
            bound_to(schema, byte_vocabulary(special=tags)),
            bound_to(schema, byte_vocabulary(special=tags[::2])),
            bound_to(schema, byte_vocabulary(merges=straddling_merges(tags))),
        )
        self.done = 0
        self.characters = 0
        self.refused: Counter[MutationKind] = Counter()
        self._failed = False

    def example(self, text: str, mutation: Mutation, number: int) -> None:
        try:
            with raising(Property.ACCEPTED, text):
                accepted(self._schema, text)
                read_back(self._schema, text)
            with raising(Property.REFUSED, mutation.text):
                refused(self._schema, mutation)
            for bound in self._bound:
                for read in (text, mutation.text):
                    with raising(Property.TOKENS, read):
                        tokens_agree(self._schema, bound, read, number)
                        automaton_agrees(self._schema, bound, read, number)
        except PropertyError:
            self._failed = True
            raise
        if not self._failed:
            self.done += 1
            self.characters += len(text)
            self.refused[mutation.kind] += 1
            if self._progress is not None:
                self._progress(self.done, self._examples)


def accepted(schema: Schema, text: str) -> None:
    """A legal trace has no violations."""
    violations = schema.check(text)
    if violations:
        message = f"a legal trace is refused: {violations[0].message} [{violations[0].code}]"
        raise PropertyError(Property.ACCEPTED, message, text)


def read_back(schema: Schema, text: str) -> None:
    """Parsing gives the fields, in order, that the reference reading gives."""
    tree = derive(schema.grammar, text)
    assert tree is not None
    trace = schema.parse(text)
    wanted, read = _fields(text, tree), _leaves(trace.root, schema.grammar)
    if trace.text != text or wanted != read:
        message = f"the fields read are {read}, those written are {wanted}"
        raise PropertyError(Property.READ_BACK, message, text)


def _fields(text: str, tree: Tree) -> list[tuple[str, str]]:
    """Names and values of all fields but glue; white space around free text may be glue."""
    return [
        (leaf.node.terminal.name, text[leaf.start : leaf.end].strip(WHITE_SPACE))
        for leaf in tree.leaves()
        if isinstance(leaf.node, ir.Field) and leaf.node.terminal.kind is not ir.TerminalKind.GLUE
    ]


def _leaves(root: Element, grammar: ir.Grammar) -> list[tuple[str, str]]:
    """The same of a trace. The value of a field may be None, as JSON's null is."""
    return [
        (element.name, element.text.strip(WHITE_SPACE))
        for element in root.walk()
        if element.name in grammar.terminals and not element.name.startswith("_")
    ]


def refused(schema: Schema, mutation: Mutation) -> None:
    """A mutation is refused, first with a code that fits."""
    violations = schema.check(mutation.text)
    if not violations:
        message = f"the mutation {mutation.kind} is accepted"
        raise PropertyError(Property.REFUSED, message, mutation.text)
    if violations[0].code not in mutation.expected:
        message = (
            f"the mutation {mutation.kind} is refused with {violations[0].code} "
            f"({violations[0].message}), not with {' or '.join(sorted(mutation.expected))}"
        )
        raise PropertyError(Property.REFUSED, message, mutation.text)


def tokens_agree(schema: Schema, bound: BoundSchema, text: str, number: int) -> None:
    """The ids of a text are legal exactly if the text is, and spell it."""
    ids = tokenise(schema.grammar, bound.vocabulary, text, seed=number)
    assert ids is not None
    legal, violations = _legal(schema, text), bound.check(list(ids))
    if legal == bool(violations):
        message = f"the text is {'legal' if legal else 'refused'}, its tokens {ids} are not"
        raise PropertyError(Property.TOKENS, message, text)
    if legal and bound.parse(list(ids)).text != text:
        raise PropertyError(Property.TOKENS, f"its tokens {ids} are read as another text", text)


def automaton_agrees(schema: Schema, bound: BoundSchema, text: str, number: int) -> None:
    """The automaton refuses what is not legal, and writes what is legal with canonical glue."""
    ids = tokenise(schema.grammar, bound.vocabulary, text, seed=number)
    assert ids is not None
    index = refused_at(bound, ids)
    legal = _legal(schema, text)
    if not legal and index is None:
        message = f"the automaton writes {ids}, which is not legal"
        raise PropertyError(Property.AUTOMATON, message, text)
    if legal and index is not None and canonical(schema.grammar, text):
        before, token = bound.vocabulary.text(ids[:index]), bound.vocabulary.text(ids[index:][:1])
        message = f"the automaton refuses the legal {token!r} behind {before!r}: {ids}"
        raise PropertyError(Property.AUTOMATON, message, text)


def _legal(schema: Schema, text: str) -> bool:
    """As `check`, without naming the faults, which takes longer than finding them."""
    return schema.parser().legal(text, text_lexemes(text, schema.tag_pattern))


def refused_at(bound: BoundSchema, ids: tuple[int, ...]) -> int | None:
    """The index of the first token that the mask forbids, the end included; None if it forbids
    none."""
    matcher, end = bound.matcher(), bound.vocabulary.eos_id
    assert end is not None
    for index, token in enumerate(ids):
        if not allows(matcher.mask(), token):
            return index
        matcher.advance(token)
    if end in bound.tag_tokens.values():  # as a tag it may stand where the trace may not end
        return None if matcher.finished or matcher.may_end else len(ids)
    return None if allows(matcher.mask(), end) else len(ids)


def canonical(grammar: ir.Grammar, text: str) -> bool:
    """Whether all glue of a legal text is as generation writes it."""
    tree = derive(grammar, text)
    return tree is not None and all(
        text[leaf.start : leaf.end] == leaf.node.terminal.literal
        for leaf in tree.leaves()
        if isinstance(leaf.node, ir.Field) and leaf.node.terminal.kind is ir.TerminalKind.GLUE
    )
