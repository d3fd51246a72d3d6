"""Log-probabilities from hidden states are those of dense logits, gradients too, and no tensor of
the size of all logits is made."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nprdsl.trainers.objective import head_logprobs as subject
from nprdsl.trainers.objective.head_logprobs import LogitMap, OutputHead, head_logprobs

HIDDEN = 8
MAPS = [LogitMap(), LogitMap(0.0625), LogitMap(cap=3.0), LogitMap(2.5, 4.0)]


def dense(hidden: torch.Tensor, head: OutputHead, ids: torch.Tensor) -> torch.Tensor:
    """The oracle: all logits, and the gradient that autograd makes."""
    weight = head.weight
    if head.rows is not None and head.values is not None:
        weight = weight.index_copy(0, head.rows, head.values.to(weight))
    logits = torch.nn.functional.linear(hidden, weight, head.bias).float() * head.map.scale
    if head.map.cap is not None:
        logits = head.map.cap * torch.tanh(logits / head.map.cap)
    return logits.log_softmax(-1)[torch.arange(len(ids)), ids]


def made(
    seed: int, tokens: int, width: int, *, trained: bool, bias: bool, rows: int, bent: LogitMap
) -> tuple[torch.Tensor, OutputHead, torch.Tensor, torch.Tensor]:
    """Hidden states, head, ids and the gradient from above."""
    torch.manual_seed(seed)
    chosen = torch.randperm(width)[:rows]
    head = OutputHead(
        torch.randn(width, HIDDEN).requires_grad_(trained),
        torch.randn(width).requires_grad_(trained) if bias else None,
        bent,
        chosen if rows else None,
        torch.randn(len(chosen), HIDDEN).requires_grad_() if rows else None,
    )
    hidden = torch.randn(tokens, HIDDEN).requires_grad_()
    return hidden, head, torch.randint(0, width, (tokens,)), torch.randn(tokens)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    tokens=st.integers(0, 12),
    width=st.integers(1, 40),
    trained=st.booleans(),
    bias=st.booleans(),
    rows=st.integers(0, 5),
    bent=st.sampled_from(MAPS),
    living=st.sampled_from([1, 50, 10_000]),
    kept=st.sampled_from([0, 10_000]),
)
def test_equal_to_dense_logits(
    seed: int,
    tokens: int,
    width: int,
    trained: bool,
    bias: bool,
    rows: int,
    bent: LogitMap,
    living: int,
    kept: int,
) -> None:
    rows = 0 if trained else rows
    hidden, head, ids, upstream = made(
        seed, tokens, width, trained=trained, bias=bias, rows=rows, bent=bent
    )
    learning = [hidden, head.weight, head.bias, head.values]
    learning = [t for t in learning if t is not None and t.requires_grad]
    with patch.multiple(subject, _CPU_LOGITS=living, _KEPT=kept):
        found = head_logprobs(hidden, head, ids)
        gradients = torch.autograd.grad(found @ upstream, learning)
    wanted = dense(hidden, head, ids)
    assert torch.allclose(found, wanted, atol=1e-5)
    assert found.dtype is torch.float32
    with torch.no_grad():
        assert torch.allclose(head_logprobs(hidden, head, ids), wanted, atol=1e-5)
    for one, other in zip(gradients, torch.autograd.grad(wanted @ upstream, learning), strict=True):
        assert torch.allclose(one, other, atol=1e-5), (one - other).abs().max()


@pytest.mark.parametrize("kept", [0, 1 << 20])
@pytest.mark.parametrize("trained", [True, False])
def test_under_autocast_it_is_as_near_to_the_truth_as_dense_logits(
    trained: bool, kept: int
) -> None:
    hidden, head, ids, upstream = made(
        1, 64, 300, trained=trained, bias=False, rows=0 if trained else 7, bent=LogitMap(cap=20.0)
    )
    learning = [hidden, head.weight if trained else head.values]
    truth = torch.autograd.grad(dense(hidden, head, ids) @ upstream, learning)
    misses = []
    for way in (head_logprobs, dense):
        with torch.autocast("cpu", torch.bfloat16), patch.object(subject, "_KEPT", kept):
            got = way(hidden, head, ids)
        gradients = torch.autograd.grad(got @ upstream, learning)
        assert [g.dtype for g in gradients] == [torch.float32] * 2
        misses.append(
            [float((a - b).norm() / b.norm()) for a, b in zip(gradients, truth, strict=True)]
        )
    for own, other in zip(*misses, strict=True):
        assert own < 1.2 * other < 0.1


class Sizes(TorchDispatchMode):
    """The greatest number of elements of a tensor that is made meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.largest = max(self.largest, leaf.numel())
        return out


@pytest.mark.parametrize("trained", [True, False])
def test_no_more_logits_live_than_are_allowed(trained: bool) -> None:
    hidden, head, ids, upstream = made(
        1, 200, 500, trained=trained, bias=False, rows=0, bent=LogitMap(cap=20.0)
    )
    saved: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        saved.append(0 if tensor is head.weight else tensor.numel())
        return tensor

    with patch.multiple(subject, _CPU_LOGITS=6000, _KEPT=6000), Sizes() as sizes:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            scored = head_logprobs(hidden, head, ids)
        (scored @ upstream).backward()
    assert sizes.largest <= 6000 < 200 * 500
    assert sum(saved) <= 3 * hidden.numel()


def test_heads_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="a cap above 0"):
        LogitMap(cap=0.0)
    weight = torch.randn(4, 2)
    with pytest.raises(ValueError, match="come together"):
        OutputHead(weight, rows=torch.tensor([1]))
    with pytest.raises(ValueError, match="of a frozen matrix"):
        OutputHead(weight.requires_grad_(), rows=torch.tensor([1]), values=torch.zeros(1, 2))
