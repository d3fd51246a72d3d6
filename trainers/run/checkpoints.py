"""The state of a run on the disk: weights and optimizers by PyTorch's distributed checkpoints.

Every process writes its share of them, from a copy that PyTorch makes, while the next steps run.
Learning rates, the scaler and random numbers are small, and written at once. One checkpoint is
written at a time: `settle` waits for it, and raises what went wrong there.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import torch
from accelerate import Accelerator
from accelerate.checkpointing import load_accelerator_state, save_accelerator_state
from torch import distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import async_save

from nprdsl.trainers.run.directory import RunError

# PyTorch warns of it at every checkpoint.
warnings.filterwarnings("ignore", "torch.distributed is disabled, unavailable or uninitialized")

_SHARDS: Final = "state"  # the folder of weights and optimizers


class Checkpoints:
    """Writes and reads the state of a model, its optimizers and their schedulers. To be made by all
    processes, and used by all alike."""

    def __init__(
        self,
        accelerator: Accelerator,
        model: torch.nn.Module,
        optimizers: Sequence[torch.optim.Optimizer],
        schedulers: Sequence[Any],
    ) -> None:
        self._accelerator = accelerator
        self._model = model
        self._optimizers = list(optimizers)
        self._schedulers = list(schedulers)
        # Of its own: what is written meanwhile must not meet what a step sends.
        alone = not (distributed.is_available() and distributed.is_initialized())
        group = None if alone else distributed.new_group(backend="gloo")
        self._way: dict[str, Any] = {"process_group": group, "no_dist": alone}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="nprdsl-checkpoint")
        self._writing: Future[None] | None = None

    def write(self, folder: Path, done: Callable[[], object]) -> None:
        """Copies the state, and writes it beside what this process does next; `done` is called when
        the shares of all processes are whole. Raises what `settle` raises, of the one before."""
        self.settle()
        save_accelerator_state(
            str(folder), [], [], self._schedulers, [],
            self._accelerator.process_index, 0, self._accelerator.scaler,
        )  # fmt: skip
        written = async_save(self._state(), checkpoint_id=str(folder / _SHARDS), **self._way)
        assert isinstance(written, Future)

        def wait() -> None:
            written.result()
            done()

        self._writing = self._pool.submit(wait)

    def settle(self) -> None:
        """Waits until what is written is whole. Raises RunError where it could not be written."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            writing.result()
        except (CheckpointException, OSError) as error:
            raise RunError(f"the last checkpoint could not be written: {error}") from error

    def read(self, folder: Path) -> None:
        """The state of a folder, in place of that of this run. Raises RunError where it cannot be
        read."""
        state = self._state()
        try:
            load(state, checkpoint_id=str(folder / _SHARDS), **self._way)
        except CheckpointException as error:
            raise RunError(f"the checkpoint `{folder}` cannot be read: {error}") from error
        set_state_dict(
            self._model,
            self._optimizers,
            model_state_dict=state["model"],
            optim_state_dict=state["optimizers"],
        )
        load_accelerator_state(
            str(folder), [], [], self._schedulers, [],
            self._accelerator.process_index, self._accelerator.scaler,
        )  # fmt: skip

    def _state(self) -> dict[str, Any]:
        model, optimizers = get_state_dict(self._model, self._optimizers)
        return {"model": model, "optimizers": optimizers}
