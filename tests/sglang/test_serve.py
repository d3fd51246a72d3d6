"""`SGLangEngine` against a real server: the interface of the local engine, and its answers."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import nprdsl
from nprdsl.cli.failures import ExitCode
from nprdsl.machine.actions import FIRST
from nprdsl.machine.budget import LimitError, Limits
from nprdsl.runtime import GenerationError, LocalEngine, Result, Sampling, SGLangEngine
from nprdsl.runtime.errors import CapacityError, EngineUnavailableError, UnsupportedServerError
from nprdsl.runtime.prompts import PromptError
from nprdsl.runtime.sglang.client.transport import Transport
from nprdsl.structure.events import (
    BranchEndEvent,
    BranchReason,
    EndReason,
    Event,
    ForkEvent,
    TokenEvent,
)
from tests.cli.commands import invoke
from tests.documents import DOCS, blocks, run_python
from tests.sglang.cases import GREEDY, TOLERANCE
from tests.sglang.served import ANSWER, POSITIONS, PROMPT, PROMPTS, Served

ARITH = nprdsl.load("arith")
FLAT = Limits(max_tokens=600, depth=1)  # a step of this schema may hold a block


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
    engine: SGLangEngine, bundled: LocalEngine
) -> None:
    one = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY)
    assert_same(one, bundled.generate(ARITH, PROMPT, chat=True, sampling=GREEDY))
    assert one.answer == ANSWER
    settings = [Sampling(seed=i, temperature=0.7) for i in range(len(PROMPTS))]
    ours = engine.generate(ARITH, PROMPTS, chat=True, sampling=settings)
    theirs = bundled.generate(ARITH, PROMPTS, chat=True, sampling=settings)
    for a, b in zip(ours, theirs, strict=True):
        assert_same(a, b)


def test_chat_messages_ids_and_instructions_are_read_alike(
    engine: SGLangEngine, bundled: LocalEngine
) -> None:
    messages = [{"role": "user", "content": PROMPT}]
    assert engine.chats
    ours = engine.generate(ARITH, messages, sampling=GREEDY)
    assert_same(ours, bundled.generate(ARITH, messages, sampling=GREEDY))
    again = engine.generate(ARITH, ours.prompt_ids, sampling=GREEDY)
    assert again.token_ids == ours.token_ids
    with pytest.raises(PromptError, match="no token for 'z'"):
        engine.generate(ARITH, "zebra", sampling=GREEDY)
    with pytest.raises(ValueError, match="no chat, no instructions"):
        engine.generate(ARITH, [1, 2], chat=True)


def test_limits_joins_and_branches_in_turn(engine: SGLangEngine, bundled: LocalEngine) -> None:
    short = {"limits": Limits(max_tokens=60), "chat": True, "sampling": GREEDY}
    ours = engine.generate(ARITH, PROMPT, **short)
    assert ours.finish is EndReason.BUDGET and ours.usage.total <= 60
    assert_same(ours, bundled.generate(ARITH, PROMPT, **short))
    in_turn = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY, parallel=False)
    together = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY)
    assert in_turn.token_ids == together.token_ids
    assert in_turn.usage.forwards > together.usage.forwards
    first = list(engine.stream(ARITH, PROMPT, chat=True, sampling=GREEDY, join=FIRST))
    reasons = [e.reason for e in first if isinstance(e, BranchEndEvent)]
    assert BranchReason.CUT in reasons


def test_natively_a_model_forks_by_itself(engine: SGLangEngine, bundled: LocalEngine) -> None:
    ours = engine.generate(ARITH, PROMPT, chat=True, sampling=GREEDY, native=True)
    assert ours.finish is EndReason.COMPLETED and len(ours.trace.graph.forks) == 1
    assert_same(ours, bundled.generate(ARITH, PROMPT, chat=True, sampling=GREEDY, native=True))
    wild = engine.generate(ARITH, PROMPT, sampling=Sampling(temperature=5, seed=1), native=True)
    assert wild.finish is EndReason.ILLEGAL and wild.violations


def test_what_cannot_run_is_refused_at_once_and_alike(
    engine: SGLangEngine, bundled: LocalEngine
) -> None:
    for one in (engine, bundled):
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


def test_events_are_those_of_the_local_engine(engine: SGLangEngine, bundled: LocalEngine) -> None:
    def written(events: list[Event | Result]) -> tuple[dict[int, str], list[Event], Result]:
        texts: dict[int, str] = {}
        for event in events:
            if isinstance(event, TokenEvent):
                texts[event.branch] = texts.get(event.branch, "") + event.text
        assert isinstance(events[-1], Result)
        return texts, [e for e in events if isinstance(e, ForkEvent)], events[-1]

    ours = written(list(engine.stream(ARITH, PROMPT, chat=True, sampling=GREEDY)))
    theirs = written(list(bundled.stream(ARITH, PROMPT, chat=True, sampling=GREEDY)))
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
    assert engine.wait(other).answer == ANSWER


def test_a_closed_stream_leaves_nothing_on_the_server(engine: SGLangEngine) -> None:
    stream = engine.stream(ARITH, PROMPT, chat=True, sampling=GREEDY)
    assert isinstance(next(stream), TokenEvent)
    stream.close()  # type: ignore[attr-defined]
    # and `nothing_left` waits until the server has nothing to do


# -- forks in this process -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(served: Served) -> Iterator[SGLangEngine]:
    made = SGLangEngine(served.url, fork_here=True)
    yield made
    made.close()


def test_rereading_schemas_need_no_plugin(
    plain: SGLangEngine, bundled: LocalEngine, reread: nprdsl.Schema
) -> None:
    short = Limits(max_tokens=70, depth=2)
    for options in ({"limits": FLAT}, {"limits": short}, {"limits": FLAT, "parallel": False}):
        ours = plain.generate(reread, PROMPT, chat=True, sampling=GREEDY, **options)
        assert_same(ours, bundled.generate(reread, PROMPT, chat=True, sampling=GREEDY, **options))
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
    with pytest.raises(UnsupportedServerError, match="keeps texts from being copied"):
        avoiding = Sampling(avoid=("what an example says",))
        plain.submit(reread, PROMPT, chat=True, sampling=avoiding, limits=FLAT)
    with pytest.raises(LimitError, match=r"can nest without end.*set Limits\(depth=…\)"):
        plain.submit(reread, PROMPT, chat=True)


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
    assert json.loads(told.stdout)["answer"] == ANSWER
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
