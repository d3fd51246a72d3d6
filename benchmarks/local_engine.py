"""The local engine: what branches in parallel gain, and what the engine costs beside the model.

    python -m benchmarks.local_engine [--part PART] [--repeats N] [--json FILE]

speed-up   2, 4 and 8 branches of 64 tokens behind a prompt of 128, decoded together and one after
           another by the same engine, on one random model (Qwen3 shape, 135 M parameters, bf16);
           interleaved round by round in one process, so that other load hits both; `of the model's`
           compares with the gain in the model's own time: how well the hardware multiplies B rows
overhead   the share of a round that is not spent in the bundled model of 1.1 M parameters while it
           solves sums, one at a time and 32 at once; what of it is sampling stands beside
processor  what `schema.logits_processor` costs `model.generate` of transformers for each token: 48
           tokens of an `arith` trace over GPT-2's vocabulary by the model of `speedup`, and as many
           without it, interleaved; one row and eight
sharing    prompts that are the same, or begin alike, against `model.generate` in one batch and
           behind a cache of what is in common; see `benchmarks.shared_prompts`
"""

from __future__ import annotations

import os

# torch's threads would wait busily and take the CPU from each other; must stand before its import
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import argparse
import json
import random
import statistics
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from transformers import LogitsProcessor, PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

import nprdsl
from benchmarks import vocabularies
from benchmarks.shared_prompts import (
    COMMON,
    GROUP,
    FirstTokens,
    Sharing,
    engines,
    first_tokens,
    sharing,
)
from nprdsl import Limits, Machine, Schema, Vocabulary
from nprdsl.grammar.resolve import read_grammar
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.local.forward import Forward
from nprdsl.runtime.local.requests import Decoding, ScheduledRequest
from nprdsl.runtime.local.scheduler import Scheduler
from nprdsl.runtime.sampling import Sampling

BRANCHES = (2, 4, 8)
TOKENS = 64
PROMPT = 128
WARM = 4  # rounds that are not counted
WIDTH = 49_152
GENERATED = 48  # tokens of a row, for the logits processor
PARTS = ("overhead", "sharing", "speedup", "processor")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
# Every letter is one token and a branch holds exactly 64, whatever the random model likes.
PATHS = """
%import .parallel (spawn, reduce)
start: block
block: spawn{path}~2..8 reduce{end}
path:  "<path>" BODY "</path>"
end:   "<end>"
BODY:  /[a-z]{64}/
"""


@dataclass(frozen=True, slots=True)
class Speedup:
    """Median milliseconds of a round with all branches, and with one of them."""

    branches: int
    together_ms: float
    one_ms: float
    rounds_together: int
    rounds_in_turn: int
    ratio_of_sums: float
    model_ratio: float  # the same from the time inside the model alone: what the hardware gives

    @property
    def ratio(self) -> float:
        """How often faster, by the medians."""
        return self.branches * self.one_ms / self.together_ms


@dataclass(frozen=True, slots=True)
class Overhead:
    """Median microseconds of a round, and the medians of each part's share of its round."""

    requests: int
    rows: float
    round_us: float
    model: float
    sampling: float
    rest: float  # scheduler, attention mask, token masks, machine


@dataclass(frozen=True, slots=True)
class ProcessorCost:
    """Milliseconds of `generate` for each token, medians of whole calls, and the median of those
    inside the processor."""

    rows: int
    with_ms: float
    without_ms: float
    inside_ms: float


def large_model(width: int = WIDTH) -> PreTrainedModel:
    """135 M parameters, random, bf16."""
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=width,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        head_dim=64,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
    )
    return Qwen3ForCausalLM(config).to(torch.bfloat16).eval()


def speedup(model: PreTrainedModel, branches: int, repeats: int) -> Speedup:
    vocabulary = Vocabulary(
        dict(enumerate(LETTERS)), {"<path>": 30, "</path>": 31, "<end>": 32}, size=WIDTH
    )
    bound = Schema(read_grammar(PATHS, file="paths.lark", name="paths", types={})).bind(vocabulary)
    slots = PROMPT + branches * (TOKENS + 2) + 1
    limits = Limits(max_tokens=slots - PROMPT, spawn=branches)
    prompt = tuple(random.Random(0).choices(range(26), k=PROMPT))
    schedulers = {d: Scheduler(Forward(model, slots), WIDTH) for d in Decoding}
    times: dict[Decoding, list[tuple[float, float]]] = {d: [] for d in Decoding}
    for repeat in range(repeats):
        requests = {}
        for decoding, scheduler in schedulers.items():
            machine = Machine(bound, prompt=prompt, limits=limits)
            request = ScheduledRequest(machine, prompt, slots, Sampling(seed=repeat), decoding)
            requests[decoding] = scheduler.submit(request)
            scheduler.round()  # prompt and first tokens
        found = interleave(schedulers, requests, branches)
        for decoding in Decoding:
            times[decoding] += found[decoding][WARM * turns(decoding, branches) :]
    together, in_model = zip(*times[Decoding.PARALLEL], strict=True)
    one, one_in_model = zip(*times[Decoding.IN_TURN], strict=True)
    return Speedup(
        branches=branches,
        together_ms=1e3 * statistics.median(together),
        one_ms=1e3 * statistics.median(one),
        rounds_together=len(together),
        rounds_in_turn=len(one),
        ratio_of_sums=sum(one) / sum(together),
        model_ratio=branches * statistics.median(one_in_model) / statistics.median(in_model),
    )


