"""`nprdsl curate`: sequential chains of thought become parallel traces of a schema.

Both files appear whole when the run is over; until then every reply is in the cache, from which the
same command goes on.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import click

from nprdsl.cli.console import aligned, print_json, progress
from nprdsl.cli.failures import ExitCode, Failure, as_failure, requiring
from nprdsl.cli.files import read_chains
from nprdsl.cli.options import (
    AT_LEAST_0,
    AT_LEAST_1,
    Parsed,
    argument,
    command,
    option,
    required_option,
)
from nprdsl.cli.terminals import load_schema
from nprdsl.trace.journal import json_line, replacing

if TYPE_CHECKING:
    from nprdsl.trainers.curate import Account, Chain, Curator, Endpoint, Outcome, Secret, Summary


def _read_parameter(text: str) -> tuple[str, Any]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise ValueError(f"`{text}` is not NAME=VALUE, such as temperature=0.6")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


@dataclass(frozen=True, slots=True, kw_only=True)
class CurationOptions:
    input: str = argument("INPUT.jsonl")
    schema: str = required_option("The schema of the traces: a name or .lark path.")
    endpoint: str = required_option(
        "An OpenAI-compatible endpoint, such as http://127.0.0.1:30000.", metavar="URL"
    )
    model: str = required_option("The model there.")
    out: str = required_option("The traces, as `nprdsl train` reads them.", metavar="OUT.jsonl")
    rejected: str | None = option(None, "The rest.  [default: OUT.rejected.jsonl]", metavar="FILE")
    cache: str | None = option(
        None, "Replies that were paid for.  [default: curate-cache beside OUT]", metavar="FOLDER"
    )
    prompt_field: str = option("prompt")
    thought_field: str = option("solution")
    id_field: str = option("id")
    depth: int = option(2, "How many blocks may lie inside each other.", type=AT_LEAST_1)
    limit: float = option(
        0.2,
        "How far rewritten sentences may be from the chain: edits per character.",
        type=click.FloatRange(0, 1),
    )
    attempts: int = option(3, "Answers of a step before a chain is rejected.", type=AT_LEAST_1)
    judge: str | None = option(
        None, "A model that looks for branches that use a sibling's results.", metavar="MODEL"
    )
    in_flight: int = option(8, type=AT_LEAST_1)
    retries: int = option(5, type=AT_LEAST_0)
    timeout: float = option(600, metavar="SECONDS", type=click.FloatRange(0, min_open=True))
    structured: Literal["auto", "always", "never"] = option(
        "auto", "JSON schemas in requests; auto sends them until the endpoint refuses one."
    )
    sampling: tuple[tuple[str, Any], ...] = option(
        (),
        "A parameter of the requests, such as temperature=0.6.",
        flag="--param",
        type=Parsed("NAME=VALUE", _read_parameter),
    )
    api_key: str | None = option(
        None, "The secret; other users may see it among the processes.", metavar="SECRET"
    )
    api_key_env: str | None = option(
        None,
        "The environment variable that holds it [NPRDSL_API_KEY, else OPENAI_API_KEY].",
        metavar="NAME",
    )
    as_json: bool = option(False, "The figures as one JSON object.", flag="--json")


@command(CurationOptions, short_help="Turn chains of thought into parallel traces.")
def curate(options: CurationOptions) -> None:
    """Turn the sequential chains of thought in INPUT into legal parallel traces of a schema.

    INPUT is JSONL with a problem and its chain of thought in every row; - reads stdin. A model
    behind an OpenAI-compatible endpoint is asked for five steps; what it says is checked, and asked
    again with the reason. The secret of the endpoint comes from the environment. A run that was
    interrupted goes on where it was when the same command is given again.
    """
    with requiring("curate", user="`nprdsl curate`"):
        from nprdsl.trainers.curate import Account, Summary, UnusableEndpointError
    chains = read_chains(
        options.input,
        prompt=options.prompt_field,
        thought=options.thought_field,
        id=options.id_field,
    )
    account, summary = Account(), Summary()
    with as_failure(ValueError):
        curator, endpoint = _curator(options, account)
    with as_failure(UnusableEndpointError), as_failure(OSError, about="cannot write the results"):
        _run(options, curator, endpoint, chains, summary)
    _show(options, summary, account)
    if summary.unanswered or not summary.curated:
        sys.exit(ExitCode.BAD)


def _curator(options: CurationOptions, account: Account) -> tuple[Curator, Endpoint]:
    """What the options say, checked before anything is asked."""
    from nprdsl.trainers.curate import (
        Asker,
        Cache,
        Curator,
        Endpoint,
        Service,
        Structured,
        room_of,
    )

    schema = load_schema(options.schema, None)
    service = Service(
        options.endpoint,
        _secret(options),
        Structured(options.structured),
        options.retries,
        options.timeout,
    )
    folder = Path(options.cache or Path(options.out).parent / "curate-cache")
    endpoint = Endpoint(service, Cache(folder), account)
    sampling, attempts = dict(options.sampling), options.attempts
    asker = Asker(endpoint, account, options.model, sampling, attempts)
    judges = () if options.judge is None else (options.judge,)
    curator = Curator(
        schema,
        options.schema,
        room_of(schema, options.depth),
        asker,
        tuple(Asker(endpoint, account, model, sampling, attempts) for model in judges),
        options.limit,
    )
    return curator, endpoint


def _secret(options: CurationOptions) -> Secret:
    """The endpoint's secret: given by hand, or that of the environment."""
    from nprdsl.runtime.api_key import VARIABLE, api_key
    from nprdsl.trainers.curate import Secret

    if options.api_key is not None:
        if options.api_key_env is not None:
            raise Failure("give --api-key or --api-key-env, not both")
        return Secret.given(api_key(options.api_key))
    if options.api_key_env is not None:
        return Secret.from_environment(options.api_key_env)
    return Secret.from_environment(VARIABLE, "OPENAI_API_KEY")


