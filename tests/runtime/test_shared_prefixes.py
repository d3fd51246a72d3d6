"""What prompts begin with in common is computed once, and nothing else changes by it."""

from __future__ import annotations

import random
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import WhisperConfig, WhisperForCausalLM

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.local.forward import Forward
from nprdsl.runtime.local.requests import ScheduledRequest
from nprdsl.runtime.local.scheduler import Scheduler
from nprdsl.runtime.sampling import Sampling
from nprdsl.structure.events import EndReason
from tests.runtime.scripted import Force, Sample, ScriptedMachine, Split, random_plan, size
from tests.runtime.tiny_models import WIDTH, byte_tokenizer, largest_error, model

FORCED = (Force((3, 4)), Sample(5))
FED = 6  # of it: behind the last token nothing is drawn
LONG = tuple(random.Random(1).choices(range(WIDTH), k=60))


def request(prompt: tuple[int, ...], seed: int, plan: tuple = FORCED) -> ScheduledRequest:
    machine = ScriptedMachine(plan, prompt, WIDTH)
    return ScheduledRequest(machine, prompt, len(prompt) + size(plan), Sampling(seed=seed))


def scheduler(kind: str = "llama", *, kept: int = 500, total: int = 2000, rows: int = 512):
    return Scheduler(Forward(model(kind), total), WIDTH, max_rows=rows, prefix_tokens=kept)


def finish(one: Scheduler) -> None:
    while one.busy:
        one.round()
        one.check()


def drawn(one: ScheduledRequest) -> list[tuple[int, int, float]]:
    machine = one.machine
    assert isinstance(machine, ScriptedMachine)
    fed = [(f.position, f.token, f.logprob) for f in machine.fed if f.logprob is not None]
    return sorted(fed)


def alone(prompt: tuple[int, ...], seed: int, plan: tuple = FORCED, kind: str = "llama"):
    one = scheduler(kind, kept=0)
    lonely = one.submit(request(prompt, seed, plan))
    finish(one)
    return drawn(lonely)


def same(found: list[tuple[int, int, float]], expected: list[tuple[int, int, float]]) -> None:
    assert [f[:2] for f in found] == [e[:2] for e in expected]
    assert max(abs(f[2] - e[2]) for f, e in zip(found, expected, strict=True)) < 1e-5


def test_samples_of_a_prompt_feed_it_once() -> None:
    one = scheduler()
    group = [one.submit(request(LONG, seed)) for seed in range(4)]
    finish(one)
    assert one.timings.rows == len(LONG) + 4 * FED
    for seed, sample in enumerate(group):
        same(drawn(sample), alone(LONG, seed))


def test_where_nothing_is_forced_the_last_token_is_fed_by_each() -> None:
    one = scheduler()
    for seed in range(4):
        one.submit(request(LONG, seed, (Sample(3),)))
    finish(one)
    assert one.timings.rows == len(LONG) - 1 + 4 * (1 + 2)


def test_a_beginning_in_common_is_fed_once_also_in_pieces() -> None:
    one = scheduler(rows=16)
    for seed in range(5):
        one.submit(request((*LONG, seed, seed), seed))
    finish(one)
    assert one.timings.rows == len(LONG) + 5 * (2 + FED)


def test_who_comes_while_it_is_computed_waits_for_it() -> None:
    one = scheduler(rows=16)
    one.submit(request(LONG, 0))
    one.round()
    late = one.submit(request(LONG, 1))
    one.round()
    assert late.forwards == 0
    finish(one)
    assert one.timings.rows == len(LONG) + 2 * FED
    same(drawn(late), alone(LONG, 1))


def test_who_comes_later_finds_it() -> None:
    one = scheduler()
    for seed in range(3):
        sample = one.submit(request((*LONG, seed), seed))
        finish(one)
        same(drawn(sample), alone((*LONG, seed), seed))
    assert one.timings.rows == len(LONG) + 3 * (1 + FED)


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_when_the_first_is_aborted_another_computes_it(rounds: int) -> None:
    one = scheduler(rows=16)
    first = one.submit(request(LONG, 0))
    others = [one.submit(request(LONG, seed)) for seed in (1, 2)]
    for _ in range(rounds):
        one.round()
    one.abort(first)
    finish(one)
    assert [other.ended for other in others] == [EndReason.COMPLETED] * 2
    assert one.timings.rows == len(LONG) + 2 * FED


def test_a_prompt_beyond_the_bound_is_shared_up_to_it() -> None:
    one = scheduler(kept=40)
    for seed in range(3):
        one.submit(request(LONG, seed))
    finish(one)
    assert one.timings.rows == 40 + 3 * (len(LONG) - 40 + FED)
    assert one.prefixes.tree.kept == 40


def test_without_a_bound_nothing_is_kept() -> None:
    one = scheduler(kept=0)
    for seed in range(3):
        one.submit(request(LONG, seed))
    finish(one)
    assert one.timings.rows == 3 * (len(LONG) + FED)


PROMPT = st.lists(st.integers(0, 1), min_size=1, max_size=50).map(tuple)


