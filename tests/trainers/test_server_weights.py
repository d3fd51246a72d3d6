"""Weights for a server that writes rollouts: what all processes do where one cannot send them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nprdsl.runtime.errors import EngineUnavailableError
from nprdsl.runtime.sglang.client.transport import ServerError
from nprdsl.runtime.sglang.client.weight_files import WeightsError
from nprdsl.trainers.config.stages import EngineSection
from nprdsl.trainers.rollout import engines


class State(dict[str, torch.Tensor]):
    """Notes what is gathered."""

    gathered: list[str]

    def __getitem__(self, name: str) -> torch.Tensor:
        self.gathered.append(name)
        return super().__getitem__(name)


@pytest.mark.parametrize(
    "error", [WeightsError("gone"), EngineUnavailableError("gone"), ServerError(401, "gone")]
)
def test_a_server_that_is_gone_is_an_error_of_all_processes(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None waits for weights that the one that sends them gathers no more."""

    def put(weights: Iterable[object], **_: object) -> None:
        next(iter(weights))
        raise error

    model: Any = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model.all_tied_weights_keys = {}
    state = State(model.state_dict())
    state.gathered = []
    session: Any = SimpleNamespace(
        step=3,
        wrapped=model,
        accelerator=SimpleNamespace(is_main_process=True, get_state_dict=lambda _: state),
        setup=SimpleNamespace(
            model=model,
            tokenizer=None,
            directory=SimpleNamespace(path=Path("run")),
            config=SimpleNamespace(model=SimpleNamespace(lora=None)),
        ),
    )
    monkeypatch.setattr(
        engines, "SGLangEngine", lambda *_, **__: SimpleNamespace(weights=SimpleNamespace(put=put))
    )
    made = engines.rollout_engine(EngineSection(address="http://127.0.0.1:1"), session)
    with pytest.raises(WeightsError, match="gone"):
        made.refresh()
    assert state.gathered == sorted(state)
