"""What must hold of every schema that loads, put to the proof for one schema and one seed.

A schema and a seed go in; None comes out, or the first property that does not hold. The machine
writes traces at random, under budgets from the fewest tokens up, over vocabularies that have all,
some or none of the tags as special tokens. Every mask must leave a token; what was written must be
legal as ids and as text, read back as itself and keep its budget; costs must be true. Texts with
faults are judged without an exception, as the reference reads them. Masks of small schemas are
compared with a search (`nprdsl.testing.brute_force`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from random import Random
from typing import Final

from hypothesis.errors import HypothesisException

from nprdsl.export import ExportError, Target, export
from nprdsl.grammar.diagnostics import DiagnosticCode, SchemaError
from nprdsl.grammar.ir import Literal, TerminalKind
from nprdsl.grammar.walk import all_nodes
from nprdsl.machine.actions import ALL, FIRST, FeedAction, JoinAction, JoinPolicy
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.regular.dfa import compile_regex
from nprdsl.schema import Schema
from nprdsl.structure.stack import UNBOUNDED, Bounds
from nprdsl.testing.brute_force import masks_differ
from nprdsl.testing.reference import derive
from nprdsl.testing.schemas import RandomSchema
from nprdsl.testing.tokens import END_OF_SEQUENCE, bound_to, straddling_merges
from nprdsl.tokens.bitmask import allows, unpack
from nprdsl.tokens.vocabulary import UnspellableError, Vocabulary
from nprdsl.trace.trace import Element, TokenTrace

LOADING: Final = 1.0  # seconds of CPU
DEAREST: Final = 600  # tokens of a shortest trace: beyond it traces are too long to be many
REFERENCE: Final = 240  # characters that the slow reference still reads
BOUNDS: Final = (UNBOUNDED, UNBOUNDED, Bounds(2, 3, 2), Bounds(1, 4, None), Bounds(3, 2, 1))
JOINS: Final = (ALL, ALL, ALL, FIRST, JoinPolicy(2))


class Property(StrEnum):
    LOADED = "loaded"  # it loads within a second, or is refused with a code
    EXAMPLE = "example"  # prompt and skeleton are made, the skeleton is legal
    EXPORTED = "exported"  # exports are made
    BOUND = "bound"  # any vocabulary that has all bytes will do
    COSTS = "costs"  # the fewest tokens are true, and some token always brings the end nearer
    WRITTEN = (
        "written"  # no mask is empty, each draw stands behind a token just fed, no budget exceeded
    )
    IDS = "ids"  # what was written is legal as ids and parses to itself
    TEXT = "text"  # and as text
    ENCODED = "encoded"  # the text's own ids are legal, and generation can write them
    CHECKED = "checked"  # a text with faults is judged as the reference does
    MASKS = "masks"  # a token is allowed exactly if a legal end can be reached
    ACCEPTED = "accepted"  # a legal trace has no violations
    READ_BACK = "read-back"  # parsing gives the fields that were written
    REFUSED = "refused"  # a mutation is refused with a code that fits
    TOKENS = "tokens"  # the checker of token ids agrees with that of texts
    AUTOMATON = "automaton"  # generation can write what the checker accepts, and nothing else


class TagTokens(StrEnum):
    """Which tags a vocabulary has as special tokens."""

    ALL = "all"
    SOME = "some"
    NONE = "none"


class Letters(StrEnum):
    """What a vocabulary spells characters beyond ASCII with."""

    BYTES = "bytes"  # any, byte by byte
    CHARACTERS = "characters"  # those that it has whole


class PropertyError(AssertionError):
    """A property that does not hold for one text."""

    def __init__(self, broken: Property, message: str, text: str = "") -> None:
        self.broken, self.text, self.message = broken, text, message
        super().__init__(f"{broken}: {message}\n{text!r}")


@dataclass(frozen=True, slots=True)
class FuzzFailure:
    """A text for which a property does not hold; `tokens` says over which vocabulary, if that
    matters."""

    broken: Property
    text: str
    message: str
    tokens: TagTokens | None = None


@dataclass(frozen=True, slots=True)
class SchemaVerdict:
    """What became of one random schema: refused with codes, broken, or neither: it holds."""

    refused: tuple[str, ...] = ()
    broken: FuzzFailure | None = None


def judge(drawn: RandomSchema, seed: int = 0, *, traces: int = 4) -> SchemaVerdict:
    """Load the schema and put it to the proof, `traces` times over each vocabulary."""
    begin = time.process_time()
    try:
        with raising(Property.LOADED):
            schema = drawn.load()
    except SchemaError as error:
        return SchemaVerdict(refused=tuple(sorted({d.code.value for d in error.diagnostics})))
    except PropertyError as error:
        return SchemaVerdict(broken=FuzzFailure(error.broken, error.text, error.message))
    finally:
        took = time.process_time() - begin
    if took > LOADING:
        return SchemaVerdict(broken=FuzzFailure(Property.LOADED, "", f"loading took {took:.1f} s"))
    try:
        return SchemaVerdict(broken=property_failure(schema, seed, traces=traces, end=drawn.end))
    except SchemaError as error:
        return SchemaVerdict(refused=tuple(sorted({d.code.value for d in error.diagnostics})))


def property_failure(
    schema: Schema, seed: int = 0, *, traces: int = 4, end: str | None = None
) -> FuzzFailure | None:
    """The first property that does not hold; raises `SchemaError` where no vocabulary will do.

    `traces` are written over each vocabulary. `end` is a tag that ends a sequence where it is a
    special token.
    """
    try:
        _skeleton(schema)
        failure = written_failure(schema, seed, traces=traces, end=end)
        if failure is None:
            _exports(schema, Random(f"export {seed}"))
    except PropertyError as error:
        return FuzzFailure(error.broken, error.text, error.message)
    return failure


def written_failure(
    schema: Schema, seed: int = 0, *, traces: int = 4, end: str | None = None
) -> FuzzFailure | None:
    """As `property_failure`, of what the seed changes: traces, faults and masks."""
    tokens: TagTokens | None = None
    try:
        for tokens in TagTokens:
            _over_vocabulary(schema, Random(f"{tokens} {seed}"), tokens, traces, end)
        tokens = None
        with raising(Property.MASKS):
            found = masks_differ(schema, Random(f"masks {seed}"))
        if found is not None:
            raise PropertyError(Property.MASKS, *found)
    except PropertyError as error:
        return FuzzFailure(error.broken, error.text, error.message, tokens)
    return None


@contextmanager
def raising(broken: Property, text: str = "") -> Iterator[None]:
    """An exception inside is a failure of the property."""
    try:
        yield
    except (PropertyError, SchemaError, HypothesisException):
        raise
    except Exception as error:
        message = f"{type(error).__name__}: {str(error)[:200]}{_place(error)}"
        raise PropertyError(broken, message, text) from error


def _place(error: Exception) -> str:
    """Where an exception was raised: its innermost line of code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return ""
    return f" [{trace.tb_frame.f_code.co_filename.rpartition('nprdsl/')[2]}:{trace.tb_lineno}]"


