"""Text that no schema constrains: what the model itself would write, seeds included."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from transformers import GenerationConfig

import nprdsl
from nprdsl.machine.budget import LimitError
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.local.requests import any_token
from nprdsl.runtime.prompts import PromptError
from nprdsl.runtime.results import Completion
from nprdsl.structure.events import EndReason
from tests.runtime.tiny_models import byte_tokenizer, model
from tests.walks import schema_of

GREEDY = Sampling(temperature=0.0)
SCHEMA = nprdsl.load("npr")


@cache
def engine() -> LocalEngine:
    tokenizer = byte_tokenizer(SCHEMA.tags)
    return LocalEngine(model("llama", len(tokenizer)), tokenizer, max_kv_tokens=2000)


def test_greedy_text_is_the_models_own() -> None:
    """transformers' own loop, without a cache, is the oracle."""
    (got,) = engine().complete(SCHEMA, ["hello"], max_tokens=20, sampling=GREEDY)
    ids, logprobs = list(got.prompt_ids), []
    for _ in range(20):
        with torch.no_grad():
            logits = engine().model(input_ids=torch.tensor([ids])).logits[0, -1]
        ids.append(int(logits.argmax()))
        logprobs.append(float(logits.log_softmax(-1)[ids[-1]]))
        if ids[-1] == engine().vocabulary.eos_id:
            break
    assert list(got.token_ids) == ids[len(got.prompt_ids) :]
    assert got.logprobs == pytest.approx(logprobs, abs=1e-4)
    assert got.text == engine().vocabulary.text(got.token_ids).removesuffix("<eos>")


def test_seeds_hold_in_any_company() -> None:
    settings = [Sampling(seed=seed) for seed in range(6)]
    prompts = ["ab" * n + "c" for n in range(6)]
    together = engine().complete(SCHEMA, prompts, max_tokens=30, sampling=settings)
    for prompt, how, one in zip(prompts, settings, together, strict=True):
        (alone,) = engine().complete(SCHEMA, [prompt], max_tokens=30, sampling=how)
        assert alone.token_ids == one.token_ids
    assert len({one.token_ids for one in together}) == 6
    assert not engine()._scheduler.pool.owners


def test_the_end_token_ends_it() -> None:
    """Drawn among so few tokens, the end comes soon."""
    found = engine().complete(
        SCHEMA, ["x"] * 20, max_tokens=400, sampling=[Sampling(seed=s, top_k=0) for s in range(20)]
    )
    end = engine().vocabulary.eos_id
    completed = [one for one in found if one.finish is EndReason.COMPLETED]
    assert completed and len(completed) < 20
    for one in found:
        assert (one.token_ids[-1] == end) == (one.finish is EndReason.COMPLETED)
        assert end not in one.token_ids[:-1]
        assert len(one.token_ids) == len(one.logprobs) <= 400
        assert "<eos>" not in one.text


@pytest.mark.parametrize("named", [258, [258, 3]])
def test_an_end_token_that_the_model_names_ends_it(named: int | list[int]) -> None:
    """Gemma's turns end with `<end_of_turn>`, and its tokenizer's end token is another."""
    tokenizer = byte_tokenizer(["<turn>", "<end_of_turn>"])
    one = model("llama", len(tokenizer))
    one.generation_config = GenerationConfig(eos_token_id=named)
    talking = LocalEngine(one, tokenizer, max_kv_tokens=2000)
    eos, end = talking.vocabulary.special["<eos>"], talking.vocabulary.special["<end_of_turn>"]
    assert end == 258
    found = talking.complete(
        SCHEMA, ["x"] * 30, max_tokens=400, sampling=[Sampling(seed=s, top_k=0) for s in range(30)]
    )
    assert {one.token_ids[-1] for one in found if one.finish is EndReason.COMPLETED} == {eos, end}
    for one in found:
        assert {eos, end}.isdisjoint(one.token_ids[:-1])
        assert "end_of_turn" not in one.text


def test_an_end_token_that_is_a_tag_stands_in_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    turn, end = schema_of('start: TEXT "<eos>"\n%declare TEXT\n'), engine().vocabulary.eos_id
    assert end is not None
    ended = Completion((1,), "x", (120, end), (0.0, 0.0), EndReason.COMPLETED)
    cut = Completion((1,), "x", (120,), (0.0,), EndReason.BUDGET)
    monkeypatch.setattr(engine(), "_complete", lambda *_: [ended, cut])
    for made, texts in ((SCHEMA, ["x", "x"]), (turn, ["x<eos>", "x"])):
        found = engine().complete(made, ["y", "y"], max_tokens=9)
        assert [one.text for one in found] == texts


def test_tags_of_a_prompt_are_text_but_the_model_may_write_them() -> None:
    special = set(engine().vocabulary.special.values())
    found = engine().complete(
        SCHEMA, ["<plan>"] * 30, max_tokens=60, sampling=[Sampling(seed=s) for s in range(30)]
    )
    assert not special & set(found[0].prompt_ids)
    assert special & {token for one in found for token in one.token_ids[:-1]}


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="`avoid` is a setting of traces"):
        engine().complete(SCHEMA, ["x"], max_tokens=5, sampling=Sampling(avoid=("x",)))
    with pytest.raises(ValueError, match="`step`, but a completion has no rules"):
        engine().complete(
            SCHEMA, ["x"], max_tokens=5, sampling=Sampling(rules={"step": {"temperature": 0.5}})
        )
    with pytest.raises(LimitError, match="max_tokens must be at least 1"):
        engine().complete(SCHEMA, ["x"], max_tokens=0)
    with pytest.raises(ValueError, match="2 prompts, but 1 Samplings"):
        engine().complete(SCHEMA, ["x", "y"], max_tokens=5, sampling=[GREEDY])
    with pytest.raises(PromptError, match="half of a surrogate pair"):
        engine().submit_text("\ud83d", max_tokens=5)
    assert engine().complete(SCHEMA, [], max_tokens=5) == []


@pytest.mark.parametrize("width", [1, 31, 32, 33, 200])
def test_the_mask_of_any_token(width: int) -> None:
    mask = any_token(width)
    bits = [bool(int(mask[t // 32]) >> t % 32 & 1) for t in range(32 * len(mask))]
    assert bits == [t < width for t in range(32 * len(mask))]
