"""Schema and prompt in, legal trace out; its log-probabilities equal one dense forward."""

from __future__ import annotations

import copy
import json
import pickle
import random
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nprdsl
from nprdsl import LimitError, Limits, Schema, Vocabulary
from nprdsl.machine.actions import FIRST
from nprdsl.runtime.errors import CapacityError, ModelNotFoundError, UnsupportedModelError
from nprdsl.runtime.local import LocalEngine
from nprdsl.runtime.prompts import PromptError
from nprdsl.runtime.results import GenerationError, Result
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.untrained import eased, record_of_training
from nprdsl.structure.events import EndEvent, EndReason, Event, ForkEvent, JoinEvent, TokenEvent
from nprdsl.studio.trace_rows import trace_rows
from tests.runtime.tiny_models import byte_tokenizer, dense, model
from tests.walks import schema_of

ARITH = Path(nprdsl.__file__).parent / "runtime" / "models" / "arith"
SUM = "37*42+85*19?"
GREEDY = Sampling(temperature=0.0)
SHORT = Limits(max_tokens=220, depth=2, branches=3, blocks=2)


class Decision(StrEnum):
    CLOSE = "close"
    REPLY = "reply"


TYPES: dict[str, dict[str, object]] = {
    "triage": {"VERDICT": r"(yes|no): [a-z ]{1,20}", "DECISION": Decision}
}
SCHEMAS = nprdsl.shipped()
SEVERAL = """
%import .parallel (map, process, reduce)
start: "<s>" map{l} process{i, b} reduce{j} map{l} process{i, b} reduce{j} TEXT
l: "<l>" i~2..3 "</l>"
i: "<i>" L ":" TEXT "</i>"
b: "<b>" L ":" TEXT "</b>"
j: "<j>" TEXT "</j>"
L: /[a-z]/
%declare TEXT
"""


TURNS = """
%import .parallel (map, process, reduce)
start: map{l} process{i, b} reduce{j} TEXT "<eos>"
l: "<l>" i~2..3 "</l>"
i: "<i>" L "<eos>"
b: "<b>" L ":" TEXT "<eos>"
j: "<j>"
L: /[a-z]/
%declare TEXT
"""


@cache
def schema(name: str) -> Schema:
    return nprdsl.load(name, terminals=TYPES.get(name))


@cache
def arith() -> LocalEngine:
    return LocalEngine.from_pretrained(ARITH, dtype="fp32")


@cache
def engine(name: str, kind: str = "qwen3", *, special: bool = True) -> LocalEngine:
    """A random model over bytes; the schema's tags are special tokens, or bytes as well."""
    tokenizer = byte_tokenizer(schema(name).tags if special else ())
    return LocalEngine(model(kind, len(tokenizer)), tokenizer, max_kv_tokens=8192)


def both(one: LocalEngine, result: Result) -> Iterator[tuple[float, float]]:
    """(engine's, dense forward's) log-probability of every sampled token."""
    trace, layout = result.trace, result.layout
    assert trace is not None and layout is not None
    ids = np.array(trace.ids)[layout.token]
    seen = layout.visible()
    oracle = dense(one.model, ids.tolist(), layout.position, seen)
    for entry in np.flatnonzero(layout.sampled):
        before = int(np.flatnonzero(seen[entry, :entry])[-1])
        found = result.logprobs[layout.token[entry] - trace.prompt]
        assert found is not None
        yield found, float(oracle[before, ids[entry]])


# -- the central test ------------------------------------------------------------------------------


KINDS = [(name, "qwen3") for name in SCHEMAS]
KINDS += [(name, kind) for name in ("multiverse", "threadweaver") for kind in ("llama", "gemma3")]


