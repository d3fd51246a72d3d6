"""Models with recurrent layers: every branch is as in the model's own forward over what it sees."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    FalconH1Config,
    FalconH1ForCausalLM,
    Lfm2Config,
    Lfm2ForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    PreTrainedModel,
    Qwen3NextConfig,
    Qwen3NextForCausalLM,
)

import nprdsl
from nprdsl.machine.actions import FeedAction, ForkAction
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.errors import UnsupportedModelError
from nprdsl.runtime.local.forward import arrange
from nprdsl.runtime.local.kv_log import Extent
from nprdsl.runtime.local.probe import probe
from nprdsl.runtime.local.recurrent_forward import Continuing, RecurrentForward
from nprdsl.runtime.local.recurrent_state import StateRow
from nprdsl.runtime.local.requests import Decoding, ScheduledRequest
from nprdsl.runtime.local.scheduler import Scheduler
from nprdsl.runtime.local.trace_log import BranchView, TraceLog
from nprdsl.structure.events import EndReason
from tests.runtime.scripted import (
    Fed,
    Plan,
    ScriptedMachine,
    Split,
    random_masks,
    random_plan,
    size,
)

WIDTH = 320
TOLERANCE = 1e-4
SHAPE = {
    "vocab_size": WIDTH,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "pad_token_id": None,
}
HYBRIDS = ("qwen3_next", "falcon_h1", "lfm2")
NAMES = (*HYBRIDS, "mamba")


def _made(name: str) -> PreTrainedModel:
    if name == "qwen3_next":  # linear attention, then full attention
        linear = {"linear_num_key_heads": 2, "linear_num_value_heads": 4}
        linear |= {"linear_key_head_dim": 8, "linear_value_head_dim": 8}
        kinds = ["linear_attention", "full_attention"]
        experts = {"num_experts": 0, "num_experts_per_tok": 1, "moe_intermediate_size": 32}
        config = Qwen3NextConfig(**SHAPE, **linear, **experts, head_dim=8, layer_types=kinds)
        return Qwen3NextForCausalLM(config)
    if name == "falcon_h1":  # both in every layer
        mamba = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_n_groups": 1}
        mamba |= {"mamba_d_state": 8, "mamba_chunk_size": 4}
        return FalconH1ForCausalLM(FalconH1Config(**SHAPE, **mamba, head_dim=8))
    if name == "lfm2":  # short convolutions
        kinds = ["conv", "full_attention"]
        return Lfm2ForCausalLM(Lfm2Config(**SHAPE, layer_types=kinds))
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
    return MambaForCausalLM(MambaConfig(vocab_size=WIDTH, **sizes))


@cache
def model(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    made = _made(name).eval().float()
    with torch.no_grad():
        for weight in made.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    return made


def forward(name: str, slots: int) -> RecurrentForward:
    continuing = Continuing.TOKENS if name == "mamba" else Continuing.PIECES
    return RecurrentForward(model(name), slots, continuing)


@torch.no_grad()
def plain(name: str, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities `[tokens, vocabulary]` by the model's own forward."""
    logits: torch.Tensor = model(name)(input_ids=torch.tensor([tokens]), use_cache=False).logits[0]
    return logits.log_softmax(-1)


def reread(plan: Plan) -> Plan:
    """All blocks of the plan read their branches again."""
    return tuple(
        replace(step, branches=tuple(map(reread, step.branches)), reread=True)
        if isinstance(step, Split)
        else step
        for step in plan
    )


def copied(plan: Plan) -> int:
    """As `size`, but copies are read once more by each block around."""
    return sum(
        2 * sum(map(copied, step.branches)) if isinstance(step, Split) else size((step,))
        for step in plan
    )


def submitted(
    scheduler: Scheduler, seed: int, decoding: Decoding = Decoding.PARALLEL, depth: int = 1
) -> ScheduledRequest:
    rng = random.Random(seed)
    plan = reread(random_plan(rng, WIDTH, depth))
    prompt = tuple(rng.choices(range(WIDTH), k=rng.randint(1, 25)))
    machine = ScriptedMachine(plan, prompt, WIDTH, random_masks(rng, WIDTH))
    slots = len(prompt) + copied(plan)
    return scheduler.submit(ScheduledRequest(machine, prompt, slots, Sampling(seed=seed), decoding))


def finish(scheduler: Scheduler) -> None:
    while scheduler.busy:
        scheduler.round()
        scheduler.check()


def farthest(name: str, fed: list[Fed], branches: int = 6) -> float:
    """From the model's own forward over what the last tokens of some branches see, and the end."""
    ends = {one.branch: i for i, one in enumerate(fed)}
    worst, compared = 0.0, 0
    for end in [len(fed) - 1, *list(ends.values())[:branches]]:
        path = sorted(fed[end].sees | {end})
        assert [fed[i].position for i in path] == list(range(len(path)))
        logprobs = plain(name, [fed[i].token for i in path])
        for at, i in enumerate(path):
            logprob = fed[i].logprob
            if logprob is not None and sorted(fed[i].sees | {i}) == path[: at + 1]:
                worst = max(worst, abs(float(logprobs[at - 1, fed[i].token]) - logprob))
                compared += 1
    assert compared > 5
    return worst


