"""Where the metrics of a run go besides its own file: TensorBoard, Weights & Biases, MLflow.

The last two through Accelerate's trackers, with the settings of the run; each reads its server and
account from its own environment variables. Only the main process writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator
from accelerate.utils import is_mlflow_available, is_wandb_available

from nprdsl.trainers.config.stages import RunSection, TrainingConfig


def check_trackers(run: RunSection) -> None:
    """Raises ValueError for a tracker that is not installed: Accelerate leaves it out unsaid."""
    there = {"wandb": is_wandb_available, "mlflow": is_mlflow_available}
    for name in run.trackers:
        if not there[name]():
            raise ValueError(
                f"`run.trackers` names {name}, which is not installed; install it with: "
                f"pip install {name}"
            )


class Trackers:
    """The trackers of a run in `folder`."""

    def __init__(self, accelerator: Accelerator, config: TrainingConfig, folder: Path) -> None:
        run = config.run
        self._accelerator = accelerator if run.trackers else None
        self._board: Any = None
        if run.tensorboard and accelerator.is_main_process:
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"))
        if self._accelerator is not None:
            settings = flat(config.model_dump(mode="json", by_alias=True))
            named = {"wandb": {"name": folder.name, "dir": str(folder)}}
            named["mlflow"] = {"run_name": folder.name}
            given = {name: named[name] for name in run.trackers}
            accelerator.init_trackers(run.project, settings, given)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """The metrics of a step."""
        if self._board is not None:
            for name, value in metrics.items():
                self._board.add_scalar(name, value, step)
        if self._accelerator is not None:
            self._accelerator.log(dict(metrics), step)

    def close(self) -> None:
        """Writes what is left."""
        if self._board is not None:
            self._board.close()
        if self._accelerator is not None:
            for tracker in self._accelerator.trackers:
                tracker.finish()


def flat(settings: Mapping[str, Any], section: str = "") -> dict[str, str | int | float | bool]:
    """Settings by the keys of TOML, values as trackers take them."""
    made: dict[str, str | int | float | bool] = {}
    for key, value in settings.items():
        if isinstance(value, Mapping):
            made |= flat(value, f"{section}{key}.")
        else:
            plain = isinstance(value, str | int | float | bool)
            made[f"{section}{key}"] = value if plain else str(value)
    return made
