"""Masks of the NPR language: nprdsl against xgrammar, llguidance and outlines-core.

    python -m benchmarks.automaton [--quick] [--outlines SECONDS] [--json FILE]

One trace of about 2,000 tokens (3 blocks of 3, 2 and 4 plans; LaTeX, code and `<` in the text),
real vocabularies, tags as special tokens and as text. All libraries take turns in one process;
every pass goes through the whole trace. "loose" is a grammar that lets illegal prose through
(see `benchmarks.contenders`).

compile      from the loaded schema or the exported grammar to the first matcher, tokenizer ready
first trace  compile, then every mask and every step of the first pass, nothing cached
its CPU      the same in processor time, all threads: steadier than the wall's on a busy machine
from disk    the first trace, with the rows of an earlier process on disk
mask         one warm mask, the cost of reading the clock taken off
trace        masks and steps of a warm pass
memory       growth of the resident set from "tokenizer ready" to the end of the first trace, in a
             process of its own; `prepared` is the growth by the tokenizer's preparation

outlines-core needs seconds to minutes and up to gigabytes, so it runs only with --outlines, in a
process of its own, and is stopped after so many seconds.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
import os
import random
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import CONTENDERS, TAGS, Contender, Nprdsl, Walk
from benchmarks.vocabularies import RealVocabulary, fast_tokenizer, load

PLANS = (3, 2, 4)
PROSE = (
    "the sum of both parts is 37*4 + 85 < 200, so we carry $x_1$ and go on; let \\frac{a}{b} \\le "
    "\\sqrt{c^2} hold, then `if (a < b) { return a[i] << 2; }` gives </div> or </pla and é ≡ 世界"
)
BOUNDARIES = re.compile(r"(?<=</plan>)|(?<=</step>)|(?<=</guideline>)")
clock = time.perf_counter_ns
Figures = dict[str, Any]


# -- the trace -----------------------------------------------------------------------------------


def trace_text(scale: float = 1.0, seed: int = 0) -> str:
    """A legal NPR trace; about 2,000 tokens of Qwen3 at scale 1."""
    numbers, words = random.Random(seed), PROSE.split()

    def prose(count: int) -> str:
        return " ".join(numbers.choice(words) for _ in range(max(3, int(count * scale))))

    blocks = []
    for count in PLANS:
        plans = [f"<plan>{n}: {prose(17)}</plan>\n" for n in range(1, count + 1)]
        steps = [f"\n<step>\n{n}: {prose(72)}</step>" for n in range(1, count + 1)]
        blocks.append(
            f"<guideline>\n{''.join(plans)}</guideline>{''.join(steps)}"
            f"\n<takeaway>\n{prose(36)}</takeaway>"
        )
    return "\n".join(blocks) + "\n" + prose(36)


# -- measuring -----------------------------------------------------------------------------------


@functools.cache
def clock_cost() -> int:
    """Nanoseconds between two readings of the clock, the least of many."""
    return min(-clock() + clock() for _ in range(10_000))


def one_pass(walk: Walk, ids: list[int], spent: list[int]) -> tuple[int, int]:
    """Nanoseconds of all masks and of all steps; each mask's own time goes to `spent`."""
    mask, advance = walk.mask, walk.advance
    base, steps = clock_cost(), 0
    for token in ids:
        start = clock()
        mask()
        masked = clock()
        advance(token)
        steps += clock() - masked - base
        spent.append(max(0, masked - start - base))
    return sum(spent[-len(ids) :]), steps


