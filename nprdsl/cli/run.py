"""`nprdsl run`: a prompt goes in, a model reasons in parallel, a checked trace comes out."""

from __future__ import annotations

from typing import Unpack

import click

from nprdsl.cli.batch import run_many
from nprdsl.cli.failures import Command
from nprdsl.cli.files import STDIN
from nprdsl.cli.models import check_model_options, open_engine
from nprdsl.cli.prompts import read_prompts
from nprdsl.cli.settings import Given, run_options
from nprdsl.cli.single import run_one


@click.command(cls=Command, short_help="Run a prompt, or many, in parallel.")
@run_options
def run(**given: Unpack[Given]) -> None:
    """Reason about PROMPT in parallel, and show the trace, the answer and the figures.

    Without --model the bundled model `arith` adds up products such as '37*42+85*19?'.
    Many prompts come from --file, or from stdin if PROMPT is `-`.
    """
    prompt, file = given["prompt"], given["file"]
    if prompt == STDIN:
        prompt, file = None, file or STDIN
    _check_usage(given, prompt, file)
    check_model_options(given)
    rows = None if file is None else read_prompts(file, given["field"])
    engine, settings, named = open_engine(given)
    if rows is not None:
        run_many(engine, settings, rows, model=named, out=given["out"])
    elif prompt is not None:
        run_one(engine, settings, prompt, stats=given["stats"], as_json=given["as_json"])


def _check_usage(given: Given, prompt: str | None, file: str | None) -> None:
    if prompt is not None and file is not None:
        raise click.UsageError("give a PROMPT or --file, not both")
    if prompt is None and file is None:
        raise click.UsageError("give a PROMPT, --file, or - for prompts from stdin")
    if prompt is not None and not prompt.strip():
        raise click.UsageError("the PROMPT is empty")
    if given["out"] is not None and file is None:
        raise click.UsageError("--out is for the results of --file; use --json > FILE for one")
    if given["stats"] and file is not None:
        raise click.UsageError("--stats is for one PROMPT; see benchmarks/ for many")
