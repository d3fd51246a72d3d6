"""The SGLang runtime on a CPU: what the plugin costs plain requests, and what branches gain.

    .venv-sglang/bin/python -m benchmarks.sglang_cpu [--part overhead|overlap|speedup]
                                                   [--branches N …] [--repeats N] [--servers N]

overhead   plain requests on servers without the plugin and on as many with it, which have run
           traces before; all have the same settings and take turns, so that other load hits all.
           Two servers of one kind differ too (`spread`, between the slowest and the fastest), so
           there are several of each. `cpu` compares the CPU time of the servers' processes, which
           other load changes least. Rates are medians over all servers of a kind
overlap    the same for servers without the plugin, with the overlap scheduler and without it: what
           the plugin asks for besides
speed-up   tokens per second of one request with 2, 4 and 8 branches of 64 letters, against as many
           tokens written by a plain request of the same server, and against the same trace with its
           branches one after another; in turn as well. One random model (Qwen3 shape, fp32)
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.sglang_runs import Runs, Shape, Size, Taken, make_model, without_plugin
from nprdsl.runtime.sglang import cpu

PARTS = ("speedup", "overhead", "overlap")
BRANCHES = (2, 4, 8)
BATCHES = (1, 8)  # plain requests at once
TOKENS = 64
MODEL = Size(hidden=256, layers=4, positions=4096)
OPTIONS = {
    "device": "cpu",
    "attention_backend": "torch_native",
    "sampling_backend": "pytorch",
    "dtype": "float32",
    "mem_fraction_static": 0.1,
    "max_total_tokens": 16_384,
    "sleep_on_idle": True,
}


@dataclass(frozen=True, slots=True)
class Overhead:
    """What servers of one kind cost against those of another. Tokens per second of plain requests,
    the medians; microseconds of CPU time per token; the largest difference between two servers of
    one kind, in per cent."""

    of: str
    batch: int
    against: float
    tokens_per_s: float
    cpu_us_against: float
    cpu_us: float
    spread: float
    repeats: int

    @property
    def percent(self) -> float:
        """The cost, of the time to all answers."""
        return 100 * (self.against / self.tokens_per_s - 1)

    @property
    def cpu_percent(self) -> float:
        """The cost, of the CPU's time."""
        return 100 * (self.cpu_us / self.cpu_us_against - 1)


@dataclass(frozen=True, slots=True)
class Speedup:
    """Tokens per second, the medians."""

    branches: int
    forking: float
    plain: float
    in_turn: float
    forwards: int
    repeats: int

    @property
    def ratio(self) -> float:
        """Against the same server without forks."""
        return self.forking / self.plain


def in_turn(kinds: Sequence[Callable[[int], Taken]], repeats: int) -> list[list[Taken]]:
    """Every kind of run once in a turn, in an order that changes; the first turn is not counted."""
    found: list[list[Taken]] = [[] for _ in kinds]
    for turn in range(repeats + 1):
        order = list(range(len(kinds)))
        for index in order if turn % 2 else reversed(order):
            taken = kinds[index](turn)
            if turn:
                found[index].append(taken)
    return found


def rate(runs: Sequence[Taken]) -> float:
    return statistics.median(run.tokens_per_s for run in runs)


def cpu_us(runs: Sequence[Taken]) -> float:
    """Of all runs together: the system counts CPU time in steps of 10 ms."""
    return 1e6 * sum(run.cpu_s for run in runs) / sum(run.tokens for run in runs)


def spread(servers: Sequence[Sequence[Taken]]) -> float:
    """How much faster the fastest of these servers is than the slowest, in per cent."""
    rates = [rate(runs) for runs in servers]
    return 100 * (max(rates) / min(rates) - 1)


def speedup(runs: Runs, branches: int, repeats: int) -> Speedup:
    shape = Shape(branches, TOKENS)
    length = runs.fork(shape).tokens
    forking, plain, one_by_one = in_turn(
        [
            lambda turn: runs.fork(shape, seed=turn),
            lambda turn: runs.plain(shape, length, seed=turn),
            lambda turn: runs.fork(shape, parallel=False, seed=turn),
        ],
        repeats,
    )
    return Speedup(
        branches, rate(forking), rate(plain), rate(one_by_one), forking[-1].forwards, repeats
    )


