"""Hypothesis strategies for legal traces as token ids, and small vocabularies to spell them with.

A trace is cut where the language demands it (forks, branches and joins begin and end with a token),
and at random offsets besides; the vocabulary then spells each piece, so that tokens straddle tags
where it has such tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from random import Random

from hypothesis import reject
from hypothesis import strategies as st

from nprdsl.grammar import ir
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.schema import Schema
from nprdsl.structure.stack import UNBOUNDED
from nprdsl.testing.reference import Tree, bound_fields, derive, items_of, tag_pattern
from nprdsl.testing.traces import Spacing, traces
from nprdsl.tokens.vocabulary import Vocabulary

END_OF_SEQUENCE = "<|end|>"


def byte_vocabulary(special: Iterable[str] = (), merges: Iterable[str | bytes] = ()) -> Vocabulary:
    """One token for every byte, one for each of `merges`, and the `special` tokens; it has an
    end.
    """
    spelled = [bytes([byte]) for byte in range(256)]
    spelled += [merge.encode() if isinstance(merge, str) else merge for merge in merges]
    named = (*special, END_OF_SEQUENCE)
    return Vocabulary(
        dict(enumerate(spelled)),
        special={name: len(spelled) + n for n, name in enumerate(named)},
        eos=END_OF_SEQUENCE,
    )


def bound_to(schema: Schema, vocabulary: Vocabulary) -> BoundSchema:
    """As `Schema.bind`, without its warning: a vocabulary with some of the tags is meant here."""
    return BoundSchema(schema.grammar, vocabulary, schema.parser, UNBOUNDED)


def straddling_merges(tags: Iterable[str]) -> tuple[str, ...]:
    """Tokens that hold parts of tags, whole tags, or a tag's end and what follows it."""
    merges = [END_OF_SEQUENCE[:2], "1:", " x", "\n\n"]
    for tag in tags:
        middle = len(tag) // 2
        merges += [tag[:2], tag[:middle], tag[middle:], tag, tag[-1] + "\n", "x" + tag[:2]]
    return tuple(dict.fromkeys(merge for merge in merges if len(merge) > 1))


def token_traces(
    bound: BoundSchema,
    *,
    max_items: int = 4,
    max_depth: int = 2,
    max_blocks: int = 3,
    text: st.SearchStrategy[str] | None = None,
    spacing: Spacing = Spacing.CANONICAL,
) -> st.SearchStrategy[tuple[int, ...]]:
    """Legal traces of a bound schema as token ids; the bounds are those of `traces`.

    Tags that the vocabulary has as tokens are these tokens, all others are spelled.
    """
    texts = traces(
        bound,
        max_items=max_items,
        max_depth=max_depth,
        max_blocks=max_blocks,
        text=text,
        spacing=spacing,
    )

    @st.composite
    def tokenised(draw: st.DrawFn) -> tuple[int, ...]:
        written = draw(texts)
        ids = tokenise(bound.grammar, bound.vocabulary, written, seed=draw(st.integers(0, 999)))
        return ids if ids is not None else reject()

    return tokenised()


def tokenise(
    grammar: ir.Grammar, vocabulary: Vocabulary, text: str, *, seed: int = 0
) -> tuple[int, ...] | None:
    """Ids of a text; None where the vocabulary cannot spell it. Seed 0 cuts where it must only.

    Cuts are needed where branches begin and end, behind the tag that ends what an item's branch
    repeats, and around a free text that it repeats. A text that is not legal is cut at the
    tags that are tokens only, as nothing else is known of it.
    """
    tokens = vocabulary.tag_tokens(grammar.tags)
    random = Random(seed)
    seams = _seams(grammar, text)
    ids: list[int] = []
    at = 0
    tags = (tag for tag in tag_pattern(grammar.tags).finditer(text) if tag.group() in tokens)
    for tag in (*tags, None):
        end = tag.start() if tag is not None else len(text)
        cuts = [at, *(offset for offset in seams if at < offset < end), end]
        for start, stop in itertools.pairwise(cuts):
            spelled = _spell(vocabulary, text[start:stop].encode(), random if seed else None)
            if spelled is None:
                return None
            ids += spelled
        if tag is not None:
            ids.append(tokens[tag.group()])
            at = tag.end()
    return tuple(ids)


def _seams(grammar: ir.Grammar, text: str) -> list[int]:
    """The offsets at which a legal text must be cut."""
    tree = derive(grammar, text)
    if tree is None:
        return []
    offsets: set[int] = set()
    for inner in tree.walk():
        if isinstance(inner.node, ir.ForkNode):
            offsets |= {inner.start, inner.end, *(branch.end for branch in inner.children)}
        elif isinstance(inner.node, ir.MapNode):
            offsets |= set(_repeated_ends(inner.node.block, inner, tree))
    return sorted(offsets)


def _repeated_ends(block: ir.Block, listed: Tree, tree: Tree) -> Iterator[int]:
    """The end of the next tag behind each bound field of the items; both ends of a bound text."""
    ends = [leaf.end for leaf in tree.leaves() if isinstance(leaf.node, ir.Tag)]
    for item in items_of(block, listed):
        for bound in bound_fields(block, item):
            yield next(end for end in ends if end > bound.end)
            field = bound.node
            if isinstance(field, ir.Field) and field.terminal.kind is ir.TerminalKind.TEXT:
                yield from (bound.start, bound.end)


def _spell(vocabulary: Vocabulary, piece: bytes, random: Random | None) -> list[int] | None:
    """Tokens of the piece, which is first cut at random offsets."""
    cuts = {0, len(piece)}
    if random is not None and piece:
        cuts |= {random.randrange(len(piece) + 1) for _ in range(random.choice((0, 1, 3, 20)))}
    ids: list[int] = []
    for start, end in itertools.pairwise(sorted(cuts)):
        spelled = vocabulary.spell(piece[start:end])
        if spelled is None:
            return None
        ids += spelled
    return ids
