"""A scripted model that does the curator's five steps from an annotation made by hand.

The annotation says what the steps and parts of a chain are, where each ends, what it needs and what
comes out. Groups are found by rule: neighbours of which none needs another. The oracle reads what
it is asked like any model: from the text of the question. It knows no schema and no tag.
Non-goals: chains without an annotation.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.curate.server import Asked, Failed, Response, Said

STEPS = {
    "parse": "Outline the chain of thought as a tree",
    "group": "Find what in this outline could have been worked out",
    "arrange": "Turn the groups into blocks",
    "refill": "Put the sentences of the chain into the smallest parts",
    "write": "The chain was cut into branches",
    "judge": "These branches of the chain, as rewritten",
}


def step_of(asked: Asked) -> str:
    """Which step is asked for."""
    (found,) = [name for name, words in STEPS.items() if words in asked.text]
    return found


@dataclass(frozen=True)
class Leaf:
    label: str
    title: str
    first: int
    last: int
    needs: tuple[str, ...]
    result: str


@dataclass(frozen=True)
class Annotated:
    """One chain with its annotation."""

    prompt: str
    answer: str
    steps: list[dict[str, Any]]
    edits: Mapping[int, str]

    def leaves(self) -> list[Leaf]:
        found, at = [], 1
        for number, step in enumerate(self.steps, 1):
            for part, leaf in enumerate(step.get("parts", [step]), 1):
                label = f"{number}.{part}" if "parts" in step else str(number)
                needs = tuple(leaf["needs"])
                found.append(Leaf(label, leaf["title"], at, leaf["last"], needs, leaf["result"]))
                at = leaf["last"] + 1
        return found

    def under(self, label: str) -> list[Leaf]:
        """The leaves of a step or part."""
        return [x for x in self.leaves() if x.label == label or x.label.startswith(f"{label}.")]

    def independent(self, one: str, other: str) -> bool:
        """Whether neither needs the other, or a part of it."""
        return not any(
            {need, need.partition(".")[0]} & {b, *(leaf.label for leaf in self.under(b))}
            for a, b in ((one, other), (other, one))
            for leaf in self.under(a)
            for need in leaf.needs
        )

    def groups(self) -> list[list[str]]:
        """Runs of neighbours, as long as they can be, of which none needs another."""
        levels = [[str(n) for n in range(1, len(self.steps) + 1)]]
        for number, step in enumerate(self.steps, 1):
            levels.append([f"{number}.{p}" for p in range(1, len(step.get("parts", [])) + 1)])
        return [run for level in levels for run in self._runs(level) if len(run) > 1]

    def _runs(self, labels: Iterable[str]) -> list[list[str]]:
        runs: list[list[str]] = []
        for label in labels:
            if runs and all(self.independent(other, label) for other in runs[-1]):
                runs[-1].append(label)
            else:
                runs.append([label])
        return runs


class Oracle:
    """Answers for the chains that it knows; usable as a script of the endpoint."""

    def __init__(self, chains: Iterable[Annotated]) -> None:
        self._chains = list(chains)

    def __call__(self, asked: Asked) -> Response:
        for chain in self._chains:
            if f"PROBLEM\n{chain.prompt.strip()}\n\nCHAIN" in asked.text:
                answer = {
                    "parse": parse,
                    "group": group,
                    "arrange": arrange,
                    "refill": refill,
                    "write": write,
                    "judge": lambda *_: {"leaks": []},
                }[step_of(asked)](chain, asked.text)
                text = json.dumps(answer)
                return Said(text, usage=(len(asked.text) // 4, len(text) // 4))
        return Failed(400, "the oracle does not know this chain")


def parse(chain: Annotated, question: str) -> dict[str, Any]:
    return {
        "steps": [
            {"title": s["title"], "parts": [p["title"] for p in s.get("parts", [])]}
            for s in chain.steps
        ]
    }


def group(chain: Annotated, question: str) -> dict[str, Any]:
    return {
        "needs": [{"label": leaf.label, "needs": leaf.needs} for leaf in chain.leaves()],
        "groups": [
            {"kind": "collective", "branches": [[label] for label in run]} for run in chain.groups()
        ],
    }


def arrange(chain: Annotated, question: str) -> dict[str, Any]:
    """All groups where blocks nest; else the outer ones, and inner ones of other steps."""
    most = int(_one(r"A block has 2 to (\d+) branches", question))
    runs = chain.groups()
    if "Blocks do not nest" in question:
        outer = {label for run in runs for label in run if "." not in label}
        runs = [run for run in runs if run[0].partition(".")[0] not in outer or "." not in run[0]]
    blocks = []
    for run in runs:
        branches = [{"first": label, "last": label} for label in run[:most]]
        branches[-1]["last"] = run[-1]
        blocks.append({"kind": "collective", "branches": branches})
    return {"blocks": blocks}


def refill(chain: Annotated, question: str) -> dict[str, Any]:
    return {
        "parts": [
            {"label": leaf.label, "first": leaf.first, "last": leaf.last} for leaf in chain.leaves()
        ]
    }


def write(chain: Annotated, question: str) -> dict[str, Any]:
    """Items and conclusions from titles and results, for what the question wants."""
    branches: dict[tuple[int, int], list[Leaf]] = {}
    opened: list[tuple[int, int]] = []
    for line in _between("DOCUMENT\n", "\n\nWrite what is missing", question).splitlines():
        if found := re.search(r"branch (\d+) of block (\d+):", line):
            place = int(found[2]), int(found[1])
            opened = [at for at in opened if at[0] != place[0]] + [place]
            branches[place] = []
        elif found := re.search(r"end of block (\d+)", line):
            opened = [at for at in opened if at[0] != int(found[1])]
        elif found := re.search(r"sentences? (\d+)(?: to (\d+))?", line):
            first, last = int(found[1]), int(found[2] or found[1])
            for place in opened:
                branches[place] += [
                    x for x in chain.leaves() if first <= x.first and x.last <= last
                ]
    blocks = [_block(int(n), wanted, branches) for n, wanted in _wanted("block", question)]
    texts = [
        {"text": int(n), "words": _extra(chain, int(n), question)}
        for n, _ in _wanted("text", question)
    ]
    editable = _numbers(_one(r"of branches may be rewritten \((.*?)\)", question))
    edits = [{"sentence": n, "words": t} for n, t in chain.edits.items() if n in editable]
    return {"blocks": blocks, "texts": texts, "edits": edits}


def _block(
    number: int, wanted: str, branches: Mapping[tuple[int, int], list[Leaf]]
) -> dict[str, Any]:
    own = [leaves for (block, _), leaves in branches.items() if block == number]
    items = ["; ".join(leaf.title for leaf in leaves) for leaves in own] if "item" in wanted else []
    results = [x for leaves in own for x in ([y.result for y in leaves if y.result][-1:])]
    told = f"Found: {'; '.join(results)}." if results else "This is done."
    return {
        "block": number,
        "items": items,
        "conclusion": told if "conclusion" in wanted else "",
    }


def _extra(chain: Annotated, number: int, question: str) -> str:
    document = _between("DOCUMENT\n", "\n\nWrite what is missing", question).strip()
    if document.endswith(f"text {number}, to be written"):
        return f"The answer is $\\boxed{{{chain.answer}}}$."
    return "Let us work out the parts."


def _wanted(what: str, question: str) -> list[tuple[str, str]]:
    return re.findall(rf"^- {what} (\d+)(?:: (.*))?$", question, re.M)


def _numbers(told: str) -> set[int]:
    found: set[int] = set()
    for first, last in re.findall(r"(\d+)(?: to (\d+))?", told):
        found |= set(range(int(first), int(last or first) + 1))
    return found


def _one(pattern: str, text: str) -> str:
    found = re.search(pattern, text)
    assert found is not None, pattern
    return found[1]


def _between(start: str, end: str, text: str) -> str:
    return text.partition(start)[2].partition(end)[0]


MATH = Path(__file__).parent / "math"


def math_chains() -> list[dict[str, Any]]:
    """The rows of the sample."""
    return [json.loads(line) for line in (MATH / "chains.jsonl").read_text("utf-8").splitlines()]


def math_oracle() -> Oracle:
    """The oracle of the sample."""
    annotation = json.loads((MATH / "annotation.json").read_text("utf-8"))
    return Oracle(
        Annotated(
            row["prompt"],
            row["answer"],
            annotation[row["id"]]["steps"],
            {int(n): text for n, text in annotation[row["id"]]["edits"].items()},
        )
        for row in math_chains()
    )