def interleave(
    schedulers: dict[Decoding, Scheduler], requests: dict[Decoding, ScheduledRequest], branches: int
) -> dict[Decoding, list[tuple[float, float]]]:
    """One round together, then as many rounds in turn as there are branches, to the end of both."""
    times: dict[Decoding, list[tuple[float, float]]] = {d: [] for d in Decoding}
    while any(request.ended is None for request in requests.values()):
        for decoding, scheduler in schedulers.items():
            for _ in range(turns(decoding, branches)):
                if requests[decoding].ended is None:
                    times[decoding].append(timed(scheduler))
    return times


def turns(decoding: Decoding, branches: int) -> int:
    """Rounds that bring every branch one token further."""
    return 1 if decoding is Decoding.PARALLEL else branches


def timed(scheduler: Scheduler) -> tuple[float, float]:
    """Seconds of a round, and those of it inside the model."""
    before, now = replace(scheduler.timings), scheduler.timings
    scheduler.round()
    return now.round_s - before.round_s, now.model_s - before.model_s


def overhead(requests: int, repeats: int) -> Overhead:
    folder = Path(nprdsl.__file__).parent / "runtime" / "models" / "arith"
    engine, schema = LocalEngine.from_pretrained(folder, dtype="fp32"), nprdsl.load("arith")
    rounds: list[tuple[int, float, float, float]] = []
    round_ = engine._scheduler.round

    def watched() -> list[ScheduledRequest]:
        before = asdict(engine.timings)
        ended = round_()
        now = asdict(engine.timings)
        rows, round_s, model_s, sampling_s = (
            now[name] - before[name] for name in ("rows", "round_s", "model_s", "sampling_s")
        )
        rounds.append((rows, round_s, model_s / round_s, sampling_s / round_s))
        return ended

    engine._scheduler.round = watched  # type: ignore[method-assign]
    for repeat in range(repeats + 1):
        if repeat == 1:
            rounds.clear()  # the first is to warm up
        questions = [question(random.Random(seed)) for seed in range(max(8, requests))]
        for i in range(0, len(questions), requests):
            engine.generate(schema, questions[i : i + requests], chat=True)
    rows, seconds, model, sampling = ([row[i] for row in rounds] for i in range(len(rounds[0])))
    return Overhead(
        requests=requests,
        rows=statistics.fmean(rows),
        round_us=1e6 * statistics.median(seconds),
        model=statistics.median(model),
        sampling=statistics.median(sampling),
        rest=statistics.median([1 - m - s for m, s in zip(model, sampling, strict=True)]),
    )


def question(rng: random.Random) -> str:
    """A sum of four products."""
    return "+".join(f"{rng.randint(10, 99)}*{rng.randint(10, 99)}" for _ in range(4)) + "?"


class Timed(LogitsProcessor):
    """Another processor, and the seconds of each of its calls."""

    def __init__(self, processor: LogitsProcessor) -> None:
        self._processor = processor
        self.seconds: list[float] = []

    def __call__(self, input_ids: torch.LongTensor, scores: torch.Tensor) -> torch.Tensor:
        begin = time.perf_counter()
        masked: torch.Tensor = self._processor(input_ids, scores)
        self.seconds.append(time.perf_counter() - begin)
        return masked


