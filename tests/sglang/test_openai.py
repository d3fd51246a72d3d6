"""The stock OpenAI client against a real server: chats with a schema, and chats without."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

import nprdsl
from nprdsl.machine.budget import Limits
from nprdsl.runtime import LocalEngine, Sampling
from nprdsl.runtime.http.wire_forms import SchemaForm
from nprdsl.runtime.sglang.client.transport import Transport
from nprdsl.runtime.sglang.protocol import TOKENIZER_PATH
from tests.sglang.served import ANSWER, PROMPT, Served

ARITH = nprdsl.load("arith")
MESSAGES: Any = [{"role": "user", "content": PROMPT}]


@pytest.fixture(scope="module")
def client(served: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)


def chat(client: openai.OpenAI, extra: dict[str, Any], **options: Any) -> Any:
    return client.chat.completions.create(
        model="arith", messages=options.pop("messages", MESSAGES), extra_body=extra, **options
    )


def at_once(*asked: Callable[[], Any]) -> list[Any]:
    """The answers to chats that run beside each other: they share the server's steps."""
    with ThreadPoolExecutor(len(asked)) as clients:
        return list(clients.map(lambda ask: ask(), asked))


def last_chunk(client: openai.OpenAI, extra: dict[str, Any], **options: Any) -> Any:
    *_, last = chat(client, extra, stream=True, **options)
    return last.choices[0].delta.trace


def refused(client: openai.OpenAI, extra: dict[str, Any], **options: Any) -> str:
    with pytest.raises(openai.BadRequestError) as caught:
        chat(client, extra, **options)
    assert caught.value.status_code == 400
    message: str = caught.value.body["message"]  # type: ignore[index]
    return message


def test_the_answer_is_the_message_and_the_trace_a_field(client: openai.OpenAI) -> None:
    done = chat(client, {"schema": "arith"})
    (choice,) = done.choices
    assert choice.message.content == ANSWER
    assert choice.finish_reason == "stop"
    trace = choice.message.trace
    assert ARITH.check(trace["text"].removesuffix("<eos>")) == []
    assert trace["finish"] == "completed"
    assert len(trace["token_ids"]) == len(trace["logprobs"]) == done.usage.completion_tokens
    assert trace["critical_path"] < done.usage.completion_tokens, "nothing ran in parallel"
    assert trace["forwards"] < trace["sampled_tokens"], "nothing ran in parallel"
    assert trace["graph"] is not None


def test_chunks_carry_branches_and_end_with_the_answer(client: openai.OpenAI) -> None:
    chunks = list(
        chat(client, {"schema": "arith"}, stream=True, stream_options={"include_usage": True})
    )
    *parts, last, usage = chunks
    assert usage.choices == [] and usage.usage.completion_tokens > 100
    assert last.choices[0].finish_reason == "stop"
    assert last.choices[0].delta.trace["kind"] == "trace"
    said = [c.choices[0].delta.content for c in parts if c.choices[0].delta.content]
    assert "".join(said) == ANSWER
    assert len(said) > 3, "the answer came all at once"
    events = [c.choices[0].delta.trace for c in parts if "trace" in c.choices[0].delta.model_extra]
    texts: dict[int, str] = {}
    for event in events:
        if event["kind"] == "token":
            texts[event["branch"]] = texts.get(event["branch"], "") + event["text"]
    (fork,) = [event for event in events if event["kind"] == "fork"]
    assert fork["children"] == [1, 2] and fork["labels"] == ["1", "2"]
    assert fork["rule"] == "step"
    assert texts[1].startswith("<step>1:37*42") and texts[2].startswith("<step>2:85*19")
    order = [event["branch"] for event in events if event["kind"] == "token"]
    assert order.index(2) < len(order) - 1 - order[::-1].index(1), "one branch after another"
    assert last.choices[0].delta.trace["text"].startswith(texts[0].partition("<takeaway>")[0])


def test_settings_reach_the_trace(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"temperature": 1.5, "seed": 3}
    arith = {"schema": "arith"}
    greedy = {**arith, "rules": {name: {"temperature": 0.0} for name in ARITH.grammar.rules}}
    short, one, two, cold, told = at_once(
        lambda: chat(client, arith, max_completion_tokens=40),
        lambda: chat(client, arith, **options),
        lambda: chat(client, arith, n=2, **options),
        lambda: chat(client, greedy, **options),
        lambda: chat(client, arith, logprobs=True),
    )
    assert short.choices[0].finish_reason == "length"
    assert short.usage.completion_tokens <= 40
    assert one.choices[0].message.trace["text"] == two.choices[0].message.trace["text"]
    assert [choice.index for choice in two.choices] == [0, 1]
    assert cold.choices[0].message.content == ANSWER
    (choice,) = told.choices
    assert len(choice.logprobs.content) == choice.message.trace["sampled_tokens"]
    assert all(entry.logprob <= 0 for entry in choice.logprobs.content)


