"""The options of `nprdsl run` and `nprdsl eval`: what they are called, and what they mean to the
library.

Everything that can be refused without the model is refused here, before torch is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import click

from nprdsl.cli.declared import load_schema
from nprdsl.cli.failures import Failure, told
from nprdsl.machine.actions import ALL, FIRST, JoinPolicy
from nprdsl.machine.budget import LimitError, Limits
from nprdsl.schema import Schema

if TYPE_CHECKING:
    from nprdsl.runtime.sampling import Sampling

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class Generating(TypedDict):
    """The values of the options of every generation, as click reads them."""

    schema: str | None
    terminals: str | None
    model: str | None
    engine: str | None
    device: str
    dtype: str
    max_kv_tokens: int
    chat: bool | None
    instructions: bool | None
    max_tokens: int
    branch_tokens: int | None
    rule_tokens: tuple[tuple[str, int], ...]
    depth: int | None
    branches: int | None
    blocks: int | None
    spawn: int | None
    join: JoinPolicy
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    repetition_penalty: float | None
    frequency_penalty: float | None
    presence_penalty: float | None
    seed: int
    per_rule: tuple[tuple[str, str, float], ...]
    parallel: bool


class Given(Generating):
    """The values of all options of `nprdsl run`."""

    prompt: str | None
    file: str | None
    field: str
    out: str | None
    stats: bool
    as_json: bool


class _Join(click.ParamType[JoinPolicy]):
    name = "all|first|K"

    def convert(self, value: Any, param: object, ctx: object) -> JoinPolicy:
        if isinstance(value, JoinPolicy):
            return value
        named = {"all": ALL, "first": FIRST}.get(value)
        if named is not None:
            return named
        if not value.isdecimal() or int(value) < 1:
            self.fail(f"`{value}` is not all, first or a number of branches, 1 or more")
        return JoinPolicy(int(value))


class _RuleTokens(click.ParamType[tuple[str, int]]):
    name = "RULE=N"

    def convert(self, value: Any, param: object, ctx: object) -> tuple[str, int]:
        rule, separator, count = value.partition("=")
        if not separator or not rule or not count.isdecimal():
            self.fail(f"`{value}` is not RULE=N, such as step=200")
        return rule, int(count)


class _PerRule(click.ParamType[tuple[str, str, float]]):
    name = "RULE.SETTING=VALUE"

    def convert(self, value: Any, param: object, ctx: object) -> tuple[str, str, float]:
        place, separator, number = value.partition("=")
        rule, dot, setting = place.partition(".")
        setting = setting.replace("-", "_")
        if not separator or not dot or not rule or not setting:
            self.fail(f"`{value}` is not RULE.SETTING=VALUE, such as step.repetition_penalty=1.02")
        try:
            return rule, setting, int(number) if setting == "top_k" else float(number)
        except ValueError:
            self.fail(f"`{number}` in `{value}` is not a number")


_option = click.option

_PROMPTS: tuple[Decorator, ...] = (
    click.argument("prompt", required=False),
    _option("--file", metavar="FILE", help="Many prompts: a line each, or .jsonl; `-` is stdin."),
    _option("--field", default="prompt", show_default=True, help="The field of .jsonl prompts."),
    _option("--out", metavar="FILE", help="Results of --file, JSONL; what is there is kept."),
)
_OUTPUT: tuple[Decorator, ...] = (
    _option("--stats", is_flag=True, help="Measure it against one branch after another."),
    _option("--json", "as_json", is_flag=True, help="One JSON object."),
)
_MODEL_AND_LIMITS: tuple[Decorator, ...] = (
    _option("--schema", help="A name or a .lark path [arith for the bundled model, else npr]."),
    _option(
        "--terminals",
        metavar="MODULE:NAME|FILE.json",
        help="Types of the terminals that the schema declares.",
    ),
    _option("--model", metavar="PATH|NAME", help="A folder or a hub name [the bundled `arith`]."),
    _option("--engine", metavar="URL", help="A server, as `nprdsl serve` starts it."),
    _option("--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1 or mps."),
    _option("--dtype", default="auto", show_default=True, help="auto, fp32, bf16 or fp16."),
    _option(
        "--max-kv-tokens",
        type=click.IntRange(1),
        default=65_536,
        show_default=True,
        help="Tokens in memory, of all prompts together.",
    ),
    _option(
        "--chat/--no-chat",
        default=None,
        help="Put the prompt into the model's chat template [if it has one].",
    ),
    _option(
        "--instructions/--no-instructions",
        default=None,
        help="Explain the format before the prompt [if the tags are no special tokens].",
    ),
    _option("--max-tokens", type=int, default=2048, show_default=True, help="Of the whole trace."),
    _option("--branch-tokens", type=int, help="The most tokens of a branch."),
    _option("--rule-tokens", type=_RuleTokens(), multiple=True, help="The most tokens of one use."),
    _option("--depth", type=int, help="How deep blocks may be nested."),
    _option("--branches", type=int, help="The most branches of a fork."),
    _option("--blocks", type=int, help="The most blocks of a branch."),
    _option("--spawn", type=int, help="Branches of a fork by count."),
    _option(
        "--join", type=_Join(), default="all", help="How many branches a join waits for [all]."
    ),
)
_SEED_AND_MODE: tuple[Decorator, ...] = (
    _option("--seed", type=int, default=0, show_default=True),
    _option("--per-rule", type=_PerRule(), multiple=True, help="Sampling inside one rule."),
    _option(
        "--parallel/--no-parallel",
        default=True,
        help="--no-parallel decodes one branch after another.",
    ),
)
_THE_MODELS = dict.fromkeys(("temperature", "top_p", "top_k", "min_p"), "the model's own")


def _drawing(own: Mapping[str, str]) -> tuple[Decorator, ...]:
    """How tokens are drawn; `own` says what holds where an option is not given."""
    return (
        _option("--temperature", type=float, help=f"0 is greedy [{own['temperature']}]."),
        _option("--top-p", type=float, help=f"[{own['top_p']}]"),
        _option("--top-k", type=int, help=f"[{own['top_k']}]"),
        _option("--min-p", type=float, help=f"[{own['min_p']}]"),
        _option("--repetition-penalty", type=float, help="[off]"),
        _option("--frequency-penalty", type=float, help="[off]"),
        _option("--presence-penalty", type=float, help="[off]"),
    )


def run_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """All options of `nprdsl run`."""
    return _with((*_PROMPTS, *_generation(_THE_MODELS), *_OUTPUT), command)


def generation_options(own: Mapping[str, str]) -> Decorator:
    """The options of every generation; `own` says what sampling is if it is not given."""
    return lambda command: _with(_generation(own), command)


def _generation(own: Mapping[str, str]) -> tuple[Decorator, ...]:
    return (*_MODEL_AND_LIMITS, *_drawing(own), *_SEED_AND_MODE)


def _with(options: tuple[Decorator, ...], command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(options):
        command = option(command)
    return command


@dataclass(frozen=True)
class Settings:
    """One run as the library takes it. `sampling` holds what was given; None is left to the
    model."""

    schema: Schema
    limits: Limits
    join: JoinPolicy
    parallel: bool
    chat: bool | None
    instructions: bool | None
    sampling: Mapping[str, Any]

    @property
    def identity(self) -> tuple[object, ...]:
        """What a result depends on besides model and sampling, as a value that can be written."""
        return (self.schema.grammar.digest, self.limits, self.join, self.parallel)

    def resolved(self, defaults: Mapping[str, Any]) -> Sampling:
        """The sampling settings, where `defaults` are the model's own."""
        from nprdsl.runtime.sampling import Sampling

        with told(ValueError, TypeError):
            sampling = Sampling.from_dict({**defaults, **self.sampling})
            sampling.check_rules(self.schema.grammar.rules)
        return sampling


