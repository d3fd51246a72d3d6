"""Forks on a stock server, driven in this process, against a server that knows what to write."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any, cast

import pytest

from nprdsl.grammar.resolve import read_grammar
from nprdsl.machine.actions import ALL
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.machine.native import NativeMachine
from nprdsl.runtime.engine import Submission
from nprdsl.runtime.results import Result
from nprdsl.runtime.sampling import DEFAULT
from nprdsl.runtime.sglang.client.rereading import RereadingCall
from nprdsl.runtime.sglang.client.transport import Transport
from nprdsl.schema import Schema
from nprdsl.structure.events import EndReason, TokenEvent
from nprdsl.testing import byte_vocabulary
from tests.walks import allowed

VOTES = """
%import .parallel (spawn, reread)
start:  "<votes>" spawn{vote}~3 reread{count} TEXT
vote:   _NL "<vote>" TEXT "</vote>"
count:  _NL "<count>" TEXT "</count>"
_NL: "\\n"
%declare TEXT
"""


class Writer:
    """A server that writes `talk` tokens or so of text, then what ends it; one in 20 tokens is any
    where it `errs`."""

    def __init__(self, machine: Machine, seed: int, talk: int, *, errs: bool) -> None:
        self.machine = machine
        self.seed = seed
        self.talk = talk
        self.errs = errs

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        token, meta = 0, {"completion_tokens": 1}
        if body.get("return_logprob"):
            rest = body["input_ids"][body["logprob_start_len"] :]
            meta |= {"input_token_logprobs": [[-0.5, token] for token in rest]}
        else:
            token = self._token(body["input_ids"])
        return {"output_ids": [token], "meta_info": meta}

    def _token(self, seen: list[int]) -> int:
        random, size = Random(repr((self.seed, seen))), self.machine.bound.vocabulary.size
        if self.errs and random.random() < 0.05:
            return random.randrange(size)
        matcher = self.machine.bound.matcher()
        for token in seen[1:]:
            matcher.advance(token)
        may = allowed(matcher.mask(), size)
        return may[-1] if random.random() * self.talk < 1 else may[0]  # tags are the last tokens


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def run(
    pool: ThreadPoolExecutor, most: int, seed: int, talk: int, *, errs: bool = False
) -> tuple[Result, RereadingCall]:
    schema = Schema(read_grammar(VOTES, file="votes.lark", name="votes", types={}))
    limits = Limits(max_tokens=most)
    machine = NativeMachine(schema.bind(byte_vocabulary(schema.tags)), (65,), limits)
    submission = Submission(schema, machine, limits, ALL, DEFAULT, parallel=True, logprobs=False)
    server = cast(Transport, Writer(machine, seed, talk, errs=errs))
    call = RereadingCall(1, submission, server, pool, events=True)
    call.start(pool, pool)
    return call.result(), call


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("most", "errs", "ends"),
    [(90, False, EndReason.BUDGET), (4000, True, EndReason.ILLEGAL)],
    ids=["spent in a branch", "illegal"],
)
def test_what_breaks_off_in_a_branch_has_its_log_probabilities(
    pool: ThreadPoolExecutor, most: int, errs: bool, ends: EndReason, seed: int
) -> None:
    result, call = run(pool, most, seed, 200, errs=errs)
    assert result.finish is ends and result.trace is None and result.violations
    assert len(result.token_ids) == result.usage.total <= most
    sampled = [value for value in result.logprobs if value is not None]
    assert sampled == [-0.5] * result.usage.sampled_tokens
    told = [event for event in call.events() if isinstance(event, TokenEvent)]
    assert sorted(t for event in told for t in event.tokens) == sorted(result.token_ids)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_legal_ends_by_itself(pool: ThreadPoolExecutor, seed: int) -> None:
    result, _ = run(pool, 4000, seed, 9)
    assert result.finish is EndReason.COMPLETED and result.trace is not None
    assert result.trace.graph.forks
    values = [value for value in result.logprobs if value is not None]
    assert values == [-0.5] * result.usage.sampled_tokens