def test_a_seed_is_drawn_for_each_chat_that_names_none(client: openai.OpenAI) -> None:
    """Self-consistency asks the same again and again; told, a seed repeats its answer."""
    # so hot because the bundled model is sure of itself: at 1.5 its answers are mostly equal
    options: dict[str, Any] = {"temperature": 5.0, "max_tokens": 80}
    arith = {"schema": "arith"}
    asked = [lambda: chat(client, arith, **options)] * 5
    *drawn, pair, told = at_once(
        *asked,
        lambda: chat(client, arith, n=2, **options),
        lambda: last_chunk(client, arith, **options),
    )
    traces = [done.choices[0].message.trace for done in drawn]
    assert len({trace["seed"] for trace in traces}) == 5
    assert len({trace["text"] for trace in traces}) > 1
    one, two = (choice.message.trace["seed"] for choice in pair.choices)
    assert two == one + 1
    first, streamed = at_once(
        lambda: chat(client, arith, seed=traces[0]["seed"], **options),
        lambda: chat(client, arith, seed=told["seed"], **options),
    )
    assert first.choices[0].message.trace["text"] == traces[0]["text"]
    assert streamed.choices[0].message.trace["token_ids"] == told["token_ids"]


def test_log_probabilities_come_with_the_chunks(client: openai.OpenAI) -> None:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}}
    *parts, last, usage = chat(client, {"schema": "arith"}, logprobs=True, **options)
    entries = [e for c in parts if c.choices[0].logprobs for e in c.choices[0].logprobs.content]
    assert len(entries) == last.choices[0].delta.trace["sampled_tokens"]
    details = usage.usage.completion_tokens_details.model_extra
    assert details["critical_path"] == last.choices[0].delta.trace["critical_path"]
    assert details["branches"] == 2


def test_schemas_are_listed(served: Served, bundled: LocalEngine) -> None:
    listed = httpx.get(f"{served.url}/v1/schemas", timeout=60).raise_for_status().json()["data"]
    (arith,) = (entry for entry in listed if entry["id"] == "arith")
    assert arith["tags"] == list(ARITH.tags)
    assert arith["minimum"] == bundled.bind(ARITH).minimum


def test_the_servers_own_description_is_whole(served: Served) -> None:
    paths = httpx.get(f"{served.url}/openapi.json", timeout=30).raise_for_status().json()["paths"]
    assert "/v1/chat/completions" in paths and TOKENIZER_PATH in paths


PENALTIES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"frequency_penalty": 1.5}, {}),
    ({"presence_penalty": 2.0}, {}),
    ({"frequency_penalty": -2.0, "presence_penalty": -1.0}, {}),
    ({"frequency_penalty": 0.5}, {"step": {"frequency_penalty": 2.0, "temperature": 0.8}}),
    ({}, {"step": {"presence_penalty": 2.0}}),
]


def test_penalties_are_those_of_the_local_engine(
    client: openai.OpenAI, bundled: LocalEngine
) -> None:
    """Frequency and presence penalties, of the whole trace or of single rules, streamed or not."""
    drawn, limits = {"temperature": 2.5, "seed": 5}, Limits(max_tokens=120)
    each = [
        Sampling(rules=rules, **drawn, **settings) for settings, rules in [({}, {}), *PENALTIES]
    ]
    plain, *wanted = bundled.generate(ARITH, [MESSAGES] * len(each), limits=limits, sampling=each)

    def asked(ask: Callable[..., Any], settings: Any, rules: Any) -> Callable[[], Any]:
        options = {**drawn, **settings, "max_tokens": limits.max_tokens}
        return lambda: ask(client, {"schema": "arith", "rules": rules}, **options)

    whole = at_once(*(asked(chat, *penalties) for penalties in PENALTIES))
    streamed = at_once(*(asked(last_chunk, *penalties) for penalties in PENALTIES))
    for penalties, one, done, last in zip(PENALTIES, wanted, whole, streamed, strict=True):
        trace = done.choices[0].message.trace
        assert one.token_ids != plain.token_ids, f"{penalties} change nothing"
        assert trace["token_ids"] == list(one.token_ids), penalties
        assert trace["logprobs"] == pytest.approx(list(one.logprobs), abs=1e-3)
        assert last["token_ids"] == trace["token_ids"], penalties


def test_a_schema_may_come_as_its_text(client: openai.OpenAI, tmp_path: Path) -> None:
    source = (Path(nprdsl.__file__).parent / "grammars" / "arith.lark").read_text()
    changed = source.replace("plan~1..12", "plan~1..2")
    assert changed != source
    file = tmp_path / "two_at_most.lark"
    file.write_text(changed)
    form = SchemaForm.of(nprdsl.load(file)).model_dump()
    for schema, plans in (("arith", 3), (form, 2)):
        messages = [{"role": "user", "content": "37*42+85*19+60*23?"}]
        done = chat(client, {"schema": schema}, messages=messages, temperature=0.0)
        first, _, _ = done.choices[0].message.trace["text"].partition("</guideline>")
        assert first.count("<plan>") == plans


