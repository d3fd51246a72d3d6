"""Traces as plain sequences, for trainers that know one causal order and count positions from 0.

Such trainers recompute mask and positions from the ids alone. A trace without forks is such a
sequence; where joins read their branches again (`reread`), every path from the beginning to where a
branch ends is one, and so is the trunk, so that a trace becomes several samples. Each sampled token
carries loss in one of them. What stands behind a join that merges (`reduce`) sees branches side by
side, at the same positions: no sequence says that, and such traces are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nprdsl.tokens.vocabulary import Vocabulary
from nprdsl.trainers.batch.training_rows import TrainingRow
from nprdsl.trainers.rollout.rollout import Rollout


class MergeJoinError(ValueError):
    """A trace whose join merges branches, for a trainer of plain sequences."""


@dataclass(frozen=True, slots=True, eq=False)
class LinearSample:
    """A plain sequence: `ids` int32 [L]; `sampled` bool [L], the tokens that carry loss here;
    `logprobs` float64 [L], those of the sampled ones when they were sampled, 0 for others.
    The first `prompt` ids are the prompt."""

    ids: NDArray[np.int32]
    sampled: NDArray[np.bool_]
    logprobs: NDArray[np.float64]
    prompt: int


def linear_samples(rollout: Rollout) -> list[LinearSample]:
    """The sequences that a trace is made of, one at least. Raises MergeJoinError."""
    row = rollout.row
    prompt = int(row.token.max(initial=-1)) + 1 - len(rollout.token_ids)
    logprobs = np.zeros(len(row))
    logprobs[row.sampled] = row.logprobs
    taken = np.zeros(len(row), np.bool_)
    samples: list[LinearSample] = []
    for path in _paths(row):
        own = row.sampled[path] & ~taken[path]
        taken[path] = True
        if own.any() or not samples:
            values = np.where(own, logprobs[path], 0.0)
            samples.append(LinearSample(row.ids[path], own, values, prompt))
    return samples


def agent_loop_outputs(rollout: Rollout, reward: float) -> list[dict[str, Any]]:
    """The fields of verl's `AgentLoopOutput` (0.9.1) for each sample. `reward_score` is that of
    the whole trace. Raises MergeJoinError."""
    return [
        {
            "prompt_ids": sample.ids[: sample.prompt].tolist(),
            "response_ids": sample.ids[sample.prompt :].tolist(),
            "response_mask": sample.sampled[sample.prompt :].astype(int).tolist(),
            "response_logprobs": sample.logprobs[sample.prompt :].tolist(),
            "reward_score": reward,
            "num_turns": 2,
            "metrics": {},
        }
        for sample in linear_samples(rollout)
    ]


def message_nodes(rollout: Rollout, vocabulary: Vocabulary) -> list[dict[str, Any]]:
    """The fields of the `MessageNode`s of verifiers (0.4.0) and prime-rl: the prompt, and behind it
    a leaf for each sample. Samples share no other node, because a node counts in every path through
    it. Raises MergeJoinError."""
    samples = linear_samples(rollout)
    prompt = samples[0].ids[: samples[0].prompt]
    nodes = [_node(None, "user", prompt, np.zeros(len(prompt), np.bool_), vocabulary)]
    for sample in samples:
        behind = slice(sample.prompt, None)
        node = _node(0, "assistant", sample.ids[behind], sample.sampled[behind], vocabulary)
        nodes.append({**node, "logprobs": sample.logprobs[sample.sampled].tolist()})
    return nodes


def _node(
    parent: int | None,
    role: str,
    ids: NDArray[np.int32],
    sampled: NDArray[np.bool_],
    vocabulary: Vocabulary,
) -> dict[str, Any]:
    return {
        "parent": parent,
        "message": {"role": role, "content": vocabulary.text(ids.tolist())},
        "sampled": parent is not None,
        "token_ids": ids.tolist(),
        "mask": sampled.tolist(),
        "logprobs": [],
    }


def _paths(row: TrainingRow) -> list[NDArray[np.int64]]:
    """The entries that each leaf sees, and itself: those of dropped branches first, as written.
    A leaf is the last entry of a segment that no later one sees."""
    ends = np.append(np.flatnonzero(np.diff(row.segment)), len(row) - 1)
    seen = row.visible(ends)
    paths = []
    for number, end in enumerate(ends.tolist()):
        if seen[number + 1 :, number].any():
            continue
        sees = (end < row.until[: end + 1]) & (row.mirror[: end + 1] <= row.mirror[end])
        path = np.flatnonzero(sees)
        if (row.position[path] != np.arange(len(path))).any():
            raise MergeJoinError(
                "a join of this trace merges its branches: what follows sees them side by side, "
                "which no plain sequence says; train it with `nprdsl train` or "
                "`nprdsl.trainers.trl`, or write the schema with `reread` joins"
            )
        paths.append(path)
    return paths
