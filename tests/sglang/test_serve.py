"""`SGLangEngine` against a real server: the interface of the local engine, and its answers."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nprdsl
from nprdsl.actions import FIRST
from nprdsl.cli.failures import ExitCode
from nprdsl.events import BranchEndEvent, BranchReason, EndReason, Event, ForkEvent, TokenEvent
from nprdsl.ledger import LimitError, Limits
from nprdsl.runtime import GenerationError, LocalEngine, Result, Sampling, SGLangEngine
from nprdsl.runtime.errors import CapacityError, EngineUnavailableError, UnsupportedServerError
from nprdsl.runtime.prompts import Prompt, PromptError
from nprdsl.runtime.results import Completion
from nprdsl.runtime.sglang.transport import Transport
from nprdsl.runtime.sglang.weights import WeightsError
from tests.cli.commands import invoke
from tests.documents import DOCS, blocks, run_python
from tests.sglang.served import Served

GREEDY = Sampling(temperature=0.0)
PROMPT = "37*42+85*19?"
PROMPTS = [PROMPT, "60*23+37*42?", "x=20*13+15*27;x*7+x*3?"]
ARITH = nprdsl.load("arith")
POSITIONS = 2048
FLAT = Limits(max_tokens=600, depth=1)  # a step of this schema may hold a block
TOLERANCE = 1e-3


@pytest.fixture(scope="module")
def engine(served: Served) -> Iterator[SGLangEngine]:
    made = SGLangEngine(served.url)
    yield made
    made.close()


@pytest.fixture(scope="module")
def local() -> LocalEngine:
    return LocalEngine.from_pretrained("arith", dtype="fp32")


@pytest.fixture(autouse=True)
def idle_again(served: Served) -> Iterator[None]:
    yield
    served.settle()


@pytest.fixture(scope="module")
def reread(tmp_path_factory: pytest.TempPathFactory) -> nprdsl.Schema:
    """The language of the bundled model with joins that read the branches again."""
    source = Path(nprdsl.__file__).parent / "grammars" / "arith.lark"
    file = tmp_path_factory.mktemp("schema") / "arith_reread.lark"
    file.write_text(source.read_text().replace("reduce", "reread"))
    return nprdsl.load(file)


def assert_same(ours: Result, theirs: Result) -> None:
    assert ours.token_ids == theirs.token_ids
    assert (ours.text, ours.answer, ours.finish) == (theirs.text, theirs.answer, theirs.finish)
    assert ours.prompt_ids == theirs.prompt_ids
    assert ours.layout is not None and theirs.layout is not None
    assert ours.layout.position.tolist() == theirs.layout.position.tolist()
    assert ours.layout.sampled.tolist() == theirs.layout.sampled.tolist()
    assert ours.usage.critical_path == theirs.usage.critical_path
    for a, b in zip(ours.logprobs, theirs.logprobs, strict=True):
        assert (a is None) == (b is None)
        assert a is None or b is None or a == pytest.approx(b, abs=TOLERANCE)


# -- generating ------------------------------------------------------------------------------------


def test_one_prompt_and_many_give_what_the_local_engine_gives(
    engine: SGLangEngine, local: LocalEngine
) -> None:
    one = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY)
    assert_same(one, local.generate(ARITH, PROMPT, chat=True, sampling=GREEDY))
    assert one.answer == r"\boxed{3169}"
    settings = [Sampling(seed=i, temperature=0.7) for i in range(len(PROMPTS))]
    ours = engine.generate(ARITH, PROMPTS, chat=True, sampling=settings)
    theirs = local.generate(ARITH, PROMPTS, chat=True, sampling=settings)
    for a, b in zip(ours, theirs, strict=True):
        assert_same(a, b)


def test_chat_messages_ids_and_instructions_are_read_alike(
    engine: SGLangEngine, local: LocalEngine
) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    assert engine.chats
    ours = engine.generate(ARITH, messages, sampling=GREEDY)
    assert_same(ours, local.generate(ARITH, messages, sampling=GREEDY))
    again = engine.generate(ARITH, ours.prompt_ids, sampling=GREEDY)
    assert again.token_ids == ours.token_ids
    with pytest.raises(PromptError, match="no token for 'z'"):
        engine.generate(ARITH, "zebra", sampling=GREEDY)
    with pytest.raises(ValueError, match="no chat, no instructions"):
        engine.generate(ARITH, [1, 2], chat=True)


def test_limits_joins_and_branches_in_turn(engine: SGLangEngine, local: LocalEngine) -> None:
    short = {"limits": Limits(max_tokens=60), "chat": True, "sampling": GREEDY}
    ours = engine.generate(ARITH, PROMPT, **short)
    assert ours.finish is EndReason.BUDGET and ours.usage.total <= 60
    assert_same(ours, local.generate(ARITH, PROMPT, **short))
    in_turn = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY, parallel=False)
    together = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY)
    assert in_turn.token_ids == together.token_ids
    assert in_turn.usage.forwards > together.usage.forwards
    first = list(engine.stream(ARITH, PROMPT, chat=True, sampling=GREEDY, join=FIRST))
    reasons = [e.reason for e in first if isinstance(e, BranchEndEvent)]
    assert BranchReason.CUT in reasons


def test_what_cannot_run_is_refused_at_once_and_alike(
    engine: SGLangEngine, local: LocalEngine
) -> None:
    for one in (engine, local):
        with pytest.raises(LimitError, match="takes 16 tokens: allow at least 16"):
            one.submit(ARITH, PROMPT, chat=True, limits=Limits(max_tokens=3))
        with pytest.raises(LimitError, match=f"only {POSITIONS} positions"):
            one.submit(ARITH, [12] * POSITIONS)
        with pytest.raises(ValueError, match="`stp`, which is no rule"):
            one.submit(ARITH, PROMPT, chat=True, sampling=Sampling(rules={"stp": {"top_k": 1}}))
    with pytest.raises(KeyError, match="results are given once"):
        engine.wait(10**6)


def test_more_than_the_server_keeps_is_refused(served: Served) -> None:
    engine = SGLangEngine(served.url)
    engine.info = engine.info.model_copy(update={"capacity": 500})
    with pytest.raises(CapacityError, match="the server keeps 500 at most"):
        engine.submit(ARITH, PROMPT, chat=True)
    engine.close()


# -- streams and aborts ----------------------------------------------------------------------------


def test_events_are_those_of_the_local_engine(engine: SGLangEngine, local: LocalEngine) -> None:
    def written(events: list[Event | Result]) -> tuple[dict[int, str], list[Event], Result]:
        texts: dict[int, str] = {}
        for event in events:
            if isinstance(event, TokenEvent):
                texts[event.branch] = texts.get(event.branch, "") + event.text
        assert isinstance(events[-1], Result)
        return texts, [e for e in events if isinstance(e, ForkEvent)], events[-1]

    ours = written(list(engine.stream(ARITH, PROMPT, chat=True, sampling=GREEDY)))
    theirs = written(list(local.stream(ARITH, PROMPT, chat=True, sampling=GREEDY)))
    assert ours[:2] == theirs[:2]
    assert len(ours[0]) == 3
    assert_same(ours[2], theirs[2])


def test_events_come_while_it_runs(engine: SGLangEngine) -> None:
    stream = engine.stream(ARITH, PROMPT, chat=True, sampling=GREEDY)
    times = [time.perf_counter() for _ in stream]
    assert times[-1] - times[0] > 0.1, "all came at the end"


def test_an_abort_ends_a_request_and_others_go_on(engine: SGLangEngine) -> None:
    wild = Sampling(temperature=5.0)
    stopped = [engine.submit(ARITH, PROMPT, chat=True, sampling=wild) for _ in range(3)]
    other = engine.submit(ARITH, PROMPT, chat=True, sampling=GREEDY)
    threads = [threading.Thread(target=engine.abort, args=(n,)) for n in stopped]
    for thread in threads:
        thread.start()
    for number in stopped:
        result = engine.wait(number)
        assert result.finish in (EndReason.ABORTED, EndReason.BUDGET, EndReason.COMPLETED)
    number = engine.submit(ARITH, PROMPT, chat=True, sampling=GREEDY)
    engine.abort(number)
    assert engine.wait(number).finish is EndReason.ABORTED
    assert engine.wait(other).answer == r"\boxed{3169}"


def test_a_closed_stream_leaves_nothing_on_the_server(engine: SGLangEngine) -> None:
    stream = engine.stream(ARITH, PROMPT, chat=True, sampling=GREEDY)
    assert isinstance(next(stream), TokenEvent)
    stream.close()  # type: ignore[attr-defined]
    # and `idle_again` waits until the server has nothing to do


# -- text that no schema constrains ----------------------------------------------------------------


def own_logprobs(local: LocalEngine, written: Completion) -> list[float]:
    """What one dense forward says of a completion's tokens."""
    ids = torch.tensor([[*written.prompt_ids, *written.token_ids]])
    with torch.no_grad():
        scores = local.model(input_ids=ids).logits[0].log_softmax(-1)
    first = len(written.prompt_ids)
    picked = scores[first - 1 : -1].gather(-1, ids[0, first:, None])
    return [float(value) for value in picked[:, 0]]


