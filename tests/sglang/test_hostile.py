"""Requests that strangers may send: each is told what is wrong with it; nothing else happens."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from sglang.srt.entrypoints.openai.protocol import ChatCompletionRequest

from nprdsl.runtime.http.request_fields import ROUTING, TRACE_CHAT
from tests.sglang.served import ANSWER, PROMPT, Served

CHAIN = "start: a0\n" + "\n".join(f"a{n}: a{n + 1}" for n in range(3000)) + '\na3000: "1"'
SCHEMAS: dict[str, dict[str, Any]] = {
    "imports itself": {
        "source": "%import .x.A\nstart: A",
        "imports": {"x.lark": "%import .x.A"},
    },
    "long name": {"source": 'start: "z"', "imports": {"y" * 5000 + ".lark": 'A: "1"'}},
    "deep regex": {"source": "start: T\nT: /" + "(" * 5000 + "1" + ")" * 5000 + "/"},
    "count": {"source": 'start: "1"~1000000000'},
    "unspellable": {"source": CHAIN.replace('"1"', '"<z>"')},
    "source that is none": {"source": 7},
    "name of a file": {"name": "../../etc/passwd"},
}
FREE = {"temperature": 1.0}
GOOD = {"nprdsl": {"language": {"name": "arith"}}}
STOCK: dict[str, tuple[int, dict[str, Any]]] = {  # status and fields of /generate
    "id beyond the model": (400, {"input_ids": [1, 1_000_000]}),
    "negative id": (400, {"input_ids": [[1, 2], [-1]]}),
    "empty text": (400, {"text": ""}),
    "no ids in a batch": (400, {"input_ids": [[1], []]}),
    "empty text beside others": (400, {"text": ["3*4?", ""]}),
    "more tokens than there are": (
        400,
        {"text": "3*4?", "return_logprob": True, "top_logprobs_num": 1000},
    ),
    "top_k beyond a number": (400, {"text": "3*4?", "params": {"top_k": 2**40}}),
    "answers without end": (400, {"text": "3*4?", "params": {"n": 10**6}}),
    "a stop without end": (400, {"text": "3*4?", "params": {"stop_regex": "((a*)*)*!"}}),
    "a stop that is no regex": (400, {"text": "3*4?", "params": {"stop_regex": "("}}),
    "a long grammar": (400, {"text": "3*4?", "params": {"regex": "1" * 70_000}}),
    "nothing can be written": (
        500,
        {"text": "3*4?", "params": {"regex": "z+", "max_new_tokens": 4, **FREE}},
    ),
    "a penalty by nothing": (
        200,
        {"text": "3*4?", "params": {"repetition_penalty": 1e-308, **FREE}},
    ),
    "a bias without end": (
        200,
        {"text": "3*4?", "params": {"logit_bias": dict.fromkeys("0123", 1e308), **FREE}},
    ),
    "prompts without end": (400, {"text": ["1"] * 5000}),
    "prompts and answers": (400, {"text": ["1"] * 50, "params": {"n": 100}}),
    "a text beyond all positions": (400, {"text": "1" * 1_000_000}),
    "lists for one prompt": (400, {"text": "3*4?", "return_hidden_states": []}),
    "names for one prompt": (400, {"input_ids": [1], "rid": ["a", "b"]}),
    "no settings": (400, {"text": "3*4?", "params": []}),
    "settings that are none": (400, {"text": ["3*4?"], "params": [7]}),
    "narrow embeddings": (400, {"input_embeds": [[0.1, 0.2]]}),
    "row of a trace": (400, {"text": "3*4?", "rid": "other#branch-1"}),
    "a schema elsewhere": (400, {"text": "3*4?", "schema": "arith"}),
    "text as parameters": (200, {"text": "3*4?", "custom": "nprdsl"}),
    "list as parameters": (200, {"text": "3*4?", "custom": ["nprdsl"]}),
    "null as a request": (400, {"text": "3*4?", "custom": {"nprdsl": None}}),
    "priority": (400, {"text": "3*4?", "priority": 7, "custom": GOOD}),
    "hidden states": (400, {"text": "3*4?", "return_hidden_states": True, "custom": GOOD}),
    "stop": (400, {"text": "3*4?", "custom": GOOD, "stop": ["a"]}),
    "a grammar of its own": (200, {"text": "3*4?", "custom": GOOD | {"nprdsl_grammar": "gASV"}}),
}


@pytest.fixture(scope="module")
def http(served: Served) -> Any:
    with httpx.Client(base_url=served.url, timeout=30) as client:
        yield client


def generate(http: httpx.Client, fields: dict[str, Any]) -> httpx.Response:
    fields = dict(fields)
    params: Any = {"max_new_tokens": 1, "temperature": 0}
    params |= {"custom_params": fields.pop("custom", None), "stop": fields.pop("stop", None)}
    given = fields.pop("params", {})
    params = params | given if isinstance(given, dict) else given
    return http.post("/generate", json={"sampling_params": params, **fields})


@pytest.fixture(autouse=True)
def all_is_well(http: httpx.Client) -> Any:
    yield
    asked = {"messages": [{"role": "user", "content": PROMPT}], "schema": "arith"}
    done = http.post("/v1/chat/completions", json=asked).json()
    assert done["choices"][0]["message"]["content"] == ANSWER


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{}] * 5000}),
        ("/v1/completions", {"prompt": [None] * 5000}),
        ("/generate", {"input_ids": [1], "sampling_params": [None, 7] * 2500}),
        ("/v1/chat/completions", {"messages": [{}] * 5000, "schema": "arith"}),
    ],
)
def test_a_list_of_wrong_entries_is_refused_for_the_first(
    http: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    told = http.post(path, json={"model": "arith", **body})
    assert told.status_code == 400
    assert told.text.count("'loc'") < 20, told.text[:500]


def test_hostile_schemas_are_refused(http: httpx.Client) -> None:
    for name, form in SCHEMAS.items():
        language = {"name": "x", **form}
        custom = {"nprdsl": {"language": language}}
        told = generate(http, {"text": "3*4?", "custom": custom})
        assert told.status_code == 400, (name, told.text)
        chat = {"messages": [{"role": "user", "content": "3*4?"}], "schema": language}
        told = http.post("/v1/chat/completions", json=chat)
        assert told.status_code == 400, (name, told.text)


def test_hostile_fields_are_refused(http: httpx.Client) -> None:
    for name, (status, fields) in STOCK.items():
        told = generate(http, fields)
        assert told.status_code == status, (name, told.text)


@pytest.mark.parametrize("path", ["/generate", "/v1/chat/completions", "/v1/responses", "/ag-ui"])
def test_bodies_that_are_none_are_refused(http: httpx.Client, path: str) -> None:
    for body in ("[]", "7", '"x"', "null", "[" * 100_000):
        head = {"content-type": "application/json"}
        assert http.post(path, content=body, headers=head).status_code == 400, body
    assert http.post(path, json={"text": "1" * 9_000_000}).status_code == 413


@pytest.mark.parametrize("path", ["completions", "messages"])
def test_a_schema_is_never_dropped(http: httpx.Client, path: str) -> None:
    asked = {"model": "arith", "prompt": "1", "messages": [{"role": "user", "content": "1"}]}
    told = http.post(f"/v1/{path}", json={**asked, "max_tokens": 4, "schema": "arith"})
    assert told.status_code == 400 and "schema" in told.text


def test_every_field_of_a_chat_is_in_the_list() -> None:
    """SGLang's own, as of the version that is tested; those of its routers and debuggers are not
    known to a chat with a schema, and are refused as unknown."""
    stock = set(ChatCompletionRequest.model_fields)
    inner = {"bootstrap_host", "bootstrap_port", "bootstrap_room", "disagg_prefill_dp_rank"}
    debug = {name for name in stock if name.startswith("return_flat_raw")}
    assert stock - inner - debug - {*TRACE_CHAT.known, *ROUTING} == set()


def test_an_abort_by_its_name_ends_all_answers_of_a_chat(http: httpx.Client) -> None:
    content = "+".join(["37*42"] * 8) + "?"
    asked = {"messages": [{"role": "user", "content": content}], "schema": "arith", "n": 4}
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(http.post("/v1/chat/completions", json={**asked, "rid": "mine"}))

    thread = threading.Thread(target=ask)
    thread.start()
    while thread.is_alive():
        http.post("/abort_request", json={"rid": "mine"})
        thread.join(0.05)
    reasons = {choice["finish_reason"] for choice in answers[0].json()["choices"]}
    assert reasons == {"abort"}


def test_an_abort_ends_the_request_of_that_name_only(http: httpx.Client) -> None:
    """SGLang takes the name for the beginning of one; a client could end what others ran."""
    content = "+".join(["37*42"] * 8) + "?"
    chat = {"messages": [{"role": "user", "content": content}], "schema": "arith", "rid": "ab-1"}
    params = {"max_new_tokens": 400, "ignore_eos": True}
    text = {"text": "3*4?", "sampling_params": params}
    with ThreadPoolExecutor(3) as threads:
        trace = threads.submit(http.post, "/v1/chat/completions", json=chat)
        plain = threads.submit(http.post, "/generate", json={**text, "rid": "ab-2"})
        mine = threads.submit(http.post, "/generate", json={**text, "rid": "ab-"})
        while not mine.done():
            http.post("/abort_request", json={"rid": "ab-"})
            time.sleep(0.05)
    assert mine.result().json()["meta_info"]["finish_reason"]["type"] == "abort"
    assert plain.result().json()["meta_info"]["finish_reason"]["type"] == "length"
    assert trace.result().json()["choices"][0]["finish_reason"] in ("stop", "length")


def test_samples_of_a_name_that_is_used_again_are_those_of_before(http: httpx.Client) -> None:
    """They were counted on, so that the same request with the same seed got other answers."""
    settings = {"sampling": {"temperature": 5.0, "seed": 3}, "limits": {"max_tokens": 60}}
    params = {"n": 2, "custom_params": {"nprdsl": {**GOOD["nprdsl"], **settings}}}
    asked = {"text": "3*4?", "rid": "again", "sampling_params": params}
    one, two = (http.post("/generate", json=asked).json() for _ in range(2))
    assert [answer["output_ids"] for answer in one] == [answer["output_ids"] for answer in two]
