"""What a generation gives back, the same for every engine: a `Result` for a trace, a `Completion`
for text that no schema constrained.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from html import escape
from typing import Any

from nprdsl.machine.budget import DEFAULT_LIMITS, Limits
from nprdsl.machine.transcript import Alternatives, WrittenToken, kept_alternatives, parse_written
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.pictures.trace_pictures import to_svg
from nprdsl.structure.events import EndReason
from nprdsl.structure.violations import TraceError, Violation
from nprdsl.studio.pages import StudioNotBuiltError, framed
from nprdsl.studio.traces import OutcomeView, TraceView, token_view
from nprdsl.trace.layout import Layout
from nprdsl.trace.trace import TokenTrace


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens and time of one request. Token counts are of the trace, the prompt apart."""

    prompt_tokens: int
    sampled_tokens: int
    forced_tokens: int
    critical_path: int  # tokens on the longest path of the trace
    forwards: int  # model calls that the request took part in
    time_s: float  # from submission to the end, waiting included

    @property
    def total(self) -> int:
        """Tokens of the trace."""
        return self.sampled_tokens + self.forced_tokens

    @property
    def degree(self) -> float:
        """Tokens of the trace per token of its critical path: the possible speed-up, 1 or more."""
        return self.total / self.critical_path if self.critical_path else 1.0

    @property
    def tokens_per_s(self) -> float:
        """Trace tokens per second."""
        return self.total / self.time_s if self.time_s else 0.0

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON values."""
        return {
            "prompt_tokens": self.prompt_tokens,
            "tokens": self.total,
            "sampled_tokens": self.sampled_tokens,
            "forced_tokens": self.forced_tokens,
            "critical_path": self.critical_path,
            "degree": round(self.degree, 4),
            "forwards": self.forwards,
            "time_s": round(self.time_s, 4),
            "tokens_per_s": round(self.tokens_per_s, 2),
        }


@dataclass(frozen=True, slots=True)
class Result:
    """One finished request.

    `token_ids` are the trace's ids in linear order, without the prompt, exactly as they were
    sampled; `logprobs` stands beside them: the natural logarithm of the token's probability under
    the model's own distribution (temperature 1, nothing masked), None where the token was forced;
    and so do `alternatives`, the likeliest tokens, if sampling asked for some: (), where forced.
    `trace` and `layout` cover prompt and trace; they are None where what was written is no legal
    trace, as when the request failed; `violations` then says why not. `limits` are what it ran
    under. `answer` is what the schema marks as its answer, without tags (`nprdsl.trace.answer`).
    `error` says what failed when `finish` is FAILED. `bound`, the schema over the model's
    vocabulary, is None in another process and in a copy.
    """

    request_id: int
    prompt_ids: tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float | None, ...]
    trace: TokenTrace | None
    layout: Layout | None
    answer: str
    finish: EndReason
    usage: Usage
    error: str = field(default="")
    violations: tuple[Violation, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    alternatives: tuple[Alternatives, ...] = ()
    bound: BoundSchema | None = field(default=None, repr=False, compare=False)

    def __getstate__(self) -> list[Any]:
        """For other processes and for copies: without the schema."""
        return [None if f.name == "bound" else getattr(self, f.name) for f in fields(self)]

    def view(self, *, title: str = "") -> TraceView | None:
        """What a page draws of it; None without a trace, or without its schema."""
        if self.trace is None or self.bound is None:
            return None
        told = {"answer": self.answer, "finish": self.finish.value, "error": self.error}
        outcome = OutcomeView(**told, figures=self.usage.to_dict())
        title = title or f"request {self.request_id}"
        return token_view(
            self.bound,
            self.trace,
            title=title,
            logprobs=self.logprobs,
            alternatives=self.alternatives,
            outcome=outcome,
        )

    def summary(self) -> dict[str, Any]:
        """What came of it, as JSON values: text, answer, end reason, limits, usage."""
        return {
            "text": self.text,
            "answer": self.answer,
            "finish": self.finish.value,
            "error": self.error,
            "limits": asdict(self.limits),
            "usage": self.usage.to_dict(),
        }

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values: the last line of a stream, whose other lines are events.

        To the `summary` come the `kind` "result", the token ids with their log-probabilities, the
        execution graph (None without a trace), and the violations.
        """
        return {
            "kind": "result",
            "request_id": self.request_id,
            **self.summary(),
            "prompt_ids": list(self.prompt_ids),
            "token_ids": list(self.token_ids),
            "logprobs": list(self.logprobs),
            **({"alternatives": self.alternatives} if self.alternatives else {}),
            "graph": None if self.trace is None else self.trace.graph.to_dict(),
            "violations": [asdict(violation) for violation in self.violations],
        }

    def _repr_svg_(self) -> str | None:
        """In a notebook: its graph, None without a trace."""
        return None if self.trace is None else to_svg(self.trace.graph)

    def _repr_html_(self) -> str:
        """In a notebook: the page of its trace; where there is none, or no page is built, its
        graph, its text, and how it ended."""
        view = self.view()
        with suppress(StudioNotBuiltError):
            if view is not None:
                return framed(view)
        end = f"{self.finish.value} {self.error}".strip()
        return f"{self._repr_svg_() or ''}<pre>{escape(self.text)}</pre><p>{escape(end)}</p>"


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote of itself behind a prompt, on one branch, nothing forced.

    `token_ids` holds the end token if it came, `text` does not, unless it is a tag of the schema;
    special tokens stand in it by name.
    `logprobs` has the natural logarithm of every token's probability (temperature 1, unmasked).
    `finish`: COMPLETED at the end token, BUDGET where the budget was spent before it.
    """

    prompt_ids: tuple[int, ...]
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish: EndReason
    error: str = field(default="")


class GenerationError(RuntimeError):
    """A request that failed; `result` is what is known of it."""

    def __init__(self, result: Result) -> None:
        self.result = result
        super().__init__(f"request {result.request_id} failed: {result.error}")


@dataclass(frozen=True, slots=True)
class Ending:
    """How a request ended. `longest`: tokens on its longest path, for a request that was stopped
    midway; `time_s`: since its submission; `constrained`: masks kept the trace legal."""

    request_id: int
    finish: EndReason
    forwards: int
    time_s: float
    longest: int
    error: str = ""
    constrained: bool = True
    limits: Limits = DEFAULT_LIMITS


def result_of(
    bound: BoundSchema, prompt: tuple[int, ...], written: Sequence[WrittenToken], ending: Ending
) -> Result:
    """The result of a request that has ended, from the tokens of its trace in linear order.

    Raises TraceError where a trace that came to its end is not legal, which would be a fault of
    the engine if masks kept it legal. Of a request that was stopped midway `trace` and `layout`
    are None.
    """
    ids = tuple(token.token for token in written)
    sampled = sum(token.sampled for token in written)
    violations: tuple[Violation, ...] = ()
    try:
        trace = parse_written(bound, prompt, written)
    except TraceError as error:
        if ending.constrained and ending.finish in (EndReason.COMPLETED, EndReason.BUDGET):
            raise
        trace, violations = None, error.violations
    return Result(
        request_id=ending.request_id,
        prompt_ids=prompt,
        text=bound.vocabulary.text(ids) if trace is None else trace.text,
        token_ids=ids,
        logprobs=tuple(token.logprob for token in written),
        alternatives=kept_alternatives(written),
        trace=trace,
        layout=None if trace is None else trace.layout,
        answer="" if trace is None else trace.answer,
        finish=ending.finish,
        usage=Usage(
            prompt_tokens=len(prompt),
            sampled_tokens=sampled,
            forced_tokens=len(ids) - sampled,
            critical_path=ending.longest if trace is None else trace.graph.critical_path,
            forwards=ending.forwards,
            time_s=ending.time_s,
        ),
        error=ending.error,
        violations=violations,
        limits=ending.limits,
        bound=bound,
    )