def _skeleton(schema: Schema) -> None:
    with raising(Property.EXAMPLE):
        example = schema.skeleton()
        assert schema.prompt(), "the prompt is empty"
    with raising(Property.EXAMPLE, example):
        found = schema.check(example)
    if found:
        raise PropertyError(Property.EXAMPLE, f"{found[0].message} [{found[0].code}]", example)


def _exports(schema: Schema, random: Random) -> None:
    """One export of each seed; that to a regular expression takes as long as all the rest."""
    target = random.choice((Target.XGRAMMAR, Target.LLGUIDANCE, *Target))
    special = random.choice(({}, {tag: 1000 + n for n, tag in enumerate(schema.tags)}))
    with raising(Property.EXPORTED, target.value), suppress(ExportError):
        export(schema.grammar, target, special=special)


# -- over one vocabulary --------------------------------------------------------------------------


def vocabulary_of(
    schema: Schema,
    tokens: TagTokens,
    random: Random,
    end: str | None,
    letters: Letters = Letters.BYTES,
) -> Vocabulary:
    """The letters, tokens that straddle tags, and the special tokens; `end` ends a sequence if it
    is one of them."""
    tags = [t for t in schema.tags if tokens is TagTokens.ALL or random.random() < 0.5]
    special = tags if tokens is not TagTokens.NONE else []
    merges = [m.encode() for m in straddling_merges(schema.tags)] if random.random() < 0.7 else []
    single = [bytes([n]) for n in range(256)]
    if letters is Letters.CHARACTERS:
        single = [*single[:128], *_wide_characters(schema)]
    spelled = dict(enumerate(dict.fromkeys([*single, *merges])))
    names = [*special, *([] if end in special else [END_OF_SEQUENCE])]
    ids = {name: len(spelled) + n for n, name in enumerate(names)}
    return Vocabulary(spelled, ids, end if end in special else END_OF_SEQUENCE)