@pytest.mark.parametrize("name", NAMES)
def test_equals_the_plain_forward(name: str) -> None:
    """Unequal requests share forwards."""
    scheduler = Scheduler(forward(name, 4000), WIDTH, max_rows=64)
    requests = [submitted(scheduler, seed) for seed in (3, 4)]
    finish(scheduler)
    for request in requests:
        assert request.ended is EndReason.COMPLETED, request.error
        assert farthest(name, request.machine.fed) <= TOLERANCE


def test_memory_in_pieces_is_gathered() -> None:
    """What runs is moved so that a long request finds room; a layer without keys has nothing."""
    scheduler = Scheduler(forward("lfm2", 149), WIDTH, max_rows=64)  # of 129 for the longest
    requests = [submitted(scheduler, seed) for seed in range(8)]
    moved: list[int] = []
    pool, gather = scheduler.pool, scheduler.pool.gather
    pool.gather = lambda before: [moved.append(1), gather(before)][1]  # type: ignore[method-assign]
    finish(scheduler)
    for request in requests:
        assert request.ended is EndReason.COMPLETED, request.error
        assert farthest("lfm2", request.machine.fed, 1) <= TOLERANCE
    assert moved


@pytest.mark.parametrize("decoding", Decoding)
def test_blocks_nest(decoding: Decoding) -> None:
    scheduler = Scheduler(forward("lfm2", 4000), WIDTH, max_rows=64)
    request = submitted(scheduler, 4, decoding, depth=2)
    finish(scheduler)
    assert request.ended is EndReason.COMPLETED, request.error
    assert farthest("lfm2", request.machine.fed) <= TOLERANCE


@pytest.mark.parametrize("name", ["lfm2", "mamba"])
def test_prompts_in_pieces(name: str) -> None:
    scheduler = Scheduler(forward(name, 4000), WIDTH, max_rows=5)
    request = submitted(scheduler, 5)
    finish(scheduler)
    assert farthest(name, request.machine.fed) <= TOLERANCE


def test_the_oracle_can_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A branch that begins without its parent's state is far from the plain forward."""

    def own(self: RecurrentForward, view: BranchView) -> StateRow | None:
        return self._coming.get(view, view.state)

    monkeypatch.setattr(RecurrentForward, "_state", own)
    scheduler = Scheduler(forward("qwen3_next", 4000), WIDTH, max_rows=64)
    request = submitted(scheduler, 4)
    finish(scheduler)
    assert farthest("qwen3_next", request.machine.fed) > 100 * TOLERANCE


def test_an_abort_leaves_the_others_as_they_are() -> None:
    scheduler = Scheduler(forward("falcon_h1", 4000), WIDTH, max_rows=64)
    aborted, other = (submitted(scheduler, seed) for seed in (3, 4))
    for _ in range(9):
        scheduler.round()
    assert any(view.state for view in aborted.log.branches.values())
    scheduler.abort(aborted)
    assert not any(view.state for view in aborted.log.branches.values())
    finish(scheduler)
    assert farthest("falcon_h1", other.machine.fed) <= TOLERANCE
    assert not any(view.state for view in other.log.branches.values())


def test_a_failing_forward_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests of a forward that failed are fed once more, alone; their states have not moved."""
    scheduler = Scheduler(forward("lfm2", 4000), WIDTH, max_rows=64)
    draw, calls = Scheduler._draw, []

    def failing(self: Scheduler, fed: list[Any]) -> Any:
        calls.append(len(fed))
        drawn = draw(self, fed)
        if len(fed) > 1 and len(calls) % 3 == 0:
            raise RuntimeError("the draw fails behind the forward")
        return drawn

    monkeypatch.setattr(Scheduler, "_draw", failing)
    requests = [submitted(scheduler, seed) for seed in (3, 4)]
    finish(scheduler)
    for request in requests:
        assert request.ended is EndReason.COMPLETED, request.error
        assert farthest("lfm2", request.machine.fed) <= TOLERANCE


def test_logits_stand_in_the_order_that_was_asked_for() -> None:
    def logits(keep: list[int]) -> torch.Tensor:
        log = TraceLog(8)
        log.apply([FeedAction(0, (1, 2)), ForkAction(0, (1, 2)), FeedAction(1, (3, 4, 5))])
        log.apply([FeedAction(2, (6,))])
        return forward("lfm2", 8)(arrange([(log, Extent(0, 8), log.take(8))]), keep)

    rows = logits([0, 1, 2, 3, 4, 5])
    for keep in ([5, 0, 3], [1, 1], [4, 5]):
        assert torch.allclose(logits(keep), rows[keep], atol=1e-5)
    assert len(logits([])) == 0


def test_a_parent_that_waits_keeps_no_row_but_its_own() -> None:
    run, logs = forward("lfm2", 32), [TraceLog(16), TraceLog(16)]
    for log in logs:
        log.apply([FeedAction(0, (1, 2))])
    for _ in range(2):
        extents = (Extent(0, 16), Extent(16, 16))
        run(arrange([(log, e, log.take(16)) for log, e in zip(logs, extents, strict=True)]), [])
        run.accept()
        for log in logs:
            log.apply([ForkAction(0, (1, 2)), FeedAction(1, (3,)), FeedAction(2, (4,))])
    views = [log.branches[0] for log in logs]
    assert all(view.state is not None and view.state.alone for view in views)


@pytest.mark.parametrize("name", NAMES)
def test_the_probe_finds_what_runs(name: str) -> None:
    """Mamba's code for several tokens begins without a state, so they go one by one."""
    found = probe(model(name))
    assert "recurrent layers" in found.unmergeable
    tokens = name == "mamba"
    assert found.continuing is (Continuing.TOKENS if tokens else Continuing.PIECES)


