"""Memory and time of log-probabilities from hidden states, beside those from all logits.

    python benchmarks/head_logprobs.py                  # 600 tokens, 49,152 entries
    python benchmarks/head_logprobs.py --threads 2 --tokens 4000

First the most bytes that are alive at one time above inputs and gradients of parameters, at the
size asked for and, by the same code on tensors without data, at 32,768 tokens x 151,936 entries x
2,560. Then CPU seconds of a forward and its backward, both ways in turn, medians; the matrix of the
head trained or frozen, in fp32 or under autocast to bf16.
"""

from __future__ import annotations

import argparse
import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import linear
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nprdsl.trainers.objective import head_logprobs as subject
from nprdsl.trainers.objective.head_logprobs import OutputHead, head_logprobs
from nprdsl.trainers.objective.losses import token_logprobs

LARGE = (32_768, 151_936, 2_560)  # the tokens of a packed row, Qwen3-4B's entries and width
GIB = 2**30
Way = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def from_hidden(hidden: torch.Tensor, matrix: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    return head_logprobs(hidden, OutputHead(matrix), ids)


def from_logits(hidden: torch.Tensor, matrix: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """As Accelerate's mixed precision makes them: float32 copies of what the model gave."""
    return token_logprobs(linear(hidden, matrix).float(), ids)


class Living(TorchDispatchMode):
    """The bytes of all storages made meanwhile that are alive, and the most there were."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self._count(leaf.untyped_storage())
        return out

    def _count(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key in self._seen:
            return
        self._seen.add(key)
        self.now += storage.nbytes()
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, key, storage.nbytes())

    def _gone(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.now -= size


def step(way: Way, inputs: tuple[torch.Tensor, ...], amp: bool) -> None:
    hidden, matrix, ids = inputs
    hidden.grad = matrix.grad = None
    with torch.autocast(hidden.device.type, torch.bfloat16, enabled=amp):
        way(hidden, matrix, ids).mean().backward()


def made(
    tokens: int, width: int, size: int, *, trained: bool, dtype: torch.dtype
) -> tuple[torch.Tensor, ...]:
    hidden = torch.randn(tokens, size, dtype=dtype).requires_grad_()
    matrix = (0.05 * torch.randn(width, size, dtype=dtype)).requires_grad_(trained)
    return hidden, matrix, torch.randint(0, width, (tokens,))


def peak(way: Way, inputs: tuple[torch.Tensor, ...], amp: bool) -> float:
    """GiB above the inputs and the gradient of the matrix."""
    with Living() as living:
        step(way, inputs, amp)
    _, matrix, _ = inputs
    return (living.peak - (matrix.nbytes if matrix.requires_grad else 0)) / GIB


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--tokens", type=int, default=600)
    parser.add_argument("--width", type=int, default=49_152)
    parser.add_argument("--size", type=int, default=576)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    small = (options.tokens, options.width, options.size)
    print("peak, GiB             hidden   logits")
    for trained in (False, True):
        word = "trained" if trained else "frozen "
        inputs = made(*small, trained=trained, dtype=torch.float32)
        values = [peak(way, inputs, amp=False) for way in (from_hidden, from_logits)]
        print(f"{word} {small[0]:>6} x {small[1]:<7} {values[0]:5.2f}   {values[1]:6.2f}")
        with FakeTensorMode(), patch.object(subject, "_CPU_LOGITS", subject._LOGITS):
            large = made(*LARGE, trained=trained, dtype=torch.bfloat16)
            values = [peak(way, large, amp=False) for way in (from_hidden, from_logits)]
        print(f"{word} {LARGE[0]:>6} x {LARGE[1]:<7} {values[0]:5.2f}   {values[1]:6.2f}")
    print("\nCPU seconds           hidden   logits   ratio")
    for trained in (False, True):
        for amp in (False, True):
            inputs = made(*small, trained=trained, dtype=torch.float32)
            times: dict[Way, list[float]] = {from_hidden: [], from_logits: []}
            for _ in range(options.repeats):
                for way, found in times.items():
                    begin = time.process_time()
                    step(way, inputs, amp)
                    found.append(time.process_time() - begin)
            one, other = (statistics.median(found) for found in times.values())
            name = f"{'trained' if trained else 'frozen'}, {'bf16' if amp else 'fp32'}"
            print(f"{name:<20} {one:7.2f}  {other:7.2f}  {one / other:6.2f}", flush=True)


if __name__ == "__main__":
    main()
