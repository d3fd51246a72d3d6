"""Reinforcement learning whose rollouts come from a server: it has the weights that are trained.

Before each update the trainer compares its log-probabilities with those of the rollouts, so that a
server that was left behind ends the run. The stages themselves are in `tests/trainers`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nprdsl.runtime import LocalEngine, SGLangEngine
from nprdsl.runtime.bundled import ARITH, model_folder
from nprdsl.runtime.sglang.client.weights import Weights
from nprdsl.trainers.config import PapoConfig, ZeroConfig, read_config
from nprdsl.trainers.rollout.mismatch import MismatchError
from nprdsl.trainers.stages.papo import train_papo
from nprdsl.trainers.stages.zero import train_zero
from tests.sglang.served import Served
from tests.trainers.stages.tiny import make

TOLERANCE = 1e-3
STEPS = 3
STAGES = pytest.mark.parametrize("stage", ["papo", "zero"])


@pytest.fixture
def address(served: Served) -> Iterator[str]:
    """Of the server, which is given its own weights again."""
    yield served.url
    engine = SGLangEngine(served.url)
    own = LocalEngine.from_pretrained(ARITH, dtype="fp32").model.state_dict()
    del own["lm_head.weight"]  # the embedding's
    engine.weights.put(own.items())
    engine.close()


def trained(stage: str, address: str, folder: Path) -> list[dict[str, Any]]:
    """Trains the server's model for a few large steps; gives the metrics."""
    tiny = replace(make(folder), model=Path(model_folder(ARITH)))
    output = folder / "run"
    changes = {"minibatch": 2, "refills": 0} if stage == "zero" else {}
    config = tiny.config(
        stage,
        output,
        engine__address=address,
        steps=STEPS,
        run__save_every=STEPS,
        optimizer__schedule="constant",
        optimizer__warmup=0,
        optimizer__learning_rate=5e-3,
        rollout__mismatch=TOLERANCE,
        **changes,
    )
    if stage == "papo":
        train_papo(read_config(PapoConfig, config))
    else:
        train_zero(read_config(ZeroConfig, config))
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@STAGES
def test_rollouts_are_drawn_by_the_weights_that_are_trained(
    stage: str, address: str, tmp_path: Path
) -> None:
    """Traces with forks and joins, and text that the model writes of itself."""
    steps = trained(stage, address, tmp_path)
    assert len(steps) == STEPS
    for step in steps:
        assert step["rollout/failed"] == 0 and step["rollout/tokens"] > 20
        assert 0 < step["mismatch/largest"] <= TOLERANCE
    assert stage == "zero" or steps[0]["rollout/degree"] > 1.1


@STAGES
def test_a_server_that_is_left_behind_ends_the_run(
    stage: str, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of these moves the model further than rounding does."""
    monkeypatch.setattr(Weights, "put", lambda *_, **__: None)
    with pytest.raises(MismatchError, match="are the weights"):
        trained(stage, address, tmp_path)
