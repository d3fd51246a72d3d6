"""What requests gain that share a prompt, or how it begins, against `model.generate`.

`python -m benchmarks.local_engine --part sharing` prints it. Everybody writes freely, greedily, and
equally many tokens, so that the work is the same:

group    8 samples of one prompt: `model.generate` on a batch of 8; the same behind a cache of the
         prompt, computed once and repeated for the batch; the local engine
common   64 requests with a common beginning and a question of their own: likewise
first    until the first token of a request with a system prompt of 2,000 tokens: where nothing is
         known; where it is known (500 requests, one after another); 500 that come together
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel

from nprdsl.runtime import smollm2
from nprdsl.runtime.bundled import ARITH, model_folder
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.local.requests import FreeRun, ScheduledRequest, any_token
from nprdsl.runtime.sampling import Sampling

GREEDY = Sampling(temperature=0.0)
GROUP = (8, 256, 0, 32)  # requests, tokens in common, of their own, that each writes
COMMON = (64, 256, 12, 16)
ARRIVALS, SYSTEM, OWN, ANSWER = 500, 2000, 5, 8

Prompts = list[list[int]]


@dataclass(frozen=True, slots=True)
class Sharing:
    """Median seconds for all requests, and the rows that the engine fed."""

    model: str
    requests: int
    common: int
    own: int
    written: int
    batch_s: float
    cache_s: float
    engine_s: float
    rows: int


@dataclass(frozen=True, slots=True)
class FirstTokens:
    """Seconds to the first token, medians: nothing known, the beginning known, and together (the
    first of them, and the median of all)."""

    requests: int
    prompt: int
    unknown_s: float
    known_s: float
    first_together_s: float
    together_s: float


def engines() -> dict[str, LocalEngine]:
    """The bundled model, and SmolLM2 where its weights lie on this machine; both in float32."""
    found = {"arith, 1.1 M": LocalEngine.from_pretrained(model_folder(ARITH), dtype="fp32")}
    if (folder := smollm2.local_folder()) is not None:
        found["SmolLM2-135M"] = LocalEngine.from_pretrained(folder, dtype="fp32")
    return found


def sharing(
    name: str, engine: LocalEngine, shape: tuple[int, int, int, int], repeats: int
) -> Sharing:
    """The three ways in turn, `repeats` times behind one that is not counted."""
    requests, common, own, written = shape
    prompts = random_prompts(requests, common, own, engine.model.config.vocab_size)
    rows = 0

    def ours() -> None:
        nonlocal rows
        engine.forget()
        before = engine.timings.rows
        submitted = [submit(engine, prompt, written) for prompt in prompts]
        while any(request.ended is None for request in submitted):
            engine._scheduler.round()
        rows = engine.timings.rows - before

    ways: list[Callable[[], object]] = [
        partial(from_batch, engine.model, prompts, written),
        partial(from_cache, engine.model, prompts, common, written),
        ours,
    ]
    times: list[list[float]] = [[] for _ in ways]
    for repeat in range(repeats + 1):
        for way, found in zip(ways, times, strict=True):
            seconds = timed(way)
            if repeat:
                found.append(seconds)
    batch_s, cache_s, engine_s = map(statistics.median, times)
    return Sharing(name, *shape, batch_s, cache_s, engine_s, rows)


def first_tokens(engine: LocalEngine) -> FirstTokens:
    width = engine.model.config.vocab_size
    prompts = random_prompts(ARRIVALS, SYSTEM, OWN, width)
    unknown = []
    for prompt in prompts[:5]:
        engine.forget()
        unknown.append(timed(partial(until_first, engine, prompt)))
    known = [timed(partial(until_first, engine, prompt)) for prompt in prompts]
    engine.forget()
    begin, together = time.perf_counter(), list[float]()
    waiting = [submit(engine, prompt, ANSWER) for prompt in prompts]
    while waiting:
        engine._scheduler.round()
        begun = [request for request in waiting if request.machine.token_ids]
        together += [time.perf_counter() - begin] * len(begun)
        waiting = [request for request in waiting if not request.machine.token_ids]
    while engine._scheduler.busy:
        engine._scheduler.round()
    return FirstTokens(
        requests=ARRIVALS,
        prompt=SYSTEM,
        unknown_s=statistics.median(unknown),
        known_s=statistics.median(known),
        first_together_s=together[0],
        together_s=statistics.median(together),
    )


def until_first(engine: LocalEngine, prompt: list[int]) -> None:
    request = submit(engine, prompt, ANSWER)
    while not request.machine.token_ids:
        engine._scheduler.round()
    engine._scheduler.abort(request)


def submit(engine: LocalEngine, prompt: list[int], written: int) -> ScheduledRequest[FreeRun]:
    """A request that ends behind so many tokens, not earlier."""
    run = FreeRun(any_token(engine._width), written, None)
    request = ScheduledRequest(run, tuple(prompt), len(prompt) + written, GREEDY, least=written)
    return engine._scheduler.submit(request)


@torch.no_grad()
def from_batch(model: PreTrainedModel, prompts: Prompts, written: int) -> object:
    ids = torch.tensor(prompts)
    return model.generate(ids, **greedy(ids, written))


@torch.no_grad()
def from_cache(model: PreTrainedModel, prompts: Prompts, common: int, written: int) -> object:
    """What is in common is computed once, but for the last token of a prompt; its cache is repeated
    for the batch."""
    ids = torch.tensor(prompts)
    known = min(common, ids.shape[1] - 1)
    cache = DynamicCache(config=model.config)
    model(input_ids=ids[:1, :known], past_key_values=cache, use_cache=True, logits_to_keep=1)
    cache.batch_repeat_interleave(len(prompts))
    return model.generate(ids, past_key_values=cache, **greedy(ids, written))


def greedy(ids: torch.Tensor, written: int) -> dict[str, Any]:
    return {
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": written,
        "min_new_tokens": written,
        "do_sample": False,
        "pad_token_id": 0,
    }


def random_prompts(count: int, common: int, own: int, width: int) -> Prompts:
    rng = random.Random(0)
    beginning = rng.choices(range(width), k=common)
    return [beginning + rng.choices(range(width), k=own) for _ in range(count)]


def timed(way: Callable[[], object]) -> float:
    begin = time.perf_counter()
    way()
    return time.perf_counter() - begin