@pytest.mark.parametrize(("name", "kind"), KINDS)
def test_train_is_inference(name: str, kind: str) -> None:
    """KV merge equals one dense forward with the layout's mask and positions."""
    one = engine(name, kind)
    samplings = [Sampling(seed=seed) for seed in range(3)]
    results = one.generate(schema(name), ["hello"] * 3, limits=SHORT, sampling=samplings)
    for result in results:
        assert schema(name).check(result.text) == []
        pairs = list(both(one, result))
        assert max(abs(a - b) for a, b in pairs) <= 1e-4
        assert len(pairs) == result.usage.sampled_tokens
    assert len({result.token_ids for result in results}) > 1


def test_train_is_inference_where_blocks_follow_one_another() -> None:
    several = schema_of(SEVERAL)
    tokenizer = byte_tokenizer(several.tags)
    one = LocalEngine(model("qwen3", len(tokenizer)), tokenizer, max_kv_tokens=2048)
    result = one.generate(several, "hello", limits=SHORT, sampling=Sampling(seed=1))
    assert several.check(result.text) == []
    assert max(abs(a - b) for a, b in both(one, result)) <= 1e-4
    assert result.trace is not None and len(result.trace.graph.joins) == 2


@pytest.mark.parametrize("name", SCHEMAS)
def test_tags_as_text(name: str) -> None:
    one = engine(name, special=False)
    limits = Limits(max_tokens=700, depth=1, branches=3, blocks=2)
    result = one.generate(schema(name), "hello <step>", limits=limits, sampling=Sampling(seed=1))
    assert schema(name).check(result.text) == []
    assert max(abs(a - b) for a, b in both(one, result)) <= 1e-4


@pytest.mark.filterwarnings("ignore::nprdsl.masks.bound_schema.SpelledTagsWarning")
def test_some_tags_as_text() -> None:
    name, tags = "npr", schema("npr").tags[1::2]
    tokenizer = byte_tokenizer(tags)
    one = LocalEngine(model("qwen3", len(tokenizer)), tokenizer, max_kv_tokens=4096)
    limits = Limits(max_tokens=200, depth=1, branches=3, blocks=2)
    result = one.generate(schema(name), "hello <step>", limits=limits, sampling=Sampling(seed=1))
    assert schema(name).check(result.text) == []
    for tag in tags:
        assert result.token_ids.count(one.vocabulary.special[tag]) == result.text.count(tag)
    assert max(abs(a - b) for a, b in both(one, result)) <= 1e-4


def test_the_end_token_as_a_tag() -> None:
    """It ends items, branches and the trace, and is fed like any tag."""
    turns = schema_of(TURNS)
    tokenizer = byte_tokenizer([tag for tag in turns.tags if tag != "<eos>"])
    one = LocalEngine(model("qwen3", len(tokenizer)), tokenizer, max_kv_tokens=2048)
    for parallel in (True, False):
        result = one.generate(turns, "hello", limits=Limits(max_tokens=60), parallel=parallel)
        assert turns.check(result.text) == []
        assert result.text.endswith("<eos>") and result.text.count("<eos>") >= 5
        assert max(abs(a - b) for a, b in both(one, result)) <= 1e-4


# -- the embedded model ----------------------------------------------------------------------------


def test_arith_reasons_in_parallel() -> None:
    result = arith().generate(schema("arith"), SUM, sampling=GREEDY, chat=True)
    assert result.answer == r"\boxed{3169}"
    assert result.finish is EndReason.COMPLETED
    assert schema("arith").check(result.text) == []
    usage = result.usage
    assert usage.total == len(result.token_ids) == len(result.logprobs)
    assert usage.forced_tokens == sum(p is None for p in result.logprobs)
    assert usage.forwards < usage.critical_path < usage.total
    assert usage.degree > 1.5
    assert result.trace is not None and result.trace.find("step")[1].text.endswith(
        "=2:01615</step>"
    )