def read_settings(given: Generating, default_schema: str) -> Settings:
    """The settings that the options ask for."""
    settings = Settings(
        schema=load_schema(given["schema"] or default_schema, given["terminals"]),
        limits=_limits(given),
        join=given["join"],
        parallel=given["parallel"],
        chat=given["chat"],
        instructions=given["instructions"],
        sampling=_sampling(given),
    )
    settings.resolved({})
    return settings


def _limits(given: Generating) -> Limits:
    rules = dict(given["rule_tokens"])
    if len(rules) < len(given["rule_tokens"]):
        raise Failure("--rule-tokens names a rule twice")
    with told(LimitError):
        return Limits(
            max_tokens=given["max_tokens"],
            branch_tokens=given["branch_tokens"],
            rule_tokens=rules,
            depth=given["depth"],
            branches=given["branches"],
            blocks=given["blocks"],
            spawn=given["spawn"],
        )


def _sampling(given: Generating) -> dict[str, Any]:
    from nprdsl.runtime.sampling import PER_RULE

    values: dict[str, Any] = dict(given)
    names = (*PER_RULE, "seed")
    chosen = {name: values[name] for name in names if values[name] is not None}
    rules: dict[str, dict[str, float]] = {}
    for rule, setting, value in given["per_rule"]:
        rules.setdefault(rule, {})[setting] = value
    return {**chosen, "rules": rules}
