"""Traces as plain sequences give every sampled token what the trace gives it.

verl 0.9.1 asks for transformers below 5.11 and verifiers 0.4.0 for openai below 3, so neither is
installed here: the fields of their classes are recorded below.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ConfigDict, create_model

from nprdsl.structure.events import EndReason
from nprdsl.trainers.batch.scoring import score
from nprdsl.trainers.batch.training_rows import TrainingRow, causal_row
from nprdsl.trainers.rollout.linear_samples import (
    MergeJoinError,
    agent_loop_outputs,
    linear_samples,
    message_nodes,
)
from nprdsl.trainers.rollout.rollout import Rollout
from tests.runtime.tiny_models import model
from tests.trainers.traces import bound, trace

AGENT_LOOP_OUTPUT: Mapping[str, type | UnionType] = {  # verl 0.9.1, those that text needs
    "prompt_ids": list[int], "response_ids": list[int], "response_mask": list[int],
    "response_logprobs": list[float], "reward_score": float, "num_turns": int,
    "metrics": dict[str, float],
}  # fmt: skip
MESSAGE_NODE: Mapping[str, type | UnionType] = {  # verifiers 0.4.0
    "parent": int | None, "message": dict[str, str], "sampled": bool, "token_ids": list[int],
    "mask": list[bool], "logprobs": list[float],
}  # fmt: skip


def recorded(name: str, fields: Mapping[str, type | UnionType]) -> Any:
    strict = ConfigDict(extra="forbid", strict=True)
    return create_model(name, __config__=strict, **{n: (kind, ...) for n, kind in fields.items()})


def rollout(row: TrainingRow, prompt: int = 7) -> Rollout:
    ids = np.zeros(int(row.token.max()) + 1, int)
    ids[row.token] = row.ids
    drawn = row.with_logprobs(-np.arange(1.0, row.tokens + 1))
    behind = tuple(ids[prompt:].tolist())
    return Rollout(0, "", behind, drawn, None, (), EndReason.COMPLETED, "")


def reread(seeds: Sequence[int] = range(12)) -> list[TrainingRow]:
    """Traces that are read again: they have more entries than tokens."""
    rows = [trace("threadweaver", seed) for seed in seeds]
    found = [row for row in rows if len(row) > row.token.max() + 1]
    assert found
    return found[:3]


@torch.no_grad()
def plainly(ids: np.ndarray, width: int) -> torch.Tensor:
    """Log-probabilities [L, V] of a plain forward: causal, positions from 0."""
    logits = model("llama", width)(input_ids=torch.from_numpy(ids.astype(int))[None]).logits
    return logits[0].log_softmax(-1)


def test_plain_forwards_give_what_the_trace_gives() -> None:
    width = bound("threadweaver").vocabulary.size
    for row in reread():
        samples = linear_samples(rollout(row))
        assert len(samples) > 1
        assert sum(int(sample.sampled.sum()) for sample in samples) == row.tokens
        found = {}
        for sample in samples:
            logprobs = plainly(sample.ids, width)
            for at in np.flatnonzero(sample.sampled):
                found[sample.logprobs[at]] = float(logprobs[at - 1, sample.ids[at]])
        with torch.no_grad():
            wanted = score(model("llama", width), [row])
        assert len(found) == row.tokens
        in_order = [found[-float(number)] for number in range(1, row.tokens + 1)]
        assert np.allclose(in_order, wanted.numpy(), atol=1e-4)


def test_a_trace_without_forks_is_one_sequence() -> None:
    (sample,) = linear_samples(rollout(causal_row([1] * 7, [5, 6, 7])))
    assert sample.ids.tolist() == [1] * 7 + [5, 6, 7] and sample.prompt == 7
    assert sample.sampled.tolist() == [False] * 7 + [True] * 3
    assert sample.logprobs.tolist() == [0.0] * 7 + [-1.0, -2.0, -3.0]


def test_joins_that_merge_are_refused() -> None:
    wide = [
        row for seed in range(8) if np.unique((row := trace("npr", seed)).position).size < len(row)
    ]
    assert wide
    for row in wide:
        with pytest.raises(MergeJoinError, match="a join of this trace merges its branches"):
            linear_samples(rollout(row))


def test_the_fields_of_verl() -> None:
    schema = recorded("AgentLoopOutput", AGENT_LOOP_OUTPUT)
    for row in reread():
        for fields in agent_loop_outputs(rollout(row), 0.5):
            made = schema(**fields)
            lengths = {len(made.response_ids), len(made.response_mask), len(made.response_logprobs)}
            assert len(lengths) == 1 and len(made.prompt_ids) == 7 and made.reward_score == 0.5
            assert set(made.response_mask) == {0, 1}


def test_the_nodes_of_verifiers() -> None:
    schema, vocabulary = recorded("MessageNode", MESSAGE_NODE), bound("threadweaver").vocabulary
    for row in reread():
        done = rollout(row)
        root, *leaves = [schema(**fields) for fields in message_nodes(done, vocabulary)]
        assert (root.parent, root.sampled, any(root.mask)) == (None, False, False)
        samples = linear_samples(done)
        for leaf, sample in zip(leaves, samples, strict=True):
            assert (leaf.parent, leaf.sampled) == (0, True)
            assert root.token_ids + leaf.token_ids == sample.ids.tolist()
            assert root.mask + leaf.mask == sample.sampled.tolist()
            assert len(leaf.logprobs) == sum(leaf.mask)
            assert leaf.message["content"] == vocabulary.text(leaf.token_ids)