@pytest.mark.parametrize(
    ("extra", "options", "message"),
    [
        ({"schema": "arth"}, {}, "no schema is named `arth`; did you mean `arith`?"),
        ({"schema": "arith"}, {"max_tokens": 5}, "takes 16 tokens: allow at least 16"),
        ({"schema": "arith", "limits": {"max_tokens": 5}}, {}, "takes 16 tokens"),
        ({"schema": "arith", "limits": {"max_tokns": 5}}, {}, "limits.max_tokns: Extra inputs"),
        ({"schema": "arith", "limts": {}}, {}, "no field `limts`; did you mean `limits`?"),
        ({"schema": "arith", "join": 0}, {}, "quorum must be at least 1"),
        ({"schema": "arith", "regex": "a*"}, {}, "`regex` has no meaning"),
        ({"schema": "arith"}, {"stop": ["a"]}, "`stop` has no meaning"),
        ({"schema": "arith"}, {"temperature": -1.0}, "`temperature` is -1.0"),
        ({"schema": "arith"}, {"frequency_penalty": 2.5}, "`frequency_penalty` is 2.5"),
        ({"schema": "arith"}, {"presence_penalty": -3.0}, "`presence_penalty` is -3.0"),
        ({"schema": "arith", "rules": {"stp": {"top_k": 1}}}, {}, "`stp`, which is no rule"),
        ({"schema": {"name": "own", "source": "start: ("}}, {}, "own.lark:1"),
        ({"schema": 7}, {}, "malformed"),
        ({"schema": "arith", "colour": 1}, {}, "no field `colour`"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_cannot_work_is_a_400_that_says_so(
    client: openai.OpenAI, extra: dict[str, Any], options: dict[str, Any], message: str
) -> None:
    assert message in refused(client, extra, **options)
    assert message in refused(client, extra, stream=True, **options)


def test_images_and_unknown_characters_are_refused(client: openai.OpenAI) -> None:
    image = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]
    assert "takes text only" in refused(client, {"schema": "arith"}, messages=image)
    for text, missing in (("zebra", "z"), ("85-19?", "-")):
        asked = [{"role": "user", "content": text}]
        told = refused(client, {"schema": "arith"}, messages=asked)
        assert f"no token for '{missing}'" in told
    parts = [{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]
    assert chat(client, {"schema": "arith"}, messages=parts).choices[0].message.content == ANSWER


def test_chats_without_a_schema_are_untouched(client: openai.OpenAI, served: Served) -> None:
    plain = chat(client, {}, max_tokens=12, temperature=0.0)
    assert "trace" not in plain.choices[0].message.model_extra
    asked = {"role": "user", "content": PROMPT}
    body = {"model": "arith", "messages": [asked], "max_tokens": 12, "temperature": 0}
    raw = Transport(served.url).post("/v1/chat/completions", body)
    assert raw["choices"][0]["message"]["content"] == plain.choices[0].message.content
    assert "trace" not in raw["choices"][0]["message"]


def test_many_clients_at_once(served: Served) -> None:
    async def ask() -> list[str | None]:
        client = openai.AsyncOpenAI(base_url=f"{served.url}/v1", api_key="none", max_retries=0)
        async with client:
            asked = [
                client.chat.completions.create(
                    model="arith",
                    messages=MESSAGES,
                    extra_body={"schema": "arith"} if i % 2 else {},
                    max_tokens=400,
                    temperature=0,
                )
                for i in range(8)
            ]
            done = await asyncio.gather(*asked)
        return [one.choices[0].message.content for one in done]

    answers = asyncio.run(ask())
    assert answers[1::2] == [ANSWER] * 4
    assert len(set(answers[0::2])) == 1


def test_a_client_that_goes_away_leaves_nothing(served: Served) -> None:
    body = {"model": "arith", "messages": MESSAGES, "schema": "arith", "stream": True}
    for stream in (True, False):
        timeout = httpx.Timeout(10.0, read=10.0 if stream else 0.2)
        with httpx.Client(timeout=timeout) as http:
            url = f"{served.url}/v1/chat/completions"
            if stream:
                with http.stream("POST", url, json=body) as response:
                    lines = response.iter_lines()
                    assert json.loads(next(lines).removeprefix("data: "))["choices"]
            else:
                with pytest.raises(httpx.ReadTimeout):
                    http.post(url, json={**body, "stream": False, "n": 8})
    # and `nothing_left` waits until the server has nothing to do
