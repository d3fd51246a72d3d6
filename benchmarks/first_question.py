"""The first own question to a model that never saw the format: does it come out well by itself?

    python -m benchmarks.first_question [--model FOLDER] [--schemas npr,…] [--dtype fp32] [--show]

Twenty everyday questions to each schema, greedy, in bf16, with what an untrained model gets by
default: two worked examples as earlier turns, of which no run of five tokens is written again, a
budget of 600 tokens that is shared out, a mild repetition penalty. Nothing was tuned on these
questions. Printed is a table of, for each schema:

- complete: traces that the model itself brought to an end; the others were closed at a limit;
- block: traces that hold one, so that there was something to do at the same time;
- distinct: traces with a block of which no two plans (paths, where nothing is listed) share 80 % of
  their words;
- copies: traces with six words on end that stand in an example that was shown;
- on topic: branches that share a long word with their plan, besides those of the question; in
  brackets the same for the plan that stands one further in the list, which chance alone gives.

Without --model it is SmolLM2-135M-Instruct (`python -m nprdsl.runtime.smollm2`).
"""

from __future__ import annotations

import argparse
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

from nprdsl.prompting.examples import Example, of_other_topics
from nprdsl.runtime import smollm2
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.results import Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.untrained import eased
from nprdsl.schema import Schema, load
from nprdsl.structure.events import EndReason
from nprdsl.trace.trace import Element

SCHEMAS = ("npr", "multiverse", "threadweaver", "parallel_r1")
TOKENS = 600
RUN = 6  # words on end that count as copied
ALIKE = 0.8  # of the words of two plans
QUESTIONS = (
    "Why do cats purr?",
    "How do I remove a coffee stain from a shirt?",
    "What should I pack for a week at the beach?",
    "How can I learn a new language quickly?",
    "Why does the moon change its shape?",
    "How do I prepare for a job interview?",
    "What makes a good friend?",
    "How do airplanes stay in the air?",
    "How can I keep my houseplants alive?",
    "What are the benefits of regular exercise?",
    "Why do we have seasons?",
    "How do I choose a new laptop?",
    "What can I do with old clothes?",
    "How do vaccines work?",
    "How should I organise a birthday party for children?",
    "Why is my internet connection slow?",
    "How can I eat more vegetables?",
    "What causes earthquakes?",
    "How do I make friends in a new city?",
    "Should I rent or buy a home?",
)
_WORD = re.compile(r"[\w']+")
_TAG = re.compile(r"</?[A-Za-z]+>")


@dataclass(frozen=True, slots=True)
class Judged:
    """What is measured of one trace; `near` and `far` are branches on the topic of their own plan
    and of the next one, of `pairs`."""

    complete: bool
    block: bool
    distinct: bool
    copied: bool
    near: int
    far: int
    pairs: int
    tokens: int
    degree: float


def words(text: str) -> list[str]:
    return _WORD.findall(_TAG.sub(" ", text).lower())


def runs(text: str) -> set[tuple[str, ...]]:
    """All runs of six words."""
    found = words(text)
    return {tuple(found[i : i + RUN]) for i in range(len(found) - RUN + 1)}


def topic(text: str) -> set[str]:
    """The beginnings of the long words."""
    return {word[:5] for word in words(text) if len(word) > 3}


def alike(one: str, other: str) -> bool:
    first, second = set(words(one)), set(words(other))
    return len(first & second) >= ALIKE * max(len(first | second), 1)


def judge(schema: Schema, question: str, shown: Sequence[Example], result: Result) -> Judged:
    assert result.trace is not None
    block = schema.grammar.blocks[0]
    branches = [_text(found) for found in result.trace.find(block.branch)]
    plans = [_text(found) for found in result.trace.find(block.item)] if block.item else branches
    near = far = pairs = 0
    if block.item:
        asked = topic(question)
        topics = [topic(plan) - asked for plan in plans]
        pairs = len(branches) if len(branches) > 1 else 0
        for number in range(pairs):
            about = topic(branches[number])
            near += bool(about & topics[number])
            far += bool(about & topics[(number + 1) % len(topics)])
    examples = set().union(*(runs(one.question + " " + one.trace) for one in shown))
    return Judged(
        complete=result.finish is EndReason.COMPLETED,
        block=bool(branches),
        distinct=bool(branches) and not any(alike(a, b) for a, b in combinations(plans, 2)),
        copied=bool(runs(result.text) & examples),
        near=near,
        far=far,
        pairs=pairs,
        tokens=result.usage.total,
        degree=result.usage.degree,
    )


def _text(element: Element) -> str:
    """The free text of an item or a branch, without its label."""
    return " ".join(text.text.strip() for text in element.find("TEXT"))


def ask(engine: LocalEngine, schema: Schema, questions: Sequence[str]) -> list[Result]:
    """All questions together, as `nprdsl run` asks an untrained model."""
    return engine.generate(
        schema,
        list(questions),
        sampling=eased(Sampling(temperature=0.0), schema, schema.examples),
        limits=engine.shared_limits(schema, TOKENS),
        chat=engine.chats,
        instructions=True,
    )


def row(name: str, judged: Sequence[Judged]) -> str:
    pairs = sum(one.pairs for one in judged)
    near, far = (sum(getattr(one, side) for one in judged) for side in ("near", "far"))
    on_topic = f"{near / pairs:.0%} ({far / pairs:.0%})" if pairs else "-"
    cells = [
        name,
        _share(one.complete for one in judged),
        _share(one.block for one in judged),
        _share(one.distinct for one in judged),
        _share(one.copied for one in judged),
        on_topic,
        f"{statistics.median(one.tokens for one in judged):.0f}",
        f"{statistics.mean(one.degree for one in judged):.2f}",
    ]
    return f"| {' | '.join(cells)} |"


def _share(flags: object) -> str:
    values = list(flags)  # type: ignore[call-overload]
    return f"{sum(values) / len(values):.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--model", help="a folder or a hub name")
    parser.add_argument("--schemas", default=",".join(SCHEMAS))
    parser.add_argument("--dtype", default="bf16", help="fp32 is faster where bf16 has no units")
    parser.add_argument("--show", action="store_true", help="print the traces too")
    given = parser.parse_args()
    model = given.model or smollm2.prepare(lambda message: print(message, flush=True))
    engine = LocalEngine.from_pretrained(model, dtype=given.dtype)
    header = ("schema", "complete", "block", "distinct", "copies", "on topic", "tokens", "degree")
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    for name in given.schemas.split(","):
        schema = load(name)
        judged = []
        for question, result in zip(QUESTIONS, ask(engine, schema, QUESTIONS), strict=True):
            shown = of_other_topics(schema.examples, question)
            judged.append(judge(schema, question, shown, result))
            if given.show:
                print(f"== {name}: {question} {judged[-1]}\n{result.text}\n", flush=True)
        lines.append(row(name, judged))
        print(lines[-1], flush=True)
    print("\n".join(["", *lines]))


if __name__ == "__main__":
    main()
