"""Models with recurrent layers: every branch is as in the model's own forward over what it sees."""

from __future__ import annotations

import random
from dataclasses import replace
from functools import cache

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

from nprdsl.runtime import Sampling
from nprdsl.runtime.local.probe import Probed, probe
from nprdsl.runtime.local.recurrent_forward import Continuing, RecurrentForward
from nprdsl.runtime.local.requests import Decoding, ScheduledRequest
from nprdsl.runtime.local.scheduler import Scheduler
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


@cache
def probed(name: str) -> Probed:
    return probe(model(name))


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


def submitted(scheduler: Scheduler, seed: int, decoding: Decoding) -> ScheduledRequest:
    rng = random.Random(seed)
    plan = reread(random_plan(rng, WIDTH, 2))
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


@pytest.mark.parametrize("decoding", Decoding)
@pytest.mark.parametrize("name", NAMES)
def test_equals_the_plain_forward(name: str, decoding: Decoding) -> None:
    """Unequal requests with nested blocks share forwards."""
    scheduler = Scheduler(forward(name, 4000), WIDTH, max_rows=64)
    requests = [submitted(scheduler, seed, decoding) for seed in (3, 4)]
    finish(scheduler)
    for request in requests:
        assert request.ended is EndReason.COMPLETED, request.error
        assert farthest(name, request.machine.fed) <= TOLERANCE


@pytest.mark.parametrize("name", ["qwen3_next", "mamba"])
def test_prompts_in_pieces(name: str) -> None:
    scheduler = Scheduler(forward(name, 4000), WIDTH, max_rows=5)
    request = submitted(scheduler, 5, Decoding.PARALLEL)
    finish(scheduler)
    assert farthest(name, request.machine.fed) <= TOLERANCE
