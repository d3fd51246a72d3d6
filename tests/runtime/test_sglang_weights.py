"""Weights on their way to a server: files that it can load, and what is said where it does not.

A transport stands in for the server; `tests/sglang` has weights that arrive.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from nprdsl.runtime.errors import EngineUnavailableError
from nprdsl.runtime.sglang.client.weights import Weights, WeightsError


class StandIn:
    """A server that takes weights once it is idle; when it is asked to wait until then, it either
    becomes so or runs on. `bodies` are what it was sent, `read` what it found in the folder."""

    url = "http://stand-in"

    def __init__(self, *, idle: bool = True, ends: bool = True, name: str = "") -> None:
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.read: dict[str, Tensor] = {}
        self.sizes: list[int] = []
        self._idle = idle
        self._ends = ends
        self._name = name

    def is_success(self, path: str) -> bool:
        self.asked.append(path)
        self._idle = self._ends
        return self._idle

    def get(self, path: str) -> dict[str, Any]:
        return {"weight_version": self._name or self.bodies[-1]["weight_version"]}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked.append(path)
        self.bodies.append(body)
        if not self._idle:
            return {"success": False, "message": "requests are still running"}
        for file in sorted(Path(body["model_path"]).glob("*.safetensors")):
            found = load_file(file)
            self.sizes.append(sum(tensor.nbytes for tensor in found.values()))
            self.read |= found
        return {"success": True}


LOAD = "/update_weights_from_disk"
WAIT = "/flush_cache?timeout=5.0"  # SGLang's own wait for its last request
FLOATS = {f"w{i}": torch.full((10, 25), float(i)) for i in range(8)}  # 500 bytes each in bf16


def test_a_server_is_given_time_for_its_last_step() -> None:
    for send in (lambda to: to.load("folder"), lambda to: to.put([])):
        server: Any = StandIn(idle=False)
        send(Weights(server))
        assert server.asked == [LOAD, WAIT, LOAD]


def test_weights_are_sent_once_where_that_is_enough() -> None:
    server: Any = StandIn()
    Weights(server).load("folder")
    assert server.asked == [LOAD]


def test_a_server_that_goes_on_is_told_as_one() -> None:
    server: Any = StandIn(idle=False, ends=False)
    with pytest.raises(WeightsError, match="requests are still running"):
        Weights(server).load("folder")
    assert server.asked == [LOAD, WAIT]


def test_each_weight_is_written_once_in_files_of_one_bucket(tmp_path: Path) -> None:
    """In bf16, whatever the trainer has; what is no float stays, and one that is larger than a
    bucket has its own. What travels as JSON has no weights, so the number of ranks is nothing."""
    server: Any = StandIn()
    large = {"large": torch.ones(2000), "count": torch.arange(5)}
    version = Weights(server).put((FLOATS | large).items(), folder=tmp_path, bucket=1200)
    assert server.bodies[-1]["weight_version"] == version
    assert server.sizes == [1000] * 4 + [4000, 40]
    assert server.read.keys() == (FLOATS | large).keys()
    for name, tensor in (FLOATS | large).items():
        assert torch.equal(server.read[name].to(tensor.dtype), tensor), name
    assert server.read["w3"].dtype is torch.bfloat16 and server.read["count"].dtype is torch.int64
    assert len(json.dumps(server.bodies)) < 300
    assert list(tmp_path.iterdir()) == [], "the files are gone"


@pytest.mark.parametrize("dtype", [None, torch.float64])
def test_weights_travel_as_what_the_server_computes_with(dtype: torch.dtype | None) -> None:
    server: Any = StandIn()
    Weights(server, "float32").put([("a", torch.ones(3, dtype=torch.float16))], dtype=dtype)
    assert server.read["a"].dtype is (dtype or torch.float32)


def test_weights_are_gathered_as_they_are_written(tmp_path: Path) -> None:
    """Of a generator no more than a bucket is held."""
    written = []

    def gathered() -> Iterator[tuple[str, Tensor]]:
        for name, tensor in FLOATS.items():
            written.append(len(list(tmp_path.glob("*/*.safetensors"))))
            yield name, tensor

    Weights(StandIn()).put(gathered(), folder=tmp_path, bucket=1000)  # type: ignore[arg-type]
    assert written == [0, 0, 0, 1, 1, 2, 2, 3]


def test_two_names_of_one_tensor_are_two_weights() -> None:
    """As of tied embeddings, in one bucket, and in the dtype that they have."""
    server: Any = StandIn()
    one = torch.ones(4, 4)
    Weights(server, "float32").put([("a", one), ("b", one), ("c", one.T[:2])])
    assert set(server.read) == {"a", "b", "c"}


def test_a_folder_without_room_or_that_is_none_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weights = Weights(StandIn())  # type: ignore[arg-type]
    with pytest.raises(WeightsError, match=r"cannot be written below .*nowhere"):
        weights.put(FLOATS.items(), folder=tmp_path / "nowhere")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=900_000))
    with pytest.raises(WeightsError, match=r"room for 1 MB more.*engine\.weights_folder"):
        weights.put(FLOATS.items(), folder=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_does_not_answer_is_not_a_folder_that_fails(tmp_path: Path) -> None:
    """Both are errors of the operating system."""

    class Gone(StandIn):
        def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
            raise EngineUnavailableError("no server answers")

    with pytest.raises(EngineUnavailableError, match="no server answers"):
        Weights(Gone()).put(FLOATS.items(), folder=tmp_path)  # type: ignore[arg-type]


def test_weights_that_somebody_else_replaced_are_not_ours() -> None:
    server: Any = StandIn(name="theirs")
    with pytest.raises(WeightsError, match="are called `theirs`, not `ours`"):
        Weights(server).load("folder", version="ours")
