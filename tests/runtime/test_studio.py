"""The studio's server: who may ask, what is answered about a schema, runs and what they send."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import pickle
import warnings
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path
from typing import Any, Literal

import pytest

pytest.importorskip("starlette")
pytest.importorskip("torch")
httpx = pytest.importorskip("httpx")

import nprdsl  # noqa: E402
from nprdsl.cli.terminals import typed_terminals  # noqa: E402
from nprdsl.export import Target  # noqa: E402
from nprdsl.masks.bound_schema import SpelledTagsWarning  # noqa: E402
from nprdsl.runtime import LocalEngine, Sampling  # noqa: E402
from nprdsl.runtime.results import Result  # noqa: E402
from nprdsl.runtime.studio import app as studio_app  # noqa: E402
from nprdsl.runtime.studio.live_lanes import LiveLanes  # noqa: E402
from nprdsl.runtime.studio.runs import RunRequest, run_messages  # noqa: E402
from nprdsl.runtime.studio.schema_desk import SchemaDesk  # noqa: E402
from nprdsl.runtime.studio.schema_questions import Answers, Ask, SchemaQuestion, packed  # noqa: E402
from nprdsl.schema import source_of  # noqa: E402
from nprdsl.structure.events import ForkEvent  # noqa: E402
from nprdsl.studio import TraceView, pages  # noqa: E402
from nprdsl.studio.lanes import lanes_view  # noqa: E402
from nprdsl.testing import byte_vocabulary  # noqa: E402
from tests.runtime.tiny_models import byte_tokenizer, model  # noqa: E402
from tests.walks import schema_of  # noqa: E402

ARITH = source_of("arith")
MISSPELT = ARITH.replace("map{guideline}", "map{guidelin}")
PROMPT = "37*42+85*19?"


@pytest.fixture(scope="module")
def engine() -> LocalEngine:
    return LocalEngine.from_pretrained("arith")


@pytest.fixture
def ask() -> Callable[..., dict[str, Any]]:
    answers = Answers(byte_vocabulary(("<step>", "</step>")), "bytes")
    warnings.simplefilter("ignore", SpelledTagsWarning)  # as its process does

    def asked(kind: Ask, text: str, line: int = 1, column: int = 1, **more: Any) -> dict[str, Any]:
        question = {"ask": kind, "text": text, "line": line, "column": column, **more}
        return answers.answer(SchemaQuestion.model_validate(question))

    return asked


# questions


def test_a_fault_has_its_place_and_its_fix(ask: Callable[..., dict[str, Any]]) -> None:
    faults = ask(Ask.FAULTS, MISSPELT)["faults"]
    undefined = next(f for f in faults if f["code"] == "undefined-rule")
    line, column, _, end = undefined["span"]
    assert MISSPELT.split("\n")[line - 1][column - 1 : end - 1] == "guidelin"
    assert undefined["here"] and undefined["fix"]["text"] == "guideline"
    assert ask(Ask.VIEW, MISSPELT) == {}
    assert ask(Ask.FAULTS, ARITH) == {"faults": []}


def test_a_schema_without_faults_has_a_view(ask: Callable[..., dict[str, Any]]) -> None:
    view = ask(Ask.VIEW, ARITH)["view"]
    special = {tag["text"]: tag["special"] for tag in view["tags"]}
    assert special["<step>"] and not special["<plan>"] and view["vocabulary"] == "bytes"
    assert view["exports"] == []  # they take longer, and are asked for apart
    exports = ask(Ask.EXPORTS, ARITH)["exports"]
    assert [one["target"] for one in exports] == [target.value for target in Target]


def test_imports_are_looked_for_beside_the_schema(engine: LocalEngine, tmp_path: Path) -> None:
    (tmp_path / "words.lark").write_text('%declare TEXT\nplan: "<plan>" TEXT "</plan>"\n')
    text = "%import .words (plan)\nstart: plan\n"
    file = str(tmp_path / "mine.lark")
    question = SchemaQuestion(ask=Ask.FAULTS, text=text)
    assert Answers(engine.vocabulary, "arith", file).answer(question) == {"faults": []}
    (fault,) = Answers(engine.vocabulary, "arith").answer(question)["faults"]
    assert fault["code"] == "import-not-found" and fault["here"]

    async def ran() -> list[str]:
        request = RunRequest(schema_text=text, prompt=PROMPT, max_tokens=40)
        return [message async for message in run_messages(engine, request, file)]

    assert asyncio.run(ran())[-1].startswith("event: trace")


def test_places_of_the_text(ask: Callable[..., dict[str, Any]]) -> None:
    line = next(i for i, text in enumerate(ARITH.split("\n"), 1) if text.startswith("block:"))
    column = ARITH.split("\n")[line - 1].index("guideline") + 1
    assert "guideline" in ask(Ask.HOVER, ARITH, line, column)["says"]
    defined = ask(Ask.DEFINE, ARITH, line, column)["span"]
    assert ARITH.split("\n")[defined[0] - 1].startswith("guideline:")
    words = {word["text"] for word in ask(Ask.COMPLETE, ARITH, line, column)["words"]}
    assert {"plan", "TEXT"} <= words
    construct = ARITH.split("\n")[line - 1].index("map") + 1
    assert ask(Ask.DEFINE, ARITH, line, construct) == {}  # it stands in another file


def test_rows_of_a_file_and_their_traces(ask: Callable[..., dict[str, Any]]) -> None:
    """By the schema of the row, else of the editor; in words, where its tokens are another's."""
    trace = nprdsl.load("npr").examples[0].trace
    row = {"text": trace, "finish": "completed", "usage": {"forwards": 3}, "token_ids": [1]}
    row |= {"answer": "42", "reward": float("nan")}
    named = {"trace": trace, "schema": "npr"}
    found = ask(Ask.ROWS, f"{json.dumps(row)}\n{json.dumps(named)}")["rows"]["rows"]
    typed = {**found[1], "schema_name": "triage"}  # of which the types are not known here
    views = [
        TraceView.model_validate(ask(Ask.TRACE, text, row=one)["trace"])
        for one, text in (
            (found[0], source_of("npr")),
            (found[1], ARITH),
            (found[0], "broken"),
            (typed, ARITH),
        )
    ]
    assert [view.schema_name for view in views] == ["schema", "npr", "npr", "npr"]
    assert [view.text for view in views] == [trace] * 4 and not views[0].violations
    assert views[0].outcome is not None and views[0].outcome.figures == {"forwards": 3.0}


