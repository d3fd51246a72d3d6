"""Decoding over the log equals one dense forward with a brute-force mask and positions."""

from __future__ import annotations

import random

import pytest
import torch

from nprdsl.machine.actions import FeedAction, ForkAction, JoinAction
from nprdsl.runtime.local.forward import Forward, arrange
from nprdsl.runtime.local.kv_log import Extent
from nprdsl.runtime.local.requests import Decoding, ScheduledRequest
from nprdsl.runtime.local.scheduler import Scheduler, _Fed, _steady
from nprdsl.runtime.local.trace_log import TraceLog
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from tests.runtime.scripted import ScriptedMachine, random_masks, random_plan, size
from tests.runtime.tiny_models import NAMES, WIDTH, largest_error, model

TOLERANCE = 1e-4


def run(
    name: str, decoding: Decoding, *, seed: int, reread: bool = False, max_rows: int = 64
) -> list[ScriptedMachine]:
    """Five random nested plans at once."""
    rng = random.Random(seed)
    scheduler = Scheduler(Forward(model(name), 4000), WIDTH, max_rows=max_rows)
    machines, requests = [], []
    for i in range(5):
        plan = random_plan(rng, WIDTH, 2, reread)
        prompt = tuple(rng.choices(range(WIDTH), k=rng.randint(1, 25)))
        machine = ScriptedMachine(plan, prompt, WIDTH, random_masks(rng, WIDTH))
        sampling = Sampling(seed=i, rules={"step": {"repetition_penalty": 1.3}})
        request = ScheduledRequest(machine, prompt, len(prompt) + size(plan), sampling, decoding)
        machines.append(machine)
        requests.append(scheduler.submit(request))
    finish(scheduler, requests)
    return machines


def finish(scheduler: Scheduler, requests: list[ScheduledRequest]) -> None:
    while scheduler.busy:
        scheduler.round()
        scheduler.check()
    assert [r.error for r in requests] == [""] * len(requests)
    assert all(r.ended is EndReason.COMPLETED for r in requests)


@pytest.mark.parametrize("decoding", Decoding)
@pytest.mark.parametrize("reread", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_equals_one_dense_forward(name: str, reread: bool, decoding: Decoding) -> None:
    for machine in run(name, decoding, seed=3, reread=reread):
        assert largest_error(name, machine.fed) <= TOLERANCE


def test_the_oracle_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A join that forgets to see its branches is far from the oracle."""
    join = TraceLog._join

    def blind(self: TraceLog, parent: int, children: tuple[int, ...]) -> None:
        before = self.branches[parent].sees.copy()
        join(self, parent, children)
        self.branches[parent].sees = before

    monkeypatch.setattr(TraceLog, "_join", blind)
    machine = run("llama", Decoding.PARALLEL, seed=3)[0]
    assert largest_error("llama", machine.fed) > 100 * TOLERANCE


@pytest.mark.parametrize("name", ["llama", "gemma3"])
def test_prompts_in_pieces_change_nothing(name: str) -> None:
    whole = run(name, Decoding.PARALLEL, seed=5, max_rows=1000)
    pieces = run(name, Decoding.PARALLEL, seed=5, max_rows=3)
    assert [[f.token for f in m.fed if f.branch == 0] for m in whole] == [
        [f.token for f in m.fed if f.branch == 0] for m in pieces
    ]


@pytest.mark.parametrize("name", NAMES)
def test_a_sibling_changes_nothing(name: str) -> None:
    """Isolation: other tokens on branch 1 leave the log-probabilities on branch 2 as they are."""

    def second(first: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
        forward, log, extent = Forward(model(name), 64), TraceLog(64), Extent(0, 64)
        log.apply([FeedAction(0, tuple(range(9))), ForkAction(0, (1, 2)), FeedAction(1, first)])
        log.apply([FeedAction(2, (11, 12, 13))])
        alone = forward(arrange([(log, extent, log.take(64))]), list(range(15, 18)))
        log.apply([JoinAction(0, (1, 2)), FeedAction(0, (14,))])
        return alone, forward(arrange([(log, extent, log.take(64))]), [0])

    one, joined_one = second((20, 21, 22, 23, 24, 25))
    other, joined_other = second((30, 31, 32, 33, 34, 35))
    assert float((one - other).abs().max()) <= 1e-6
    assert float((joined_one - joined_other).abs().max()) > 1e-2


def test_masks_that_grow_equal_masks_written_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    grown = run("qwen3", Decoding.PARALLEL, seed=8)
    monkeypatch.setattr("nprdsl.runtime.local.scheduler._steady", lambda fed, rows: None)
    anew = run("qwen3", Decoding.PARALLEL, seed=8)
    assert [m.fed for m in grown] == [m.fed for m in anew]


def test_logits_stand_in_the_order_that_was_asked_for() -> None:
    def logits(keep: list[int]) -> torch.Tensor:
        forward, log = Forward(model("llama"), 8), TraceLog(8)
        log.apply([FeedAction(0, (1, 2, 3))])
        return forward(arrange([(log, Extent(0, 8), log.take(8))]), keep)

    rows = logits([0, 1, 2])
    for keep in ([2, 0, 1], [1, 1, 1], [2, 1], []):
        assert torch.allclose(logits(keep), rows[keep], atol=1e-6)


def test_two_runs_of_one_branch_do_not_grow() -> None:
    """The second run must see the first, which a mask that only grows would not show."""
    name = "llama"
    found = []
    for key in (None, "same"):
        forward, log, extent = Forward(model(name), 32), TraceLog(32), Extent(0, 32)
        logits = []
        for tokens in ((1, 2), (3, 4)):
            log.apply([FeedAction(0, tokens[:1]), FeedAction(0, tokens[1:])])
            fed = [_Fed(_request(log, extent), log.take(32))]
            logits.append(
                forward(arrange([(log, extent, fed[0].runs)]), [1], key and _steady(fed, 2))
            )
        found.append(torch.cat(logits))
    assert torch.equal(*found)


def _request(log: TraceLog, extent: Extent) -> ScheduledRequest:
    request = ScheduledRequest(ScriptedMachine((), (), WIDTH), (), 32)
    request.log, request.extent = log, extent
    return request


def test_the_model_keeps_its_own_attention() -> None:
    llama = model("llama")
    before = llama.config._attn_implementation
    run("llama", Decoding.PARALLEL, seed=1)
    assert llama.config._attn_implementation == before
    ids = torch.arange(5)[None]
    assert torch.isfinite(llama(input_ids=ids).logits).all()
