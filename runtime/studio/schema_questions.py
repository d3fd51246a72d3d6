"""What the studio's page asks about a schema's text and about traces, and the answers, as JSON.

    python -m nprdsl.runtime.studio.schema_questions SECONDS BYTES NAME FILE NICENESS

is a process that answers a question in each line of its input with a line, within the bounds that a
server has for the schemas of strangers: a text may be anything while it is typed. The first line is
the vocabulary of the model NAME, and the types of declared terminals, as `packed` makes it of them:
what passes between our own processes. Imports are looked for beside FILE.
Before it asks for a question it reads a schema, as the first takes much longer than all others.
What a place of the text means is worked out in `nprdsl.grammar.analysis`, what is drawn of a trace
in `nprdsl.studio`.
"""

from __future__ import annotations

import base64
import gc
import json
import os
import pickle
import resource
import signal
import sys
import warnings
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from enum import StrEnum
from math import isfinite, nan
from typing import Any, Final

from pydantic import BaseModel, ConfigDict

from nprdsl.grammar.analysis import SchemaAnalysis, analyse
from nprdsl.grammar.diagnostics import Diagnostic, SchemaError, Span
from nprdsl.grammar.resolve import Kept
from nprdsl.grammar.terminal_types import TerminalType
from nprdsl.machine.frozen_dict import FrozenDict
from nprdsl.runtime.errors import ErrorBoundary
from nprdsl.schema import Schema, load, shipped
from nprdsl.structure.violations import TraceError
from nprdsl.studio.recognising import recognised
from nprdsl.studio.schemas import export_views, schema_view
from nprdsl.studio.trace_rows import TraceRow, trace_rows
from nprdsl.studio.traces import OutcomeView, TraceView, text_view, token_view
from nprdsl.tokens.vocabulary import Vocabulary

NO_TYPES: Final[Mapping[str, TerminalType]] = FrozenDict()
FILE: Final = "schema.lark"  # what the text in the editor is called, where it is of no file
_ALLOCATIONS: Final = 200_000  # between two searches for circles, which a reading has few of
_SMALL: Final = '%import .parallel (spawn, reduce)\nstart: "<a>" spawn{one} reduce{end}\n' \
    'one: "<b>" "</b>"\nend: "</a>"\n'  # fmt: skip
_PATIENCE: Final = 6  # of the clock's seconds to those of the CPU


class Ask(StrEnum):
    FAULTS = "faults"
    VIEW = "view"
    EXPORTS = "exports"
    HOVER = "hover"
    COMPLETE = "complete"
    DEFINE = "define"
    ROWS = "rows"
    TRACE = "trace"


class SchemaQuestion(BaseModel):
    """`text` is that of the schema, or of the file `file` whose rows are asked for; `line` and
    `column` count from 1, for the questions about a place; `row` is the trace that is to be shown.
    `page` names who asks: of its questions the newest of a kind counts."""

    model_config = ConfigDict(extra="forbid")

    ask: Ask
    text: str
    line: int = 1
    column: int = 1
    file: str = ""
    row: TraceRow | None = None
    page: str = ""


