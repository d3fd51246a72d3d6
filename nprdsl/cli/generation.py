"""What traces are generated with, for `nprdsl run` and `nprdsl eval`: options, settings, engine.

Everything that can be refused without the model is refused before torch is loaded. The model is the
bundled one, a folder, a hub name, or that of a server.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol

import click

from nprdsl.cli.console import working
from nprdsl.cli.failures import BadResult, Failure, as_failure, requiring
from nprdsl.cli.options import AT_LEAST_1, Parsed, first_given, option, terminals_option
from nprdsl.cli.terminals import load_schema
from nprdsl.cli.waiting_threads import settle_waiting
from nprdsl.machine.actions import ALL, FIRST, JoinPolicy
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.prompting.examples import ExampleChoice, Examples
from nprdsl.schema import Schema

if TYPE_CHECKING:
    from nprdsl.runtime.engine import Engine
    from nprdsl.runtime.local import LocalEngine
    from nprdsl.runtime.sampling import Sampling
    from nprdsl.runtime.sglang.client.engine import SGLangEngine

_LOCAL_ONLY: Final = ("model", "device", "dtype", "max_kv_tokens")


def _read_join(text: str) -> JoinPolicy:
    named = {"all": ALL, "first": FIRST}.get(text)
    if named is not None:
        return named
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"`{text}` is not all, first or a number of branches, 1 or more")
    return JoinPolicy(int(text))


def _read_rule_tokens(text: str) -> tuple[str, int]:
    rule, separator, count = text.partition("=")
    if not separator or not rule or not count.isdecimal():
        raise ValueError(f"`{text}` is not RULE=N, such as step=200")
    return rule, int(count)


def _read_rule_setting(text: str) -> tuple[str, str, float]:
    place, separator, number = text.partition("=")
    rule, dot, setting = place.partition(".")
    setting = setting.replace("-", "_")
    if not separator or not dot or not rule or not setting:
        raise ValueError(
            f"`{text}` is not RULE.SETTING=VALUE, such as step.repetition_penalty=1.02"
        )
    try:
        return rule, setting, int(number) if setting == "top_k" else float(number)
    except ValueError:
        raise ValueError(f"`{number}` in `{text}` is not a number") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitOptions:
    """`Limits` as they are given."""

    max_tokens: int | None = option(
        None, "Of the whole trace [2048; 1024 for a model that does not know the format]."
    )
    max_positions: int | None = option(
        None, "Of the whole trace, where branches side by side take the same ones."
    )
    branch_tokens: int | None = option(None, "The most tokens of a branch.")
    rule_tokens: tuple[tuple[str, int], ...] = option(
        (), "The most tokens of one use.", type=Parsed("RULE=N", _read_rule_tokens)
    )
    depth: int | None = option(None, "How deep blocks may be nested.")
    branches: int | None = option(None, "The most branches of a fork.")
    blocks: int | None = option(None, "The most blocks of a branch.")
    spawn: int | None = option(None, "Branches of a fork by count.")

    def limits(self) -> Limits:
        """Raises LimitError."""
        rules = dict(self.rule_tokens)
        if len(rules) < len(self.rule_tokens):
            raise Failure("--rule-tokens names a rule twice")
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return Limits(**{**given, "rule_tokens": rules})


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingOptions:
    """`Sampling` as far as it is given: the model has settings of its own."""

    temperature: float | None = option(None, "0 is greedy [the model's own].")
    top_p: float | None = option(None, "[the model's own]")
    top_k: int | None = option(None, "[the model's own]")
    min_p: float | None = option(None, "[the model's own]")
    repetition_penalty: float | None = option(None, "[off]")
    frequency_penalty: float | None = option(None, "[off]")
    presence_penalty: float | None = option(None, "[off]")
    seed: int = option(0)
    per_rule: tuple[tuple[str, str, float], ...] = option(
        (), "Sampling inside one rule.", type=Parsed("RULE.SETTING=VALUE", _read_rule_setting)
    )

    def resolved(self, schema: Schema, defaults: Mapping[str, Any]) -> Sampling:
        """The sampling settings, where `defaults` are the model's own."""
        from nprdsl.runtime.sampling import Sampling

        given = {name: value for name, value in asdict(self).items() if value is not None}
        rules: dict[str, dict[str, float]] = {}
        for rule, setting, value in given.pop("per_rule"):
            rules.setdefault(rule, {})[setting] = value
        with as_failure(ValueError, TypeError):
            sampling = Sampling.from_dict({**defaults, **given, "rules": rules})
            sampling.check_rules(schema.grammar.rules)
        return sampling


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationOptions:
    """Schema, model and settings of every generation."""

    schema: str | None = option(
        None, "A name or a .lark path [npr; arith for the model of that name]."
    )
    terminals: str | None = terminals_option()
    model: str | None = option(
        None,
        "A folder or a hub name [the bundled `smol`; with --schema arith, `arith`].",
        metavar="PATH|NAME",
    )
    engine: str | None = option(None, "A server, as `nprdsl serve` starts it.", metavar="URL")
    api_key: str | None = option(
        None, "That server's [NPRDSL_API_KEY of the environment].", metavar="SECRET"
    )
    device: str = option("cpu", "cpu, cuda, cuda:1 or mps.")
    dtype: str = option("auto", "auto, fp32, bf16 or fp16.")
    max_kv_tokens: int = option(
        65_536, "Tokens in memory, of all prompts together.", type=AT_LEAST_1
    )
    chat: bool | None = option(
        None, "Put the prompt into the model's chat template [if it has one]."
    )
    instructions: bool | None = option(
        None, "Show the format before the prompt [unless the model knows it]."
    )
    limits: LimitOptions
    join: JoinPolicy = option(
        ALL,
        "How many branches a join waits for [all].",
        type=Parsed("all|first|K", _read_join),
        show_default=False,
    )
    sampling: SamplingOptions
    parallel: bool = option(True, "--no-parallel decodes one branch after another.")