def assert_same_completions(
    engine: SGLangEngine, local: LocalEngine, prompts: list[Prompt], **options: Any
) -> list[Completion]:
    ours = engine.complete(ARITH, prompts, sampling=GREEDY, **options)
    theirs = local.complete(ARITH, prompts, sampling=GREEDY, **options)
    for a, b in zip(ours, theirs, strict=True):
        assert (a.token_ids, a.text, a.finish) == (b.token_ids, b.text, b.finish)
        assert a.prompt_ids == b.prompt_ids
        assert a.logprobs == pytest.approx(b.logprobs, abs=TOLERANCE)
    return ours


@pytest.mark.parametrize("tokens", [12, 300])
def test_completions_are_those_of_the_local_engine(
    engine: SGLangEngine, local: LocalEngine, tokens: int
) -> None:
    """Up to the budget, or to the end token."""
    options = {"max_tokens": tokens, "chat": True}
    ours = assert_same_completions(engine, local, PROMPTS, **options)
    for written in ours:
        ended = written.token_ids[-1] == engine.vocabulary.eos_id
        assert ended == (written.finish is EndReason.COMPLETED)
        assert ended or len(written.token_ids) == tokens
    one = engine.complete(ARITH, PROMPTS[:1], sampling=GREEDY, **options)
    assert one[0].token_ids == ours[0].token_ids
    assert engine.complete(ARITH, [], **options) == []


