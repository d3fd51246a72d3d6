"""A loaded schema: the entry to everything that follows from one grammar file.

`load` finds, reads and validates it. A `Schema` checks and parses texts, writes its own instruction
and example, exports itself for other servers, and binds to a vocabulary.
"""

from __future__ import annotations

import importlib.resources
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nprdsl.export import Export, ExportLimits, export
from nprdsl.grammar.diagnostics import (
    Diagnostic,
    DiagnosticCode,
    SchemaError,
    SchemaWarning,
    Span,
    did_you_mean,
)
from nprdsl.grammar.ir import Grammar, Literal
from nprdsl.grammar.reader import is_file, read_text
from nprdsl.grammar.resolve import read_grammar
from nprdsl.grammar.tag_shapes import looks_like_a_tag, tag_names, way_to_tag
from nprdsl.grammar.terminal_types import TerminalType, TerminalTypeError, typed
from nprdsl.grammar.unenforced import unenforced
from nprdsl.grammar.walk import all_nodes, written_texts
from nprdsl.machine.budget import DEFAULT_LIMITS, Limits
from nprdsl.masks.bound_schema import BoundSchema, SpelledTagsWarning, TagMode
from nprdsl.prompting.examples import ENDING, Example, fault, read_examples, with_examples
from nprdsl.prompting.instructions import instructions, skeleton
from nprdsl.structure.stack import UNBOUNDED, Bounds
from nprdsl.structure.violations import TraceError, Violation
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trace.answer import answer_of_trace
from nprdsl.trace.lexemes import tag_pattern, text_lexemes
from nprdsl.trace.parser import Parser
from nprdsl.trace.trace import Trace, element_tree

if TYPE_CHECKING:
    from nprdsl.export.logits_processor import TraceLogitsProcessor

_NAMED_TAGS: Final = 8  # in a warning

MOST_PARSERS: Final = 32  # each keeps states for other limits


class SchemaNotFoundError(FileNotFoundError):
    """No schema of that name ships with the package and no such file exists."""


class UntaggedWarning(SchemaWarning):
    """A literal in brackets that is no tag, because of white space or the kind of its brackets."""


class UnenforcedWarning(SchemaWarning):
    """A schema whose tags and shape suggest something that the language cannot hold."""


@dataclass(frozen=True, slots=True)
class ExampleFile:
    """The text of a file of worked examples, its name for messages, and whether it ships."""

    name: str
    text: str
    ships: bool = False


