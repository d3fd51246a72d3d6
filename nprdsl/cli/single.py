"""`nprdsl run PROMPT`: one generation, watched.

On a terminal the branches stream side by side; in a pipe the trace comes as plain text, in linear
order; with --json nothing comes before the end.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from nprdsl import pictures
from nprdsl.cli.comparison import Comparison, compare
from nprdsl.cli.console import clean, console, is_terminal, working
from nprdsl.cli.figures import comparison_figures, figures, lines, result_record
from nprdsl.cli.lanes import Board, Linear
from nprdsl.cli.live import Screen
from nprdsl.cli.models import engine_errors, prompt_options
from nprdsl.cli.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from nprdsl.runtime.engine import Engine
    from nprdsl.runtime.results import Result
    from nprdsl.structure.events import Event


class Generation:
    """One prompt, ready to run on an engine, as often as asked for."""

    def __init__(self, engine: Engine, settings: Settings, prompt: str) -> None:
        self.engine = engine
        self.settings = settings
        self.prompt = prompt
        self._sampling = settings.resolved(engine.sampling_defaults)
        self._options = prompt_options(engine, settings)

    def stream(self) -> Iterator[Event | Result]:
        """Events, and the result last."""
        settings = self.settings
        return self.engine.stream(
            settings.schema,
            self.prompt,
            sampling=self._sampling,
            limits=settings.limits,
            join=settings.join,
            parallel=settings.parallel,
            **self._options,
        )

    def generate(self, *, parallel: bool) -> Result:
        """The result alone."""
        settings = self.settings
        return self.engine.generate(
            settings.schema,
            self.prompt,
            sampling=self._sampling,
            limits=settings.limits,
            join=settings.join,
            parallel=parallel,
            **self._options,
        )


def run_one(engine: Engine, settings: Settings, prompt: str, *, stats: bool, as_json: bool) -> None:
    """Run the prompt and tell what came of it on stdout."""
    with engine_errors():
        generation = Generation(engine, settings, prompt)
        if as_json:
            result = generation.generate(parallel=settings.parallel)
        elif is_terminal(sys.stdout):
            result = _on_screen(generation)
        else:
            result = _as_text(generation)
        with working("measuring against one branch after another"):
            comparison = _comparison(generation, result) if stats else None
    if as_json:
        click.echo(json.dumps(_record(result, comparison), ensure_ascii=False))
    else:
        _tell(result, comparison)


def _comparison(generation: Generation, result: Result) -> Comparison:
    return compare(
        result if generation.settings.parallel else generation.generate(parallel=True),
        lambda: generation.generate(parallel=True),
        lambda: generation.generate(parallel=False),
    )


def _on_screen(generation: Generation) -> Result:
    from nprdsl.runtime.results import Result

    board = Board(generation.engine.vocabulary)
    with Screen(console(), board, generation.settings.schema.tag_pattern) as screen:
        for event in generation.stream():
            if isinstance(event, Result):
                return event
            screen.follow(event)
    raise AssertionError("a stream ends with its result")


def _as_text(generation: Generation) -> Result:
    from nprdsl.runtime.results import Result

    board = Board(generation.engine.vocabulary)
    linear = Linear(board)
    begun = False
    try:
        for event in generation.stream():
            if isinstance(event, Result):
                return event
            board.follow(event)
            text = linear.take()
            if text:
                begun = True
                click.echo(clean(text), nl=False)
    finally:
        if begun:
            click.echo()
    raise AssertionError("a stream ends with its result")


def _tell(result: Result, comparison: Comparison | None) -> None:
    """The graph and the figures, below the trace."""
    rows = figures(result)
    if comparison is not None:
        rows += comparison_figures(comparison)
    out = console()
    out.print()
    if result.trace is not None:
        _, _, lanes = pictures.to_text(result.trace.graph, min(80, out.width)).partition("\n\n")
        out.print(Text(clean(lanes)), soft_wrap=True)
    for (name, _), line in zip(rows, lines(rows), strict=True):
        style = "bold green" if name in ("answer", "speed-up") else ""
        out.print(Text(line, style=style), soft_wrap=True)


def _record(result: Result, comparison: Comparison | None) -> dict[str, Any]:
    record = result_record(result)
    record["token_ids"] = list(result.token_ids)
    record["logprobs"] = list(result.logprobs)
    record["graph"] = None if result.trace is None else result.trace.graph.to_dict()
    if comparison is not None:
        record["comparison"] = comparison.record()
    return record
