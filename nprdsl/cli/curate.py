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
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypedDict, Unpack

import click

from nprdsl.cli.chains import Fields, read_chains
from nprdsl.cli.curation_options import curation_options
from nprdsl.cli.declared import load_schema
from nprdsl.cli.failures import Command, ExitCode, Failure, told
from nprdsl.cli.figures import lines
from nprdsl.cli.progress import progress
from nprdsl.journal import json_line, replacing

if TYPE_CHECKING:
    from nprdsl.trainers.curate import Chain, CostAccount, Curator, Endpoint, Outcome, Summary


class Given(TypedDict):
    """The values of the options as click reads them."""

    input: str
    schema: str
    endpoint: str
    model: str
    out: str
    rejected: str | None
    cache: str | None
    prompt_field: str
    thought_field: str
    id_field: str
    depth: int
    limit: float
    attempts: int
    judge: str | None
    in_flight: int
    retries: int
    timeout: float
    structured: str
    sampling: tuple[tuple[str, Any], ...]
    api_key_env: str
    as_json: bool


@click.command(cls=Command, short_help="Turn chains of thought into parallel traces.")
@curation_options
def curate(**given: Unpack[Given]) -> None:
    """Turn the sequential chains of thought in INPUT into legal parallel traces of a schema.

    INPUT is JSONL with a problem and its chain of thought in every row; - reads stdin. A model
    behind an OpenAI-compatible endpoint is asked for five steps; what it says is checked, and asked
    again with the reason. The secret of the endpoint comes from the environment. A run that was
    interrupted goes on where it was when the same command is given again.
    """
    try:
        from nprdsl.trainers.curate import CostAccount, Summary, UnusableEndpointError
    except ModuleNotFoundError as error:
        raise Failure(
            f"`nprdsl curate` needs {error.name}; install it with: pip install 'nprdsl[curate]'"
        ) from error
    chains = read_chains(
        given["input"], Fields(given["prompt_field"], given["thought_field"], given["id_field"])
    )
    account, summary = CostAccount(), Summary()
    with told(ValueError):
        curator, endpoint = _curator(given, account)
    with told(UnusableEndpointError), told(OSError, about="cannot write the results"):
        _run(given, curator, endpoint, chains, summary)
    _tell(given, summary, account)
    if summary.unanswered or not summary.curated:
        sys.exit(ExitCode.BAD)


def _curator(given: Given, account: CostAccount) -> tuple[Curator, Endpoint]:
    """What the options say, checked before anything is asked."""
    from nprdsl.trainers.curate import (
        Asker,
        Cache,
        Curator,
        Endpoint,
        Secret,
        Service,
        Structured,
        room_of,
    )

    schema = load_schema(given["schema"], None)
    service = Service(
        given["endpoint"],
        Secret.from_environment(given["api_key_env"]),
        Structured(given["structured"]),
        given["retries"],
        given["timeout"],
    )
    folder = Path(given["cache"] or Path(given["out"]).parent / "curate-cache")
    endpoint = Endpoint(service, Cache(folder), account)
    sampling, attempts = dict(given["sampling"]), given["attempts"]
    asker = Asker(endpoint, account, given["model"], sampling, attempts)
    judges = () if given["judge"] is None else (given["judge"],)
    curator = Curator(
        schema,
        given["schema"],
        room_of(schema, given["depth"]),
        asker,
        tuple(Asker(endpoint, account, model, sampling, attempts) for model in judges),
        given["limit"],
    )
    return curator, endpoint


def _run(
    given: Given, curator: Curator, endpoint: Endpoint, chains: list[Chain], summary: Summary
) -> None:
    from nprdsl.trainers.curate import Curated, curate_all

    out = given["out"]
    rejected = given["rejected"] or str(Path(out).with_suffix(".rejected.jsonl"))
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
                await curate_all(curator, chains, take, in_flight=given["in_flight"])
            finally:
                await endpoint.close()

        asyncio.run(work())


@contextmanager
def _whole(name: str) -> Iterator[BinaryIO]:
    """A file that takes the place of `name` when all of it is written, and only then."""
    with ExitStack() as stack:
        with told(OSError, about=f"cannot write `{name}`"):
            file = stack.enter_context(replacing(Path(name)))
        yield file


def _tell(given: Given, summary: Summary, account: CostAccount) -> None:
    if given["as_json"]:
        figures = {**summary.to_dict(), "cost": account.to_dict()}
        click.echo(json.dumps(figures, ensure_ascii=False))
        return
    click.echo("\n".join(lines(_figures(summary))))
    click.echo()
    click.echo("\n".join(_costs(account)))
    if summary.unanswered:
        click.echo("the endpoint failed some chains; the same command tries them again", err=True)


def _figures(summary: Summary) -> list[tuple[str, str]]:
    """Name and value of everything that is told of the traces."""
    told = summary.to_dict()
    rows = [("traces", f"{told['curated']} of {told['chains']} chains")]
    for entry in told["reasons"]:
        step = f" in {entry['step']}" if entry["step"] else ""
        rows.append(("rejected", f"{entry['chains']} {entry['reason']}{step}"))
    if not told["curated"]:
        return rows
    kinds = ", ".join(f"{count} {kind}" for kind, count in told["kinds"].items())
    depths = ", ".join(f"{count} of depth {depth}" for depth, count in told["depths"].items())
    return [
        *rows,
        ("blocks", f"{told['blocks']} ({kinds}), {told['blocks_per_trace']:.2f} a trace"),
        ("branches", f"{told['branches_per_trace']:.2f} a trace"),
        ("nesting", depths),
        ("degree of parallelism", f"{told['degree']:.2f}, in characters"),
        ("distance", f"{told['distance']:.3f} of {told['curated']} chains, on average"),
    ]


def _costs(account: CostAccount) -> list[str]:
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