def _bound(schema: Schema, tokens: TagTokens, random: Random, end: str | None) -> BoundSchema:
    """Now and then without single bytes of wide characters, if the schema can do without them. A
    tag that cannot be told from the end of a sequence is refused as its token; then it is none."""
    if random.random() < 0.2:
        with suppress(SchemaError):
            vocabulary = vocabulary_of(schema, tokens, random, end, Letters.CHARACTERS)
            return bound_to(schema, vocabulary)
    try:
        return bound_to(schema, vocabulary_of(schema, tokens, random, end))
    except SchemaError as error:
        if {d.code for d in error.diagnostics} != {DiagnosticCode.END_TOKEN_TAG}:
            raise
        return bound_to(schema, vocabulary_of(schema, tokens, random, None))


def _wide_characters(schema: Schema) -> list[bytes]:
    """Tokens for the wide characters that the schema names, and two that it may not."""
    texts = ["é甲", *schema.tags]
    texts += [n.text for n in all_nodes(schema.grammar.rules) if isinstance(n, Literal)]
    for terminal in schema.grammar.terminals.values():
        if terminal.kind in (TerminalKind.REGULAR, TerminalKind.TYPED):
            value = compile_regex(terminal.pattern).completion().decode()
            texts += [terminal.pattern, value]
    return [letter.encode() for letter in sorted(set("".join(texts))) if ord(letter) > 127]


def _over_vocabulary(
    schema: Schema, random: Random, tokens: TagTokens, traces: int, end: str | None
) -> None:
    with raising(Property.BOUND):
        bound = _bound(schema, tokens, random, end)
    with raising(Property.COSTS):
        least = bound.minimum
    if least > DEAREST:
        return
    for number in range(traces):
        extra = (0, random.randint(1, 12), random.randint(0, least + 50), 150)[number % 4]
        bounds = random.choice(BOUNDS) if number else UNBOUNDED
        trace = written_trace(bound, random, max(1, least + extra), bounds)
        if trace is None:
            continue
        if len(trace.ids) < least and _is_exact(bound):
            message = f"{len(trace.ids)} tokens were written, {least} are the fewest"
            raise PropertyError(Property.COSTS, message, trace.text)
        _read_as_ids(bound, trace)
        _read_as_text(schema, bound, trace)
        _followed(bound, trace.ids, trace.text)
        _encoded(bound, trace)
        for text in faulty(trace.text, schema.tags, random, 3):
            _checked(schema, bound, text)
        _checked_ids(bound, trace, random)