def test_a_row_with_the_tokens_of_the_model_is_shown_in_them(engine: LocalEngine) -> None:
    result = engine.generate(nprdsl.load("arith"), PROMPT, chat=True)
    answers = Answers(engine.vocabulary, "arith")
    file = SchemaQuestion(ask=Ask.ROWS, text=json.dumps(result.to_dict()))
    (row,) = answers.answer(file)["rows"]["rows"]
    asked = SchemaQuestion(ask=Ask.TRACE, text=ARITH, row=row)
    view = TraceView.model_validate(answers.answer(asked)["trace"])
    assert view.prompt_pieces == len(result.prompt_ids) and view.lanes.unit == "tokens"
    assert len(view.logprobs) == len(result.token_ids)


def test_a_desk_answers_the_newest_question_and_none_that_takes_too_long() -> None:
    async def answers(deadline_s: float, *texts: str) -> list[dict[str, Any]]:
        vocabulary = byte_vocabulary(nprdsl.load("arith").tags)
        desk = SchemaDesk(vocabulary, "bytes", deadline_s=deadline_s)
        try:
            first = await desk.ask(SchemaQuestion(ask=Ask.FAULTS, text=MISSPELT))
            asked = (desk.ask(SchemaQuestion(ask=Ask.FAULTS, text=text)) for text in texts)
            return [json.loads(answer) for answer in (first, *await asyncio.gather(*asked))]
        finally:
            await desk.close()

    late = asyncio.run(answers(0.001, MISSPELT))  # it starts anew each time
    assert ["takes more than" in answer["late"] for answer in late] == [True, True]
    first, *others = asyncio.run(answers(60.0, ARITH, MISSPELT, ARITH))
    assert first["faults"]
    assert others == [{"faults": []}, {"skipped": True}, {"faults": []}]  # the second is outdated


