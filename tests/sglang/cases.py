"""Requests of known shape for tests of the server, and what a right answer to them is.

`tests.sglang.server` starts the server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

import nprdsl
from nprdsl.grammar.resolve import read_grammar
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine, Result, Sampling
from nprdsl.runtime.sglang.protocol import ForkRequest
from nprdsl.schema import Schema
from tests.sglang.server import Answer, Server

TOLERANCE = 1e-3
GREEDY = Sampling(temperature=0.0)

# Items are short, so that lists are long.
NPR = Limits(max_tokens=200, branches=4, blocks=2, rule_tokens={"plan": 8})
NESTED = Limits(max_tokens=260, depth=2, branches=3, rule_tokens={"outline": 6})

# As many branches as are asked for, of exactly 24 letters each.
PATHS = """
%import .parallel (spawn, reduce)
start: spawn{path}~1..12 reduce{end} TEXT
path:  "<step>" BODY "</step>"
end:   "<takeaway>" WORD "</takeaway>"
BODY:  /[a-z]{24}/
WORD:  /[a-z]{4}/
%declare TEXT
"""

# The model writes the first token of a branch, and behind joins: it has nothing to feed before.
CHOICES = """
%import .parallel (spawn, reduce, reread)
start: spawn{path}~2 reduce{end} "<guideline>" spawn{nest}~2 reduce{both} again TEXT
again: "<guideline>" spawn{nest}~1..2 reread{both}
path:  "<step>" WORD "</step>" | "<plan>" WORD "</plan>"
nest:  spawn{path}~2 reduce{end} "</guideline>"
end:   WORD "</takeaway>"
both:  "<takeaway>" | "</plan>"
WORD:  /[a-z]{1,6}/
%declare TEXT
"""


def own_schema(source: str, name: str = "own") -> Schema:
    return Schema(read_grammar(source, file=f"{name}.lark", name=name, types={}))


def paths(length: int = 24, header: str = "") -> Schema:
    """Branches of exactly `length` letters behind a header that is forced."""
    source = PATHS.replace("{24}", f"{{{length}}}")
    if header:
        source = source.replace('"<step>" BODY', f'"<step>" "{header}" BODY')
    return own_schema(source, f"paths{length}")


@dataclass(frozen=True)
class Case:
    """One request."""

    schema: Schema
    prompt: str
    limits: Limits
    sampling: Sampling = GREEDY
    options: dict[str, Any] = field(default_factory=dict)

    def result(self, local: LocalEngine) -> Result:
        """What the local engine, with memory for all, makes of it."""
        return local.generate(
            self.schema, self.prompt, limits=self.limits, sampling=self.sampling, **self.options
        )

    @property
    def request(self) -> ForkRequest:
        made = ForkRequest.of(
            self.schema, limits=self.limits, sampling=self.sampling, **self.options
        )
        return made.model_copy(update={"positions": True, "events": True})


def results_of(local: LocalEngine, cases: Sequence[Case]) -> list[Result]:
    """What the local engine makes of all of them, at once."""
    numbers = [
        local.submit(c.schema, c.prompt, limits=c.limits, sampling=c.sampling, **c.options)
        for c in cases
    ]
    return [local.wait(number) for number in numbers]


def spawning(
    prompt: str, branches: int, length: int = 24, tokens: int = 24, *, exactly: bool = False
) -> Case:
    """As many branches of `length` letters, and a text behind them; it spends its whole budget.
    `exactly`: its schema allows no fewer, so that all branches are likely from the start."""
    schema = paths(length)
    if exactly:
        source = schema.grammar.source.replace("~1..12", f"~{branches}")
        schema = own_schema(source, f"exactly{branches}")
    each, rest = length + 2, len("<takeaway>wwww</takeaway>") - 17
    limits = Limits(max_tokens=branches * each + rest + tokens, spawn=branches)
    return Case(schema, prompt, limits)


def agree(answer: Answer, result: Result) -> None:
    """The answer is that of the local engine, and every token was fed at its position in the
    layout, if at all."""
    same_tokens(answer, result)
    assert result.layout is not None
    units, first = np.unique(result.layout.token, return_index=True)  # not the copies of `reread`
    assert units.tolist() == list(range(len(units)))
    wanted = result.layout.position[first][len(result.prompt_ids) :].tolist()
    pairs = list(zip(answer.final.positions, wanted, strict=True))
    assert any(fed is not None for fed, _ in pairs)
    assert [(i, pair) for i, pair in enumerate(pairs) if pair[0] not in (None, pair[1])] == []


def same_tokens(answer: Answer, result: Result) -> None:
    """Tokens, log-probabilities and alternatives are those of the local engine."""
    final = answer.final
    assert final.error == "" == result.error
    assert tuple(final.ids) == result.token_ids
    assert answer.ids == final.ids
    assert final.finish is result.finish
    assert final.sampled == [logprob is not None for logprob in final.logprobs]
    for ours, theirs in zip(final.logprobs, result.logprobs, strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None and theirs is not None:
            assert ours == pytest.approx(theirs, abs=TOLERANCE)
    for mine, others in zip(final.alternatives, result.alternatives, strict=True):
        chances = [chance for _, chance in others]
        assert [chance for _, chance in mine] == pytest.approx(chances, abs=TOLERANCE)


def all_agree(server: Server, local: LocalEngine, cases: list[Case]) -> list[Result]:
    """All cases at once, each compared with the local engine; gives the latter's results."""
    return [result for result, _ in both(server, local, cases)]


def both(server: Server, local: LocalEngine, cases: list[Case]) -> list[tuple[Result, Answer]]:
    """As `all_agree`; gives what each of the two made."""
    results = results_of(local, cases)
    answers = server.generate([r.prompt_ids for r in results], [case.request for case in cases])
    for answer, result in zip(answers, results, strict=True):
        agree(answer, result)
    return list(zip(results, answers, strict=True))


def nesting(result: Result) -> int:
    """How many branches that have siblings stand within each other, at most; 0: nothing ran beside
    anything."""
    assert result.trace is not None
    paths = [segment.path for segment in result.trace.graph.segments]
    branches = {path[:depth] for path in paths for depth in range(1, len(path) + 1)}
    blocks = Counter((*branch[:-1], branch[-1][:1]) for branch in branches)
    wide = {branch for branch in branches if blocks[*branch[:-1], branch[-1][:1]] > 1}
    inside = [all(b[:depth] in wide for depth in range(1, len(b) + 1)) for b in wide]
    return max((len(b) for b, whole in zip(wide, inside, strict=True) if whole), default=0)


def plain(tokens: int, **settings: Any) -> dict[str, Any]:
    """Stock settings of a greedy plain request that writes so many tokens."""
    return {"temperature": 0.0, "max_new_tokens": tokens, "ignore_eos": True, **settings}


def ids_of(local: LocalEngine, text: str) -> list[int]:
    """A text as the tiny model's tokens, without tags."""
    assert local.tokenizer is not None
    return list(local.tokenizer(text)["input_ids"])


def npr(prompt: str, limits: Limits = NPR, **options: Any) -> Case:
    return Case(nprdsl.load("npr"), prompt, limits, **options)


def forks(result: Result) -> int:
    return 0 if result.trace is None else len(result.trace.graph.forks)
