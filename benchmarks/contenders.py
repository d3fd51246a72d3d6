"""The libraries that `benchmarks.automaton` compares, behind one small interface.

Each contender prepares a vocabulary once, compiles the same linear NPR language, and steps through
a trace: mask, then take a token. The others get the grammar that `schema.export` writes for them:
`exact_text` states the language as far as the library can, "loose" leaves out what costs it time
(prose that spells a tag in letters, blank or broken text), so its masks let illegal traces through.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

import nprdsl
from benchmarks.vocabularies import RealVocabulary, fast_tokenizer
from nprdsl.export import Export, ExportLimits, export
from nprdsl.tokens.utf8_text import text_tables

TAGS = (
    "<guideline>", "</guideline>", "<plan>", "</plan>",
    "<step>", "</step>", "<takeaway>", "</takeaway>",
)  # fmt: skip


class Walk(Protocol):
    """A running matcher."""

    def mask(self) -> object:
        """Computes the mask of the next token."""

    def bits(self) -> NDArray[np.int32]:
        """The mask as int32 [ceil(V/32)]."""

    def advance(self, token: int) -> object: ...

    def fork(self) -> object: ...


class Contender(Protocol):
    """`prepare` is the work that is done once for a tokenizer, `compile` once for a grammar.

    `forks`: the trace is given as an engine with forks writes it, no token running across the end
    of a plan, a step or a guideline; the others get it as one text is tokenized.
    """

    name: str
    forks: bool

    def prepare(self, vocabulary: RealVocabulary) -> None: ...

    def compile(self) -> None: ...

    def walk(self) -> Walk: ...


def exported(target: str, vocabulary: RealVocabulary, exact_text: bool) -> Export:
    """The grammar for a target; see `ExportLimits` for what it leaves out."""
    grammar = nprdsl.load("npr").grammar
    known = vocabulary.special
    special = {tag: known[tag] for tag in grammar.tags if tag in known}
    limits = ExportLimits(repeats=1, exact_text=exact_text)
    return export(grammar, target, special=special, limits=limits)


class Nprdsl:
    name = "nprdsl"
    forks = True

    def __init__(self, cache: Path | None = None) -> None:
        self._cache = cache  # a folder for rows

    def prepare(self, vocabulary: RealVocabulary) -> None:
        self._vocabulary = nprdsl.Vocabulary(
            tokens=vocabulary.tokens,
            special=vocabulary.special,
            eos=vocabulary.eos,
            size=vocabulary.size,
        )
        text_tables(self._vocabulary)  # serve all schemas, as what rivals make of a tokenizer
        self._schema = nprdsl.load("npr")

    def compile(self) -> None:
        self._bound = self._schema.bind(self._vocabulary, cache=self._cache)

    def walk(self) -> Walk:
        return _NprdslWalk(self._bound.matcher())

    def save_rows(self) -> None:
        self._bound.save_rows()


class _NprdslWalk:
    def __init__(self, matcher: Any) -> None:
        self.mask = self.bits = matcher.mask
        self.advance = matcher.advance
        self.fork = matcher.fork


class XGrammar:
    name = "xgrammar"
    forks = False
    exact_text = True

    def prepare(self, vocabulary: RealVocabulary) -> None:
        import xgrammar

        self._text = exported("xgrammar", vocabulary, self.exact_text).text
        # xgrammar reads a special token as text unless it has no bytes; `Token` needs some.
        tags = {vocabulary.special[tag]: tag.encode() for tag in TAGS if tag in vocabulary.special}
        known = dict(vocabulary.tokens) | tags
        self._info = xgrammar.TokenizerInfo(
            [known.get(token, b"") for token in range(vocabulary.size)],
            xgrammar.VocabType.RAW,
            vocab_size=vocabulary.size,
            stop_token_ids=[vocabulary.special[vocabulary.eos]],
        )

    def compile(self) -> None:
        import xgrammar

        compiler = xgrammar.GrammarCompiler(self._info, max_threads=2, cache_enabled=False)
        self._compiled = compiler.compile_grammar(self._text)

    def walk(self) -> Walk:
        return _XGrammarWalk(self._compiled, self._info.vocab_size)


class XGrammarLoose(XGrammar):
    name = "xgrammar loose"
    exact_text = False


class _XGrammarWalk:
    def __init__(self, compiled: Any, size: int) -> None:
        import xgrammar

        matcher = xgrammar.GrammarMatcher(compiled)
        self._matcher = matcher
        self._row = xgrammar.allocate_token_bitmask(1, size)
        self.advance = matcher.accept_token
        self.fork = matcher.fork

    def mask(self) -> object:
        return self._matcher.fill_next_token_bitmask(self._row)

    def bits(self) -> NDArray[np.int32]:
        self.mask()
        return np.asarray(self._row.numpy()[0])


class LLGuidance:
    name = "llguidance"
    forks = False
    exact_text = True

    def prepare(self, vocabulary: RealVocabulary) -> None:
        import llguidance

        self._grammar = llguidance.LLMatcher.grammar_from_lark(
            exported("llguidance", vocabulary, self.exact_text).text
        )
        self._size = vocabulary.size
        self._tokenizer = llguidance.LLTokenizer(
            fast_tokenizer(vocabulary).to_str(),
            n_vocab=vocabulary.size,
            eos_token=vocabulary.special[vocabulary.eos],
        )

    def compile(self) -> None:
        """A matcher compiles the grammar; nothing is kept between matchers."""
        self._first: _LLGuidanceWalk | None = self._new()

    def walk(self) -> Walk:
        walk, self._first = self._first or self._new(), None
        return walk

    def _new(self) -> _LLGuidanceWalk:
        return _LLGuidanceWalk(self._tokenizer, self._grammar, self._size)


class LLGuidanceLoose(LLGuidance):
    name = "llguidance loose"
    exact_text = False


class _LLGuidanceWalk:
    def __init__(self, tokenizer: Any, grammar: str, size: int) -> None:
        import llguidance

        self._matcher = llguidance.LLMatcher(tokenizer, grammar)
        if self._matcher.is_error():
            raise RuntimeError(self._matcher.get_error())
        self._row = np.zeros((size + 31) // 32, np.int32)
        self._at = self._row.ctypes.data, self._row.nbytes
        self.advance = self._matcher.consume_token
        self.fork = self._matcher.deep_copy

    def mask(self) -> object:
        return self._matcher.unsafe_compute_mask_ptr(*self._at)

    def bits(self) -> NDArray[np.int32]:
        self.mask()
        return self._row


class OutlinesCore:
    name = "outlines-core"
    forks = False

    def prepare(self, vocabulary: RealVocabulary) -> None:
        from outlines_core import Vocabulary

        found = exported("outlines", vocabulary, False)
        pieces: dict[bytes, list[int]] = {}
        for token, piece in vocabulary.tokens.items():
            pieces.setdefault(piece, []).append(token)
        for tag, character in found.stand_ins.items():
            pieces[character.encode()] = [vocabulary.special[tag]]
        self._size, self._text = vocabulary.size, found.text
        self._vocabulary = Vocabulary(vocabulary.special[vocabulary.eos], pieces)

    def compile(self) -> None:
        from outlines_core import Index

        self._index = Index(self._text, self._vocabulary)

    def walk(self) -> Walk:
        return _OutlinesWalk(self._index, self._size)


class _OutlinesWalk:
    def __init__(self, index: Any, size: int) -> None:
        from outlines_core import Guide

        self._index, self._size = index, size
        self._guide = Guide(index)
        self._row = np.zeros((size + 31) // 32, np.int32)
        self._at = self._row.ctypes.data, self._row.size, 4

    def mask(self) -> object:
        return self._guide.write_mask_into(*self._at)

    def bits(self) -> NDArray[np.int32]:
        self.mask()
        return self._row

    def advance(self, token: int) -> object:
        return self._guide.advance(token, False)

    def fork(self) -> object:
        """A guide has no copy: a new one is walked to the same place by its caller."""
        return _OutlinesWalk(self._index, self._size)


CONTENDERS = {
    c.name: c for c in (Nprdsl, XGrammar, LLGuidance, XGrammarLoose, LLGuidanceLoose, OutlinesCore)
}