# engines


class EngineOptions(Protocol):
    """What says whose model runs."""

    @property
    def model(self) -> str | None: ...

    @property
    def engine(self) -> str | None: ...

    @property
    def api_key(self) -> str | None: ...


def check_model_options(options: EngineOptions) -> None:
    """Options of a model in this process are refused where a server has the model, and a model
    without a name, as an empty variable of a shell gives one."""
    option = None if options.engine is None else first_given(_LOCAL_ONLY)
    if option is not None:
        raise click.UsageError(
            f"{option} is for a model in this process; the server of --engine has its own"
        )
    if options.api_key is not None and options.engine is None:
        raise click.UsageError("--api-key is that of a server; give its address with --engine")
    if options.model == "":
        raise click.UsageError("--model is empty")


@dataclass(frozen=True, slots=True)
class Generator:
    """An engine with everything that a prompt is run with. `model` names what it runs."""

    engine: Engine
    model: str
    schema_name: str
    schema: Schema
    limits: Limits
    join: JoinPolicy
    parallel: bool
    sampling: Sampling
    prompting: dict[str, bool]  # `chat` and `instructions`
    examples: Examples = ExampleChoice.OWN
    note: str = ""  # what was done for a model that does not know the format
    task: str = ""  # what a model of the package answers

    def arguments(self, *, parallel: bool | None = None) -> dict[str, Any]:
        """What every request takes besides schema and prompt."""
        return {
            "sampling": self.sampling,
            "limits": self.limits,
            "join": self.join,
            "parallel": self.parallel if parallel is None else parallel,
            "examples": self.examples,
            **self.prompting,
        }

    def check_limits(self) -> None:
        """A `Failure` where the limits leave no legal trace."""
        with engine_errors():
            Machine(self.engine.bind(self.schema), limits=self.limits, join=self.join)


def open_generator(options: GenerationOptions) -> Generator:
    """The engine that the options ask for, and their settings. A `Failure` where there is none."""
    engine: Engine | None = None
    model = options.model
    if options.engine is not None:
        with working(f"asking {options.engine}"):
            engine = reach_engine(options.engine, options.api_key)
        model = engine.info.model
    schema_name = options.schema or _default_schema(model)
    schema = load_schema(schema_name, options.terminals)
    limits = options.limits.limits()
    options.sampling.resolved(schema, {})
    if engine is None:
        with working(f"loading {model or 'the bundled model'}"):
            engine = load_engine(options)
        model = f"{model} {options.dtype}"
    with engine_errors():
        sampling = options.sampling.resolved(schema, engine.sampling_defaults)
        is_trained = engine.knows(schema)
    prompting = {
        "chat": engine.chats if options.chat is None else options.chat,
        "instructions": not is_trained if options.instructions is None else options.instructions,
    }
    return Generator(
        engine=engine,
        model=str(model),
        schema_name=schema_name,
        schema=schema,
        limits=limits,
        join=options.join,
        parallel=options.parallel,
        sampling=sampling,
        prompting=prompting,
        task=_task(options),
    )