def test_arith_is_right_nearly_always() -> None:
    rng, questions, answers = random.Random(1), [], []
    for _ in range(20):
        pairs = [(rng.randint(10, 99), rng.randint(10, 99)) for _ in range(3)]
        questions.append("+".join(f"{a}*{b}" for a, b in pairs) + "?")
        answers.append(rf"\boxed{{{sum(a * b for a, b in pairs)}}}")
    results = arith().generate(schema("arith"), questions, sampling=GREEDY, chat=True)
    assert sum(r.answer == x for r, x in zip(results, answers, strict=True)) >= 18


def test_in_turn_writes_the_same_trace() -> None:
    arguments = {"sampling": Sampling(seed=3), "chat": True}
    parallel = arith().generate(schema("arith"), SUM, **arguments)
    in_turn = arith().generate(schema("arith"), SUM, parallel=False, **arguments)
    assert parallel.token_ids == in_turn.token_ids
    assert parallel.usage.forwards < in_turn.usage.forwards


def test_events_tell_the_whole_trace() -> None:
    *events, result = arith().stream(schema("arith"), SUM, sampling=GREEDY, chat=True)
    assert isinstance(result, Result)
    fork = next(e for e in events if isinstance(e, ForkEvent))
    assert len(fork.children) == 2
    order = (0, *fork.children, 0)
    texts: dict[int, str] = dict.fromkeys(order, "")
    before = ""
    for event in events:
        if isinstance(event, TokenEvent):
            texts[event.branch] += event.text
        elif isinstance(event, JoinEvent):
            before = "".join(texts[b] for b in (0, *fork.children))
            texts = dict.fromkeys(order, "")
    assert (before + texts[0]).removesuffix("<eos>") == result.text.removesuffix("<eos>")
    assert events[-1] == EndEvent(EndReason.COMPLETED)


def test_a_closed_stream_frees_its_slots() -> None:
    stream = arith().stream(schema("arith"), SUM, sampling=GREEDY, chat=True)
    assert isinstance(next(stream), Event)
    assert arith()._scheduler.pool.owners
    stream.close()
    assert not arith()._scheduler.pool.owners
    assert not arith()._open


# -- many, and one after another -------------------------------------------------------------------


def test_seeds_hold_in_any_company() -> None:
    one, npr = engine("npr"), schema("npr")
    prompts = [f"question {i}" for i in range(6)]
    samplings = [Sampling(seed=i, temperature=0.9) for i in range(6)]
    together = one.generate(npr, prompts, limits=SHORT, sampling=samplings)
    alone = [
        one.generate(npr, p, limits=SHORT, sampling=s)
        for p, s in reversed(list(zip(prompts, samplings, strict=True)))
    ]
    assert [r.token_ids for r in together] == [r.token_ids for r in reversed(alone)]


