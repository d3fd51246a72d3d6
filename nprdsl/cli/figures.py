"""The figures of a finished request in lines, and as JSON values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nprdsl.cli.comparison import Comparison
from nprdsl.cli.console import clean

if TYPE_CHECKING:
    from nprdsl.runtime.results import Result, Usage


def figures(result: Result) -> list[tuple[str, str]]:
    """Name and value of everything that is told of a result."""
    usage = result.usage
    rows = [("answer", clean(result.answer))] if result.answer else []
    return [
        *rows,
        ("tokens", _tokens(usage)),
        ("critical path", f"{usage.critical_path} tokens"),
        ("degree of parallelism", f"{usage.degree:.2f}"),
        ("time", f"{_seconds(usage.time_s)}, {usage.forwards} forwards"),
        ("speed", f"{usage.tokens_per_s:.0f} tokens/s"),
        ("end", str(result.finish)),
    ]


def comparison_figures(comparison: Comparison) -> list[tuple[str, str]]:
    """Name and value of everything that is told of a comparison."""
    runs = "1 run" if comparison.runs == 1 else f"median of {comparison.runs} runs"
    same = "the same trace" if comparison.same_trace else "another trace"
    return [
        ("in parallel", _side(comparison.parallel_s, comparison.parallel_forwards, runs)),
        ("one after another", _side(comparison.in_turn_s, comparison.in_turn_forwards, runs)),
        ("speed-up", f"{comparison.speed_up:.2f} x ({same})"),
    ]


def _side(seconds: float, forwards: int, runs: str) -> str:
    return f"{_seconds(seconds)}, {forwards} forwards ({runs})"


def lines(rows: list[tuple[str, str]]) -> list[str]:
    """The rows with their values in one column."""
    width = max(len(name) for name, _ in rows)
    return [f"{name:<{width}}  {value}" for name, value in rows]


def usage_record(usage: Usage) -> dict[str, Any]:
    """The usage as JSON values."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "tokens": usage.total,
        "sampled_tokens": usage.sampled_tokens,
        "forced_tokens": usage.forced_tokens,
        "critical_path": usage.critical_path,
        "degree": round(usage.degree, 4),
        "forwards": usage.forwards,
        "time_s": round(usage.time_s, 4),
        "tokens_per_s": round(usage.tokens_per_s, 2),
    }


def result_record(result: Result) -> dict[str, Any]:
    """Trace, answer and figures as JSON values."""
    return {
        "text": result.text,
        "answer": result.answer,
        "finish": str(result.finish),
        "usage": usage_record(result.usage),
    }


def _tokens(usage: Usage) -> str:
    return (
        f"{usage.total} ({usage.sampled_tokens} sampled, {usage.forced_tokens} forced), "
        f"behind a prompt of {usage.prompt_tokens}"
    )


def _seconds(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"