class Schema:
    """One language of parallel traces."""

    def __init__(self, grammar: Grammar, examples: ExampleFile | None = None) -> None:
        self.grammar = grammar
        self._parsers: dict[Bounds, Parser] = {}
        self._example_file = examples

    @property
    def name(self) -> str:
        return self.grammar.name

    @property
    def tags(self) -> tuple[str, ...]:
        return self.grammar.tags

    def __repr__(self) -> str:
        return f"Schema({self.name!r}, tags={list(self.tags)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """For other processes: the grammar; what was worked out of it is worked out there again."""
        return Schema, (self.grammar, self._example_file)

    @cached_property
    def tag_pattern(self) -> re.Pattern[str]:
        return tag_pattern(self.grammar.tags)

    def parser(self, bounds: Bounds = UNBOUNDED) -> Parser:
        """The reader of this language under run-time limits on its structure."""
        parser = self._parsers.get(bounds)
        if parser is None:
            if len(self._parsers) >= MOST_PARSERS:
                del self._parsers[next(iter(self._parsers))]
            parser = self._parsers[bounds] = Parser(self.grammar, bounds)
        return parser

    def check(self, text: str, bounds: Bounds = UNBOUNDED) -> list[Violation]:
        """Everything that makes `text` illegal, in order; empty exactly if it is legal."""
        parser = self.parser(bounds)
        if parser.legal(text, text_lexemes(text, self.tag_pattern)):
            return []
        return parser.read(text, list(text_lexemes(text, self.tag_pattern))).violations

    def parse(self, text: str, bounds: Bounds = UNBOUNDED) -> Trace:
        """The trace that `text` is; raises `TraceError` with the violations of `check`."""
        lexemes = list(text_lexemes(text, self.tag_pattern))
        parsed = self.parser(bounds).read(text, lexemes)
        if parsed.violations:
            raise TraceError(parsed.violations)
        tree = element_tree(text, parsed.marks)
        answer = answer_of_trace(text, parsed.marks, self.tag_pattern)
        return Trace(text, tree, parsed.graph_marks(), answer)

    @cached_property
    def examples(self) -> tuple[Example, ...]:
        """The worked examples of the file beside the schema; none where there is no such file.

        Those of a schema that ships are left out where they do not fit the types that it was loaded
        with. Raises SchemaError with every line of another file that is no legal example.
        """
        file = self._example_file
        if file is None:
            return ()
        if file.ships:
            return self.fitting(file)
        return self.read_examples(file.text, file.name)

    def fitting(self, file: ExampleFile) -> tuple[Example, ...]:
        """The examples of a file that are legal here; what else it holds is left out."""
        placed, _ = read_examples(file.text, file.name)
        return tuple(p.example for p in placed if not self.check(p.example.trace))

    def read_examples(self, text: str, file: str) -> tuple[Example, ...]:
        """The examples of a JSONL text with a `question` and a legal `trace` in each line; `file`
        names it in messages. Raises SchemaError with every line that is none."""
        placed, faults = read_examples(text, file)
        lines = text.split("\n")
        for one in placed:
            violations = self.check(one.example.trace)
            if violations:
                message = f"the trace of the example is not legal: {_first(violations)}"
                faults.append(fault(file, one.line, lines[one.line - 1], message))
        if faults:
            raise SchemaError(faults, text)
        return tuple(one.example for one in placed)

    def prompt(self, *, example: Example | None = None) -> str:
        """What tells an untrained model the format: with an example a short rule and that example,
        else a description in words with the skeleton."""
        if example is None:
            return instructions(self.grammar)
        return with_examples(self.grammar, [example])

    def skeleton(self) -> str:
        """An example trace with placeholders."""
        return skeleton(self.grammar)

    def export(
        self,
        target: str,
        special: Mapping[str, int] | None = None,
        limits: ExportLimits | None = None,
    ) -> Export:
        """The linear language for another server: "xgrammar", "llguidance" or "outlines".

        `special` maps tags to special token ids; `limits` bound repetitions and say how exactly
        text is stated.
        """
        return export(self.grammar, target, special=special, limits=limits)

    def logits_processor(
        self, tokenizer: object, limits: Limits = DEFAULT_LIMITS
    ) -> TraceLogitsProcessor:
        """A `LogitsProcessor` of transformers: with it `model.generate` writes traces, branches one
        after another.

        `tokenizer` is the model's fast tokenizer, or a `Vocabulary`. Give `generate` the
        processor's `max_new_tokens`, so that every trace ends within `limits`. Needs torch and
        transformers. Raises LimitError, SchemaError, and ValueError for a tokenizer that cannot be
        read.
        """
        from nprdsl.export.logits_processor import TraceLogitsProcessor

        if isinstance(tokenizer, Vocabulary):
            return TraceLogitsProcessor(self.bind(tokenizer), limits, tokenizer)
        bound = self.bind(Vocabulary.from_tokenizer(tokenizer))
        return TraceLogitsProcessor(bound, limits, tokenizer)

    def bind(
        self, vocabulary: Vocabulary, bounds: Bounds = UNBOUNDED, *, cache: Path | None = None
    ) -> BoundSchema:
        """The language over token ids. `cache` is a folder for rows: what `save_rows` writes there,
        the next `bind` finds. Warns (`SpelledTagsWarning`) where some tags
        are tokens and others must be spelled."""
        bound = BoundSchema(self.grammar, vocabulary, self.parser, bounds, cache=cache)
        if bound.mode is TagMode.MIXED:
            warnings.warn(_some_spelled(bound), SpelledTagsWarning, stacklevel=2)
        return bound


def _some_spelled(bound: BoundSchema) -> str:
    """What a vocabulary has of the tags of a schema, and how it gets the others."""
    tags, tokens = bound.grammar.tags, bound.tag_tokens
    spelled = [f"`{tag}`" for tag in tags if tag not in tokens]
    more = f" and {len(spelled) - _NAMED_TAGS} more" if len(spelled) > _NAMED_TAGS else ""
    return (
        f"the vocabulary has {len(tokens)} of the {len(tags)} tags of `{bound.grammar.name}` as "
        f"tokens; {', '.join(spelled[:_NAMED_TAGS])}{more} must be spelled. To make them tokens, "
        "train with `add_tags = true` (`nprdsl train`), or use `tokenizer.add_special_tokens` and "
        "`model.resize_token_embeddings`"
    )


def shipped() -> tuple[str, ...]:
    """The names of the schemas that come with the package."""
    folder = importlib.resources.files("nprdsl.grammars")
    names = (f.name for f in folder.iterdir() if f.name.endswith(".lark"))
    return tuple(sorted(n.removesuffix(".lark") for n in names if n != "parallel.lark"))


def source_of(name: str) -> str:
    """The text of a schema that ships with the package. Raises SchemaNotFoundError."""
    if name not in shipped():
        raise SchemaNotFoundError(f"no schema named `{name}` ships with the package")
    resource = importlib.resources.files("nprdsl.grammars") / f"{name}.lark"
    return resource.read_text(encoding="utf-8")


def load(schema: str | Path, terminals: Mapping[str, object] | None = None) -> Schema:
    """The schema of that name or at that path.

    `terminals` types the terminals that the schema declares: a pydantic model, a JSON schema, a
    regular expression, an Enum, a Literal. The worked examples of `NAME.examples.jsonl` beside it
    are read too. Raises `SchemaError` with every diagnostic of the file; warns (`UntaggedWarning`)
    of literals that look like tags and are none, and (`UnenforcedWarning`) where the schema seems
    to mean what the language cannot hold.
    """
    name, file, source = _source(schema)
    types = _types(terminals or {}, file, source)
    grammar = read_grammar(source, file=file, name=name, types=types)
    for node in all_nodes(grammar.rules):
        if isinstance(node, Literal) and looks_like_a_tag(node.text):
            names = tag_names(written_texts(grammar.rules))
            warnings.warn(_untagged(node, names), UntaggedWarning, stacklevel=2)
    for sentence in unenforced(grammar):
        warnings.warn(sentence, UnenforcedWarning, stacklevel=2)
    beside = examples_of(schema)
    loaded = Schema(grammar, beside)
    if beside is not None and not beside.ships and not loaded.examples:
        warnings.warn(f"`{beside.name}` holds no example", SchemaWarning, stacklevel=2)
    return loaded


def examples_of(schema: str | Path) -> ExampleFile | None:
    """The file of worked examples beside that of a schema, or of one that ships; None where there
    is none."""
    if is_file(Path(schema)):
        beside = Path(schema).with_suffix(ENDING)
        return ExampleFile(str(beside), _read(beside)) if is_file(beside) else None
    if str(schema) not in shipped():
        return None
    resource = importlib.resources.files("nprdsl.grammars") / f"{schema}{ENDING}"
    return ExampleFile(resource.name, resource.read_text(encoding="utf-8"), ships=True)


def _first(violations: Sequence[Violation]) -> str:
    one = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return f"{one.message} [{one.code}], in line {one.line} of the trace{more}"


def _untagged(literal: Literal, names: Mapping[str, str]) -> str:
    place = f"{literal.span.file}:{literal.span.line}:{literal.span.column}"
    return f"{place}: `{literal.text}` is a literal, no tag; {way_to_tag(literal.text, names)}"


def _types(terminals: Mapping[str, object], file: str, source: str) -> dict[str, TerminalType]:
    """The types of declared terminals; all that cannot be used are reported together."""
    types: dict[str, TerminalType] = {}
    faults: list[Diagnostic] = []
    for name, spec in terminals.items():
        try:
            types[name] = typed(name, spec)
        except TerminalTypeError as error:
            span = _declaration(name, file, source)
            code = DiagnosticCode.BAD_TERMINAL_TYPE
            faults.append(Diagnostic(code, span, error.message, error.suggestion))
    if faults:
        raise SchemaError(faults, source)
    return types


def _declaration(name: str, file: str, source: str) -> Span:
    """Where the schema declares a terminal; its first line if it does not."""
    for number, line in enumerate(source.splitlines(), 1):
        declared = re.search(rf"%declare\b.*?\b({re.escape(name)})\b", line)
        if declared:
            return Span(file, number, declared.start(1) + 1, number, declared.end(1) + 1)
    return Span(file, 1, 1, 1, 1)


def _source(schema: str | Path) -> tuple[str, str, str]:
    path = Path(schema)
    if is_file(path):
        return path.stem, str(path), _read(path)
    if path.suffix == ".lark":
        raise SchemaNotFoundError(f"no schema file at `{path}`")
    names = shipped()
    if str(schema) not in names:
        hint = did_you_mean(str(schema), names) or f"shipped: {', '.join(names)}"
        raise SchemaNotFoundError(f"no schema is named `{schema}`; {hint}")
    resource = importlib.resources.files("nprdsl.grammars") / f"{schema}.lark"
    return str(schema), f"{schema}.lark", resource.read_text(encoding="utf-8")


def _read(path: Path) -> str:
    try:
        return read_text(path)
    except UnicodeDecodeError as error:
        span = Span(str(path), 1, 1, 1, 1)
        message = f"the file is not UTF-8 text (byte {error.start})"
        raise SchemaError([Diagnostic(DiagnosticCode.SYNTAX, span, message)]) from error