class OwnCount(Lfm2ForCausalLM):  # type: ignore[misc]
    """Numbers tokens by what is in the cache."""

    def forward(self, input_ids: torch.Tensor, position_ids: Any = None, **kwargs: Any) -> Any:
        cache = kwargs.get("past_key_values")
        first = cache.get_seq_length() if cache is not None else 0
        counted = first + torch.arange(input_ids.shape[1])[None]
        return super().forward(input_ids, position_ids=counted, **kwargs)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_of_its_own_are_refused(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    kinds = ["conv", "full_attention"]
    wrong = OwnCount(Lfm2Config(**SHAPE, layer_types=kinds, initializer_range=0.2)).to(dtype)
    with pytest.raises(UnsupportedModelError, match="counts what is in its cache"):
        probe(wrong)


@cache
def engine(name: str, tags: tuple[str, ...]) -> LocalEngine:
    special = {"<|end|>": 256} | {tag: 257 + n for n, tag in enumerate(tags)}
    letters = {n: bytes([n]) for n in range(256)}
    return LocalEngine(model(name), nprdsl.Vocabulary(letters, special, "<|end|>"))


FORKS = """
%import .parallel (map, process, spawn, reread)
start: "<P>" spawn{path}~2..3 reread{close} TEXT
path:  "<A>" TEXT "<Q>" map{list} process{item, sub} reread{end} TEXT "</A>"
list:  "<L>" item~2..3 "</L>"
item:  "<I>" LABEL ":" TEXT "</I>"
sub:   "<S>" LABEL ":" TEXT "</S>"
end:   "</Q>"
close: "</P>"
LABEL: /[1-9]/
%declare TEXT
"""


@pytest.mark.parametrize("schema", ["parallel_r1", "threadweaver", "forks"])
@pytest.mark.parametrize("name", ["qwen3_next", "falcon_h1"])
def test_schemas_that_read_again_run(name: str, schema: str, tmp_path: Path) -> None:
    """Log-probabilities are those of the plain forward over what the layout says is visible."""
    if schema == "forks":
        (tmp_path / "forks.lark").write_text(FORKS)
    loaded = nprdsl.load(tmp_path / "forks.lark" if schema == "forks" else schema)
    limits = nprdsl.Limits(max_tokens=90, branch_tokens=25)
    results = engine(name, loaded.tags).generate(loaded, ["x", "a longer one"], limits=limits)
    for result in results:
        layout, prompt = result.layout, len(result.prompt_ids)
        assert layout is not None and (schema != "forks" or len(layout) > prompt + 90)
        ids, visible = [*result.prompt_ids, *result.token_ids], layout.visible()
        for entry in [e for e in range(prompt, len(layout)) if layout.sampled[e]][::9]:
            path = visible[entry].nonzero()[0]
            assert layout.position[path].tolist() == list(range(len(path)))
            logprobs = plain(name, [ids[token] for token in layout.token[path]])
            place = int(layout.token[entry])
            logprob = result.logprobs[place - prompt]
            assert logprob is not None
            assert abs(float(logprobs[-2, ids[place]]) - logprob) <= TOLERANCE


def test_schemas_that_merge_are_refused() -> None:
    loaded = nprdsl.load("npr")
    with pytest.raises(UnsupportedModelError, match=r"`reduce` .* recurrent layers.*`reread`"):
        engine("falcon_h1", loaded.tags).submit(loaded, "x")


def test_plain_text_runs() -> None:
    loaded = nprdsl.load("npr")
    completion = engine("falcon_h1", loaded.tags).complete(loaded, ["x"], max_tokens=5)[0]
    assert len(completion.token_ids) == 5
