"""SGLang's router before a server: engines, streams, aborts and chats go through it."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

import nprdsl
from nprdsl.runtime import LocalEngine, Result, Sampling, SGLangEngine
from nprdsl.runtime.errors import EngineUnavailableError
from nprdsl.runtime.sglang.client.transport import Transport
from nprdsl.runtime.sglang.client.weights import WeightsError
from nprdsl.structure.events import EndReason, ForkEvent, TokenEvent
from tests.sglang.cases import GREEDY, own_schema
from tests.sglang.served import ANSWER, PROMPT, Served, free_port

ARITH = nprdsl.load("arith")
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
START_S = 60


@pytest.fixture(scope="module")
def router(served: Served, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a router with one worker."""
    url = f"http://127.0.0.1:{free_port()}"
    log = tmp_path_factory.mktemp("router") / "log"
    options = ["--host", "127.0.0.1", "--port", url.rpartition(":")[2], "--log-level", "error"]
    options += ["--prometheus-port", str(free_port()), "--worker-urls", served.url]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "sglang_router.launch_router", *options],
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait(process, url, log)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    """Until the router has a worker."""
    asked = {"model": "arith", "messages": MESSAGES, "max_tokens": 1}
    for _ in range(START_S * 4):
        assert process.poll() is None, log.read_text(errors="replace")
        try:
            if Transport(url).post("/v1/chat/completions", asked):
                return
        except (EngineUnavailableError, RuntimeError):
            time.sleep(0.25)
    raise AssertionError(f"no router after {START_S} s: {log.read_text(errors='replace')}")


@pytest.fixture(scope="module")
def engine(router: str, served: Served) -> Iterator[SGLangEngine]:
    made = SGLangEngine(router, worker=served.url)
    yield made
    made.close()


def test_results_are_those_of_the_local_engine(engine: SGLangEngine, bundled: LocalEngine) -> None:
    settings = [GREEDY, Sampling(temperature=1.5, seed=4, rules={"step": {"top_k": 3}})]
    for sampling in settings:
        ours = engine.generate(ARITH, PROMPT, chat=True, sampling=sampling)
        theirs = bundled.generate(ARITH, PROMPT, chat=True, sampling=sampling)
        assert ours.token_ids == theirs.token_ids
        assert ours.finish is theirs.finish


def test_events_come_through(engine: SGLangEngine) -> None:
    *events, result = engine.stream(ARITH, PROMPT, chat=True, sampling=GREEDY)
    assert isinstance(result, Result) and result.answer == ANSWER
    assert [e.rule for e in events if isinstance(e, ForkEvent)] == ["step"]


def test_an_abort_ends_the_request_on_the_server(engine: SGLangEngine, served: Served) -> None:
    """A router passes no aborts on: the end of the connection is one."""
    long = own_schema("start: DIGITS\nDIGITS: /[0-9]{400}/\n", "long")
    number = engine.submit(long, PROMPT, chat=True, sampling=GREEDY)
    time.sleep(0.3)  # it runs now
    engine.abort(number)
    aborted = engine.wait(number)
    assert aborted.finish is EndReason.ABORTED and len(aborted.token_ids) < 400
    served.settle()
    begun = time.perf_counter()
    whole = engine.generate(long, PROMPT, chat=True, sampling=GREEDY)
    took = time.perf_counter() - begun
    assert len(whole.token_ids) >= 400
    begun = time.perf_counter()
    stream = engine.stream(long, PROMPT, chat=True, sampling=GREEDY)
    assert isinstance(next(stream), TokenEvent)
    stream.close()  # type: ignore[attr-defined]
    served.settle()
    assert time.perf_counter() - begun < took / 2, "it was written to its end"


def test_what_a_router_does_not_know_is_told(router: str, engine: SGLangEngine) -> None:
    with pytest.raises(EngineUnavailableError, match="is no SGLang server"):
        SGLangEngine(router)
    with pytest.raises(WeightsError):
        engine.weights.load("anywhere")


def test_chats_travel_in_session_params(router: str) -> None:
    client = openai.OpenAI(base_url=f"{router}/v1", api_key="none", max_retries=0)

    def chat(asked: dict[str, Any], **options: Any) -> Any:
        extra = {"session_params": {"nprdsl": asked}}
        return client.chat.completions.create(
            model="arith", messages=MESSAGES, extra_body=extra, **options
        )

    done = chat({"schema": "arith", "limits": {"max_tokens": 400}})
    assert done.choices[0].message.content == ANSWER
    assert done.choices[0].message.trace["finish"] == "completed"
    *parts, last = chat({"schema": "arith"}, stream=True)
    assert "".join(part.choices[0].delta.content or "" for part in parts) == ANSWER
    assert last.choices[0].delta.trace["kind"] == "trace"
    with pytest.raises(openai.BadRequestError, match="did you mean `arith`"):
        chat({"schema": "arth"})