def test_what_is_drawn_keeps_nobody_waiting_who_types(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked of another process."""
    desk = SchemaDesk(byte_vocabulary(), "bytes")

    async def answered(clerk: object, question: SchemaQuestion) -> object:
        return clerk

    async def answers() -> dict[Ask, object]:
        return {ask: await desk.ask(SchemaQuestion(ask=ask, text="")) for ask in Ask}

    monkeypatch.setattr(type(desk._typed), "ask", answered)
    by = asyncio.run(answers())
    typed = {ask for ask in Ask if by[ask] is desk._typed}
    assert typed == {Ask.FAULTS, Ask.HOVER, Ask.COMPLETE, Ask.DEFINE}
    assert all(by[ask] is desk._drawn for ask in Ask if ask not in typed)


def test_a_desk_is_ready_before_it_is_asked_and_what_is_drawn_yields() -> None:
    async def nice() -> list[int]:
        desk = SchemaDesk(byte_vocabulary(), "bytes")
        try:
            await desk.start()
            processes = [await clerk.alive() for clerk in (desk._typed, desk._drawn)]
            while os.getpriority(os.PRIO_PROCESS, processes[1].pid) == own:  # it is starting
                await asyncio.sleep(0.05)
            return [os.getpriority(os.PRIO_PROCESS, process.pid) for process in processes]
        finally:
            await desk.close()

    own = os.getpriority(os.PRIO_PROCESS, 0)
    typed, drawn = asyncio.run(nice())
    assert (typed, drawn) == (own, min(own + 10, 19))


def test_pages_do_not_take_each_others_turns() -> None:
    """Nor does one file that of another, of those that a page opens at once."""

    async def answers() -> list[dict[str, Any]]:
        desk = SchemaDesk(byte_vocabulary(nprdsl.load("arith").tags), "bytes", deadline_s=60.0)
        questions = [
            *(SchemaQuestion(ask=Ask.FAULTS, text=ARITH, page=page) for page in "abbc"),
            *(SchemaQuestion(ask=Ask.ROWS, text="", file=file) for file in "123"),
        ]
        try:
            answers = await asyncio.gather(*(desk.ask(question) for question in questions))
            return [json.loads(answer) for answer in answers]
        finally:
            await desk.close()

    clean, old = {"faults": []}, {"skipped": True}
    *typed, one, two, three = asyncio.run(answers())
    assert typed == [clean, old, clean, clean]
    assert [answer["rows"]["name"] for answer in (one, two, three)] == ["1", "2", "3"]


# runs


def messages(engine: LocalEngine, **asked: Any) -> list[tuple[str, dict[str, Any]]]:
    request = RunRequest(**{"schema_text": ARITH, "prompt": PROMPT, **asked})

    async def work() -> list[str]:
        return [message async for message in run_messages(engine, request)]

    parts = [message.removesuffix("\n\n").split("\n") for message in asyncio.run(work())]
    return [(e.removeprefix("event: "), json.loads(d.removeprefix("data: "))) for e, d in parts]


def test_a_run_sends_events_lanes_and_its_trace(engine: LocalEngine) -> None:
    sent = messages(engine)
    kinds = [kind for kind, _ in sent]
    assert set(kinds) == {"event", "live", "trace"} and kinds[-1] == "trace"
    view = TraceView.model_validate(sent[-1][1])
    assert view.outcome is not None and view.outcome.answer == r"\boxed{3169}"
    result = engine.generate(
        nprdsl.load("arith"), PROMPT, chat=True, sampling=Sampling(temperature=0)
    )
    assert view.text.endswith(result.text) and view.lanes.most_branches == 2
    live = [data["lanes"]["tokens"] for kind, data in sent if kind == "live"]
    assert live == sorted(live)


def test_a_model_that_does_not_know_the_format_is_helped(monkeypatch: pytest.MonkeyPatch) -> None:
    """The text in the editor is one of its own; the examples that fit it are those that ship."""
    tokenizer = byte_tokenizer(())
    one = LocalEngine(model("llama", len(tokenizer)), tokenizer)
    asked: dict[str, Any] = {}

    async def recorded(*given: object, **options: Any) -> AsyncIterator[Result]:
        asked.update(options)
        async for item in LocalEngine.astream(one, *given, **options):  # type: ignore[call-overload]
            yield item

    monkeypatch.setattr(one, "astream", recorded)
    npr = nprdsl.load("npr")
    text = source_of("npr").replace("~1..5", "~1..3")
    budget = {"prompt": "Why?", "max_tokens": 400}
    sent = messages(one, schema_text=text, schema_name="npr", **budget)
    assert sent[-1][0] == "trace"
    assert asked["instructions"] and asked["examples"] == list(npr.examples[:2])
    assert asked["limits"].text_tokens is not None and asked["limits"].max_tokens == 400
    assert asked["sampling"].penalises and npr.examples[0].question in asked["sampling"].avoid
    other = 'start: "<a>" TEXT "</a>"\n%declare TEXT\n'
    assert messages(one, schema_text=other, schema_name="npr", **budget)[-1][0] == "trace"
    assert asked["instructions"] and asked["examples"] == []


def test_a_schema_file_that_is_gone_has_no_examples(tmp_path: Path) -> None:
    """Where it was moved while the studio runs, a model that does not know it runs all the same."""
    tokenizer = byte_tokenizer(())
    engine = LocalEngine(model("llama", len(tokenizer)), tokenizer)
    text = 'start: "<guideline>" TEXT "</guideline>"\n%declare TEXT\n'
    request = RunRequest(schema_text=text, prompt="37", max_tokens=40, schema_name="my.lark")

    async def sent() -> list[str]:
        return [one async for one in run_messages(engine, request, str(tmp_path / "my.lark"))]

    assert asyncio.run(sent())[-1].startswith("event: trace")


def test_terminals_have_the_types_that_are_given() -> None:
    tokenizer = byte_tokenizer(nprdsl.load("npr").tags)
    engine = LocalEngine(model("llama", len(tokenizer)), tokenizer)
    types = typed_terminals(
        {"VERDICT": "yes|no", "DECISION": Literal["close", "reply"], "OTHER": "x"}
    )
    question = SchemaQuestion(ask=Ask.FAULTS, text=source_of("triage"))
    assert Answers(engine.vocabulary, "arith", types=types).answer(question) == {"faults": []}
    faults = Answers(engine.vocabulary, "arith").answer(question)["faults"]
    assert {fault["code"] for fault in faults} == {"untyped-terminal"}
    assert (
        pickle.loads(base64.b64decode(packed(engine.vocabulary, types)))[1].keys() == types.keys()
    )

    async def kinds() -> list[str]:
        request = RunRequest(schema_text=source_of("triage"), prompt="x", max_tokens=300)
        return [sent async for sent in run_messages(engine, request, types=types)]

    assert asyncio.run(kinds())[-1].startswith("event: trace")


def test_one_after_another_is_as_legal(engine: LocalEngine) -> None:
    view = TraceView.model_validate(messages(engine, parallel=False)[-1][1])
    assert view.outcome is not None and view.outcome.answer == r"\boxed{3169}"


def test_a_run_that_ends_before_its_trace_says_so(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = engine.submit(nprdsl.load("arith"), PROMPT, chat=True)
    engine.abort(number)
    result = engine.wait(number)

    async def cut(*_: object, **options: object) -> AsyncIterator[Result]:
        yield result

    monkeypatch.setattr(engine, "astream", cut)
    ((kind, data),) = messages(engine)
    assert kind == "refused" and "before its trace was whole (aborted)" in data["message"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"schema_text": MISSPELT}, "undefined-rule"),
        ({"max_tokens": 3}, "at least"),
        ({"prompt": "x" * 5000}, "positions"),
    ],
    ids=["schema", "budget", "prompt"],
)
def test_what_cannot_run_is_refused_in_words(
    engine: LocalEngine, asked: dict[str, Any], said: str
) -> None:
    ((kind, data),) = messages(engine, **asked)
    assert kind == "refused" and said in data["message"]


def test_who_leaves_stops_the_run(engine: LocalEngine) -> None:
    async def work() -> None:
        request = RunRequest(schema_text=ARITH, prompt=PROMPT)
        async with aclosing(run_messages(engine, request)) as sent:  # type: ignore[type-var]
            await anext(sent)

    asyncio.run(work())
    assert not engine._open


NESTED = """
%import .parallel (map, process, spawn, reduce, reread)
start: "<g>" spawn{one}~2..3 reread{end}
one: "<one>" list "</one>"
list: map{items} process{item, part} reduce{sum}
items: "<items>" item~1..2 "</items>"
item: "<item>" LABEL ":" TEXT "</item>"
part: "<part>" LABEL ":" inner "</part>"
inner: "<inner>" spawn{leaf}~1..2 reduce{last}
leaf: "<leaf>" TEXT "</leaf>"
last: "<last>" TEXT "</last>"
sum: "<sum>" TEXT "</sum>"
end: "<end>" TEXT "</end>"
LABEL: /[1-9]/
%declare TEXT
"""


def bytewise() -> tuple[LocalEngine, nprdsl.Schema]:
    """A random model that writes blocks in blocks."""
    schema = schema_of(NESTED)
    tokenizer = byte_tokenizer(schema.tags)
    return LocalEngine(model("qwen3", len(tokenizer)), tokenizer, max_kv_tokens=2048), schema


@pytest.mark.parametrize("name", ["arith", "npr", "nested"])
def test_live_lanes_end_as_those_of_the_trace(engine: LocalEngine, name: str) -> None:
    """The graph from events equals the one of the parser, once all has happened; before that it
    only grows, with every block that has forked."""
    engine, schema = bytewise() if name == "nested" else (engine, nprdsl.load(name))
    lanes, last, forks = LiveLanes(schema.grammar), 0, 0
    limits = nprdsl.Limits(max_tokens=150)
    sampling = Sampling(temperature=1.0, seed=3)
    ids = engine.vocabulary.encode("1+2?")
    for event in engine.stream(schema, ids, limits=limits, sampling=sampling):
        if isinstance(event, Result):
            assert event.trace is not None
            parsed, live = lanes_view(event.trace.graph), lanes.view().lanes
            assert live.tokens == parsed.tokens and live.critical_path == parsed.critical_path
            assert live.depth == parsed.depth == (3 if name == "nested" else 1)
            assert [(s.role, s.caption, s.lane, s.units) for s in live.segments] == [
                (s.role, s.caption, s.lane, s.units) for s in parsed.segments
            ]
        else:
            lanes.follow(event)
            forks += isinstance(event, ForkEvent)
            graph = lanes.graph()
            assert last <= graph.length and len(graph.forks) == forks
            last = graph.length


# the application


Client = Any
Work = Callable[[Client], Awaitable[Any]]


@pytest.fixture
def served(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[[Work], Any]:
    static = {"studio.css": "b {}", "studio.js": "let a = 1;"}
    monkeypatch.setattr(pages, "static_file", static.__getitem__)
    schema = studio_app.ShippedSchema(name="</script>", text=ARITH, prompt=PROMPT)
    files = {"mine.jsonl": tmp_path / "mine.jsonl", "gone": tmp_path / "gone"}
    files["mine.jsonl"].write_text('{"text": "a"}')
    settings = studio_app.StudioSettings("arith", (schema,), "</script>", files, token="secret")

    def run(work: Work) -> Any:
        async def inside() -> Any:
            made = studio_app.make_studio(engine, settings)
            transport = httpx.ASGITransport(app=made)
            client = httpx.AsyncClient(transport=transport, base_url="http://here")
            async with client, made.router.lifespan_context(made):
                return await work(client)

        return asyncio.run(inside())

    return run


def test_the_page_needs_its_token(served: Callable[[Work], Any]) -> None:
    async def work(client: Client) -> list[Any]:
        paths = ["/studio/", "/studio/?token=wrong", "/studio/?token=secret"]
        return [await client.get(path) for path in paths]

    without, wrong, page = served(work)
    assert (without.status_code, wrong.status_code, page.status_code) == (403, 403, 200)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "connect-src 'self'" in policy
    assert "unsafe" not in policy and page.headers["x-frame-options"] == "DENY"
    assert page.text.count("</script>") == 2  # the schema's name is data


def test_a_studio_for_other_machines_asks_for_its_password(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address holds no token then, and the page brings it along."""
    monkeypatch.setattr(pages, "static_file", lambda name: "")
    schema = studio_app.ShippedSchema(name="arith", text=ARITH, prompt="")
    settings = studio_app.StudioSettings("arith", (schema,), "arith", password="geheim: ß")

    async def statuses() -> list[int]:
        transport = httpx.ASGITransport(app=studio_app.make_studio(engine, settings))
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            given = [
                {},
                {"Authorization": "Basic !"},
                {"Authorization": f"Bearer {settings.token}"},
                *(
                    {"Authorization": f"Basic {basic(word)}"}
                    for word in ("", "geheim", "geheim: ß")
                ),
            ]
            answers = [await client.get("/studio/", headers=headers) for headers in given]
            answers.append(await client.get(f"/studio/?token={settings.token}"))
            assert answers[0].headers["www-authenticate"].startswith("Basic")
            assert settings.token in answers[5].text
            question = {"ask": "faults", "text": ARITH}
            answers.append(await client.post("/studio/ask", json=question, headers=given[5]))
            return [answer.status_code for answer in answers]

    def basic(password: str) -> str:
        return base64.b64encode(f"me:{password}".encode()).decode()

    assert asyncio.run(statuses()) == [401, 401, 401, 401, 401, 200, 401, 403]


def test_files_are_read_by_their_names_alone(served: Callable[[Work], Any]) -> None:
    async def work(client: Client) -> list[Any]:
        known = {studio_app.HEADER: "secret"}
        names = ("mine.jsonl", "gone", "/etc/hostname")
        asked = [{"ask": "rows", "text": "", "file": name} for name in names]
        return [(await client.post("/studio/ask", json=one, headers=known)).json() for one in asked]

    mine, gone, other = served(work)
    assert [row["text"] for row in mine["rows"]["rows"]] == ["a"]
    assert "cannot read" in gone["failed"] and other["rows"]["rows"] == []


def test_questions_and_runs_need_the_token_too(served: Callable[[Work], Any]) -> None:
    question = {"ask": "faults", "text": MISSPELT}

    async def work(client: Client) -> list[Any]:
        known = {studio_app.HEADER: "secret"}
        return [
            await client.post("/studio/ask", json=question),
            await client.post("/studio/run", json={}, headers={studio_app.HEADER: "secre"}),
            await client.post("/studio/ask", json=question, headers=known),
            await client.post("/studio/ask", json={"ask": "what"}, headers=known),
            await client.post(
                "/studio/run", json={"schema_text": ARITH, "prompt": PROMPT}, headers=known
            ),
        ]

    asked, run, answered, wrong, stream = served(work)
    assert (asked.status_code, run.status_code) == (403, 403)
    assert answered.json()["faults"][0]["code"] == "undefined-rule"
    assert wrong.status_code == 400 and "ask" in wrong.json()["error"]
    assert stream.headers["content-type"].startswith("text/event-stream")
    assert stream.text.rstrip().split("\n")[-2] == "event: trace"
