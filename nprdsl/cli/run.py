"""`nprdsl run`: a prompt goes in, a model reasons in parallel, a checked trace comes out.

On a terminal the branches of one prompt stream side by side; in a pipe its trace comes as plain
text, in linear order; with --json nothing comes before the end.

Many prompts are submitted ahead, so that the engine is always full, and their results are taken in
order: the file is the same however often the run was interrupted, times apart. A prompt that fails
is named on stderr and left out, so that a later run tries it again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click
from rich.text import Text

from nprdsl import pictures
from nprdsl.cli.console import (
    aligned,
    clean,
    console,
    is_terminal,
    print_json,
    progress,
    tell_progress,
    working,
)
from nprdsl.cli.failures import ExitCode, as_failure
from nprdsl.cli.figures import (
    Comparison,
    compare,
    comparison_figures,
    result_figures,
)
from nprdsl.cli.files import STDIN, NumberedPrompt, read_prompts
from nprdsl.cli.generation import (
    GenerationOptions,
    Generator,
    check_model_options,
    engine_errors,
    open_generator,
    within_own_limits,
)
from nprdsl.cli.live import LiveTrace, Screen
from nprdsl.cli.options import argument, command, option
from nprdsl.cli.resumed import ResultFile
from nprdsl.cli.untrained import UntrainedOptions, helped
from nprdsl.structure.events import EndReason

if TYPE_CHECKING:
    from nprdsl.runtime.results import Result
    from nprdsl.structure.events import Event

_AHEAD = 256  # prompts submitted before the first result is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    prompt: str | None = argument(default=None)
    file: str | None = option(
        None, "Many prompts: a line each, or .jsonl; `-` is stdin.", metavar="FILE"
    )
    field: str = option("prompt", "The field of .jsonl prompts.")
    out: str | None = option(
        None, "Results of --file, JSONL; what is there is kept.", metavar="FILE"
    )
    generation: GenerationOptions
    untrained: UntrainedOptions
    stats: bool = option(False, "Measure it against one branch after another.")
    as_json: bool = option(False, "One JSON object.", flag="--json")
    alternatives: int = option(0, "Likeliest tokens that JSON has beside each drawn one.")


@command(RunOptions, short_help="Run a prompt, or many, in parallel.")
def run(options: RunOptions) -> None:
    """Reason about PROMPT in parallel, and show the trace, the answer and the figures.

    Without --model the bundled model `smol` answers word problems in English: 'Mia buys 4 boxes of
    12 pens and 3 boxes of 18 rulers. How many is that altogether?'. Its base,
    SmolLM2-135M-Instruct, is fetched once: python -m nprdsl.runtime.smollm2. Without limits of
    yours its plans, steps and takeaways are bounded, and a trace has 700 tokens.

    Many prompts come from --file, or from stdin if PROMPT is `-`.

    A model that does not know the format is shown two worked examples of the schema; a list has
    three items, its texts share --max-tokens (a line for an item, four for a branch, three for a
    join or answer), and repetition in them is penalised by 1.1. An option that sets any of that
    sets it alone; --rule-tokens and --branch-tokens take the place of all shares.
    """
    prompt, file = options.prompt, options.file
    if prompt == STDIN:
        prompt, file = None, file or STDIN
    _check_usage(options, prompt, file)
    check_model_options(options.generation)
    prompts = None if file is None else read_prompts(file, options.field)
    opened = within_own_limits(open_generator(options.generation), options.generation)
    generator = helped(opened, options.generation, options.untrained)
    if options.alternatives:
        with as_failure(ValueError):
            sampling = replace(generator.sampling, alternatives=options.alternatives)
        generator = replace(generator, sampling=sampling)
    if options.generation.model is None and generator.task:
        click.echo(generator.task, err=True)  # the choice was not the user's
    if generator.note:
        click.echo(generator.note, err=True)
    if prompts is not None:
        _run_many(generator, prompts, options.out)
    elif prompt is not None:
        _run_one(generator, prompt, options)


def _check_usage(options: RunOptions, prompt: str | None, file: str | None) -> None:
    if prompt is not None and file is not None:
        raise click.UsageError("give a PROMPT or --file, not both")
    if prompt is None and file is None:
        raise click.UsageError("give a PROMPT, --file, or - for prompts from stdin")
    if prompt is not None and not prompt.strip():
        raise click.UsageError("the PROMPT is empty")
    if options.out is not None and file is None:
        raise click.UsageError("--out is for the results of --file; use --json > FILE for one")
    if options.stats and file is not None:
        raise click.UsageError("--stats is for one PROMPT; see benchmarks/ for many")


# one prompt


def _run_one(generator: Generator, prompt: str, options: RunOptions) -> None:
    def generate(*, parallel: bool) -> Result:
        arguments = generator.arguments(parallel=parallel)
        result: Result = generator.engine.generate(generator.schema, prompt, **arguments)
        return result

    parallel = generator.parallel
    comparison = None
    with engine_errors(generator.task):
        if options.as_json:
            result = generate(parallel=parallel)
        elif is_terminal(sys.stdout):
            result = _on_screen(generator, prompt)
        else:
            result = _as_text(generator, prompt)
        if options.stats:
            with working("measuring against one branch after another"):
                comparison = compare(
                    result if parallel else generate(parallel=True),
                    partial(generate, parallel=True),
                    partial(generate, parallel=False),
                )
    if options.as_json:
        print_json(_record(result, comparison))
    else:
        _show(result, comparison)


def _on_screen(generator: Generator, prompt: str) -> Result:
    with Screen(console(), LiveTrace(), generator.schema.tag_pattern) as screen:
        return _streamed(generator, prompt, screen.follow)


def _as_text(generator: Generator, prompt: str) -> Result:
    trace = LiveTrace()
    any_text = False

    def follow(event: Event) -> None:
        nonlocal any_text
        trace.follow(event)
        if text := trace.settled():
            any_text = True
            click.echo(clean(text), nl=False)

    try:
        return _streamed(generator, prompt, follow)
    finally:
        if any_text:
            click.echo()


def _streamed(generator: Generator, prompt: str, follow: Callable[[Event], None]) -> Result:
    from nprdsl.runtime.results import Result

    schema, arguments = generator.schema, generator.arguments()
    for event in generator.engine.stream(schema, prompt, **arguments):
        if isinstance(event, Result):
            return event
        follow(event)
    raise AssertionError("a stream ends with its result")


def _show(result: Result, comparison: Comparison | None) -> None:
    """The graph and the figures, below the trace."""
    rows = result_figures(result)
    if comparison is not None:
        rows += comparison_figures(comparison)
    out = console()
    out.print()
    if result.trace is not None:
        _, _, lanes = pictures.to_text(result.trace.graph, min(80, out.width)).partition("\n\n")
        out.print(Text(clean(lanes)), soft_wrap=True)
    for (name, _), line in zip(rows, aligned(rows), strict=True):
        style = "bold green" if name in ("answer", "speed-up") else ""
        out.print(Text(line, style=style), soft_wrap=True)


def _record(result: Result, comparison: Comparison | None) -> dict[str, Any]:
    record = result.to_dict()
    if comparison is not None:
        record["comparison"] = comparison.record()
    return record


# many prompts


def _run_many(generator: Generator, prompts: list[NumberedPrompt], out: str | None) -> None:
    """Run all prompts that have no result yet; results go to `out`, or to stdout."""
    generator.check_limits()
    keys = [_key(prompt, generator) for prompt in prompts]
    file = None if out is None else ResultFile(out, prompts, keys)
    todo = prompts if file is None else file.todo
    before = len(prompts) - len(todo)
    done = failed = 0
    options = generator.arguments()
    sampling = options.pop("sampling")
    asked = [(prompt.prompt, sampling) for prompt in todo]
    results = generator.engine.in_order(generator.schema, asked, ahead=_AHEAD, **options)
    try:
        with progress("prompts", len(prompts), before) as advance, engine_errors(generator.task):
            for prompt, result in zip(todo, results, strict=True):
                why = result if isinstance(result, str) else result.error
                if isinstance(result, str) or result.finish is EndReason.FAILED:
                    failed += 1
                    click.echo(f"error: {prompt.place}: {why}", err=True)
                else:
                    given = {"index": prompt.index, "key": keys[prompt.index]}
                    record = {**given, "prompt": prompt.prompt, **result.summary()}
                    (print_json if file is None else file.write)(record)
                    done += 1
                advance()
    finally:
        resumable = out is not None
        tell_progress("prompts", len(prompts), before, done, failed, resumable=resumable)
    if failed:
        sys.exit(ExitCode.BAD)


def _key(prompt: NumberedPrompt, generator: Generator) -> str:
    """A digest of a prompt and of all that its result depends on."""
    identity = (generator.schema.grammar.digest, generator.limits, generator.join)
    prompting = [*sorted(generator.prompting.items()), generator.examples]
    settings = (generator.model, (*identity, generator.parallel), generator.sampling, prompting)
    described = json.dumps([prompt.prompt, repr(settings)])
    return hashlib.sha256(described.encode()).hexdigest()[:16]
