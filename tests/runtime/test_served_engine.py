"""OpenAI's endpoints over the local engine, asked by the official client over real sockets."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

import nprdsl
from nprdsl.runtime import LocalEngine, Result, Sampling, SGLangEngine
from nprdsl.runtime.errors import EngineUnavailableError, UnsupportedServerError
from nprdsl.runtime.http.app import make_app
from nprdsl.runtime.http.engine_requests import EngineRequests
from nprdsl.runtime.http.replies import StreamReply
from nprdsl.runtime.http.schema_intake import SchemaIntake
from nprdsl.runtime.http.serving_settings import SchemaPolicy, ServingSettings
from nprdsl.runtime.http.wire_forms import SchemaForm
from nprdsl.runtime.sglang.protocol import ForkRequest
from nprdsl.structure.events import EndReason, TokenEvent

openai = pytest.importorskip("openai")
uvicorn = pytest.importorskip("uvicorn")

ARITH = nprdsl.load("arith")
PROMPT = "37*42+85*19?"
ANSWER = "\\boxed{3169}"
MESSAGES: Any = [{"role": "user", "content": PROMPT}]
SCHEMA = {"schema": "arith"}
KEY = "a secret"


@dataclass(frozen=True)
class Served:
    url: str
    engine: LocalEngine

    @property
    def client(self) -> Any:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=KEY, max_retries=0)

    def post(self, path: str, **body: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.post(f"{self.url}{path}", json=body, headers=headers, timeout=600)

    def get(self, path: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"}
        return httpx.get(f"{self.url}{path}", headers=headers, timeout=600)


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    engine = LocalEngine.from_pretrained("arith", dtype="fp32")
    app = make_app(engine, model="arith", api_key=KEY)
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    (port,) = {s.getsockname()[1] for one in server.servers for s in one.sockets}
    yield Served(f"http://127.0.0.1:{port}", engine)
    server.should_exit = True
    thread.join()


@pytest.fixture(autouse=True)
def nothing_left(served: Served) -> Iterator[None]:
    """Whatever a test does, and however its client leaves: no request stays."""
    yield
    for _ in range(3000):
        if not served.engine._open and not served.engine._news:
            break
        time.sleep(0.02)
    assert (served.engine._open, served.engine._news) == ({}, {})
    scheduler = served.engine._scheduler
    scheduler.prefixes.forget()
    assert scheduler.pool.free == scheduler.pool.total


def chat(served: Served, extra: dict[str, Any] | None = None, **options: Any) -> Any:
    return served.client.chat.completions.create(
        model="arith", messages=options.pop("messages", MESSAGES), extra_body=extra, **options
    )


# -- chats with a schema ---------------------------------------------------------------------------


def test_the_answer_is_the_message_and_the_trace_a_field(served: Served) -> None:
    done = chat(served, SCHEMA, seed=5, temperature=1.0, logprobs=True)
    wanted = served.engine.generate(ARITH, MESSAGES, sampling=Sampling(temperature=1.0, seed=5))
    (choice,) = done.choices
    trace = choice.message.trace
    assert choice.message.content == wanted.answer
    assert trace["token_ids"] == list(wanted.token_ids)
    assert trace["logprobs"] == pytest.approx(list(wanted.logprobs), abs=1e-4)
    assert len(choice.logprobs.content) == wanted.usage.sampled_tokens
    details = done.usage.completion_tokens_details.model_extra
    assert details["critical_path"] == wanted.usage.critical_path < done.usage.completion_tokens
    assert details["branches"] == sum(len(f.after) for f in wanted.trace.graph.forks)


def test_a_stream_tells_branches_as_they_run(served: Served) -> None:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    chunks = list(chat(served, SCHEMA, temperature=0, logprobs=True, **options))
    *parts, last, usage = chunks
    said = [c.choices[0].delta.content for c in parts if c.choices[0].delta.content]
    assert "".join(said) == ANSWER
    assert len(said) > 3, "the answer came all at once"
    trace = last.choices[0].delta.trace
    assert trace["finish"] == "completed" and last.choices[0].finish_reason == "stop"
    events = [c.choices[0].delta.trace for c in parts if "trace" in c.choices[0].delta.model_extra]
    order = [event["branch"] for event in events if event["kind"] == "token"]
    assert order.index(2) < len(order) - 1 - order[::-1].index(1), "one branch after another"
    told = [e for c in parts if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert len(told) == trace["sampled_tokens"]
    assert usage.choices == []
    assert usage.usage.completion_tokens == len(trace["token_ids"])


def test_seeds_are_drawn_anew_and_repeat_what_they_wrote(served: Served) -> None:
    hot: dict[str, Any] = {"temperature": 5.0, "max_tokens": 60}
    drawn = [chat(served, SCHEMA, **hot) for _ in range(3)]
    seeds = [done.choices[0].message.trace["seed"] for done in drawn]
    assert len(set(seeds)) == 3
    pair = chat(served, SCHEMA, n=2, seed=seeds[0], **hot)
    first, second = (choice.message.trace for choice in pair.choices)
    assert first["token_ids"] == drawn[0].choices[0].message.trace["token_ids"]
    assert (first["seed"], second["seed"]) == (seeds[0], seeds[0] + 1)
    assert first["token_ids"] != second["token_ids"]


def test_a_schema_may_come_as_its_text(served: Served, tmp_path: Path) -> None:
    source = (Path(nprdsl.__file__).parent / "grammars" / "arith.lark").read_text()
    file = tmp_path / "one_at_most.lark"
    file.write_text(source.replace("plan~1..12", "plan~1..1"))
    form = SchemaForm.of(nprdsl.load(file)).model_dump()
    done = chat(served, {"schema": form}, temperature=0, max_tokens=60)
    assert done.choices[0].message.trace["text"].count("<plan>") == 1


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("arth", {"schema": "arth"}, "no schema is named `arth`; did you mean `arith`?"),
    ("field", {"limts": {}}, "no field `limts`; did you mean `limits`?"),
    ("limit", {"limits": {"max_tokns": 5}}, "limits.max_tokns: Extra inputs"),
    ("budget", {"max_tokens": 5}, "takes 16 tokens: allow at least 16"),
    ("both budgets", {"max_tokens": 50, "limits": {"max_tokens": 60}}, "give one of them"),
    ("no budget", {"max_completion_tokens": 0}, "max_tokens"),
    ("temperature", {"temperature": 1e308}, "`temperature` is 1e+308"),
    ("type", {"temperature": "hot"}, "temperature: Input should be a valid number"),
    ("rule", {"rules": {"stp": {"top_k": 1}}}, "`stp`, which is no rule"),
    ("join", {"join": 0}, "quorum must be at least 1"),
    ("stop", {"stop": ["a"]}, "`stop` has no meaning in a chat with a schema"),
    ("rid", {"rid": "mine"}, "`rid` has no meaning in a chat with a schema"),
    ("tools", {"tools": [{"type": "function"}]}, "`tools` has no meaning"),
    ("n", {"n": 0}, "n: Input should be greater than or equal to 1"),
    ("path", {"schema": "../arith"}, "schema.name: Value error, the name of a schema is"),
    ("character", {"messages": [{"role": "user", "content": "zebra"}]}, "no token for 'z'"),
    ("no message", {"messages": []}, "messages: Value error, there is no message"),
    ("image", {"messages": [{"role": "user", "content": [{"type": "x"}]}]}, "takes text only"),
]


@pytest.mark.parametrize(
    ("changes", "message"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED]
)
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_what_cannot_work_is_a_400_that_says_why(
    served: Served, changes: dict[str, Any], message: str, stream: bool
) -> None:
    body = {"model": "arith", "messages": MESSAGES, **SCHEMA, "stream": stream, **changes}
    got = served.post("/v1/chat/completions", **body)
    assert got.status_code == 400
    assert message in got.json()["error"]["message"]


# -- without a schema ------------------------------------------------------------------------------


def test_a_plain_chat_is_what_the_model_writes_of_itself(served: Served) -> None:
    wanted = served.engine.complete(
        ARITH, [PROMPT], max_tokens=40, sampling=Sampling(temperature=0), chat=True
    )[0]
    done = chat(served, max_tokens=40, temperature=0, logprobs=True)
    (choice,) = done.choices
    assert choice.message.content == wanted.text
    assert choice.finish_reason == {"completed": "stop", "budget": "length"}[wanted.finish.value]
    assert [e.logprob for e in choice.logprobs.content] == pytest.approx(
        list(wanted.logprobs), abs=1e-4
    )
    assert done.usage.completion_tokens == len(wanted.token_ids)
    chunks = list(chat(served, max_tokens=40, temperature=0, logprobs=True, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == wanted.text
    entries = [e for c in chunks if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert [e.logprob for e in entries] == pytest.approx(list(wanted.logprobs), abs=1e-4)
    assert chunks[-1].choices[0].finish_reason == choice.finish_reason


@pytest.mark.parametrize("stop", ["</plan>", ["nothing", "85"], "2</"], ids=str)
def test_an_answer_ends_before_a_stop(served: Served, stop: Any) -> None:
    """Also where it is spelled over the borders of several tokens."""
    whole = chat(served, max_tokens=40, temperature=0).choices[0].message.content
    texts = [stop] if isinstance(stop, str) else stop
    at = min(whole.find(text) for text in texts if text in whole)
    done = chat(served, max_tokens=40, temperature=0, stop=stop)
    assert done.choices[0].message.content == whole[:at]
    assert done.choices[0].finish_reason == "stop"
    chunks = list(chat(served, max_tokens=40, temperature=0, stop=stop, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole[:at]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_texts_go_on_with_each_prompt(served: Served) -> None:
    create = served.client.completions.create
    settings: dict[str, Any] = {"model": "arith", "temperature": 0, "max_tokens": 8}
    alone = [create(prompt=p, **settings).choices[0].text for p in (PROMPT, "1*2?")]
    done = create(prompt=[PROMPT, "1*2?"], n=2, logprobs=1, **settings)
    assert [choice.text for choice in done.choices] == [alone[0]] * 2 + [alone[1]] * 2
    told = done.choices[0].logprobs
    assert "".join(told.tokens) == alone[0]
    assert len(told.token_logprobs) == len(told.tokens) == len(told.text_offset)
    chunks = list(create(prompt=PROMPT, stream=True, **settings))
    assert "".join(chunk.choices[0].text for chunk in chunks) == alone[0]
    ids = served.engine.tokenizer(PROMPT, add_special_tokens=False).input_ids
    assert create(prompt=ids, **settings).choices[0].text == alone[0]
    assert create(prompt=ids, echo=True, **settings).choices[0].text == PROMPT + alone[0]
    chunks = list(create(prompt=PROMPT, echo=True, stream=True, **settings))
    assert "".join(chunk.choices[0].text for chunk in chunks) == PROMPT + alone[0]
    assert create(prompt=PROMPT, model="arith").usage.completion_tokens == 16


@pytest.mark.parametrize(
    ("path", "changes", "message"),
    [
        ("chat/completions", {"limits": {}, "join": "first"}, "`join` has no meaning in a chat"),
        ("chat/completions", {"max_tokens": 0}, "max_tokens"),
        ("chat/completions", {"top_logprobs": 3}, "`top_logprobs` has no meaning"),
        ("completions", {"schema": "arith"}, "does not run a `schema`: send it to /v1/chat/compl"),
        ("completions", {"logprobs": 5}, "logprobs is 5"),
        ("completions", {"best_of": 3}, "`best_of` has no meaning in a text completion"),
        ("completions", {"logprobs": 1, "echo": True}, "asks for those of the prompt"),
        ("completions", {"prompt": []}, "there is no prompt in the list"),
        ("completions", {"prompt": [99999]}, "the prompt has token 99999"),
        ("completions", {"prompt": ["1?"] * 2100, "n": 2}, "it may for 4,096: send several"),
        ("completions", {"n": "0"}, "n: Input should be greater than or equal to 1"),
    ],
    ids=[
        "join",
        "no budget",
        "top",
        "schema",
        "logprobs",
        "best_of",
        "echo",
        "no prompt",
        "ids",
        "prompts",
        "n",
    ],
)
def test_plain_requests_are_refused_by_name(
    served: Served, path: str, changes: dict[str, Any], message: str
) -> None:
    asked: dict[str, Any] = {"prompt": PROMPT} if path == "completions" else {"messages": MESSAGES}
    got = served.post(f"/v1/{path}", **{**asked, **changes})
    assert got.status_code == 400
    assert message in got.json()["error"]["message"]


# -- many, and those that go away ------------------------------------------------------------------


def test_many_clients_at_once(served: Served) -> None:
    async def ask() -> list[str | None]:
        client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key=KEY, max_retries=0)
        async with client:
            asked = [
                client.chat.completions.create(
                    model="arith",
                    messages=MESSAGES,
                    extra_body=SCHEMA if i % 2 else {},
                    max_tokens=300 if i % 2 else 30,
                    temperature=0,
                )
                for i in range(8)
            ]
            return [one.choices[0].message.content for one in await asyncio.gather(*asked)]

    answers = asyncio.run(ask())
    assert answers[1::2] == [ANSWER] * 4
    assert len(set(answers[0::2])) == 1


@pytest.mark.parametrize("extra", [SCHEMA, {}], ids=["trace", "plain"])
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
def test_a_client_that_goes_away_stops_its_request(
    served: Served, extra: dict[str, Any], stream: bool
) -> None:
    """`nothing_left` waits until the engine has nothing; far longer than an abort takes, but a
    request of 100,000 tokens would still run."""
    body = {"messages": MESSAGES, "n": 3, "stream": stream, **extra}
    if not extra:
        body |= {"max_tokens": 100_000, "temperature": 3.0}
    headers = {"Authorization": f"Bearer {KEY}"}
    url = f"{served.url}/v1/chat/completions"
    if stream:
        with httpx.stream("POST", url, json=body, headers=headers, timeout=600) as response:
            assert json.loads(next(response.iter_lines()).removeprefix("data: "))["choices"]
    else:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(url, json=body, headers=headers, timeout=httpx.Timeout(600, read=0.05))


# -- what there is ---------------------------------------------------------------------------------


def test_models_and_schemas_are_listed(served: Served) -> None:
    (model,) = served.client.models.list().data
    assert model.id == "arith"
    assert served.client.models.retrieve("arith").id == "arith"
    listed = {entry["id"]: entry for entry in served.get("/v1/schemas").json()["data"]}
    assert set(listed) == set(nprdsl.shipped())
    assert listed["arith"]["tags"] == list(ARITH.tags)
    assert listed["arith"]["minimum"] == served.engine.bind(ARITH).minimum
    assert "cannot spell the tag" in listed["multiverse"]["refused"]


def test_another_model_and_another_path_are_not_found(served: Served) -> None:
    got = served.post("/v1/chat/completions", model="gpt", messages=MESSAGES)
    assert (got.status_code, "no model `gpt`, it has `arith`" in got.text) == (404, True)
    assert served.get("/v1/nothing").status_code == 404
    assert served.get("/v1/completions").status_code == 405


def test_the_description_covers_what_is_taken(served: Served) -> None:
    told = served.get("/openapi.json").json()
    content = told["paths"]["/v1/chat/completions"]["post"]["requestBody"]["content"]
    trace, plain = content["application/json"]["schema"]["anyOf"]
    defined = told["components"]["schemas"]
    assert {"schema", "messages", "rules"} <= set(
        defined[trace["$ref"].rpartition("/")[2]]["properties"]
    )
    assert "stop" in defined[plain["$ref"].rpartition("/")[2]]["properties"]
    for path in told["paths"]:
        assert served.get(path).status_code in (200, 405)


@pytest.fixture(scope="module")
def remote(served: Served) -> Iterator[SGLangEngine]:
    engine = SGLangEngine(served.url, api_key=KEY)
    yield engine
    engine.close()


def test_the_engine_of_a_server_is_that_of_this_process(
    served: Served, remote: SGLangEngine
) -> None:
    """The same tokens, events and bounds, whichever engine the server runs."""
    sampling = Sampling(temperature=1.0, seed=3)
    there = list(remote.stream(ARITH, PROMPT, chat=True, sampling=sampling))
    here = list(served.engine.stream(ARITH, PROMPT, chat=True, sampling=sampling))
    assert [e for e in there if not isinstance(e, Result)] == [
        e for e in here if not isinstance(e, Result)
    ]
    far, near = there[-1], here[-1]
    assert isinstance(far, Result) and isinstance(near, Result)
    assert (far.token_ids, far.prompt_ids, far.finish) == (
        near.token_ids, near.prompt_ids, near.finish,
    )  # fmt: skip
    assert far.logprobs == pytest.approx(near.logprobs)
    assert (remote.info.model, remote.knows(ARITH), remote.chats) == ("arith", True, True)
    many = remote.generate(ARITH, [PROMPT] * 3, chat=True, parallel=False)
    assert [one.answer for one in many] == [ANSWER] * 3


def test_what_the_engine_of_a_server_refuses(remote: SGLangEngine) -> None:
    with pytest.raises(EngineUnavailableError, match="API key"):
        SGLangEngine(remote._transport.url, api_key="another")
    with pytest.raises(UnsupportedServerError, match="/v1/completions"):
        remote.complete(ARITH, [PROMPT], max_tokens=5)


def test_an_aborted_request_of_a_server_gives_what_it_wrote(remote: SGLangEngine) -> None:
    number = remote.submit(ARITH, PROMPT, chat=True)
    remote.abort(number)
    assert remote.wait(number).finish is EndReason.ABORTED
    stream = remote.stream(ARITH, PROMPT, chat=True)
    assert isinstance(next(stream), TokenEvent)
    stream.close()  # `nothing_left` sees that it ends there too


def test_a_request_has_its_name_until_it_is_over(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same name again is refused, and the stream that has it goes on. Another client has names
    of its own, which stop nothing of this one."""
    stopped: list[int] = []
    may_end, afollow = threading.Event(), served.engine.afollow

    async def held(number: int) -> Any:
        async for item in afollow(number):
            while isinstance(item, Result) and not may_end.is_set():
                await asyncio.sleep(0.01)
            yield item

    monkeypatch.setattr(served.engine, "afollow", held)
    monkeypatch.setattr(served.engine, "abort", stopped.append)
    ids = list(served.engine.vocabulary.encode(PROMPT))
    asked = {"rid": "mine", "input_ids": ids, **ForkRequest.of(ARITH, events=True).fields()}
    headers = {"Authorization": f"Bearer {KEY}"}
    neighbour = httpx.Client(
        transport=httpx.HTTPTransport(local_address="127.0.0.2"),
        base_url=served.url, headers=headers, timeout=600,
    )  # fmt: skip
    url, streamed = f"{served.url}/generate", {**asked, "stream": True}
    with (
        neighbour,
        httpx.stream("POST", url, json=streamed, headers=headers, timeout=600) as stream,
    ):
        lines = stream.iter_lines()
        assert "token" in next(lines)
        again = served.post("/generate", **asked)
        assert (again.status_code, "names a request that is running" in again.text) == (400, True)
        assert neighbour.post("/abort_request", json={"rid": "mine"}).json() == {}
        assert stopped == []
        with neighbour.stream("POST", "/generate", json=streamed) as theirs:
            other = theirs.iter_lines()
            assert "token" in next(other)
            assert served.post("/abort_request", rid="mine").json() == {}
            assert len(stopped) == 1
            other.close()
        assert served.post("/abort_request", rid="mine", abort_all=True).status_code == 400
        may_end.set()
        assert '"finish":"completed"' in "".join(lines).replace(" ", "")
    assert served.post("/generate", **asked).status_code == 200


