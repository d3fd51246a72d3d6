"""`nprdsl train zero|sft|papo` and `nprdsl sample`: a stage from its configuration.

The configuration is read before torch is loaded.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from nprdsl.cli.failures import Command, Failure, Rejected, told
from nprdsl.cli.models import engine_errors
from nprdsl.cli.progress import Steps, steps

if TYPE_CHECKING:
    from pydantic import BaseModel

    from nprdsl.trainers.stages.sample import Sampled

_option = click.option
_SHOWN: Final = ("loss", "rollout/reward", "rollout/accuracy", "rollout/legal", "eval/accuracy")

Decorated = Callable[..., Any]


def _options(command: Decorated) -> Decorated:
    """What all stages take."""
    for decorate in reversed(
        (
            _option("--config", required=True, metavar="FILE.toml", help="What the stage is told."),
            _option(
                "--set",
                "changes",
                multiple=True,
                metavar="KEY=VALUE",
                help="Another value, such as optimizer.learning_rate=1e-5.",
            ),
            _option("--restart", is_flag=True, help="Begin anew; what was made is deleted."),
            _option("--json", "as_json", is_flag=True, help="One JSON object in the end."),
        )
    ):
        command = decorate(command)
    return command


@click.command(cls=Command, short_help="Train a stage: zero, sft or papo.")
@click.argument("stage", type=click.Choice(["zero", "sft", "papo"]))
@_options
def train(stage: str, config: str, changes: tuple[str, ...], restart: bool, as_json: bool) -> None:
    """Train a model by one of the three stages of NPR.

    zero is DAPO on what the model writes freely, sft imitates given traces with parallel masks,
    papo is reinforcement learning with the engine's parallel rollouts. The same command goes on
    where it was killed. configs/ has examples.
    """
    with _requirements(), _errors():
        made = _stage(stage, config, changes)
        with steps(f"train {stage}", _SHOWN) as watch:
            model, last = made(restart, watch)
    if not _is_main():
        return
    if as_json:
        click.echo(json.dumps({"model": str(model), "metrics": last}))
        return
    for name, value in last.items():
        click.echo(f"{name:<24}  {value:.6g}")
    click.echo(f"{'model':<24}  {model}")


@click.command(cls=Command, short_help="Sample right and legal traces to learn from.")
@_options
def sample(config: str, changes: tuple[str, ...], restart: bool, as_json: bool) -> None:
    """Rejection sampling: traces with the right answer and no violation, one for each problem.

    The same command goes on where it was killed.
    """
    with _requirements(), _errors():
        from nprdsl.trainers.config import SampleConfig, read_config

        read = read_config(SampleConfig, Path(config), changes)
        _quiet_threads()
        from nprdsl.trainers.stages.sample import sample as run

        with steps("sample", ("traces",)) as watch, engine_errors():
            found = run(read, restart=restart, watch=watch)
    _tell_sampled(found, as_json)


def _stage(
    stage: str, config: str, changes: Sequence[str]
) -> Callable[[bool, Steps], tuple[Path, dict[str, float]]]:
    """The stage with its configuration, which is checked now."""
    from nprdsl.trainers import config as configs

    kinds: dict[str, type[BaseModel]] = {
        "sft": configs.SftConfig,
        "zero": configs.ZeroConfig,
        "papo": configs.PapoConfig,
    }
    read = configs.read_config(kinds[stage], Path(config), changes)
    _quiet_threads()

    def run(restart: bool, watch: Steps) -> tuple[Path, dict[str, float]]:
        from nprdsl.trainers.rollout.rollout import MismatchError
        from nprdsl.trainers.run.session import leave_group
        from nprdsl.trainers.stages.papo import train_papo
        from nprdsl.trainers.stages.sft import train_sft
        from nprdsl.trainers.stages.zero import train_zero

        last: dict[str, float] = {}

        def seen(step: int, total: int, metrics: Any) -> None:
            last.update(metrics)
            watch(step, total, metrics)

        options: dict[str, Any] = {"restart": restart, "watch": seen, "tell": _tell}
        model = Path()
        with engine_errors(), told(MismatchError, kind=Rejected):
            match read:
                case configs.SftConfig():
                    model = train_sft(read, **options)
                case configs.ZeroConfig():
                    model = train_zero(read, **options)
                case configs.PapoConfig():
                    model = train_papo(read, **options)
        leave_group()
        return model, last

    return run


def _tell(message: str) -> None:
    if _is_main():
        click.echo(message, err=True)


def _tell_sampled(found: Sampled, as_json: bool) -> None:
    if as_json:
        told_ = asdict(found) | {"output": str(found.output), "why": dict(found.why)}
        click.echo(json.dumps(told_, ensure_ascii=False))
        return
    for row in found.rejected:
        click.echo(f"no problem: {row}", err=True)
    rows = {
        "problems": found.problems,
        "traces": found.traces,
        "trials": found.trials,
        "problems without a trace": len(found.unsolved),
    }
    for name, value in rows.items():
        click.echo(f"{name:<24}  {value:,}")
    for why, count in sorted(found.why.items(), key=lambda pair: -pair[1]):
        click.echo(f"{'not kept: ' + why:<24}  {count:,}")
    click.echo(f"{'written to':<24}  {found.output}")


@contextmanager
def _requirements() -> Iterator[None]:
    """What an extra installs is named."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise Failure(
            f"training needs {error.name}; install it with: pip install 'nprdsl[train]'"
        ) from error


@contextmanager
def _errors() -> Iterator[None]:
    """Errors of configurations, data, folders and models, told to people."""
    with told(ValueError, OSError):
        yield


def _quiet_threads() -> None:
    """torch's threads must not spin while others work; read once, when torch is loaded."""
    os.environ.setdefault("GOMP_SPINCOUNT", "0")
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _is_main() -> bool:
    """Of several processes one speaks."""
    return os.environ.get("RANK", "0") == "0" or "torch" not in sys.modules
