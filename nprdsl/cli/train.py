"""`nprdsl train zero|sft|papo` and `nprdsl sample`: a stage from its configuration.

The configuration is read before torch is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

import click

from nprdsl.cli.console import WatchStep, print_json, training_progress
from nprdsl.cli.failures import BadResult, as_failure, requiring
from nprdsl.cli.generation import engine_errors, quiet_threads
from nprdsl.cli.options import argument, command, option, required_option

if TYPE_CHECKING:
    from pydantic import BaseModel

    from nprdsl.trainers.stages.sample import Sampled

_SHOWN: Final = ("loss", "rollout/reward", "rollout/accuracy", "rollout/legal", "eval/accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions:
    config: str = required_option("What the stage is told.", metavar="FILE.toml")
    changes: tuple[str, ...] = option(
        (),
        "Another value, such as optimizer.learning_rate=1e-5.",
        flag="--set",
        metavar="KEY=VALUE",
    )
    restart: bool = option(False, "Begin anew; what was made is deleted.")
    as_json: bool = option(False, "One JSON object in the end.", flag="--json")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(SampleOptions):
    stage: Literal["zero", "sft", "papo"] = argument()


@command(TrainOptions, short_help="Train a stage: zero, sft or papo.")
def train(options: TrainOptions) -> None:
    """Train a model by one of the three stages of NPR.

    zero is DAPO on what the model writes freely, sft imitates given traces with parallel masks,
    papo is reinforcement learning with the engine's parallel rollouts. The same command goes on
    where it was killed. configs/ has examples.
    """
    with _errors():
        from nprdsl.trainers import config

        kinds: dict[str, type[BaseModel]] = {
            "zero": config.ZeroConfig,
            "sft": config.SftConfig,
            "papo": config.PapoConfig,
        }
        kind = kinds[options.stage]
        configuration = config.read_config(kind, Path(options.config), options.changes)
        quiet_threads()
        with training_progress(f"train {options.stage}", _SHOWN) as watch:
            model, metrics = _trained(options, configuration, watch)
    if not _is_main_process():
        return
    if options.as_json:
        print_json({"model": str(model), "metrics": metrics})
        return
    for name, value in metrics.items():
        click.echo(f"{name:<24}  {value:.6g}")
    click.echo(f"{'model':<24}  {model}")


@command(SampleOptions, short_help="Sample right and legal traces to learn from.")
def sample(options: SampleOptions) -> None:
    """Rejection sampling: traces with the right answer and no violation, one for each problem.

    The same command goes on where it was killed.
    """
    with _errors():
        from nprdsl.trainers.config import SampleConfig, read_config

        configuration = read_config(SampleConfig, Path(options.config), options.changes)
        quiet_threads()
        from nprdsl.trainers.stages.sample import sample as sample_traces

        with training_progress("sample", ("traces",)) as watch, engine_errors():
            sampled = sample_traces(configuration, restart=options.restart, watch=watch)
    _show_sampled(sampled, options.as_json)


def _trained(
    options: TrainOptions, configuration: BaseModel, watch: WatchStep
) -> tuple[Path, dict[str, float]]:
    """The folder of the trained model, and the latest value of every figure."""
    from nprdsl.trainers.rollout.mismatch import MismatchError
    from nprdsl.trainers.run.session import leave_group
    from nprdsl.trainers.stages.papo import train_papo
    from nprdsl.trainers.stages.sft import train_sft
    from nprdsl.trainers.stages.zero import train_zero

    stages: dict[str, Callable[..., Path]]
    stages = {"zero": train_zero, "sft": train_sft, "papo": train_papo}
    metrics: dict[str, float] = {}

    def keep(step: int, total: int, figures: Mapping[str, float]) -> None:
        metrics.update(figures)
        watch(step, total, figures)

    with engine_errors(), as_failure(MismatchError, kind=BadResult):
        train_stage = stages[options.stage]
        model = train_stage(configuration, restart=options.restart, watch=keep, tell=_tell)
    leave_group()
    return model, metrics


def _tell(message: str) -> None:
    if _is_main_process():
        click.echo(message, err=True)


def _show_sampled(sampled: Sampled, as_json: bool) -> None:
    if as_json:
        print_json(asdict(sampled) | {"output": str(sampled.output), "why": dict(sampled.why)})
        return
    for row in sampled.rejected:
        click.echo(f"no problem: {row}", err=True)
    counts = {
        "problems": sampled.problems,
        "traces": sampled.traces,
        "trials": sampled.trials,
        "problems without a trace": len(sampled.unsolved),
    }
    for why, count in sorted(sampled.why.items(), key=lambda pair: -pair[1]):
        counts[f"not kept: {why}"] = count
    for name, count in counts.items():
        click.echo(f"{name:<24}  {count:,}")
    click.echo(f"{'written to':<24}  {sampled.output}")


@contextmanager
def _errors() -> Iterator[None]:
    """Errors of configurations, data, folders and models become messages, and so does a missing
    library."""
    with requiring("train", user="training"), as_failure(ValueError, OSError):
        yield


def _is_main_process() -> bool:
    """Of several processes one speaks."""
    return os.environ.get("RANK", "0") == "0" or "torch" not in sys.modules