def written_trace(
    bound: BoundSchema, random: Random, budget: int, bounds: Bounds = UNBOUNDED
) -> TokenTrace | None:
    """A trace that the machine writes; None where the bounds leave none within the budget. Raises
    PropertyError where it gets stuck."""
    with raising(Property.COSTS):
        try:
            least = bound.under(bounds).minimum
        except SchemaError:
            if bounds == UNBOUNDED:
                raise
            return None
        if least > budget:
            return None
        spawn = random.randint(1, 3) if bound.grammar.spawns else None
        limits = Limits(budget, None, {}, bounds.depth, bounds.branches, bounds.blocks, spawn)
        machine = Machine(bound, limits=limits, join=random.choice(JOINS))
    with raising(Property.WRITTEN):
        choose, unread = _Chooser(bound, random), set[int]()
        actions = machine.start()
        while machine.ended is None:
            last_fed = {action.branch for action in actions if isinstance(action, FeedAction)}
            for action in actions:
                match action:
                    case JoinAction(parent, children) if children[-1] not in last_fed:
                        unread.add(parent)
                    case FeedAction(fed, _):
                        unread.discard(fed)
            branch = random.choice(machine.live)
            if branch in unread:
                raise PropertyError(
                    Property.WRITTEN,
                    "a draw behind a join stands behind nothing",
                    _so_far(machine),
                )
            token = choose(machine.mask(branch))
            if token is None:
                raise PropertyError(
                    Property.WRITTEN, f"no token is allowed (budget {budget})", _so_far(machine)
                )
            actions = machine.advance(branch, token)
    ids = tuple(w.token for w in machine.written)
    if len(ids) > budget:
        message = f"{len(ids)} tokens were written under a budget of {budget}"
        raise PropertyError(Property.WRITTEN, message, _so_far(machine))
    text = _so_far(machine)
    with raising(Property.IDS, text):
        found = machine.bound.check(ids)
        if found:
            message = f"the machine's own ids are refused: {found[0].message} [{found[0].code}]"
            raise PropertyError(Property.IDS, message, text)
        return machine.trace()


def _so_far(machine: Machine) -> str:
    return machine.bound.vocabulary.text(tuple(w.token for w in machine.written))


class _Chooser:
    """Draws allowed tokens: any, or often those that make tags, so that structure is written; some
    repeat themselves where they can, so that labels run out."""

    def __init__(self, bound: BoundSchema, random: Random) -> None:
        vocabulary = bound.vocabulary
        letters = set("".join(bound.grammar.tags).encode())
        liked: tuple[set[int], ...] = (
            set(),
            letters,
            set(vocabulary.special.values()),
            set(b"ab01"),
        )
        self._liked = random.choice(liked)
        self._repeats = random.random() < 0.5
        self._behind: dict[int, set[int]] = {}  # the tokens that were drawn behind one
        self._last = -1
        self._size = vocabulary.size
        self._random = random

    def __call__(self, mask: object) -> int | None:
        allowed = unpack(mask, self._size).nonzero()[0].tolist()  # type: ignore[arg-type]
        if not allowed:
            return None
        known = self._behind.setdefault(self._last, set())
        again = self._repeats and self._random.random() < 0.8
        liked = [token for token in allowed if token in (known if again else self._liked)]
        self._last = int(self._random.choice(liked or allowed))
        known.add(self._last)
        return self._last


def _read_as_ids(bound: BoundSchema, trace: TokenTrace) -> None:
    with raising(Property.IDS, trace.text):
        again = bound.parse(trace.ids)
        if again.text != trace.text or again.ids != trace.ids:
            raise PropertyError(Property.IDS, f"read back as {again.text!r}", trace.text)
        assert len(again.layout.position) >= len(trace.ids)


def _read_as_text(schema: Schema, bound: BoundSchema, trace: TokenTrace) -> None:
    text = trace.text
    with raising(Property.TEXT, text):
        found = schema.check(text)
        if found:
            message = f"the text of legal ids is refused: {found[0].message} [{found[0].code}]"
            raise PropertyError(Property.TEXT, message, text)
        read = schema.parse(text)
    if list(fields(read.root)) != list(fields(trace.root)):
        message = (
            f"as text the fields are {list(fields(read.root))}, as ids {list(fields(trace.root))}"
        )
        raise PropertyError(Property.TEXT, message, text)
    if len(text) <= REFERENCE and derive(schema.grammar, text) is None:
        raise PropertyError(Property.TEXT, "the reference refuses it", text)


def fields(root: Element) -> Iterator[tuple[str, int, int]]:
    """The names and places of all elements of a trace."""
    return ((element.name, element.start, element.end) for element in root.walk())