def within_own_limits(generator: Generator, options: GenerationOptions) -> Generator:
    """The generator with the limits of a model of the package, where it runs in its own language.
    Limits that are given go before; those of rules and branches stand alone."""
    from nprdsl.runtime.bundled import BUNDLED, is_bundled

    name = local_model(options)
    if options.engine is not None or not is_bundled(name):
        return generator
    given = {name: value for name, value in asdict(options.limits).items() if value is not None}
    rules, own = given.pop("rule_tokens"), BUNDLED[name]
    if rules or "branch_tokens" in given or generator.schema_name != own.schema:
        return generator
    return replace(generator, limits=replace(own.limits, **given))


def _task(options: GenerationOptions) -> str:
    """What a model of the package answers, in words; nothing of other models."""
    from nprdsl.runtime.bundled import BUNDLED, is_bundled

    name = local_model(options)
    if options.engine is not None or not is_bundled(name):
        return ""
    return f"`{name}` answers {BUNDLED[name].answers}"


def local_model(options: GenerationOptions) -> str:
    """The model that runs in this process: the one that is named, else one of the package."""
    from nprdsl.runtime.bundled import bundled_for

    return options.model or bundled_for(options.schema)


def _default_schema(model: str | None) -> str:
    """The schema that a model is run with if none is named."""
    from nprdsl.runtime.bundled import BUNDLED, SMOL, is_bundled

    name = model or SMOL
    return BUNDLED[name].schema if is_bundled(name) else "npr"


def load_engine(options: GenerationOptions) -> LocalEngine:
    """The engine that the options ask for. A `Failure` where it cannot be had."""
    model = local_model(options)
    return load_model(model, options.device, options.dtype, options.max_kv_tokens)


def load_model(name: str, device: str, dtype: str, max_kv_tokens: int) -> LocalEngine:
    """The engine of a model in this process. A `Failure` where it cannot be had."""
    settle_waiting()
    with requiring("local", user="this command"):
        from safetensors import SafetensorError

        from nprdsl.runtime.local import LocalEngine
    with (
        as_failure(ValueError, OSError),
        as_failure(
            ImportError,
            KeyError,
            RuntimeError,
            SafetensorError,
            TypeError,
            AttributeError,
            about=f"cannot load the model `{name}`",
        ),
    ):
        return LocalEngine.from_pretrained(
            name, device=device, dtype=dtype, max_kv_tokens=max_kv_tokens
        )


def reach_engine(url: str, api_key: str | None = None) -> SGLangEngine:
    """The engine of the server at that address. A `Failure` where there is none."""
    try:
        from nprdsl.runtime.errors import EngineUnavailableError
        from nprdsl.runtime.sglang.client.engine import SGLangEngine

        with as_failure(ValueError, EngineUnavailableError):
            return SGLangEngine(url, api_key=api_key)
    except ModuleNotFoundError as error:
        raise Failure(
            f"--engine needs {error.name}, for the tokenizer; install it with: "
            "pip install transformers"
        ) from error


@contextmanager
def engine_errors(task: str = "") -> Iterator[None]:
    """Errors of a generation become messages; of a prompt, behind what the model answers."""
    from nprdsl.runtime.errors import (
        CapacityError,
        EngineUnavailableError,
        UnsupportedModelError,
        UnsupportedServerError,
    )
    from nprdsl.runtime.prompts import PromptError
    from nprdsl.runtime.results import GenerationError

    with (
        as_failure(PromptError, about=task),
        as_failure(
            CapacityError,
            EngineUnavailableError,
            UnsupportedModelError,
            UnsupportedServerError,
        ),
        as_failure(GenerationError, *_out_of_memory(), kind=BadResult),
    ):
        yield


def _out_of_memory() -> tuple[type[Exception], ...]:
    """torch's own error; engines of servers do without torch."""
    torch = sys.modules.get("torch")
    return () if torch is None else (torch.OutOfMemoryError,)
