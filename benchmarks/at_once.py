"""How many requests without a budget run at once on an SGLang server: each might fill all positions
of the model, and takes a few hundred.

    .venv-sglang/bin/python -m benchmarks.at_once [--requests N] [--slots N]

They come together, for `arith` with the bundled model of that name. One runs from its first token
that comes to its end; so the figures are those that a client sees. One wave of requests is not
counted: what traces of a schema take is known when some have ended.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import time
from dataclasses import dataclass
from typing import Any

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime import Sampling
from nprdsl.runtime.bundled import ARITH, model_folder
from nprdsl.runtime.sglang import cpu
from nprdsl.runtime.sglang.protocol import ForkRequest, read_reports

POSITIONS = 2048  # of the model
WARM = 8  # requests that are not counted


@dataclass(frozen=True, slots=True)
class AtOnce:
    """The most that ran at once; tokens of a trace, the mean; how often traces were computed again;
    seconds until all had ended."""

    requests: int
    most: int
    tokens: float
    again: int
    seconds: float


async def ask(engine: Any, count: int, seed: int) -> AtOnce:
    schema, rng = nprdsl.load("arith"), random.Random(seed)
    tokenizer = engine.tokenizer_manager.tokenizer
    begun = over = most = again = 0
    lengths: list[int] = []

    async def one(number: int) -> None:
        nonlocal begun, over, most, again
        a, b, c, d = (rng.randrange(10, 90) for _ in range(4))
        chat = [{"role": "user", "content": f"{a}*{b}+{c}*{d}?"}]
        ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=False)
        request = ForkRequest.of(
            schema, limits=Limits(max_tokens=POSITIONS), sampling=Sampling(seed=number)
        )
        chunks = await engine.async_generate(
            input_ids=list(ids), sampling_params=request.sampling_params(), stream=True
        )
        last = None
        async for chunk in chunks:
            if last is None:
                begun += 1
                most = max(most, begun - over)
            last = chunk
        over += 1
        assert last is not None
        assert read_reports(last["meta_info"])[-1].final
        lengths.append(len(last["output_ids"]))
        again += last["meta_info"]["num_retractions"]

    began = time.perf_counter()
    await asyncio.gather(*map(one, range(count)))
    return AtOnce(count, most, statistics.mean(lengths), again, time.perf_counter() - began)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.at_once")
    parser.add_argument("--requests", type=int, default=192)
    parser.add_argument("--slots", type=int, default=65_536)
    chosen = parser.parse_args()
    cpu.prepare()
    import sglang

    engine = sglang.Engine(
        model_path=model_folder(ARITH),
        disable_overlap_schedule=True,
        page_size=1,
        log_level="error",
        device="cpu",
        attention_backend="torch_native",
        sampling_backend="pytorch",
        dtype="float32",
        mem_fraction_static=0.1,
        max_total_tokens=chosen.slots,
        sleep_on_idle=True,
    )
    engine.loop.run_until_complete(ask(engine, WARM, 0))
    print(engine.loop.run_until_complete(ask(engine, chosen.requests, 1)))
    engine.shutdown()


if __name__ == "__main__":
    main()