def _followed(
    bound: BoundSchema, ids: Iterable[int], text: str, broken: Property = Property.COSTS
) -> None:
    """The matcher takes the ids one after another; where tokens are bytes and tags, the cost falls
    by one at most."""
    with raising(broken, text):
        matcher, vocabulary = bound.matcher(), bound.vocabulary
        exact = _is_exact(bound)
        for index, token in enumerate(ids):
            if not allows(matcher.mask(), token):
                before = vocabulary.text(tuple(ids)[:index])
                message = f"the mask refuses token {token} of a legal trace behind {before!r}"
                raise PropertyError(broken, message, text)
            if matcher.cost and not unpack(matcher.tight(0), vocabulary.size).any():
                raise PropertyError(broken, f"no token brings the end nearer at {index}", text)
            cost = matcher.cost
            matcher.advance(token)
            if exact and matcher.cost < cost - 1:
                message = f"the cost falls from {cost} to {matcher.cost} with token {index}"
                raise PropertyError(broken, message, text)
        if not (matcher.may_end or matcher.finished):
            raise PropertyError(broken, "the matcher may not end behind a legal trace", text)


def _is_exact(bound: BoundSchema) -> bool:
    """Whether costs are the fewest tokens. Where tokens run across the borders of literals, values
    and tags, a trace may take fewer than the parts of it, which are counted."""
    vocabulary = bound.vocabulary
    return all(len(vocabulary.bytes_of(token)) < 2 for token in range(vocabulary.size))


def _encoded(bound: BoundSchema, trace: TokenTrace) -> None:
    with raising(Property.ENCODED, trace.text):
        ids = bound.encode(trace.text)
        found = bound.check(ids)
        if found:
            message = f"its encoding is refused: {found[0].message} [{found[0].code}]"
            raise PropertyError(Property.ENCODED, message, trace.text)
        if bound.parse(ids).text != trace.text:
            raise PropertyError(Property.ENCODED, "its encoding is another text", trace.text)
    _followed(bound, ids, trace.text, Property.ENCODED)


# -- texts with faults ----------------------------------------------------------------------------


def faulty(text: str, tags: tuple[str, ...], random: Random, count: int) -> Iterator[str]:
    """The text with pieces cut out, doubled, moved or put in; most of them are illegal."""
    for _ in range(count):
        for _ in range(random.choice((1, 1, 2, 4))):
            start, end = sorted(random.randrange(len(text) + 1) for _ in range(2))
            piece = text[start : min(end, start + 40)]
            extra = random.choice((*tags, "x", "\n", "<", "", " ", "\x00", "é", piece, piece))
            kind = random.randrange(4)
            if kind == 0:
                text = text[:start] + text[start + len(piece) :]
            elif kind == 1:
                text = text[:start] + extra + text[start:]
            elif kind == 2:
                text = text[:start]
            elif tags:
                tag = random.choice(tags)
                text = text.replace(tag, random.choice((extra, "")), 1)
        yield text


def _checked(schema: Schema, bound: BoundSchema, text: str) -> None:
    with raising(Property.CHECKED, text):
        found = schema.check(text)
        for violation in found:
            assert 0 <= violation.offset <= len(text), "a violation stands outside the text"
        with suppress(UnspellableError):
            bound.check(list(bound.vocabulary.encode(text)))
        if len(text) <= REFERENCE:
            legal = derive(schema.grammar, text) is not None
            if legal == bool(found):
                said = f"refused with {found[0].code}" if found else "legal"
                said += f", the reference says {'legal' if legal else 'illegal'}"
                raise PropertyError(Property.CHECKED, said, text)


def _checked_ids(bound: BoundSchema, trace: TokenTrace, random: Random) -> None:
    """Broken ids are judged without an exception, and never legal where the matcher refuses."""
    ids = list(trace.ids)
    for _ in range(2):
        at = random.randrange(len(ids) + 1)
        ids[at : at + random.randrange(3)] = random.choices(range(bound.vocabulary.size), k=1)
        text = bound.vocabulary.text(ids)
        with raising(Property.CHECKED, text):
            bound.check(ids)
