"""Every attention gives what the dense mask gives, for traces alone and packed."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch.nn.attention.flex_attention import flex_attention
from transformers import Qwen3Config, Qwen3ForCausalLM

from nprdsl.trainers.attention.masks import block_kinds, block_mask, dense_masks, visible
from nprdsl.trainers.attention.segments import ARGUMENT, plan, register
from nprdsl.trainers.batch.training_rows import (
    TrainingRow,
    bins,
    causal_row,
    length_groups,
    pack,
)
from tests.trainers.traces import SCHEMAS, trace

CASES = [(name, seed) for name in SCHEMAS for seed in range(3)]


@cache
def model(attention: str) -> Qwen3ForCausalLM:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, attn_implementation=attention,
    )  # fmt: skip
    made = Qwen3ForCausalLM(config).eval()
    if attention != "sdpa":
        made.load_state_dict(model("sdpa").state_dict())
    return made


@torch.no_grad()
def logits(row: TrainingRow, attention: str = "sdpa") -> torch.Tensor:
    """[L, V] of a row."""
    inputs = {
        "input_ids": torch.from_numpy(row.ids.astype(np.int64))[None],
        "position_ids": torch.from_numpy(row.position.astype(np.int64))[None],
    }
    if attention == "segments":
        found = model(register()).forward(**inputs, **{ARGUMENT: plan(row)})
    else:
        found = model("sdpa").forward(**inputs, attention_mask=dense_masks([row], torch.float32))
    return found.logits[0]


def packed() -> TrainingRow:
    return pack([trace(name, seed) for name, seed in CASES])


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_the_dense_mask_is_that_of_the_layout(name: str, seed: int) -> None:
    row = trace(name, seed)
    assert np.array_equal(visible(row).numpy(), row.visible())
    assert row.visible().diagonal().all() and not np.triu(row.visible(), 1).any()


def test_traces_of_a_packed_row_do_not_see_each_other() -> None:
    row = packed()
    assert row.traces == len(CASES)
    apart = row.trace[:, None] != row.trace[None, :]
    assert not (row.visible() & apart).any()
    begin = 0
    for name, seed in CASES:
        alone = trace(name, seed)
        stop = begin + len(alone)
        assert np.array_equal(row.visible()[begin:stop, begin:stop], alone.visible())
        assert np.array_equal(row.position[begin:stop], alone.position)
        begin = stop


def test_a_packed_row_gives_the_logits_of_its_traces_alone() -> None:
    found = logits(packed())
    begin = 0
    for name, seed in CASES:
        alone = logits(trace(name, seed))
        assert torch.allclose(found[begin : begin + len(alone)], alone, atol=1e-5)
        begin += len(alone)


@pytest.mark.parametrize("block", [16, 128])
def test_blocks_are_the_mask(block: int) -> None:
    row = packed()
    some, full = block_kinds(row, block)
    seen = row.visible()
    for q in range(len(some)):
        for k in range(len(some)):
            part = seen[q * block : (q + 1) * block, k * block : (k + 1) * block]
            assert not part.any() or some[q, k]
            assert part.all() or not full[q, k]
    if block == 16:  # in larger blocks none is full
        assert full.any() and (some & ~full).any() and (~some).any()


def test_flex_attention_equals_the_dense_mask() -> None:
    row = packed()
    torch.manual_seed(1)
    query, key, value = (torch.randn(1, 2, len(row), 8) for _ in range(3))
    dense = torch.nn.functional.scaled_dot_product_attention(
        query, key, value, attn_mask=visible(row)[None, None]
    )
    flex = flex_attention(query, key, value, block_mask=block_mask(row))
    assert torch.allclose(flex, dense, atol=1e-5)


@pytest.mark.parametrize(("name", "seed"), CASES)
def test_segments_equal_the_dense_mask(name: str, seed: int) -> None:
    row = trace(name, seed)
    assert torch.allclose(logits(row, "segments"), logits(row), atol=1e-5)


def test_segments_of_a_packed_row() -> None:
    assert torch.allclose(logits(packed(), "segments"), logits(packed()), atol=1e-5)


def test_segments_need_a_plan() -> None:
    row = trace("npr", 0)
    with pytest.raises(ValueError, match="needs the plan of the row"):
        model(register()).forward(input_ids=torch.from_numpy(row.ids.astype(np.int64))[None])


def test_a_sequence_is_causal() -> None:
    row = causal_row([5], [6, 7])
    assert np.array_equal(row.visible(), np.tril(np.ones((3, 3), bool)))


def test_rows_of_like_length_share_a_forward() -> None:
    lengths = [50, 90, 30, 10, 70, 80, 75]
    assert length_groups(lengths, 90, 3) == [[1, 5, 6], [4], [0], [2], [3]]
    assert length_groups(lengths, 90, 2) == [[1, 5], [6, 4], [0], [2], [3]]
    assert length_groups([], 90, 2) == []
    with pytest.raises(ValueError, match="row 1 has 90 entries; there is room for 80"):
        length_groups(lengths, 80, 2)


def test_bins_hold_what_they_can() -> None:
    lengths = [5, 9, 3, 1, 7, 2]
    found = bins(lengths, 10)
    assert sorted(i for place in found for i in place) == list(range(6))
    assert all(sum(lengths[i] for i in place) <= 10 for place in found)
    assert len(found) == 3
    with pytest.raises(ValueError, match="row 1 has 9 entries; there is room for 8"):
        bins(lengths, 8)