def forget() -> None:
    """Empties every function cache of nprdsl, so that a first trace is a first one."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] == "nprdsl":
            for value in vars(module).values():
                if isinstance(value, functools._lru_cache_wrapper):
                    value.cache_clear()


def first_trace(contender: Contender, ids: list[int]) -> Figures:
    clock_cost()
    gc.collect()
    busy = time.process_time_ns()
    start = clock()
    contender.compile()
    walk = contender.walk()
    compiled = clock()
    masks, steps = one_pass(walk, ids, [])
    busy = time.process_time_ns() - busy
    return {
        "first_cpu_ms": busy / 1e6,
        "compile_ms": (compiled - start) / 1e6,
        "first_trace_ms": (compiled - start + masks + steps) / 1e6,
        "first_masks_ms": masks / 1e6,
        "first_steps_ms": steps / 1e6,
    }


def prepared(name: str, vocabulary: RealVocabulary) -> tuple[Contender, float]:
    contender: Contender = CONTENDERS[name]()
    start = clock()
    contender.prepare(vocabulary)
    return contender, (clock() - start) / 1e9


def check_accepts(contender: Contender, ids: list[int]) -> None:
    """Stops the benchmark if a contender refuses the trace: then figures would mean nothing."""
    walk = contender.walk()
    for place, token in enumerate(ids):
        if not walk.bits()[token // 32] >> token % 32 & 1:
            raise SystemExit(f"{contender.name} refuses token {place} of the trace ({token})")
        walk.advance(token)


def warm(contender: Contender, ids: list[int], passes: int) -> Iterator[Figures]:
    """A pass a turn, so that contenders can take turns; the last figures are of all passes."""
    spent: list[int] = []
    masks, steps = [], []
    for _ in range(passes):
        mask, step = one_pass(contender.walk(), ids, spent)
        masks.append(mask / 1e6)
        steps.append(step / 1e6)
        ranked = np.sort(spent) / 1e3
        yield {
            "mask_us": float(np.median(ranked)),
            "mask_p99_us": float(np.quantile(ranked, 0.99)),
            "mask_max_us": float(ranked[-1]),
            "warm_masks_ms": min(masks),
            "warm_trace_ms": min(a + b for a, b in zip(masks, steps, strict=True)),
            "advance_us": min(steps) * 1e3 / len(ids),
        }


def fork_us(contender: Contender, ids: list[int]) -> float:
    """Median time of a fork after three quarters of the trace."""
    walk = contender.walk()
    for token in ids[: len(ids) * 3 // 4]:
        walk.mask()
        walk.advance(token)
    times, kept = [], []
    for _ in range(1000):
        start = clock()
        kept.append(walk.fork())
        times.append(clock() - start - clock_cost())
    return statistics.median(times) / 1e3


# -- one setting ---------------------------------------------------------------------------------


def compare(
    vocabulary: RealVocabulary, ids: dict[str, list[int]], options: argparse.Namespace
) -> Figures:
    """Figures of nprdsl, xgrammar and llguidance, in turns, by name."""
    names = ["nprdsl", "xgrammar", "llguidance", "xgrammar loose", "llguidance loose"]
    figures: Figures = {name: {} for name in names}
    contenders: dict[str, Contender] = {}
    for _ in range(options.repeats):
        for name in names:
            # A new vocabulary of ours each time: what it caches is part of a first trace.
            if name not in contenders or name == "nprdsl":
                contenders[name], seconds = prepared(name, vocabulary)
                _keep_least(figures[name], {"prepare_s": seconds})
            forget()
            _keep_least(figures[name], first_trace(contenders[name], ids[name]))
    for name, contender in contenders.items():
        check_accepts(contender, ids[name])
    turns = [(name, warm(contenders[name], ids[name], options.passes)) for name in names]
    for _ in range(options.passes):
        for name, passes in turns:
            figures[name] |= next(passes)
    for name in names:
        figures[name]["fork_us"] = fork_us(contenders[name], ids[name])
    disk_ms = from_disk(vocabulary, ids["nprdsl"], options.repeats)
    figures["nprdsl"]["disk_trace_ms"] = disk_ms
    return figures


def from_disk(vocabulary: RealVocabulary, ids: list[int], repeats: int) -> float:
    """Milliseconds of a first trace that finds the rows of an earlier process on disk."""
    times = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(repeats + 1):
            contender = Nprdsl(Path(folder))
            contender.prepare(vocabulary)
            forget()
            times.append(first_trace(contender, ids)["first_trace_ms"])
            contender.save_rows()
    return float(min(times[1:]))


def _keep_least(known: Figures, new: Figures) -> None:
    for key, value in new.items():
        known[key] = min(value, known.get(key, value))


# -- in a process of its own ---------------------------------------------------------------------


def resident_mb() -> float:
    """The resident set once freed memory is given back to the system (Linux, glibc)."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def alone(name: str, vocabulary_name: str, mode: str, options: argparse.Namespace) -> Figures:
    """What one contender takes in this process, where no other has run."""
    vocabulary = vocabulary_of(vocabulary_name, mode)
    ids = traces(vocabulary, options.scale)[name]
    at_start = resident_mb()
    contender, prepare_s = prepared(name, vocabulary)
    ready = resident_mb()
    figures = first_trace(contender, ids) | {"prepare_s": prepare_s}
    figures |= {"prepared_mb": ready - at_start, "memory_mb": resident_mb() - ready}
    if options.warm_alone:
        for latest in warm(contender, ids, 2):
            figures |= latest
    return figures


def in_child(
    name: str, vocabulary: str, mode: str, options: argparse.Namespace, limit_s: float | None = None
) -> Figures:
    """`alone` in a new process; without figures if it takes longer than `limit_s` seconds."""
    command = [sys.executable, "-m", "benchmarks.automaton", "--alone", name, vocabulary, mode]
    command += ["--quick"] if options.quick else []
    command += ["--warm-alone"] if limit_s is not None else []
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit_s, env=dict(os.environ)
        )
    except subprocess.TimeoutExpired:
        return {"stopped": f"stopped after {limit_s:.0f} s"}
    if done.returncode != 0:
        return {"stopped": done.stderr.strip().splitlines()[-1][:200]}
    figures: Figures = json.loads(done.stdout)
    return figures