def test_the_end_token_of_a_completion_is_counted_and_is_no_text(
    engine: SGLangEngine, local: LocalEngine
) -> None:
    """The model has never seen anything else behind a whole answer."""
    done = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY)
    whole = [*done.prompt_ids, *done.token_ids[:-1]]
    assert done.token_ids[-1] == engine.vocabulary.eos_id
    (ended,) = assert_same_completions(engine, local, [whole], max_tokens=20)
    assert (ended.token_ids, ended.text) == ((engine.vocabulary.eos_id,), "")
    assert ended.finish is EndReason.COMPLETED


def test_completions_have_the_models_own_logprobs(engine: SGLangEngine, local: LocalEngine) -> None:
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
        assert written.logprobs == pytest.approx(own_logprobs(local, written), abs=TOLERANCE)
        ended = written.finish is EndReason.COMPLETED
        text = [special[t] for t in written.token_ids[: -1 if ended else None] if t in special]
        assert re.findall(r"</?\w+>", written.text) == text
        tags += [tag for tag in text if tag in ARITH.tags]
    assert tags
    assert len({written.token_ids for written in drawn}) > 1


def test_completions_end_at_the_last_position(engine: SGLangEngine, local: LocalEngine) -> None:
    """Text that never ends, where the tokens of its budget would not fit."""
    prompt = [12] * (POSITIONS - 24)
    hot = Sampling(temperature=5.0)
    for written in engine.complete(ARITH, [prompt] * 4, max_tokens=500, sampling=hot):
        assert written.finish in (EndReason.BUDGET, EndReason.COMPLETED)
        assert len(written.token_ids) > 8 or written.finish is EndReason.COMPLETED
        assert len(written.token_ids) <= 24
        assert written.logprobs == pytest.approx(own_logprobs(local, written), abs=TOLERANCE)
    with pytest.raises(LimitError, match=f"only {POSITIONS} positions"):
        engine.complete(ARITH, [[12] * POSITIONS], max_tokens=5)
    with pytest.raises(LimitError, match="the server completes prompts of"):
        engine.complete(ARITH, [[12] * (POSITIONS - 1)], max_tokens=5)
    with pytest.raises(ValueError, match="a completion has no rules"):
        engine.complete(
            ARITH, [PROMPT], max_tokens=5, sampling=Sampling(rules={"step": {"top_k": 1}})
        )


# -- forks in this process -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(served: Served) -> Iterator[SGLangEngine]:
    made = SGLangEngine(served.url, fork_here=True)
    yield made
    made.close()


def test_rereading_schemas_need_no_plugin(
    plain: SGLangEngine, local: LocalEngine, reread: nprdsl.Schema
) -> None:
    short = Limits(max_tokens=70, depth=2)
    for options in ({"limits": FLAT}, {"limits": short}, {"limits": FLAT, "parallel": False}):
        ours = plain.generate(reread, PROMPT, chat=True, sampling=GREEDY, **options)
        assert_same(ours, local.generate(reread, PROMPT, chat=True, sampling=GREEDY, **options))
    hot = Sampling(temperature=2.0)
    drawn = plain.generate(reread, PROMPTS, chat=True, sampling=hot, limits=FLAT)
    assert [reread.check(result.text.removesuffix("<eos>")) for result in drawn] == [[], [], []]


