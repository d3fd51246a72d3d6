"""The options of `nprdsl curate`."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Parameter(click.ParamType[tuple[str, Any]]):
    name = "NAME=VALUE"

    def convert(self, value: Any, param: object, ctx: object) -> tuple[str, Any]:
        name, separator, given = value.partition("=")
        if not separator or not name:
            self.fail(f"`{value}` is not NAME=VALUE, such as temperature=0.6")
        try:
            return name, json.loads(given)
        except ValueError:
            return name, given


_OPTIONS: list[Decorator] = [
    click.argument("input", metavar="INPUT.jsonl"),
    click.option("--schema", required=True, help="The schema of the traces: a name or .lark path."),
    click.option(
        "--endpoint",
        required=True,
        metavar="URL",
        help="An OpenAI-compatible endpoint, such as http://127.0.0.1:30000.",
    ),
    click.option("--model", required=True, help="The model there."),
    click.option(
        "--out",
        required=True,
        metavar="OUT.jsonl",
        help="The traces, as `nprdsl train` reads them.",
    ),
    click.option("--rejected", metavar="FILE", help="The rest.  [default: OUT.rejected.jsonl]"),
    click.option(
        "--cache",
        metavar="FOLDER",
        help="Replies that were paid for.  [default: curate-cache beside OUT]",
    ),
    click.option("--prompt-field", default="prompt", show_default=True),
    click.option("--thought-field", default="solution", show_default=True),
    click.option("--id-field", default="id", show_default=True),
    click.option(
        "--depth",
        type=click.IntRange(1),
        default=2,
        show_default=True,
        help="How many blocks may lie inside each other.",
    ),
    click.option(
        "--limit",
        type=click.FloatRange(0, 1),
        default=0.2,
        show_default=True,
        help="How far rewritten sentences may be from the chain: edits per character.",
    ),
    click.option(
        "--attempts",
        type=click.IntRange(1),
        default=3,
        show_default=True,
        help="Answers of a step before a chain is rejected.",
    ),
    click.option(
        "--judge",
        metavar="MODEL",
        help="A model that looks for branches that use a sibling's results.",
    ),
    click.option("--in-flight", type=click.IntRange(1), default=8, show_default=True),
    click.option("--retries", type=click.IntRange(0), default=5, show_default=True),
    click.option(
        "--timeout",
        type=click.FloatRange(0, min_open=True),
        default=600,
        show_default=True,
        metavar="SECONDS",
    ),
    click.option(
        "--structured",
        type=click.Choice(["auto", "always", "never"]),
        default="auto",
        show_default=True,
        help="JSON schemas in requests; auto sends them until the endpoint refuses one.",
    ),
    click.option(
        "--param",
        "sampling",
        type=_Parameter(),
        multiple=True,
        help="A parameter of the requests, such as temperature=0.6.",
    ),
    click.option(
        "--api-key-env",
        default="OPENAI_API_KEY",
        show_default=True,
        metavar="NAME",
        help="The environment variable that holds the secret.",
    ),
    click.option("--json", "as_json", is_flag=True, help="The figures as one JSON object."),
]


def curation_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All options, in the order of the help."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command