def test_threads_share_the_engine() -> None:
    one, npr, found = engine("npr"), schema("npr"), {}

    def ask(i: int) -> None:
        found[i] = one.generate(npr, "hello", limits=SHORT, sampling=Sampling(seed=i))

    threads = [threading.Thread(target=ask, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, result in found.items():
        same = one.generate(npr, "hello", limits=SHORT, sampling=Sampling(seed=i))
        assert result.token_ids == same.token_ids
    assert len(found) == 4


def test_abort_from_another_thread() -> None:
    one, npr = engine("npr"), schema("npr")
    number = one.submit(npr, "hello", limits=Limits(max_tokens=1500))
    timer = threading.Timer(0.2, one.abort, (number,))
    timer.start()
    result = one.wait(number)
    assert result.finish is EndReason.ABORTED
    assert 0 < result.usage.total < 1500
    assert not one._scheduler.pool.owners
    with pytest.raises(KeyError, match="results are given once"):
        one.wait(number)


@pytest.mark.parametrize("take", [copy.copy, copy.deepcopy, pickle.dumps])
def test_an_engine_says_that_it_cannot_be_copied(take: Callable[[object], object]) -> None:
    with pytest.raises(TypeError, match="LocalEngine cannot be copied or sent to another process"):
        take(engine("npr"))


def test_first_branch_wins() -> None:
    result = engine("npr").generate(
        schema("npr"), "hello", limits=SHORT, join=FIRST, sampling=Sampling(seed=5)
    )
    assert schema("npr").check(result.text) == []
    assert max(abs(a - b) for a, b in both(engine("npr"), result)) <= 1e-4


def test_alternatives_are_kept_where_they_are_asked_for() -> None:
    plain = arith().generate(schema("arith"), SUM, sampling=GREEDY, chat=True)
    kept = arith().generate(
        schema("arith"), SUM, sampling=Sampling(temperature=0.0, alternatives=3), chat=True
    )
    assert plain.alternatives == () and kept.token_ids == plain.token_ids
    assert len(kept.alternatives) == len(kept.token_ids)
    for token, logprob, likeliest in zip(
        kept.token_ids, kept.logprobs, kept.alternatives, strict=True
    ):
        chances = [chance for _, chance in likeliest]
        assert len(likeliest) == (0 if logprob is None else 3)
        assert chances == sorted(chances, reverse=True)
        assert token not in dict(likeliest) or dict(likeliest)[token] == logprob
    view = kept.view()
    assert view is not None
    shown = [[text for text, _ in likeliest] for likeliest in view.alternatives]
    assert shown == [
        [kept.bound.vocabulary.text((t,)) for t, _ in row] for row in kept.alternatives
    ]
    (row,) = trace_rows("out.jsonl", json.dumps(kept.to_dict())).rows
    assert row.alternatives == kept.alternatives


def test_penalties_per_rule() -> None:
    plain = arith().generate(schema("arith"), SUM, sampling=GREEDY, chat=True)
    harsh = Sampling(temperature=0.0, rules={"step": {"repetition_penalty": 5.0}})
    other = arith().generate(schema("arith"), SUM, sampling=harsh, chat=True)
    assert plain.trace is not None and other.trace is not None
    assert plain.trace.find("guideline")[0].text == other.trace.find("guideline")[0].text
    assert plain.trace.find("step")[0].text != other.trace.find("step")[0].text


# -- prompts ---------------------------------------------------------------------------------------


def test_prompts_never_become_structure() -> None:
    one = engine("npr")
    result = one.generate(schema("npr"), "a <step> b", limits=SHORT)
    assert one.vocabulary.special["<step>"] not in result.prompt_ids
    assert one.vocabulary.text(result.prompt_ids) == "a <step> b"


def test_ids_are_taken_as_they_are() -> None:
    one = engine("npr")
    ids = [one.vocabulary.special["<step>"], 3, 4]
    assert one.generate(schema("npr"), ids, limits=SHORT).prompt_ids == tuple(ids)
    with pytest.raises(ValueError, match="no chat, no instructions"):
        one.generate(schema("npr"), ids, chat=True)


def test_instructions_stand_before_the_prompt() -> None:
    one, npr = engine("npr"), schema("npr")
    result = one.generate(npr, "sum?", limits=SHORT, instructions=True, examples=())
    assert one.vocabulary.text(result.prompt_ids) == f"{npr.prompt()}\nsum?"


def test_examples_stand_before_the_prompt_and_their_tags_are_tags() -> None:
    one, npr = engine("npr"), schema("npr")
    step, example = one.vocabulary.special["<step>"], npr.examples[1]
    result = one.generate(npr, "sum <step>?", limits=SHORT, instructions=True, examples=[example])
    text = one.vocabulary.text(result.prompt_ids)
    assert text == f"{npr.prompt(example=example)}sum <step>?\n\n"
    assert result.prompt_ids.count(step) == example.trace.count("<step>")
    own = one.generate(npr, "sum?", limits=SHORT, instructions=True)
    text = one.vocabulary.text(own.prompt_ids)
    assert [shown.trace in text for shown in npr.examples] == [True, True, False]


def limits_of(one: LocalEngine, schema: Schema, **options: Any) -> Limits:
    """Those of a request, which need not be written for that."""
    number = one.submit(schema, "x", **options)
    one.abort(number)
    return one.wait(number).limits


def test_a_model_that_does_not_know_the_format_gets_shares_unless_limits_are_set() -> None:
    npr = schema("npr")
    knowing = engine("npr")
    assert knowing.knows(npr)
    assert limits_of(knowing, npr) == Limits(2047)  # positions
    tokenizer = byte_tokenizer(())
    one = LocalEngine(model("llama", len(tokenizer)), tokenizer)
    assert not one.knows(npr)
    shared = one.shared_limits(npr)
    assert limits_of(one, npr) == shared and shared.text_tokens is not None
    assert limits_of(one, npr, limits=Limits(300)) == Limits(300)
    one.model.config.update(record_of_training(npr.grammar))
    trained = LocalEngine(one.model, tokenizer)
    assert trained.knows(npr) and not trained.knows(schema("multiverse"))
    del one.model.config.nprdsl


def test_repetition_is_penalised_in_free_text_alone_and_settings_of_ones_own_stay() -> None:
    npr = schema("npr")
    rules = {"step": {"repetition_penalty": 1.5}, "guideline": {"top_k": 3}}
    made = eased(Sampling(temperature=0.0, rules=rules), npr)
    assert made.for_rule("plan").repetition_penalty == 1.1
    assert made.for_rule("step").repetition_penalty == 1.5
    assert made.for_rule("guideline").repetition_penalty == 1.0
    counted = eased(Sampling(temperature=0.0), schema("parallel_r1"))
    assert counted.for_rule("path").temperature == 0.7  # greedy paths would all be the same
    assert counted.for_rule("summary").temperature == 0.0


def test_a_vocabulary_instead_of_a_tokenizer() -> None:
    tokenizer = byte_tokenizer(schema("npr").tags)
    vocabulary = Vocabulary.from_tokenizer(tokenizer)
    one = LocalEngine(model("llama", len(tokenizer)), vocabulary)
    result = one.generate(schema("npr"), [1, 2], limits=SHORT)
    assert schema("npr").check(result.text) == []


# -- mistakes --------------------------------------------------------------------------------------


def test_impossible_requests_are_refused_at_once() -> None:
    one, npr = engine("npr"), schema("npr")
    with pytest.raises(LimitError, match="allow at least"):
        one.generate(npr, "hello", limits=Limits(max_tokens=3))
    with pytest.raises(CapacityError, match="max_kv_tokens is 100"):
        LocalEngine(one.model, one.vocabulary, max_kv_tokens=100).generate(npr, [1])
    with pytest.raises(LimitError, match="the model only 2048 positions"):
        one.generate(npr, [1] * 2048)
    with pytest.raises(PromptError, match="empty"):
        one.generate(npr, "")
    with pytest.raises(PromptError, match="empty"):
        one.submit(npr, [])
    with pytest.raises(ValueError, match="no rule of the schema"):
        one.generate(npr, "x", sampling=Sampling(rules={"stepp": {}}))
    with pytest.raises(ValueError, match="2 prompts, but 1 Samplings"):
        one.generate(npr, ["a", "b"], sampling=[GREEDY])
    with pytest.raises(TypeError, match="a list of them needs a list of prompts"):
        one.generate(npr, "a", sampling=[GREEDY])  # type: ignore[call-overload]
    assert not one._open and not one._scheduler.busy


def test_prompts_in_order_with_their_refusals_and_no_more_open_than_asked_for() -> None:
    one, npr = engine("npr"), schema("npr")
    prompts = [([1] * length, Sampling(seed=length)) for length in (5, 2048, 7, 3)]
    results = one.in_order(npr, prompts, ahead=2, limits=SHORT)
    first, refused = next(results), next(results)
    assert isinstance(first, Result) and first.prompt_ids == (1,) * 5
    assert refused == "the prompt has 2048 tokens, the model only 2048 positions"
    assert len(one._open) <= 2 and one._scheduler.busy
    results.close()  # type: ignore[attr-defined]
    assert not one._open and not one._scheduler.busy


def test_no_prompts_no_results() -> None:
    assert engine("npr").generate(schema("npr"), []) == []


def test_budgets_keep_within_the_models_positions() -> None:
    one, npr = engine("npr"), schema("npr")
    result = one.generate(npr, [1] * 1980, limits=Limits(max_tokens=5000))
    assert result.layout is not None and len(result.layout) <= 2048
    assert npr.check(result.text) == []


def test_a_failed_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    one, npr = engine("npr"), schema("npr")

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("device lost")

    monkeypatch.setattr(one.model, "forward", fail)
    with pytest.raises(GenerationError, match="failed: RuntimeError: device lost"):
        one.generate(npr, "hello", limits=SHORT)
    results = one.generate(npr, ["a", "b"], limits=SHORT)
    assert [r.finish for r in results] == [EndReason.FAILED] * 2
    monkeypatch.undo()
    assert one.generate(npr, "hello", limits=SHORT).finish is not EndReason.FAILED


def test_models_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no such folder"):
        LocalEngine.from_pretrained("/no/such/model")
    with pytest.raises(ModelNotFoundError, match=r"no config\.json"):
        LocalEngine.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelNotFoundError, match="cannot load the model"):
        LocalEngine.from_pretrained(tmp_path)


def test_devices_and_dtypes() -> None:
    with pytest.raises(ValueError, match="`tpu9` is no device"):
        LocalEngine.from_pretrained(ARITH, device="tpu9")
    with pytest.raises(ValueError, match="`fp8` is no dtype; use one of auto, fp32"):
        LocalEngine.from_pretrained(ARITH, dtype="fp8")


def test_tags_without_an_output_are_refused() -> None:
    tokenizer = byte_tokenizer(schema("npr").tags)
    one = LocalEngine(model("llama", len(tokenizer) - 1), tokenizer)
    with pytest.raises(UnsupportedModelError, match="resize_token_embeddings"):
        one.generate(schema("npr"), "x")


def test_bf16_is_legal_too() -> None:
    one = LocalEngine.from_pretrained(ARITH)
    result = one.generate(schema("arith"), SUM, sampling=GREEDY, chat=True)
    assert schema("arith").check(result.text) == []
    assert result.answer == r"\boxed{3169}"


# -- without masks ---------------------------------------------------------------------------------


def test_a_trained_model_forks_natively() -> None:
    result = arith().generate(schema("arith"), SUM, chat=True, sampling=GREEDY, native=True)
    masked = arith().generate(schema("arith"), SUM, chat=True, sampling=GREEDY)
    assert result.finish is EndReason.COMPLETED and result.violations == ()
    assert result.answer == masked.answer
    assert result.trace is not None and len(result.trace.graph.forks[0].after) == 2
    assert result.usage.forced_tokens < masked.usage.forced_tokens
    for found, expected in both(arith(), result):
        assert abs(found - expected) < 1e-4


def test_an_untrained_model_writes_nothing_legal_natively() -> None:
    limits = Limits(max_tokens=60)
    results = engine("npr").generate(
        schema("npr"), ["x"] * 8, limits=limits, native=True,
        sampling=[Sampling(seed=seed) for seed in range(8)],
    )  # fmt: skip
    for result in results:
        assert result.finish is EndReason.ILLEGAL
        assert result.trace is None and result.layout is None
        assert result.violations and result.token_ids


def test_a_budget_that_positions_leave_no_room_for_names_them() -> None:
    one, npr = engine("npr"), schema("npr")
    with pytest.raises(LimitError, match=r"max_tokens is 8; .* has 2048 positions, 2040 of them"):
        one.generate(npr, [1] * 2040, limits=Limits(max_tokens=5000))
    with pytest.raises(LimitError, match=r"allow at least \d+$"):
        one.generate(npr, [1], limits=Limits(max_tokens=9))
