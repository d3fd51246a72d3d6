"""Replaces the weights of a running server: a trainer does so between batches of rollouts.

Weights come from a checkpoint on the server's disk or from tensors of this process. SGLang waits
until no request runs, swaps the weights, and empties its prefix cache.
"""

from __future__ import annotations

import base64
import io
import pickle
from collections.abc import Callable, Iterable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nprdsl.runtime.sglang.client.transport import ServerError, Transport

if TYPE_CHECKING:
    from torch import Tensor


_IDLE_WITHIN_S: Final = 5.0


class WeightsError(RuntimeError):
    """The server did not take the weights, and keeps those that it had."""


class Weights:
    """The weights of one server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def version(self) -> str:
        """The name of the weights that are in use, "default" at first."""
        return str(self._transport.get("/model_info")["weight_version"])

    def load(self, folder: str | Path, *, version: str | None = None) -> None:
        """Loads a checkpoint from a folder on the server's machine. `version` becomes the name of
        the weights. Raises WeightsError."""
        body = {"model_path": str(folder)}
        self._swap(lambda: self._update("/update_weights_from_disk", body, version))

    def put(
        self, tensors: Iterable[tuple[str, Tensor]], *, version: str | None = None, ranks: int = 1
    ) -> None:
        """Sends weights by name; `ranks` is the server's --tp-size.

        Tensors on a GPU are shared, so the server must run on the same machine; others are copied.
        No request may be sent meanwhile. Raises WeightsError.
        """
        data = base64.b64encode(_pickled(list(tensors))).decode()
        body = {"serialized_named_tensors": [data] * ranks, "flush_cache": True}

        def swap() -> None:
            self._update("/begin_weight_update", {})
            try:
                self._update("/update_weights_from_tensor", body, version)
            finally:
                self._update("/end_weight_update", {})

        self._swap(swap)

    def _swap(self, swap: Callable[[], None]) -> None:
        """SGLang refuses weights until the scheduler's step after that of the last answer, so one
        refusal is no failure yet."""
        try:
            swap()
        except WeightsError:
            if not self._transport.is_success(f"/flush_cache?timeout={_IDLE_WITHIN_S}"):
                raise  # requests still run
            swap()

    def _update(self, path: str, body: dict[str, Any], version: str | None = None) -> None:
        named = {} if version is None else {"weight_version": version}
        try:
            answer = self._transport.post(path, {**body, **named})
        except ServerError as error:
            raise WeightsError(str(error)) from error
        if not answer.get("success"):
            raise WeightsError(answer.get("message") or "the server gave no reason")


def _pickled(tensors: list[tuple[str, Tensor]]) -> bytes:
    shared = [(name, tensor.detach()) for name, tensor in tensors]
    if not any(tensor.is_cuda for _, tensor in shared):
        return pickle.dumps(shared)
    buffer = io.BytesIO()
    ForkingPickler(buffer).dump(shared)
    return buffer.getvalue()