class Answers:
    """Answers questions; the reading of the text that was asked about last is kept, and what it
    says of rules for the next text."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        name: str,
        file: str = FILE,
        types: Mapping[str, TerminalType] = NO_TYPES,
    ) -> None:
        self._file = file
        self._types = types
        self._vocabulary = vocabulary
        self._name = name
        self._last: SchemaAnalysis | None = None
        self._kept = Kept()

    def answer(self, question: SchemaQuestion) -> dict[str, Any]:
        if question.ask is Ask.ROWS:
            return {"rows": trace_rows(question.file, question.text).model_dump(mode="json")}
        read = self._read(question.text)
        match question.ask:
            case Ask.TRACE:
                return {} if question.row is None else self._trace(read, question.row)
            case Ask.FAULTS:
                return {"faults": [self._fault(fault) for fault in read.faults]}
            case Ask.VIEW | Ask.EXPORTS:
                return self._drawn(read, question.ask)
            case Ask.HOVER:
                said = read.hover(question.line, question.column)
                return {} if said is None else {"span": _span(said[0]), "says": said[1]}
            case Ask.COMPLETE:
                words = read.completions(question.line, question.column)
                return {"words": [{"text": w.text, "kind": w.kind, "says": w.says} for w in words]}
            case Ask.DEFINE:
                place = read.names.at(question.line, question.column)
                found = None if place is None else read.names.definition(place)
                here = found is not None and found.span.file == self._file
                return {"span": _span(found.span)} if found is not None and here else {}

    def _read(self, text: str) -> SchemaAnalysis:
        if self._last is None or self._last.text != text:
            kept, self._kept = self._kept, Kept()  # nothing is kept of a reading that fails
            self._last = analyse(text, self._file, self._types, kept=kept)
            self._kept = kept
        return self._last

    def _drawn(self, read: SchemaAnalysis, ask: Ask) -> dict[str, Any]:
        """The view without its exports, or those."""
        if read.grammar is None:
            return {}
        schema = Schema(read.grammar)
        try:
            bound = schema.bind(self._vocabulary)
            if ask is Ask.EXPORTS:
                found = export_views(schema, bound)
                return {"exports": [one.model_dump(mode="json") for one in found]}
            view = schema_view(schema, bound, self._name, targets=())
        except SchemaError as error:  # the model's vocabulary cannot write it
            return {"faults": [self._fault(fault) for fault in error.diagnostics]}
        return {"view": view.model_dump(mode="json")}

    def _fault(self, fault: Diagnostic) -> dict[str, Any]:
        """`here` is False where the fault stands in another file, or nowhere."""
        fix = fault.fix
        return {
            "code": fault.code.value,
            "message": fault.message,
            "suggestion": fault.suggestion,
            "span": _span(fault.span),
            "here": fault.span.file == self._file,
            "fix": None if fix is None else {"span": _span(fix.span), "text": fix.text},
        }

    def _trace(self, read: SchemaAnalysis, row: TraceRow) -> dict[str, Any]:
        """The view of a row by the schema that it names, else by that of the editor, else by one
        that ships, whichever reads it."""
        likelier = [] if read.grammar is None else [Schema(read.grammar)]
        if row.schema_name in shipped():
            with suppress(SchemaError):  # it needs types, which are not known here
                likelier.insert(0, load(row.schema_name))
        schema = recognised(row.text, likelier)
        view = self._token_view(schema, row) or text_view(schema, row.text, title=row.title)
        shown = view.model_copy(update={"outcome": _outcome(dict(row.facts))})
        return {"trace": shown.model_dump(mode="json")}

    def _token_view(self, schema: Schema, row: TraceRow) -> TraceView | None:
        """In the tokens of the row, where they are those of this vocabulary."""
        vocabulary, ids = self._vocabulary, (*row.prompt_ids, *row.token_ids)
        if not row.token_ids or not all(0 <= token < vocabulary.size for token in ids):
            return None
        try:
            bound = schema.bind(vocabulary)
            trace = bound.parse(ids, prompt=len(row.prompt_ids))
        except (SchemaError, TraceError):
            return None
        if trace.text != row.text:
            return None
        return token_view(
            bound,
            trace,
            title=row.title,
            logprobs=row.logprobs,
            alternatives=row.alternatives,
        )


def _outcome(facts: Mapping[str, str]) -> OutcomeView | None:
    if "finish" not in facts and "answer" not in facts:
        return None
    told = {name: facts.get(name, "") for name in ("answer", "finish", "error")}
    figures = {name: _number(fact) for name, fact in facts.items() if name not in told}
    return OutcomeView(**told, figures={n: v for n, v in figures.items() if isfinite(v)})


def _number(fact: str) -> float:
    """NaN for what is no number."""
    with suppress(ValueError):
        return float(fact)
    return nan


def _span(span: Span) -> list[int]:
    return [span.line, span.column, span.end_line, span.end_column]


def _answered(answers: Answers, line: str) -> dict[str, Any]:
    failure: dict[str, Any] = {}

    def failed(error: Exception) -> None:
        failure["failed"] = f"{type(error).__name__}: {error}"

    with ErrorBoundary(failed):
        return answers.answer(SchemaQuestion.model_validate_json(line))
    return failure


def packed(vocabulary: Vocabulary, types: Mapping[str, TerminalType]) -> bytes:
    """The first line for a process. What turns texts into values stays here: a page shows texts."""
    plain = {name: replace(one, convert=str) for name, one in types.items()}
    return base64.b64encode(pickle.dumps((vocabulary, plain))) + b"\n"


def main(seconds: float, memory: int, name: str, file: str, niceness: int) -> None:
    os.nice(niceness)
    warnings.simplefilter("ignore")
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    vocabulary, types = pickle.loads(base64.b64decode(sys.stdin.readline()))
    answers = Answers(vocabulary, name, file, types)
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever else is printed is no answer
    for text in (_SMALL, f"){_SMALL}"):
        analyse(text, FILE)
    gc.freeze()
    gc.set_threshold(_ALLOCATIONS)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, seconds)  # SIGPROF, or SIGALRM, ends the process
        signal.setitimer(signal.ITIMER_REAL, seconds * _PATIENCE)
        answer = _answered(answers, line)
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        print(json.dumps(answer), file=out, flush=True)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], int(sys.argv[5]))