# -- all settings --------------------------------------------------------------------------------


def vocabulary_of(name: str, mode: str) -> RealVocabulary:
    return load(name, TAGS if mode == "special" else ())


def trace_ids(
    vocabulary: RealVocabulary, scale: float, *, boundaries: re.Pattern[str]
) -> list[int]:
    """The trace's tokens; none runs across a boundary."""
    tokenizer = fast_tokenizer(vocabulary)
    parts = boundaries.split(trace_text(scale))
    ids = [tokenizer.encode(part, add_special_tokens=False).ids for part in parts]
    return [token for part in ids for token in part]


def traces(vocabulary: RealVocabulary, scale: float) -> dict[str, list[int]]:
    """The trace for each contender."""
    with_forks = trace_ids(vocabulary, scale, boundaries=BOUNDARIES)
    as_one = trace_ids(vocabulary, scale, boundaries=re.compile(r"(?!)"))
    return {name: with_forks if made.forks else as_one for name, made in CONTENDERS.items()}


def measure(vocabulary_name: str, mode: str, options: argparse.Namespace) -> Figures:
    vocabulary = vocabulary_of(vocabulary_name, mode)
    ids = traces(vocabulary, options.scale)
    figures = compare(vocabulary, ids, options)
    if not options.quick:
        for name in figures:
            child = in_child(name, vocabulary_name, mode, options)
            figures[name] |= {key: child.get(key) for key in ("memory_mb", "prepared_mb")}
            figures[name]["cold_process_ms"] = child.get("first_trace_ms")
    if options.outlines:
        figures["outlines-core"] = in_child(
            "outlines-core", vocabulary_name, mode, options, limit_s=options.outlines
        )
    return {"tokens": len(ids["nprdsl"]), "size": vocabulary.size, "figures": figures}


COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("compile_ms", "compile ms", "8.1f"),
    ("first_trace_ms", "first trace ms", "8.1f"),
    ("first_cpu_ms", "its CPU ms", "8.1f"),
    ("disk_trace_ms", "from disk ms", "8.1f"),
    ("mask_us", "mask us", "8.2f"),
    ("mask_p99_us", "p99 us", "8.2f"),
    ("advance_us", "step us", "8.2f"),
    ("warm_trace_ms", "trace ms", "8.2f"),
    ("fork_us", "fork us", "8.2f"),
    ("memory_mb", "memory MB", "8.1f"),
    ("prepared_mb", "prepared MB", "8.1f"),
    ("prepare_s", "prepare s", "8.2f"),
)


def table(result: Figures) -> str:
    lines = ["".join([" " * 18, *(f"{title:>15}" for _, title, _ in COLUMNS)])]
    for name, figures in result["figures"].items():
        if "stopped" in figures:
            lines.append(f"{name:<18}  {figures['stopped']}")
            continue
        cells = (
            "-" if figures.get(key) is None else format(figures[key], style).strip()
            for key, _, style in COLUMNS
        )
        lines.append("".join([f"{name:<18}", *(f"{cell:>15}" for cell in cells)]))
    return "\n".join(lines)


def options_of(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="a short trace, one vocabulary")
    parser.add_argument("--vocabularies", default="gpt2,qwen3", help="of benchmarks.vocabularies")
    parser.add_argument("--modes", default="special,text")
    parser.add_argument("--repeats", type=int, default=3, help="first traces; the least counts")
    parser.add_argument("--passes", type=int, default=7, help="warm passes of each library")
    parser.add_argument("--outlines", type=float, metavar="SECONDS", help="run outlines-core too")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--alone", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--warm-alone", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.scale = 0.15 if options.quick else 1.0
    if options.quick:
        options.vocabularies, options.repeats, options.passes = "gpt2", 1, 1
    return options


def main(arguments: list[str]) -> None:
    options = options_of(arguments)
    if options.alone:
        name, vocabulary_name, mode = options.alone
        print(json.dumps(alone(name, vocabulary_name, mode, options)))
        return
    results: Figures = {}
    for vocabulary_name in options.vocabularies.split(","):
        for mode in options.modes.split(","):
            result = measure(vocabulary_name, mode, options)
            results[f"{vocabulary_name} {mode}"] = result
            print(
                f"\n{vocabulary_name}, {result['size']:,} logits, tags as {mode}, "
                f"{result['tokens']:,} tokens"
            )
            print(table(result))
    if not options.outlines:
        print("\noutlines-core was left out: --outlines SECONDS runs it, stopped after so long")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
