"""Log-probabilities of training are those of generation, for every schema and attention."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from random import Random

import numpy as np
import pytest
import torch
from transformers import Qwen3Config, Qwen3ForCausalLM

import nprdsl
from nprdsl import Limits
from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.resolve import read_grammar
from nprdsl.machine.actions import ALL, FIRST, JoinPolicy
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.results import Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.schema import Schema
from nprdsl.testing import byte_vocabulary
from nprdsl.testing.schemas import random_schema
from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trainers.attention.segments import register
from nprdsl.trainers.batch import output_head
from nprdsl.trainers.batch.scoring import predictors, score
from nprdsl.trainers.batch.training_rows import TrainingRow, last_seen, pack, training_row
from nprdsl.trainers.config.stages import Attention
from tests.trainers.traces import SCHEMAS, trace

JOINS = (ALL, ALL, FIRST, JoinPolicy(2))
CASES = [(name, seed) for name in SCHEMAS for seed in range(2)]


@cache
def engine(name: str) -> LocalEngine:
    return small_engine(byte_vocabulary(special=nprdsl.load(name).tags))


def small_engine(vocabulary: Vocabulary) -> LocalEngine:
    torch.manual_seed(1)
    config = Qwen3Config(
        vocab_size=vocabulary.size, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, max_position_embeddings=2048,
    )  # fmt: skip
    return LocalEngine(Qwen3ForCausalLM(config).eval(), vocabulary)


@cache
def rollout(name: str, seed: int) -> Result:
    limits = Limits(max_tokens=300, branches=3, blocks=2)
    if name == "multiverse":
        limits = Limits(max_tokens=400, branches=2, blocks=2, depth=2)
    return engine(name).generate(
        nprdsl.load(name), [65, 66, 67], limits=limits, sampling=Sampling(seed=seed)
    )


def row_of(result: Result) -> TrainingRow:
    assert result.layout is not None
    return training_row([*result.prompt_ids, *result.token_ids], result.layout)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_training_scores_what_generation_scored(name: str, seed: int) -> None:
    result = rollout(name, seed)
    one = row_of(result)
    drawn = [p for p in result.logprobs if p is not None]
    assert one.tokens == len(drawn) > 10
    with torch.no_grad():
        found = score(engine(name).model, [one])
    assert np.abs(found.numpy() - np.array(drawn)).max() < 1e-4


# The model writes what stands first in branches and behind joins: nothing is fed before it draws.
UNLED = """
%import .parallel (spawn, reduce, reread)
start: first spawn{nest}~2 reduce{choice} "<c>" spawn{path}~2 reread{text} "<d>"
first: "<a>" spawn{path}~2..3 reduce{text} "<b>"
nest:  spawn{path}~2 reduce{text} "</nest>"
path:  "<x>" WORD "</x>" | "<y>" WORD "</y>"
choice: "<p>" | "<q>"
text:  WORD
WORD:  /[a-z]{1,6}/
"""

PATHS = """
%import .parallel (spawn, reduce)
start: "<a>" spawn{path}~1..3 reduce{end}
path: TAG_OPEN TEXT TAG_CLOSE
end: "</a>"
TAG_OPEN: "【step】"
TAG_CLOSE: "【/step】"
%declare TEXT
"""


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("seed", range(4))
def test_training_scores_what_was_drawn_where_nothing_leads(seed: int, parallel: bool) -> None:
    schema = Schema(read_grammar(UNLED, file="unled.lark", name="unled", types={}))
    own = engine("npr")
    limits, sampling = Limits(max_tokens=300, branches=3), Sampling(seed=seed)
    result = own.generate(
        schema, [65, 66], limits=limits, sampling=sampling, join=JOINS[seed], parallel=parallel
    )
    drawn = [p for p in result.logprobs if p is not None]
    with torch.no_grad():
        found = score(own.model, [row_of(result)])
    assert schema.check(result.text) == [] and len(drawn) > 10
    assert np.abs(found.numpy() - np.array(drawn)).max() < 1e-4


@pytest.mark.parametrize("number", range(10))
def test_training_scores_what_was_drawn_under_random_schemas(number: int) -> None:
    try:
        schema = random_schema(number).load()
    except SchemaError:
        pytest.skip("this schema is refused")
    random = Random(number)
    tags = tuple(tag for tag in schema.tags if random.random() < 0.5)
    own = small_engine(byte_vocabulary(special=tags))
    bounds = Limits(max_tokens=1, depth=3).bounds
    limits = Limits(max_tokens=own.bind(schema).under(bounds).minimum + 40, depth=3)
    sampling, join = Sampling(seed=number), random.choice(JOINS)
    prompts = [[65, 66, 67 + n] for n in range(3)]
    for result in own.generate(schema, prompts, limits=limits, sampling=sampling, join=join):
        drawn = [p for p in result.logprobs if p is not None]
        one = row_of(result)
        assert one.tokens == len(drawn)
        with torch.no_grad():
            found = score(own.model, [one])
        assert np.abs(found.numpy() - np.array(drawn)).max(initial=0) < 1e-4


def test_a_character_of_several_tokens_belongs_to_one_branch() -> None:
    """The second and third token of the last one of a branch were taken for the next branch's."""
    schema = Schema(read_grammar(PATHS, file="paths.lark", name="paths", types={}))
    own = small_engine(byte_vocabulary(special=()))
    result = own.generate(schema, [65], limits=Limits(max_tokens=120, spawn=3))
    drawn = [p for p in result.logprobs if p is not None]
    with torch.no_grad():
        found = score(own.model, [row_of(result)])
    assert result.text.count("【/step】") == 3
    assert np.abs(found.numpy() - np.array(drawn)).max() < 1e-4


