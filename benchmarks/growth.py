"""How the time of `check` grows with the length of a text: time per kB at 10 kB, 100 kB and 1 MB.

python -m benchmarks.growth [--shapes "list items" ...]

Each shape is one way to make a text long. The goal is that a kilobyte of 1 MB takes at most twice
what a kilobyte of 10 kB takes.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from itertools import islice, product
from string import ascii_lowercase

from nprdsl.grammar.ir import Grammar
from nprdsl.grammar.resolve import read_grammar
from nprdsl.schema import Schema

SIZES = (10_000, 100_000, 1_000_000)  # characters
ENOUGH = 0.2  # seconds that one measurement takes at least

SOURCE = """
%import .parallel (map, process, spawn, reduce)
start:   "<work>" body "</work>"
body:    TEXT | block+ | notes
notes:   "<note>" TEXT "</note>" notes?
block:   map{list} process{task, branch} reduce{result} | paths
list:    "<list>" task+ "</list>"
task:    "<task>" LABEL ": " GOAL inner? "</task>"
inner:   "<inner>" block "</inner>"
branch:  "<branch>" LABEL ": " GOAL "\\n" body "</branch>"
result:  "<result>" TEXT "</result>"
paths:   "<paths>" spawn{path}+ reduce{end}
path:    "<path>" VALUE "</path>"
end:     "</paths>"
LABEL:   /[a-z]{1,6}/
VALUE:   /([a-z]+ ?)+[0-9]/
%declare TEXT GOAL
"""


def names() -> Callable[[], str]:
    """Labels that have not been used."""
    letters = ("".join(word) for word in product(ascii_lowercase, repeat=5))
    return letters.__next__


def repeated(piece: str, size: int) -> str:
    return piece * (size // len(piece) + 1)


def items(size: int) -> str:
    """A legal trace of many items and as many branches."""
    labels = list(islice(iter(names(), None), size // 90 + 1))
    tasks = "".join(f"<task>{label}: think of it</task>" for label in labels)
    branches = "".join(f"<branch>{label}: think of it\nas told</branch>" for label in labels)
    return f"<work><list>{tasks}</list>{branches}<result>x</result></work>"


def wrong_labels(size: int) -> str:
    return items(size).replace("<branch>a", "<branch>b")


def nested_branches(size: int) -> str:
    opening = "<list><task>a: b</task></list><branch>a: b\n"
    closing = "</branch><result>x</result>"
    depth = size // (len(opening) + len(closing)) + 1
    return f"<work>{opening * depth}x{closing * depth}</work>"


def nested_items(size: int) -> str:
    opening = "<list><task>a: b<inner>"
    closing = "</inner></task></list><branch>a: b\nx</branch><result>x</result>"
    depth = size // (len(opening) + len(closing)) + 1
    inner = "<paths><path>a1</path></paths>"
    return f"<work>{opening * depth}{inner}{closing * depth}</work>"


SHAPES: dict[str, Callable[[int], str]] = {
    "unclosed tags": lambda size: repeated("<task>", size),
    "unclosed tags, every kind": lambda size: repeated("<work><list><task><branch>", size),
    "closing tags": lambda size: repeated("</task></list>", size),
    "list items": items,
    "wrong labels": wrong_labels,
    "one label again and again": lambda size: (
        "<work><list>" + repeated("<task>a: b</task>", size) + "</list>"
    ),
    "blocks one after another": lambda size: (
        "<work>" + repeated("<paths><path>a1</path></paths>", size) + "</work>"
    ),
    "branches by count": lambda size: (
        "<work><paths>" + repeated("<path>a1</path>", size) + "</paths></work>"
    ),
    "list by recursion": lambda size: f"<work>{repeated('<note>as told</note>', size)}</work>",
    "list by recursion, not closed": lambda size: f"<work>{repeated('<note>a</note>', size)}<note>",
    "nested branches": nested_branches,
    "nested items": nested_items,
    "nesting, not closed": lambda size: nested_branches(2 * size)[:size],
    "long text": lambda size: f"<work>{repeated('as told, 3 < 4. ', size)}</work>",
    "long value": lambda size: f"<work><paths><path>{'a' * size}1</path></paths></work>",
    "long value, not matched": lambda size: (
        f"<work><paths><path>{'a' * size}</path></paths></work>"
    ),
    "long label": lambda size: f"<work><list><task>{'a' * size}: b</task></list>",
    "long repeated text": lambda size: (
        f"<work><list><task>a: {'b' * size}</task></list><branch>a: {'b' * size}\nx</branch>"
        "<result>x</result></work>"
    ),
    "stray text": lambda size: "<work>" + repeated("x<result>y</result>", size),
    "no tags": lambda size: "x" * size,
    "one bracket again and again": lambda size: "<" * size,
}


def seconds(grammar: Grammar, text: str) -> float:
    """Of one check by a schema that has read nothing before, the least of several."""
    best, total = float("inf"), 0.0
    while total < ENOUGH:
        schema = Schema(grammar)
        schema.check("<work>x</work>")
        begin = time.process_time()
        schema.check(text)
        took = time.process_time() - begin
        best, total = min(best, took), total + max(took, 1e-3)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shapes", nargs="*", default=list(SHAPES), choices=list(SHAPES))
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="characters")
    options = parser.parse_args()
    grammar = read_grammar(SOURCE, file="growth.lark", name="growth", types={})
    sizes = [size for size in SIZES if size <= options.largest]
    print(
        f"{'ms per kB of check':28}"
        + "".join(f"{size // 1000:>8} kB" for size in sizes)
        + "   ratio"
    )
    for name in options.shapes:
        texts = [SHAPES[name](size) for size in sizes]
        figures = [1e6 * seconds(grammar, text) / len(text) for text in texts]
        columns = "".join(f"{figure:11.4f}" for figure in figures)
        print(f"{name:28}{columns}{figures[-1] / figures[0]:8.1f}", flush=True)


if __name__ == "__main__":
    main()