@given(st.lists(PROMPT, min_size=2, max_size=6), st.sampled_from(["llama", "gemma3"]), st.data())
@settings(max_examples=8, deadline=None)
def test_nothing_changes_by_it(prompts: list[tuple[int, ...]], kind: str, data: st.DataObject):
    """Random forks behind prompts of two letters, whatever is kept and however they are fed."""
    rng = random.Random(data.draw(st.integers(0, 99)))
    common = LONG[: data.draw(st.integers(0, 40))]
    plans = [random_plan(rng, WIDTH, 1, reread=True) for _ in prompts]
    kept, rows = data.draw(st.sampled_from([5, 40, 500])), data.draw(st.sampled_from([9, 512]))
    one = scheduler(kind, kept=kept, rows=rows)
    pause = data.draw(st.integers(0, 3))
    requests = []
    for seed, (prompt, plan) in enumerate(zip(prompts, plans, strict=True)):
        requests.append(one.submit(request((*common, *prompt), seed, plan)))
        for _ in range(pause):
            one.round()
            one.check()
    finish(one)
    for done in requests:
        assert done.ended is EndReason.COMPLETED, done.error
        machine = done.machine
        assert isinstance(machine, ScriptedMachine)
        assert largest_error(kind, machine.fed) <= 1e-4


def test_new_weights_forget_it() -> None:
    one = scheduler()
    one.submit(request(LONG, 0))
    finish(one)
    parameter = one.forward.model.get_input_embeddings().weight
    before = parameter.detach().clone()
    with torch.no_grad():
        parameter.mul_(1.5)
    try:
        changed = one.submit(request(LONG, 1))
        finish(one)
        assert one.timings.rows == 2 * (len(LONG) + FED)
        same(drawn(changed), alone(LONG, 1))
    finally:
        with torch.no_grad():
            parameter.copy_(before)


def test_a_failure_leaves_nothing_that_others_could_take() -> None:
    one = scheduler()
    broken = one.submit(request(LONG, 0))
    one.round()
    layer = one.forward.log.layers[0]
    layer.keys[:, :, : broken.extent.end] = torch.nan
    layer.values[:, :, : broken.extent.end] = torch.nan
    finish(one)
    assert broken.ended is EndReason.FAILED
    assert one.prefixes.tree.kept == 0


# -- through the engine ----------------------------------------------------------------------------


@cache
def schema() -> nprdsl.Schema:
    return nprdsl.load("multiverse")


def engine(**options: int) -> LocalEngine:
    tokenizer = byte_tokenizer(schema().tags)
    return LocalEngine(model("qwen3", len(tokenizer)), tokenizer, **options)


def test_a_group_and_its_next_turn_share_a_system_message() -> None:
    limits, seeds = Limits(max_tokens=80), [Sampling(seed=n) for n in range(3)]
    prompts = ["You are terse. " * 5 + question for question in ("why?", "why?", "how?")]
    found = {}
    for kept in (0, 1000):
        one = engine(prefix_tokens=kept)
        found[kept] = one.generate(schema(), prompts, limits=limits, sampling=seeds)
        rows = one.timings.rows
    assert rows < 80 + 3 * 85
    for with_it, without in zip(found[1000], found[0], strict=True):
        assert with_it.token_ids == without.token_ids
        pairs = zip(with_it.logprobs, without.logprobs, strict=True)
        assert max(abs((a or 0) - (b or 0)) for a, b in pairs) < 1e-5


def test_completions_share_too() -> None:
    one = engine()
    prompts = ["You are terse. " * 5] * 4
    one.complete(schema(), prompts, max_tokens=5)
    assert one.timings.rows <= 75 + 4 * 5


def test_prefixes_can_be_forgotten_by_hand() -> None:
    one, limits = engine(), Limits(max_tokens=60)
    one.generate(schema(), "x" * 50, limits=limits)
    one.forget()
    before = one.timings.rows
    one.generate(schema(), "x" * 50, limits=limits)
    assert one.timings.rows - before > 50


def test_a_negative_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="prefix_tokens must be at least 0, not -1"):
        engine(prefix_tokens=-1)


def test_branches_that_begin_at_once_share_all_but_the_last_token() -> None:
    plan = (Split(((Sample(3),), (Sample(2),))), Force((4,)), Sample(1))
    one = scheduler()
    group = [one.submit(request(LONG, seed, plan)) for seed in range(2)]
    finish(one)
    assert one.timings.rows == len(LONG) + 1 + 2 * (size(plan) - 1)
    for seed, sample in enumerate(group):
        same(drawn(sample), alone(LONG, seed, plan))


def test_layers_that_a_configuration_counts_and_a_model_lacks_are_left_out() -> None:
    """A Whisper decoder's configuration has the encoder's number of layers, which is greater."""
    torch.manual_seed(0)
    sizes = {"d_model": 32, "decoder_ffn_dim": 32, "max_target_positions": 256, "encoder_layers": 3}
    config = WhisperConfig(
        vocab_size=257, decoder_layers=1, decoder_attention_heads=2, pad_token_id=0, **sizes
    )
    decoder, limits = WhisperForCausalLM(config), Limits(max_tokens=40)
    once, kept = (
        LocalEngine(decoder, byte_tokenizer(()), prefix_tokens=tokens) for tokens in (0, 500)
    )
    for prompt in ("x" * 30, "x" * 30, "x" * 20 + "y" * 20, "x" * 25):
        results = [one.generate(schema(), prompt, limits=limits) for one in (once, kept)]
        assert results[0].token_ids == results[1].token_ids
    assert kept.timings.rows < once.timings.rows
