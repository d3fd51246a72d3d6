"""New weights for a running server, between requests: the rollout side of a trainer.

SGLang waits until no request runs, swaps, and empties its prefix cache.
"""

from __future__ import annotations

import base64
import io
import pickle
import time
from collections.abc import Callable, Iterable
from multiprocessing.reduction import ForkingPickler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from nprdsl.runtime.sglang.client.transport import ServerError, Transport

if TYPE_CHECKING:
    from torch import Tensor


_SETTLE_S: Final = 5.0
_LOOK_S: Final = 0.02


class WeightsError(RuntimeError):
    """The server did not take the weights; it goes on with those that it had."""


class Weights:
    """The weights of one server."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport

    @property
    def version(self) -> str:
        """The name of the weights that are in use, "default" at first."""
        return str(self._transport.get("/model_info")["weight_version"])

    def load(self, folder: str | Path, *, version: str | None = None) -> None:
        """Reads a checkpoint that the server can see. Raises WeightsError."""
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
        """SGLang waits for requests that run, but refuses weights until the step behind that of the
        last answer, which may be still to come."""
        try:
            swap()
        except WeightsError:
            if not self._is_idle_soon():
                raise
            swap()

    def _is_idle_soon(self) -> bool:
        until = time.monotonic() + _SETTLE_S
        while not self._transport.answers("/flush_cache"):
            if time.monotonic() > until:
                return False
            time.sleep(_LOOK_S)
        return True

    def _update(self, path: str, body: dict[str, Any], version: str | None = None) -> None:
        named = {} if version is None else {"weight_version": version}
        try:
            told = self._transport.post(path, {**body, **named})
        except ServerError as error:
            raise WeightsError(str(error)) from error
        if not told.get("success"):
            raise WeightsError(told.get("message") or "the server gave no reason")


def _pickled(tensors: list[tuple[str, Tensor]]) -> bytes:
    shared = [(name, tensor.detach()) for name, tensor in tensors]
    if not any(tensor.is_cuda for _, tensor in shared):
        return pickle.dumps(shared)
    buffer = io.BytesIO()
    ForkingPickler(buffer).dump(shared)
    return buffer.getvalue()