def processor_cost(rows: int, repeats: int) -> ProcessorCost:
    schema = nprdsl.load("arith")
    real = vocabularies.load("gpt2", schema.tags)
    vocabulary = Vocabulary(real.tokens, real.special, real.eos, size=real.size)
    model = large_model(real.size)
    processor = schema.logits_processor(vocabulary, Limits())
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(1000, 2000, (rows, PROMPT), generator=generator)
    length = {"min_new_tokens": GENERATED, "max_new_tokens": GENERATED, "do_sample": True}
    times: dict[bool, list[float]] = {True: [], False: []}
    inside: list[float] = []
    for repeat in range(repeats + 1):  # the first is to warm up
        for masked in (True, False):
            timed, begin = Timed(processor), time.perf_counter()
            processor.reset()
            model.generate(prompts, logits_processor=[timed] if masked else [], **length)
            if repeat:
                times[masked].append((time.perf_counter() - begin) / GENERATED)
                inside += timed.seconds
    with_s, without_s = (statistics.median(times[masked]) for masked in (True, False))
    return ProcessorCost(rows, 1e3 * with_s, 1e3 * without_s, 1e3 * statistics.median(inside))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    console = Console()
    report: dict[str, object] = {"threads": torch.get_num_threads(), "torch": torch.__version__}
    parts = [arguments.part] if arguments.part else PARTS
    if "overhead" in parts:
        costs = [overhead(requests, arguments.repeats) for requests in (1, 32)]
        report["overhead"] = [asdict(cost) for cost in costs]
        console.print(overhead_table(costs))
    if "sharing" in parts:
        models = engines()
        shares = [
            sharing(name, engine, shape, arguments.repeats)
            for name, engine in models.items()
            for shape in (GROUP, COMMON)
        ]
        first = first_tokens(next(iter(models.values())))
        report["sharing"] = [asdict(share) for share in shares]
        report["first_tokens"] = asdict(first)
        console.print(sharing_table(shares), first_table(first))
    if "speedup" in parts:
        model = large_model()
        gains = [speedup(model, branches, arguments.repeats) for branches in BRANCHES]
        report["speedup"] = [{**asdict(gain), "ratio": gain.ratio} for gain in gains]
        console.print(speedup_table(gains))
    if "processor" in parts:
        prices = [processor_cost(rows, arguments.repeats) for rows in (1, 8)]
        report["processor"] = [asdict(price) for price in prices]
        console.print(processor_table(prices))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def overhead_table(costs: list[Overhead]) -> Table:
    table = Table(title="A round of the 1.1 M-parameter model, medians")
    for name in ("requests", "rows a round", "round", "model", "sampling", "scheduler and masks"):
        table.add_column(name, justify="right")
    for c in costs:
        shares = (f"{100 * share:.1f} %" for share in (c.model, c.sampling, c.rest))
        table.add_row(str(c.requests), f"{c.rows:.1f}", f"{c.round_us:.0f} us", *shares)
    return table


def sharing_table(shares: list[Sharing]) -> Table:
    table = Table(title="Prompts that begin alike: all requests, medians, fp32")
    names = ("model", "requests", "common + own", "written", "generate", "behind its cache")
    for name in (*names, "engine", "of generate", "of its cache", "rows"):
        table.add_column(name, justify="right")
    for s in shares:
        table.add_row(
            s.model,
            str(s.requests),
            f"{s.common} + {s.own}",
            str(s.written),
            *(f"{seconds:.2f} s" for seconds in (s.batch_s, s.cache_s, s.engine_s)),
            f"{s.engine_s / s.batch_s:.2f}",
            f"{s.engine_s / s.cache_s:.2f}",
            f"{s.rows:,}",
        )
    return table


def first_table(first: FirstTokens) -> Table:
    table = Table(title=f"First token behind {first.prompt:,} tokens, {first.requests} requests")
    for name in ("", "median", "of a single prefill"):
        table.add_column(name, justify="right")
    rows = {
        "nothing known": first.unknown_s,
        "known, one after another": first.known_s,
        "together, the first": first.first_together_s,
        "together, all": first.together_s,
    }
    for name, seconds in rows.items():
        table.add_row(name, f"{1e3 * seconds:.0f} ms", f"{seconds / first.unknown_s:.2f}")
    return table


def speedup_table(gains: list[Speedup]) -> Table:
    table = Table(title="Branches of 64 tokens, 135 M parameters, bf16, medians")
    for name in ("branches", "together", "one", "speed-up", "of B", "of the model's", "by sums"):
        table.add_column(name, justify="right")
    for g in gains:
        table.add_row(
            str(g.branches),
            f"{g.together_ms:.1f} ms",
            f"{g.one_ms:.1f} ms",
            f"{g.ratio:.2f}",
            f"{100 * g.ratio / g.branches:.0f} %",
            f"{100 * g.ratio / g.model_ratio:.0f} %",
            f"{g.ratio_of_sums:.2f}",
        )
    return table


def processor_table(prices: list[ProcessorCost]) -> Table:
    table = Table(title="model.generate with a logits processor, a token, 135 M parameters, bf16")
    for name in ("rows", "with", "without", "inside the processor", "of the step"):
        table.add_column(name, justify="right")
    for p in prices:
        shown = (f"{ms:.2f} ms" for ms in (p.with_ms, p.without_ms, p.inside_ms))
        table.add_row(str(p.rows), *shown, f"{100 * p.inside_ms / p.with_ms:.1f} %")
    return table


if __name__ == "__main__":
    main()
