"""The folder of a training run: its settings, its metrics, its checkpoints, its model.

A run that is killed at any time goes on from its last checkpoint: a checkpoint gets its name only
when it is whole, metrics behind it are cut off, and a run with other settings does not go on in the
folder. Nothing is deleted but checkpoints that newer ones replace.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from nprdsl.studio.trace_rows import ROLLOUTS
from nprdsl.trace.journal import append_json_line, whole_lines, write_json_lines, write_whole

_SETTINGS: Final = "settings.json"
_METRICS: Final = "metrics.jsonl"
_CHECKPOINTS: Final = "checkpoints"
_STEP: Final = "step-"
_UNFINISHED: Final = ".unfinished"
_MODEL: Final = "model"


class RunError(ValueError):
    """A folder in which the run cannot begin or go on."""


class RunDirectory:
    """The folder of one run. Only one process writes to it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(
        cls, path: Path, settings: Mapping[str, Any], *, restart: bool = False
    ) -> RunDirectory:
        """The folder, made if it is missing; `restart` empties one that holds a run.

        Raises RunError where it holds a run with other settings, or something else.
        """
        directory = cls(path)
        if restart:
            directory._empty()
        if path.exists() and not path.is_dir():
            raise RunError(f"`{path}` is a file; a run needs a folder")
        file = path / _SETTINGS
        if not file.exists():
            if path.exists() and any(path.iterdir()):
                raise RunError(f"the folder `{path}` holds something that is no run; name another")
            path.mkdir(parents=True, exist_ok=True)
            write_whole(file, json.dumps(settings, indent=1))
            return directory
        before = json.loads(file.read_text(encoding="utf-8"))
        if differing := differences(before, dict(settings)):
            raise RunError(
                f"the run in `{path}` has other settings ({'; '.join(differing)}): name another "
                "folder, go back to its settings, or begin anew with --restart"
            )
        return directory

    # -- checkpoints -------------------------------------------------------------------------------

    @property
    def model(self) -> Path:
        """Where the trained model is, once the run is complete."""
        return self.path / _MODEL

    @property
    def complete(self) -> bool:
        """The run has ended and its model is whole."""
        return self.model.is_dir()

    def latest(self) -> tuple[int, Path] | None:
        """Step and folder of the last checkpoint."""
        steps = self._steps()
        return (steps[-1], self._folder(steps[-1])) if steps else None

    def unfinished(self, name: str | int) -> Path:
        """An empty folder in which the checkpoint of a step, or the model, is written."""
        folder = self._unfinished(self._folder(name))
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    def finish(self, name: str | int, keep: int = 1) -> Path:
        """What was written is whole; of checkpoints the last `keep` stay."""
        folder = self._folder(name)
        os.replace(self._unfinished(folder), folder)
        if isinstance(name, int):
            for step in self._steps()[:-keep]:
                shutil.rmtree(self._folder(step))
        return folder

    def _folder(self, name: str | int) -> Path:
        step = isinstance(name, int)
        return self.path / _CHECKPOINTS / f"{_STEP}{name:06}" if step else self.path / str(name)

    @staticmethod
    def _unfinished(folder: Path) -> Path:
        return folder.with_name(folder.name + _UNFINISHED)

    def _steps(self) -> list[int]:
        folders = (self.path / _CHECKPOINTS).glob(f"{_STEP}*")
        names = [f.name.removeprefix(_STEP) for f in folders]
        return sorted(int(name) for name in names if name.isdecimal())

    # -- metrics -----------------------------------------------------------------------------------

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Adds the metrics of a step."""
        append_json_line(self.path / _METRICS, {"step": step, **metrics})

    def keep_rollouts(self, step: int, rollouts: Iterable[Mapping[str, Any]]) -> None:
        """Adds some rollouts of a step, for people to look at."""
        for rollout in rollouts:
            append_json_line(self.path / ROLLOUTS, {"step": step, **rollout})

    def rollouts(self) -> list[dict[str, Any]]:
        """Those that were kept, in order."""
        return _read(self.path / ROLLOUTS)

    def metrics(self) -> list[dict[str, float]]:
        """All that was logged, in order; a line that a kill cut short is left out."""
        return _read(self.path / _METRICS)

    def forget_after(self, step: int) -> None:
        """Cuts off metrics and rollouts behind a step: they are made again."""
        for file in (self.path / _METRICS, self.path / ROLLOUTS):
            if file.exists():
                write_json_lines(file, (line for line in _read(file) if line["step"] <= step))

    def _empty(self) -> None:
        """Removes a run, and nothing else."""
        if self.path.is_dir() and (self.path / _SETTINGS).exists():
            shutil.rmtree(self.path)


def _read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for _, line in whole_lines(file)] if file.exists() else []


def differences(before: dict[str, Any], now: dict[str, Any], section: str = "") -> list[str]:
    """What two settings differ in, by the keys of TOML."""
    listed = []
    for key in [*before, *(key for key in now if key not in before)]:
        one, other = before.get(key), now.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            listed += differences(one, other, f"{section}{key}.")
        elif one != other:
            listed.append(f"`{section}{key}` was {one!r} and is {other!r}")
    return listed
