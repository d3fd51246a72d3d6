"""A trace as a page draws it: its text in pieces, its segments with their lanes, what sees what.

A piece is what is pointed at: one token of a token trace; of a text, whose units are characters, a
word or a tag. In go a trace, or a text that may be wrong; out comes a versioned model for JSON, in
which every place is an index of a piece or of a segment, so that who draws it computes nothing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal

from nprdsl.machine.transcript import Alternatives
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.schema import Schema
from nprdsl.structure.violations import Violation
from nprdsl.studio.lanes import LanesView, Run, StudioView, lanes_view, runs
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.graph import ExecutionGraph, Mark, build_graph
from nprdsl.trace.lexemes import tag_pattern, text_lexemes, token_text
from nprdsl.trace.trace import Element, TokenTrace

_WORD: Final = re.compile(r"\s*\S+\s?|\s+")
_ALONE: Final = re.compile("[\ud800-\udfff]")  # half of a character: no JSON has it


class ViolationView(StudioView):
    """A fault of the trace, at a piece."""

    code: str
    message: str
    suggestion: str
    rule: str
    line: int
    column: int
    piece: int


class OutcomeView(StudioView):
    """How a generation ended."""

    answer: str
    finish: str
    error: str
    figures: dict[str, float]


class TraceView(StudioView):
    """One trace.

    lengths: of each piece in UTF-16 code units, as pages count; sizes: in units of the trace, empty
    where each is one. rule_runs: (first piece, rule). forced, tags: pieces [first, behind the last)
    that the model did not choose, that are tags. logprobs: natural logarithms, None where forced;
    alternatives, if they were kept: the likeliest pieces instead, with theirs.
    """

    kind: Literal["trace"] = "trace"
    version: Literal[1] = 1
    title: str
    schema_name: str
    text: str
    lengths: tuple[int, ...]
    sizes: tuple[int, ...]
    prompt_pieces: int
    rules: tuple[str, ...]
    rule_runs: tuple[Run, ...]
    forced: tuple[Run, ...]
    tags: tuple[Run, ...]
    logprobs: tuple[float | None, ...]
    alternatives: tuple[tuple[tuple[str, float], ...], ...] = ()
    lanes: LanesView
    violations: tuple[ViolationView, ...]
    outcome: OutcomeView | None = None


def whole_characters(text: str) -> str:
    """The text with a replacement character for each half of one."""
    return _ALONE.sub("\ufffd", text)


def text_view(schema: Schema, text: str, *, title: str = "") -> TraceView:
    """A text of the schema's, legal or not, in characters. Where it is not, the lanes are those
    that the parser made out, or one for all of it."""
    lexemes = list(text_lexemes(text, schema.tag_pattern))
    parsed = schema.parser().read(text, lexemes)
    root = None if parsed.violations else schema.parse(text).root
    graph = _graph(parsed.graph_marks(), len(text))
    tags = [found.span() for found in schema.tag_pattern.finditer(text)]
    rules = [(0, "")] if root is None else [*_rule_changes(root)]
    starts = [*_words(text, tags, graph, [at for at, _ in rules])]
    return _Maker(graph, text, starts, 0).view(title, schema.name, rules, tags, parsed.violations)


def token_view(
    bound: BoundSchema,
    trace: TokenTrace,
    *,
    title: str = "",
    logprobs: Sequence[float | None] = (),
    alternatives: Sequence[Alternatives] = (),
    outcome: OutcomeView | None = None,
) -> TraceView:
    """A token trace; `logprobs` and `alternatives` stand beside its ids without the prompt."""
    vocabulary, prompt = bound.vocabulary, trace.prompt
    ids = trace.ids[prompt:]
    before = token_text(trace.ids[:prompt], vocabulary, (), ended=False)
    ended = bool(ids) and len(token_text(ids, vocabulary, (), ended=False).text) > len(trace.text)
    behind = token_text(ids, vocabulary, (), ended=ended)
    shift = len(before.text)
    ends = [*before.ends, *(at + shift for at in behind.ends)]
    starts = [0, *ends][: len(ends)]  # a character of several tokens is shown at the first
    text = before.text + behind.text
    tags = [
        (a + shift, b + shift)
        for a, b in (t.span() for t in tag_pattern(bound.grammar.tags).finditer(behind.text))
    ]
    rules = [(at + shift, rule) for at, rule in _rule_changes(trace.root)]
    view = _Maker(trace.graph, text, starts, prompt).view(
        title, bound.grammar.name, rules, tags, []
    )
    forced = ~trace.sampled[prompt:].astype(bool)
    return view.model_copy(
        update={
            "forced": tuple((a + prompt, b + prompt) for a, b in runs(forced)),
            "logprobs": tuple(None if p is None else round(p, 4) for p in logprobs),
            "alternatives": tuple(_named(likeliest, vocabulary) for likeliest in alternatives),
            "outcome": outcome,
        }
    )


def _named(likeliest: Alternatives, vocabulary: Vocabulary) -> tuple[tuple[str, float], ...]:
    """Each of them as text; one that is part of a character has a replacement character."""
    return tuple((vocabulary.text((token,)), round(logprob, 4)) for token, logprob in likeliest)


def _graph(marks: Iterable[Mark], length: int) -> ExecutionGraph:
    try:
        return build_graph(marks, length=length, unit="characters")
    except ValueError:  # the faults are of the structure itself
        return build_graph((), length=length, unit="characters")


def _rule_changes(root: Element) -> Iterator[tuple[int, str]]:
    """Where another rule becomes the innermost one: (character, its name)."""
    changes: dict[int, str] = {}
    pending: list[tuple[Element, str] | tuple[int, str]] = [(root, "")]
    while pending:
        what, outer = pending.pop()
        if isinstance(what, int):
            changes[what] = outer
        elif not what.name.isupper():
            changes[what.start] = what.name
            pending.append((what.end, outer))
            pending += ((child, what.name) for child in reversed(what.children))
    yield from sorted(changes.items())


def _words(
    text: str, tags: Sequence[Run], graph: ExecutionGraph, places: Iterable[int]
) -> Iterator[int]:
    """Where the pieces of a text begin: its words, cut at tags, at segments and at `places`."""
    cuts = {0, *(at for tag in tags for at in tag), *places}
    cuts |= {at for s in graph.segments for at in (s.source_start, s.source_end)}
    inside, spans = sorted(at for at in cuts if at < len(text)), set(tags)
    for start, end in pairwise([*inside, len(text)]):
        if (start, end) in spans:
            yield start
        else:
            yield from (word.start() for word in _WORD.finditer(text, start, end))


class _Maker:
    """Makes the view of one trace, whose pieces begin at the characters `starts`."""

    def __init__(self, graph: ExecutionGraph, text: str, starts: list[int], prompt: int) -> None:
        self._graph = graph
        self._text = text
        self._starts = starts
        self._prompt = prompt

    def view(
        self,
        title: str,
        schema: str,
        rules: Sequence[tuple[int, str]],
        tags: Sequence[Run],
        violations: Sequence[Violation],
    ) -> TraceView:
        text, starts = self._text, self._starts
        names = {rule: index for index, rule in enumerate(dict.fromkeys(r for _, r in rules))}
        bounds = [*starts, len(text)]
        in_characters = self._graph.unit == "characters"
        return TraceView(
            title=title,
            schema_name=schema,
            text=whole_characters(text),
            lengths=tuple(_utf16(text[a:b]) for a, b in pairwise(bounds)),
            sizes=tuple(b - a for a, b in pairwise(bounds)) if in_characters else (),
            prompt_pieces=self._prompt,
            rules=tuple(names),
            rule_runs=tuple((self._piece(at), names[rule]) for at, rule in rules),
            forced=(),
            tags=tuple((self._piece(a), self._piece(b)) for a, b in tags),
            logprobs=(),
            lanes=lanes_view(self._graph, self._piece if in_characters else int),
            violations=tuple(self._violation(v) for v in violations),
        )

    def _piece(self, character: int) -> int:
        """The piece that begins there, else the next one. A character of several tokens is the text
        of the first, so that the last of those that begin at one place is meant."""
        before = bisect_right(self._starts, character) - 1
        begins = before >= 0 and self._starts[before] == character
        return before if begins else before + 1

    def _violation(self, violation: Violation) -> ViolationView:
        at = bisect_right(self._starts, violation.offset) - 1
        return ViolationView(
            code=violation.code.value,
            message=violation.message,
            suggestion=violation.suggestion,
            rule=violation.rule,
            line=violation.line,
            column=violation.column,
            piece=max(0, at),
        )


def _utf16(text: str) -> int:
    return len(text) + sum(character > "\uffff" for character in text)
