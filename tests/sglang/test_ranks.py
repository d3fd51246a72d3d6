"""Tensor parallelism over two ranks, and two replicas, on the CPU: the same answers.

Each is a server of its own, with a rank on each of two cores.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from sglang.srt.managers.io_struct import (
    ContinueGenerationReqInput,
    PauseGenerationReqInput,
    UpdateWeightFromDiskReqInput,
)

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.sglang.client.weights import Weights, WeightsError
from nprdsl.runtime.sglang.plugin import forward_pass
from nprdsl.structure.events import EndReason
from tests.sglang.cases import (
    CHOICES,
    GREEDY,
    Case,
    agree,
    all_agree,
    ids_of,
    nesting,
    own_schema,
    plain,
    results_of,
    spawning,
)
from tests.sglang.models import make_model
from tests.sglang.server import Answer, Server
from tests.sglang.test_same_answers import LIMITS

CORES = sorted(os.sched_getaffinity(0))[:2]
THREADS = "SGLANG_CPU_OMP_THREADS_BIND"
POOL = 900

pytestmark = pytest.mark.skipif(len(CORES) < 2, reason="each rank needs a core")


def start(model: Path, **options: Any) -> Iterator[Server]:
    """A server whose ranks have a core each."""
    os.environ[THREADS] = "|".join(map(str, CORES))
    started = Server(model, **options)
    del os.environ[THREADS]
    yield started
    started.stop()


@pytest.fixture(scope="module")
def ranks(tiny: Path) -> Iterator[Server]:
    """One model over two ranks, with little memory."""
    yield from start(tiny, tp_size=2, max_total_tokens=POOL, chunked_prefill_size=32)


@pytest.fixture(scope="module")
def replicas(tiny: Path) -> Iterator[Server]:
    yield from start(tiny, dp_size=2)


def mixed() -> list[Case]:
    warm = Sampling(temperature=0.9, top_p=0.95, seed=2)
    settings = (GREEDY, warm, GREEDY, replace(warm, repetition_penalty=1.1))
    cases = [
        Case(nprdsl.load(name), f"Tell me {number}?", limits, settings[schema % 2 * 2 + number])
        for schema, (name, limits) in enumerate(LIMITS.items())
        for number in (0, 1)
    ]
    choices = Case(own_schema(CHOICES), "Choose", Limits(max_tokens=160, branches=4), warm)
    return [*cases, choices, *(spawning(f"Go {i}", 6, length=20) for i in range(2))]


def test_ranks_give_the_answers_of_one(ranks: Server, local: LocalEngine) -> None:
    """Under pressure: the ranks must let in, fork, join and put back alike."""
    cases = mixed()
    assert sum(case.limits.max_tokens for case in cases) > 1.5 * POOL
    results = all_agree(ranks, local, cases)
    assert sum(map(nesting, results)) > 4
    ranks.settle()


def test_ranks_take_aborts_and_pauses_alike(ranks: Server, local: LocalEngine) -> None:
    case = spawning("Pause", 4, length=40)
    result = case.result(local)
    manager = ranks.engine.tokenizer_manager

    async def disturbed() -> tuple[Answer, Answer, Answer]:
        followed = ranks.follow(result.prompt_ids, case.request)
        other = ranks.follow(ids_of(local, "abort"), spawning("", 3, length=60).request, rid="gone")
        beside = asyncio.ensure_future(ranks.send(ids_of(local, "plain"), plain(60)))
        await followed.until(lambda chunk: chunk.branches_run)
        await manager.pause_generation(PauseGenerationReqInput(mode="retract"))
        await manager.continue_generation(ContinueGenerationReqInput())
        await other.until(lambda chunk: chunk.branches_run)
        ranks.abort("gone")
        return await followed.last(), await other.last(), await beside

    answer, gone, beside = ranks.run(disturbed())
    agree(answer, result)
    assert gone.final.finish is EndReason.ABORTED
    assert len(beside.ids) == 60
    ranks.settle()


class InProcess:
    """Stands in for the HTTP between a client and an engine of this process."""

    url = "in this process"

    def __init__(self, server: Server) -> None:
        self._server = server
        self._manager = server.engine.tokenizer_manager

    def is_success(self, path: str) -> bool:
        self._server.settle()
        return True

    def get(self, path: str) -> dict[str, Any]:
        return {"weight_version": self._manager.config_value("weight_version")}

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        asked = UpdateWeightFromDiskReqInput(**body)
        success, message, _ = self._server.run(self._manager.update_weights_from_disk(asked))
        return {"success": success, "message": message}


@pytest.mark.parametrize("kind", ["ranks", "replicas"])
def test_every_rank_takes_new_weights_or_none(
    kind: str, request: pytest.FixtureRequest, local: LocalEngine, tmp_path: Path
) -> None:
    server: Server = request.getfixturevalue(kind)
    weights = Weights(InProcess(server), "float32")  # type: ignore[arg-type]
    other = LocalEngine.from_pretrained(make_model(tmp_path, seed=11), dtype="fp32")
    cases = [spawning(f"New {number}", 4) for number in range(2)]  # one for each replica
    named = other.model.state_dict()
    with pytest.raises(WeightsError, match=r"has no weight `nope`.*the weights are as they were"):
        weights.put([*named.items(), ("nope", torch.zeros(3))])
    all_agree(server, local, cases)
    version = weights.put(named.items())
    assert weights.version == version
    renewed = all_agree(server, other, cases)
    assert renewed[0].token_ids != cases[0].result(local).token_ids
    weights.put(local.model.state_dict().items(), bucket=10**4)
    all_agree(server, local, cases)
    server.settle()


def test_replicas_share_the_work(replicas: Server, local: LocalEngine) -> None:
    cases = mixed()
    results = results_of(local, cases)
    answers = replicas.generate([r.prompt_ids for r in results], [case.request for case in cases])
    for answer, result in zip(answers, results, strict=True):
        agree(answer, result)
    assert {answer.meta["dp_rank"] for answer in answers} == {0, 1}
    replicas.settle()


class TwoRanks:
    """Broadcasts among ranks that call one after the other, the first one first."""

    def __init__(self) -> None:
        self._sent: list[torch.Tensor] = []
        self._read = 0
        self.is_first = True

    def broadcast(self, tensor: torch.Tensor, src: int) -> torch.Tensor:
        if self.is_first:
            self._sent.append(tensor.clone())
            return tensor
        self._read += 1
        return self._sent[self._read - 1]


@pytest.mark.parametrize("count", [1, 3, 5])
def test_ranks_that_differ_end_the_server(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """What the first rank sends is taken where it has the same branches in the same rows, and as
    much memory; there may be more branches that begin behind a row than rows."""

    def agreed(slots: int, row: int, branch: int, tokens: Iterable[int]) -> list[Any]:
        traces: Any = SimpleNamespace(pools=SimpleNamespace(free_slots=slots, free_rows=3))
        drawn = [(row, (branch + n, token, -0.5)) for n, token in enumerate(tokens)]
        rids = ["a", "b", "c"]
        return forward_pass._agree_with_first_rank(traces, rids, drawn, torch.device("cpu"))

    firsts, others = range(7, 7 + count), range(30, 30 + count)
    for slots, row, branch, differ in (
        (100, 1, 4, False),
        (99, 1, 4, True),
        (100, 2, 4, True),
        (100, 1, 3, True),
    ):
        ranks = TwoRanks()
        monkeypatch.setattr(forward_pass, "get_tp_group", lambda ranks=ranks: ranks)
        sent = agreed(100, 1, 4, firsts)
        ranks.is_first = False
        if differ:
            with pytest.raises(RuntimeError, match="the ranks of this server have different"):
                agreed(slots, row, branch, others)
        else:
            assert agreed(slots, row, branch, others) == sent
            assert [token for _, (_, token, _) in sent] == list(firsts)