def test_a_stream_that_nobody_reads_leaves_neither_name_nor_request(served: Served) -> None:
    """Its client went away before a byte was sent, and before anybody listened."""
    intake = SchemaIntake(ServingSettings(), "127.0.0.1")
    requests = EngineRequests(served.engine, "arith", intake)
    params = ForkRequest.of(ARITH).sampling_params()
    body = {"rid": "a", "input_ids": [1, 2], "sampling_params": params, "stream": True}

    async def left() -> None:
        reply = await requests.generate(body, "")
        assert isinstance(reply, StreamReply) and requests._running
        await reply.chunks.aclose()
        await reply.close()

    asyncio.run(left())
    assert requests._running == {}


def test_without_the_key_nothing_but_health_answers(served: Served) -> None:
    assert httpx.get(f"{served.url}/health").status_code == 200
    for headers in ({}, {"Authorization": "Bearer other"}, {"Authorization": KEY}):
        got = httpx.get(f"{served.url}/v1/models", headers=headers)
        assert got.status_code == 401
        assert "asks for its API key" in got.json()["error"]["message"]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b"[]", 400),
        (b"\xff", 400),
        (b'{"\\ud83d": 1}', 400),
        (b'{"metadata": {"a": "\\ud83d"}}', 400),
        (b'{"model": "\\ud83d"}', 404),
    ],
    ids=["broken", "list", "bytes", "half a name", "half a text", "half a model"],
)
@pytest.mark.parametrize("path", ["chat/completions", "completions", "responses"])
def test_a_body_that_is_no_object_of_texts_is_refused(
    served: Served, path: str, body: bytes, status: int
) -> None:
    headers = {"Authorization": f"Bearer {KEY}"}
    got = httpx.post(f"{served.url}/v1/{path}", content=body, headers=headers)
    assert (got.status_code, got.json()["error"]["code"]) == (status, status)


def test_registered_schemas_are_named_and_others_refused(served: Served, tmp_path: Path) -> None:
    """As the application says, which an own one is made for."""
    (tmp_path / "mine.lark").write_text('%declare TEXT\nstart: "<a>" TEXT "</a>"\n')
    (tmp_path / "typed.lark").write_text('%declare NUMBER\nstart: "<a>" NUMBER "</a>"\n')
    settings = ServingSettings(schemas=SchemaPolicy.REGISTERED, schema_folder=str(tmp_path))
    app = make_app(served.engine, model="arith", settings=settings)

    async def ask() -> tuple[Any, httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            listed = (await client.get("/v1/schemas")).json()["data"]
            form = {"name": "other", "source": 'start: "<a>"\n'}
            body = {"messages": MESSAGES, "schema": form}
            return listed, await client.post("/v1/chat/completions", json=body)

    listed, refused = asyncio.run(ask())
    terminals = {entry["id"]: entry["terminals"] for entry in listed}
    assert terminals["mine"] == [] and terminals["typed"] == ["NUMBER"]
    assert refused.status_code == 400
    assert "this server takes shipped and registered schemas only" in refused.text