def overhead(
    of: str, others: Sequence[Runs], servers: Sequence[Runs], batch: int, repeats: int
) -> Overhead:
    """What `servers` cost against `others`."""
    shape = Shape(1, TOKENS, batch)

    def kind(server: Runs) -> Callable[[int], Taken]:
        return lambda turn: server.plain(shape, TOKENS, seed=turn)

    found = in_turn([kind(server) for server in (*others, *servers)], repeats)
    kinds = found[: len(others)], found[len(others) :]
    against, own = ([taken for runs in each for taken in runs] for each in kinds)
    return Overhead(
        of, batch, rate(against), rate(own), cpu_us(against), cpu_us(own), max(map(spread, kinds)),
        repeats,
    )  # fmt: skip


def show(console: Console, speedups: Sequence[Speedup], overheads: Sequence[Overhead]) -> None:
    if speedups:
        table = Table("branches", "tokens/s", "plain", "in turn", "of plain", "of in turn")
        for s in speedups:
            ratios = (f"{s.ratio:.2f} x", f"{s.forking / s.in_turn:.2f} x")
            rates = [f"{value:.0f}" for value in (s.forking, s.plain, s.in_turn)]
            table.add_row(str(s.branches), *rates, *ratios)
        console.print(table)
    if overheads:
        table = Table("plain requests", "cost of", "against", "so", "cost", "of cpu", "spread")
        for o in overheads:
            rates = [f"{value:.0f} tokens/s" for value in (o.against, o.tokens_per_s)]
            shares = [f"{value:+.1f} %" for value in (o.percent, o.cpu_percent)]
            table.add_row(str(o.batch), o.of, *rates, *shares, f"{o.spread:.1f} %")
        console.print(table)


def arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sglang_cpu")
    parser.add_argument("--part", choices=PARTS)
    parser.add_argument("--branches", type=int, nargs="+", default=list(BRANCHES), metavar="N")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--servers", type=int, default=3, help="of each kind, for the overhead")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args(given)
    if not all(1 <= count <= 64 for count in chosen.branches):
        parser.error(f"--branches is {chosen.branches}, each must be between 1 and 64")
    for name in ("repeats", "servers"):
        if getattr(chosen, name) < 1:
            parser.error(f"--{name} is {getattr(chosen, name)}, it must be 1 or more")
    return chosen


def start(model: Path, *, plugin: bool, overlap: bool = False) -> Runs:
    """A server; one with the plugin has run a trace."""
    with nullcontext() if plugin else without_plugin():
        server = Runs(model, **OPTIONS, disable_overlap_schedule=not overlap)
    if plugin:
        server.fork(Shape(4, 8))
    return server


def costs(model: Path, parts: Sequence[str], plugged: list[Runs], chosen: Any) -> list[Overhead]:
    """What plain requests pay."""
    repeats, found = 3 * chosen.repeats, list[Overhead]()
    bare = [start(model, plugin=False)]
    if "overlap" in parts:
        overlapping = [start(model, plugin=False, overlap=True)]
        found += [overhead("no overlap", overlapping, bare, n, repeats) for n in BATCHES]
    if "overhead" in parts:
        while len(bare) < chosen.servers:
            bare.append(start(model, plugin=False))
            plugged.append(start(model, plugin=True))
        found += [overhead("the plugin", bare, plugged, n, repeats) for n in BATCHES]
    return found


def main() -> None:
    chosen = arguments()
    parts = [chosen.part] if chosen.part else PARTS
    cpu.prepare()  # servers inherit it
    speedups: list[Speedup] = []
    overheads: list[Overhead] = []
    with TemporaryDirectory() as folder:
        model = make_model(Path(folder), MODEL, torch.float32)
        plugged = [start(model, plugin=True)]
        if "speedup" in parts:
            speedups = [speedup(plugged[0], n, chosen.repeats) for n in chosen.branches]
        if {"overhead", "overlap"} & set(parts):
            overheads = costs(model, parts, plugged, chosen)
        plugged[0].stop()  # all of them: SGLang ends every child of this process
    show(Console(), speedups, overheads)
    if chosen.json is not None:
        found = [*map(asdict, speedups), *map(asdict, overheads)]
        chosen.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
