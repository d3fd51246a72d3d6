"""Traces in OpenAI's JSON, read by the types of the official client; without a server."""

from __future__ import annotations

from functools import cache

import pytest

import nprdsl
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.http.completion_format import CompletionHead
from nprdsl.runtime.results import Result
from nprdsl.structure.events import Event

chat = pytest.importorskip("openai.types.chat")

ARITH = nprdsl.load("arith")
HEAD = CompletionHead.of("arith")
SEED = 17


@cache
def engine() -> LocalEngine:
    return LocalEngine.from_pretrained("arith", dtype="fp32")


@cache
def written() -> tuple[tuple[Event, ...], Result]:
    """What happens in a trace with a fork into two branches, and its result."""
    sampling = Sampling(temperature=1.0, seed=SEED)
    *events, result = engine().stream(ARITH, "37*42+85*19?", sampling=sampling, logprobs=True)
    assert isinstance(result, Result)
    return tuple(e for e in events if not isinstance(e, Result)), result


def test_chunks_have_the_log_probabilities_of_sampled_tokens() -> None:
    """Those of a stream, in any order of branches, are those of the whole answer."""
    events, result = written()
    entries = []
    for event in events:
        made = HEAD.event_chunk(0, event, engine().vocabulary)
        (choice,) = chat.ChatCompletionChunk.model_validate(made).choices
        if choice.logprobs is not None:
            assert choice.logprobs.content
            entries += choice.logprobs.content
    made = HEAD.whole([result], [SEED], engine().vocabulary)
    (whole,) = chat.ChatCompletion.model_validate(made).choices
    assert len(entries) == result.usage.sampled_tokens
    key = [
        sorted((e.token, e.logprob) for e in found) for found in (entries, whole.logprobs.content)
    ]
    assert key[0] == key[1]


def test_chunks_are_silent_where_nothing_was_asked() -> None:
    events, _ = written()
    made = [HEAD.event_chunk(0, event)["choices"][0]["logprobs"] for event in events]
    assert made == [None] * len(events)


def test_usage_tells_the_critical_path_and_branches() -> None:
    _, result = written()
    usage = chat.ChatCompletion.model_validate(HEAD.whole([result, result], [1, 2])).usage
    assert usage.completion_tokens == 2 * result.usage.total
    details = usage.completion_tokens_details.model_extra
    assert result.trace is not None
    branches = sum(len(fork.after) for fork in result.trace.graph.forks)
    assert branches >= 2
    assert details == {"critical_path": result.usage.critical_path, "branches": 2 * branches}
    assert HEAD.usage_chunk([])["usage"]["completion_tokens_details"]["critical_path"] == 0


def test_each_answer_tells_its_seed() -> None:
    _, result = written()
    whole = HEAD.whole([result, result], [SEED, SEED + 1])
    assert [c["message"]["trace"]["seed"] for c in whole["choices"]] == [SEED, SEED + 1]
    *_, last = HEAD.last_chunks(0, result, SEED, 0)
    assert last["choices"][0]["delta"]["trace"]["seed"] == SEED
