"""What matrices that are laid out for the processor save the local engine, on a CPU.

    python -m benchmarks.packed_matrices [--model smol] [--dtype bf16] [--turns 5]

One question, greedily, its branches together and one after another: the same engine takes turns
with the model's own products and with `PackedMatrices`. Prints seconds (median, quickest), the
median of the turns' ratios, and whether both wrote the same tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from typing import Final

import nprdsl
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.sampling import Sampling

QUESTION: Final = (
    "Mia buys 4 boxes of 12 pens, 3 boxes of 18 rulers and 5 bags of 7 erasers. "
    "How many is that altogether?"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smol")
    parser.add_argument("--schema", default="npr")
    parser.add_argument("--question", default=QUESTION)
    parser.add_argument("--dtype", default="bf16")
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    engine = LocalEngine.from_pretrained(given.model, dtype=given.dtype)
    schema, forward = nprdsl.load(given.schema), engine._scheduler.forward
    packed = forward.matrices
    ways = {"own": nullcontext(), "packed": packed}

    def written(parallel: bool) -> tuple[float, tuple[int, ...]]:
        begin = time.perf_counter()
        result = engine.generate(
            schema,
            given.question,
            sampling=Sampling(temperature=0),
            limits=nprdsl.Limits(max_tokens=given.max_tokens),
            parallel=parallel,
        )
        return time.perf_counter() - begin, result.token_ids

    print(f"{given.model}, {given.dtype}: {len(packed)} matrices; s: median, quickest")
    for name, parallel in (("branches together", True), ("one after another", False)):
        found: dict[str, list[float]] = {way: [] for way in ways}
        texts = set[tuple[int, ...]]()
        for turn in range(given.turns + 1):
            for way, matrices in ways.items():
                forward.matrices = matrices
                seconds, tokens = written(parallel)
                texts.add(tokens)
                if turn:  # the first warms up
                    found[way].append(seconds)
        ratio = statistics.median(
            own / other for own, other in zip(found["own"], found["packed"], strict=True)
        )
        shown = ", ".join(
            f"{way} {statistics.median(took):.2f}, {min(took):.2f}" for way, took in found.items()
        )
        same = "same tokens" if len(texts) == 1 else "other tokens"
        print(f"{name}: {shown}; {ratio:.2f} times as fast ({same})")


if __name__ == "__main__":
    main()
