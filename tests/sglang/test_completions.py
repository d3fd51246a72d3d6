"""Text that no schema constrains, from a real server: what the local engine writes."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch

import nprdsl
from nprdsl.machine.budget import LimitError
from nprdsl.runtime import LocalEngine, Sampling, SGLangEngine
from nprdsl.runtime.prompts import Prompt
from nprdsl.runtime.results import Completion
from nprdsl.structure.events import EndReason
from tests.sglang.cases import GREEDY, TOLERANCE
from tests.sglang.served import POSITIONS, PROMPT, PROMPTS

ARITH = nprdsl.load("arith")


def own_logprobs(bundled: LocalEngine, written: Completion) -> list[float]:
    """What one dense forward says of a completion's tokens."""
    ids = torch.tensor([[*written.prompt_ids, *written.token_ids]])
    with torch.no_grad():
        scores = bundled.model(input_ids=ids).logits[0].log_softmax(-1)
    first = len(written.prompt_ids)
    picked = scores[first - 1 : -1].gather(-1, ids[0, first:, None])
    return [float(value) for value in picked[:, 0]]


def assert_same_completions(
    engine: SGLangEngine, bundled: LocalEngine, prompts: list[Prompt], **options: Any
) -> list[Completion]:
    ours = engine.complete(ARITH, prompts, sampling=GREEDY, **options)
    theirs = bundled.complete(ARITH, prompts, sampling=GREEDY, **options)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.token_ids, a.text, a.finish) == (b.token_ids, b.text, b.finish)
        assert a.prompt_ids == b.prompt_ids
        assert a.logprobs == pytest.approx(b.logprobs, abs=TOLERANCE)
    return ours


@pytest.mark.parametrize("tokens", [12, 300])
def test_completions_are_those_of_the_local_engine(
    engine: SGLangEngine, bundled: LocalEngine, tokens: int
) -> None:
    """Up to the budget, or to the end token."""
    options = {"max_tokens": tokens, "chat": True}
    ours = assert_same_completions(engine, bundled, PROMPTS, **options)
    for written in ours:
        ended = written.token_ids[-1] == engine.vocabulary.eos_id
        assert ended == (written.finish is EndReason.COMPLETED)
        assert ended or len(written.token_ids) == tokens
    one = engine.complete(ARITH, PROMPTS[:1], sampling=GREEDY, **options)
    assert one[0].token_ids == ours[0].token_ids
    assert engine.complete(ARITH, [], **options) == []


def test_the_end_token_of_a_completion_is_counted_and_is_no_text(
    engine: SGLangEngine, bundled: LocalEngine
) -> None:
    """The model has never seen anything else behind a whole answer."""
    done = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY)
    whole = [*done.prompt_ids, *done.token_ids[:-1]]
    assert done.token_ids[-1] == engine.vocabulary.eos_id
    (ended,) = assert_same_completions(engine, bundled, [whole], max_tokens=20)
    assert (ended.token_ids, ended.text) == ((engine.vocabulary.eos_id,), "")
    assert ended.finish is EndReason.COMPLETED


def test_completions_have_the_models_own_logprobs(
    engine: SGLangEngine, bundled: LocalEngine
) -> None:
    """Whatever settings they are drawn with; tags that the model writes are tokens, and text."""
    settings = [
        Sampling(),
        Sampling(top_p=0.8, top_k=20),
        Sampling(temperature=1.6),
        Sampling(temperature=0.5, repetition_penalty=1.3),
        replace(GREEDY, frequency_penalty=0.4),
        *[Sampling(temperature=50.0)] * 8,  # nearly uniform, so that they draw tags
    ]
    drawn = engine.complete(
        ARITH, [PROMPT] * len(settings), max_tokens=60, chat=True, sampling=settings
    )
    special, tags = engine.vocabulary.special_text, []
    for written in drawn:
        assert written.logprobs == pytest.approx(own_logprobs(bundled, written), abs=TOLERANCE)
        ended = written.finish is EndReason.COMPLETED
        text = [special[t] for t in written.token_ids[: -1 if ended else None] if t in special]
        assert re.findall(r"</?\w+>", written.text) == text
        tags += [tag for tag in text if tag in ARITH.tags]
    assert tags
    assert len({written.token_ids for written in drawn}) > 1


def test_completions_end_at_the_last_position(engine: SGLangEngine, bundled: LocalEngine) -> None:
    """Text that never ends, where the tokens of its budget would not fit."""
    prompt = [12] * (POSITIONS - 24)
    hot = Sampling(temperature=5.0)
    for written in engine.complete(ARITH, [prompt] * 4, max_tokens=500, sampling=hot):
        assert written.finish in (EndReason.BUDGET, EndReason.COMPLETED)
        assert len(written.token_ids) > 8 or written.finish is EndReason.COMPLETED
        assert len(written.token_ids) <= 24
        assert written.logprobs == pytest.approx(own_logprobs(bundled, written), abs=TOLERANCE)
    with pytest.raises(LimitError, match=f"only {POSITIONS} positions"):
        engine.complete(ARITH, [[12] * POSITIONS], max_tokens=5)
    with pytest.raises(LimitError, match="the server completes prompts of"):
        engine.complete(ARITH, [[12] * (POSITIONS - 1)], max_tokens=5)
    with pytest.raises(ValueError, match="a completion has no rules"):
        engine.complete(
            ARITH, [PROMPT], max_tokens=5, sampling=Sampling(rules={"step": {"top_k": 1}})
        )
