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
from typing import TYPE_CHECKING, Final

import click

from nprdsl.cli.console import WatchStep, print_json, training_progress
from nprdsl.cli.failures import BadResult, as_failure, requiring
from nprdsl.cli.generation import engine_errors
from nprdsl.cli.options import (
    ABOVE_0,
    AT_LEAST_1,
    argument,
    command,
    option,
    required_option,
)
from nprdsl.cli.waiting_threads import settle_waiting

if TYPE_CHECKING:
    from nprdsl.trainers.config.stages import TrainingConfig
    from nprdsl.trainers.stages.sample import Sampled

_SHOWN: Final = ("loss", "rollout/reward", "rollout/accuracy", "rollout/legal", "eval/accuracy")


@dataclass(frozen=True, slots=True, kw_only=True)
class StageOptions:
    config: str | None = option(None, "What the stage is told.", metavar="FILE.toml")
    changes: tuple[str, ...] = option(
        (),
        "Another value, such as optimizer.learning_rate=1e-5.",
        flag="--set",
        metavar="KEY=VALUE",
    )
    restart: bool = option(False, "Begin anew; what was made is deleted.")
    as_json: bool = option(False, "One JSON object in the end.", flag="--json")


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleOptions(StageOptions):
    config: str = required_option("What the stage is told.", metavar="FILE.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainOptions(StageOptions):
    stage: str | None = argument(default=None, type=click.Choice(("zero", "sft", "papo")))
    plan: str | None = option(
        None, "Print what a step of this stage takes, and train nothing.", metavar="FILE.toml"
    )
    gpus: int = option(8, "Of the plan: how many.", type=AT_LEAST_1)
    memory: float = option(80.0, "Of the plan: GiB of each.", type=ABOVE_0)
    tflops: float = option(300.0, "Of the plan, assumed: `speed/tflops` of a run.", type=ABOVE_0)


@command(TrainOptions, short_help="Train a stage: zero, sft or papo.")
def train(options: TrainOptions) -> None:
    """Train a model by one of the three stages of NPR.

    zero is DAPO on what the model writes freely, sft imitates given traces with parallel masks,
    papo is reinforcement learning with the engine's parallel rollouts. The same command goes on
    where it was killed. configs/ has examples. --plan says before whether a run fits.
    """
    if options.plan is not None:
        if options.config is not None:
            raise click.UsageError("--plan names the configuration; leave --config out")
        _show_plan(options, Path(options.plan))
        return
    if options.stage is None or options.config is None:
        missing = "the stage: zero, sft or papo" if options.stage is None else "--config FILE.toml"
        raise click.UsageError(f"name {missing}")
    with _errors():
        configuration = _configuration(options.stage, Path(options.config), options.changes)
        settle_waiting()
        with training_progress(f"train {options.stage}", _SHOWN) as watch:
            model, metrics = _trained(options.stage, options, configuration, watch)
    if not _is_main_process():
        return
    if options.as_json:
        print_json({"model": str(model), "metrics": metrics})
        return
    for name, value in metrics.items():
        click.echo(f"{name:<24}  {value:.6g}")
    click.echo(f"{'model':<24}  {model}")


def _configuration(stage: str, path: Path, changes: tuple[str, ...]) -> TrainingConfig:
    from nprdsl.trainers import config

    kinds: dict[str, type[TrainingConfig]] = {
        "zero": config.ZeroConfig,
        "sft": config.SftConfig,
        "papo": config.PapoConfig,
    }
    return config.read_config(kinds[stage], path, changes)


def _show_plan(options: TrainOptions, path: Path) -> None:
    """Of a file that is named for its stage, unless that is given."""
    with _errors(), engine_errors():
        from nprdsl.trainers.run.plan import Gpus, plan, stage_of

        stage = options.stage or stage_of(path)
        made = plan(
            _configuration(stage, path, options.changes),
            Gpus(options.gpus, options.memory, options.tflops),
        )
    if options.as_json:
        print_json(asdict(made) | {"total": made.total, "fits": made.fits})
        return
    click.echo("\n".join(made.lines))


@command(SampleOptions, short_help="Sample right and legal traces to learn from.")
def sample(options: SampleOptions) -> None:
    """Rejection sampling: traces with the right answer and no violation, one for each problem.

    The same command goes on where it was killed.
    """
    with _errors():
        from nprdsl.trainers.config import SampleConfig, read_config

        configuration = read_config(SampleConfig, Path(options.config), options.changes)
        settle_waiting()
        from nprdsl.trainers.stages.sample import sample as sample_traces

        with training_progress("sample", ("traces",)) as watch, engine_errors():
            sampled = sample_traces(configuration, restart=options.restart, watch=watch)
    _show_sampled(sampled, options.as_json)


def _trained(
    stage: str, options: TrainOptions, configuration: TrainingConfig, watch: WatchStep
) -> tuple[Path, dict[str, float]]:
    """The folder of the trained model, and the latest value of every figure."""
    from nprdsl.runtime.sglang.client.weight_files import WeightsError
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

    with engine_errors(), as_failure(MismatchError, WeightsError, kind=BadResult):
        model = stages[stage](configuration, restart=options.restart, watch=keep, tell=_tell)
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