def _run(
    options: CurationOptions,
    curator: Curator,
    endpoint: Endpoint,
    chains: list[Chain],
    summary: Summary,
) -> None:
    from nprdsl.trainers.curate import Curated, curate_all

    out = options.out
    rejected = options.rejected or str(Path(out).with_suffix(".rejected.jsonl"))
    if Path(rejected) == Path(out):
        raise Failure(f"`{out}` cannot hold both the traces and the rejected chains")
    with (
        _whole(out) as traces,
        _whole(rejected) as refused,
        progress("chains", len(chains)) as advance,
    ):

        def take(outcome: Outcome) -> None:
            file = traces if isinstance(outcome, Curated) else refused
            file.write(json_line(outcome.row()))
            summary.add(outcome)
            advance()

        async def work() -> None:
            try:
                await curate_all(curator, chains, take, in_flight=options.in_flight)
            finally:
                await endpoint.close()

        asyncio.run(work())


@contextmanager
def _whole(name: str) -> Iterator[BinaryIO]:
    """A file that takes the place of `name` when all of it is written, and only then."""
    with ExitStack() as stack:
        with as_failure(OSError, about=f"cannot write `{name}`"):
            file = stack.enter_context(replacing(Path(name)))
        yield file


def _show(options: CurationOptions, summary: Summary, account: Account) -> None:
    if options.as_json:
        print_json({**summary.to_dict(), "cost": account.to_dict()})
        return
    click.echo("\n".join(aligned(_figures(summary))))
    click.echo()
    click.echo("\n".join(_costs(account)))
    if summary.unanswered:
        click.echo("the endpoint failed some chains; the same command tries them again", err=True)


def _figures(summary: Summary) -> list[tuple[str, str]]:
    """Names and values of everything that is shown of the traces."""
    values = summary.to_dict()
    rows = [("traces", f"{values['curated']} of {values['chains']} chains")]
    for entry in values["reasons"]:
        step = f" in {entry['step']}" if entry["step"] else ""
        rows.append(("rejected", f"{entry['chains']} {entry['reason']}{step}"))
    if not values["curated"]:
        return rows
    kinds = ", ".join(f"{count} {kind}" for kind, count in values["kinds"].items())
    depths = ", ".join(f"{count} of depth {depth}" for depth, count in values["depths"].items())
    return [
        *rows,
        ("blocks", f"{values['blocks']} ({kinds}), {values['blocks_per_trace']:.2f} a trace"),
        ("branches", f"{values['branches_per_trace']:.2f} a trace"),
        ("nesting", depths),
        ("degree of parallelism", f"{values['degree']:.2f}, in characters"),
        ("distance", f"{values['distance']:.3f} of {values['curated']} chains, on average"),
    ]


def _costs(account: Account) -> list[str]:
    """The account as a table."""
    head = ("step", "calls", "cached", "asked again", "retries", "prompt tokens", "reply tokens")
    table: list[tuple[str, ...]] = [head]
    for step, cost in account.to_dict().items():
        names = ("calls", "cached", "again", "retries", "prompt_tokens", "completion_tokens")
        table.append((step, *(f"{cost[name]:,}" for name in names)))
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    return [
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in table
    ]
