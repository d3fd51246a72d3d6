"""Replaces the weights of a running server: a trainer does so between batches of rollouts.

Weights come from a checkpoint that the server sees, or from tensors of this process, which are
written as one. SGLang waits until no request runs, checks them, swaps them as a whole, and empties
its prefix cache; both sides name what it has then by one version.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from nprdsl.runtime.sglang.client.transport import ServerError, Transport
from nprdsl.runtime.sglang.client.weight_files import BUCKET, written
from nprdsl.runtime.sglang.client.weight_files import WeightsError as WeightsError

if TYPE_CHECKING:
    import torch
    from torch import Tensor


_IDLE_WITHIN_S: Final = 5.0


class Weights:
    """The weights of one server; `dtype` is what it computes with, a name of torch's."""

    def __init__(self, transport: Transport, dtype: str = "bfloat16") -> None:
        self._transport = transport
        self._dtype = dtype

    @property
    def version(self) -> str:
        """The name of the weights that are in use, "default" at first, "mixed" where a load failed
        in the middle."""
        return str(self._transport.get("/model_info")["weight_version"])

    def load(self, folder: str | Path, *, version: str | None = None) -> str:
        """Loads a checkpoint from a folder on the server's machine. `version` becomes the name of
        the weights, by default a new one; it is given back. Raises WeightsError."""
        return self._load(folder, version)

    def put(
        self,
        tensors: Iterable[tuple[str, Tensor]],
        *,
        version: str | None = None,
        folder: str | Path | None = None,
        dtype: torch.dtype | None = None,
        bucket: int = BUCKET,
    ) -> str:
        """Sends weights by name; gives the version as `load` does.

        They are written below `folder`, which the server must see, by default in the shared memory
        of this machine, in files of `bucket` bytes, and are gone afterwards. Floats travel as
        `dtype`, by default as what the server computes with. Names and shapes are those of its
        checkpoint; weights that do not come stay as they are. Raises WeightsError.
        """
        import torch

        kind = dtype or getattr(torch, self._dtype)
        with written(tensors, folder, kind, bucket) as made:
            return self._load(made, version, load_format="safetensors")

    def _load(self, folder: str | Path, version: str | None, **how: str) -> str:
        """SGLang refuses weights until the scheduler's step after that of the last answer, so one
        refusal is no failure yet."""
        name = version or f"weights-{uuid4().hex[:12]}"
        body = {"model_path": str(folder), "weight_version": name, **how}
        try:
            self._update(body)
        except WeightsError:
            if not self._transport.is_success(f"/flush_cache?timeout={_IDLE_WITHIN_S}"):
                raise  # requests still run
            self._update(body)
        if (found := self.version) != name:
            raise WeightsError(
                f"the server's weights are called `{found}`, not `{name}` as they were sent: "
                "somebody else puts weights there"
            )
        return name

    def _update(self, body: dict[str, Any]) -> None:
        try:
            answer = self._transport.post("/update_weights_from_disk", body)
        except ServerError as error:
            raise WeightsError(str(error)) from error
        if not answer.get("success"):
            raise WeightsError(answer.get("message") or "the server gave no reason")