def test_rereading_streams_and_aborts(plain: SGLangEngine, reread: nprdsl.Schema) -> None:
    *events, result = plain.stream(reread, PROMPT, chat=True, sampling=GREEDY, limits=FLAT)
    assert isinstance(result, Result)
    forks = sum(isinstance(event, ForkEvent) for event in events)
    assert forks == result.text.count("</guideline>") > 0
    number = plain.submit(reread, PROMPT, chat=True, sampling=GREEDY, limits=FLAT)
    plain.abort(number)
    assert plain.wait(number).finish in (EndReason.ABORTED, EndReason.FAILED)


def test_what_needs_the_plugin_is_refused_without_it(
    plain: SGLangEngine, reread: nprdsl.Schema
) -> None:
    with pytest.raises(UnsupportedServerError, match="the join of `block` merges"):
        plain.submit(ARITH, PROMPT, chat=True)
    with pytest.raises(UnsupportedServerError, match="a penalty counts"):
        penalised = Sampling(repetition_penalty=1.1)
        plain.submit(reread, PROMPT, chat=True, sampling=penalised, limits=FLAT)
    with pytest.raises(LimitError, match=r"can nest without end.*set Limits\(depth=…\)"):
        plain.submit(reread, PROMPT, chat=True)


# -- weights ---------------------------------------------------------------------------------------


def test_weights_are_swapped_between_requests(
    engine: SGLangEngine, local: LocalEngine, tmp_path: Path
) -> None:
    before = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY)
    own = {name: tensor.clone() for name, tensor in local.model.state_dict().items()}
    changed = LocalEngine.from_pretrained("arith", dtype="fp32")
    for parameter in changed.model.parameters():
        parameter.data.mul_(1.05)
    assert changed.tokenizer is not None
    changed.model.save_pretrained(tmp_path)
    changed.tokenizer.save_pretrained(tmp_path)
    try:
        engine.weights.load(tmp_path, version="step-1")
        assert engine.weights.version == "step-1"
        ours = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY)
        assert_same(ours, changed.generate(ARITH, PROMPT, chat=True, sampling=GREEDY))
        assert ours.logprobs != before.logprobs
    finally:
        tied = own.pop("lm_head.weight")
        assert tied is not None
        engine.weights.put(own.items(), version="step-2")
    assert engine.weights.version == "step-2"
    assert_same(engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY), before)
    with pytest.raises(WeightsError):
        engine.weights.load(tmp_path / "nothing")


# -- addresses and the command line ----------------------------------------------------------------


def test_other_addresses_are_refused(served: Served) -> None:
    with pytest.raises(EngineUnavailableError, match=r"no server answers .* `nprdsl serve`"):
        SGLangEngine("http://127.0.0.1:1")
    with pytest.raises(EngineUnavailableError, match="is no SGLang server"):
        SGLangEngine(f"{served.url}/nothing")
    with pytest.raises(ValueError, match="is no address"):
        SGLangEngine("ftp://here")


def test_a_server_that_goes_away_fails_the_request(engine: SGLangEngine) -> None:
    lost = SGLangEngine(engine._transport.url)
    lost._transport = Transport("http://127.0.0.1:1")
    with pytest.raises(GenerationError, match="no server answers"):
        lost.generate(ARITH, PROMPT, chat=True)
    lost.close()


def test_run_asks_a_server(served: Served) -> None:
    told = invoke("run", PROMPT, "--engine", served.url, "--json")
    assert told.exit_code == 0
    assert json.loads(told.stdout)["answer"] == r"\boxed{3169}"
    refused = invoke("run", PROMPT, "--engine", served.url, "--model", "arith")
    assert (refused.exit_code, "--model is for a model in this process" in refused.stderr) == (2, 1)
    nobody = invoke("run", PROMPT, "--engine", "http://127.0.0.1:1")
    assert nobody.exit_code == ExitCode.USAGE
    assert "no server answers" in nobody.stderr


def test_the_example_of_the_document_prints_its_comment(served: Served) -> None:
    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    (example,) = [block for block in blocks(text) if block.language == "python"]
    source = example.body.replace("http://127.0.0.1:30000", served.url)
    assert source != example.body
    (comment,) = re.findall(r"# (.*)$", source, re.M)
    assert run_python(replace(example, body=source), {}).text.strip() == comment


def test_the_command_says_what_it_chose_and_a_port_is_taken_once(served: Served) -> None:
    if served.said:
        assert "--disable-overlap-schedule --device cpu" in served.said
        assert "no CUDA: plain torch on the CPU" in served.said
    taken = invoke("serve", "--port", served.port)
    assert taken.exit_code == ExitCode.USAGE
    assert f"nothing can listen on 127.0.0.1:{served.port}" in taken.stderr