def test_a_packed_row_scores_what_its_traces_score() -> None:
    model = engine("npr").model
    parts = [row_of(rollout("npr", seed)) for seed in range(3)]
    whole = pack(parts)
    with torch.no_grad():
        alone = torch.cat([score(model, [part]) for part in parts])
        found = score(model, [whole])
    assert torch.allclose(found, alone, atol=1e-5)


def test_segments_score_alike_with_the_same_gradient() -> None:
    model = engine("npr").model
    one = pack([row_of(rollout("npr", seed)) for seed in range(2)])
    gradients, scores = [], []
    for attention in (Attention.DENSE, Attention.SEGMENTS):
        model.set_attn_implementation(register() if attention is Attention.SEGMENTS else "sdpa")
        model.zero_grad()
        output_head._MAPS.clear()  # as at the first step of a run
        found = score(model, [one], attention)
        found.sum().backward()
        scores.append(found.detach())
        gradients.append([p.grad.clone() for p in model.parameters()])
    model.set_attn_implementation("sdpa")
    assert torch.allclose(scores[0], scores[1], atol=1e-5)
    for first, second in zip(*gradients, strict=True):
        assert torch.allclose(first, second, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_the_last_seen_entry_is_that_of_the_mask(name: str, seed: int) -> None:
    one = pack([trace(name, seed), trace(name, seed + 7)])
    seen = one.visible()
    np.fill_diagonal(seen, val=False)
    wanted = [np.flatnonzero(line)[-1] if line.any() else -1 for line in seen]
    assert last_seen(one).tolist() == wanted


def test_the_first_token_cannot_be_trained() -> None:
    one = trace("npr", 0, prompt=0)
    if one.sampled[0]:
        with pytest.raises(ValueError, match="nothing stands before it; give a prompt"):
            predictors(one)
    every, zeros = np.ones(len(one), bool), np.zeros(len(one))
    made = replace(one, sampled=every, weights=zeros, logprobs=zeros)
    with pytest.raises(ValueError, match="entry 0 is sampled"):
        predictors(made)
