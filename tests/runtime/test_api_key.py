"""A server with a key: it is sent from where it stands, and its refusal says what is missing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from nprdsl.runtime.api_key import VARIABLE, api_key
from nprdsl.runtime.errors import EngineUnavailableError
from nprdsl.runtime.sglang.client.engine import SGLangEngine
from nprdsl.runtime.sglang.client.transport import ServerError, Transport
from tests.cli.commands import invoke
from tests.runtime.tiny_models import byte_tokenizer

KEY = "sk-1234"
NO_MODEL = {"served_model_name": "m", "tokenizer_path": "/no/such/folder"}
COMMANDS = {"run": ["run", "x"], "eval": ["eval", "--suite", "arith"]}


class Guarded(BaseHTTPRequestHandler):
    """Answers calls with the key."""

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == f"Bearer {KEY}"
        answer = {"max_req_input_len": 100, "max_total_num_tokens": 100, **NO_MODEL}
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(json.dumps(answer if known else {"error": "Unauthorized"}).encode())

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def guarded() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Guarded) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def _no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_a_key_is_given_or_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert api_key(None) == "" and api_key(" x\n") == "x"
    monkeypatch.setenv(VARIABLE, f"{KEY}\n")
    assert api_key(None) == KEY and api_key("x") == "x" and api_key("") == ""


@pytest.mark.parametrize("key", ["a\nb", "schlüssel", "a\x00"])
def test_a_key_that_no_header_takes_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="the API key has characters that no header takes"):
        api_key(key)


@pytest.mark.parametrize("call", ["get", "post", "events"])
def test_every_call_says_what_is_missing(call: str) -> None:
    with guarded() as url:
        body = () if call == "get" else ({},)
        for key, told in ((None, "asks for an API key"), ("wrong", "does not take this API key")):
            with pytest.raises(ServerError, match=told) as raised:
                list(getattr(Transport(url, key), call)("/x", *body))
            assert raised.value.status == 401 and "wrong" not in str(raised.value)
        assert Transport(url, KEY).get("/x")["max_req_input_len"] == 100


def test_an_engine_has_the_key_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded() as url:
        with pytest.raises(EngineUnavailableError, match=f"asks for an API key .* set {VARIABLE}"):
            SGLangEngine(url)
        monkeypatch.setenv(VARIABLE, "wrong")
        with pytest.raises(EngineUnavailableError, match="does not take this API key"):
            SGLangEngine(url)
        with pytest.raises(EngineUnavailableError, match="does not take this API key"):
            SGLangEngine("http://127.0.0.1:9", worker=url, tokenizer=byte_tokenizer(()))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_commands_send_it(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with guarded() as url:
        refused = invoke(*command, "--engine", url)
        wrong = invoke(*command, "--engine", url, "--api-key", "wrong")
        monkeypatch.setenv(VARIABLE, KEY)
        further = invoke(*command, "--engine", url)  # the key is right; no model is there
    assert refused.exit_code == wrong.exit_code == 2
    assert refused.stderr.startswith(f"error: the server at {url} asks for an API key")
    assert wrong.stderr.startswith(f"error: the server at {url} does not take this API key")
    assert "API key" not in further.stderr


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_key_without_a_server_is_refused(command: list[str]) -> None:
    result = invoke(*command, "--api-key", KEY)
    assert result.exit_code == 2
    assert "--api-key is that of a server; give its address with --engine" in result.stderr


def test_a_stage_that_samples_sends_it(tmp_path: Path) -> None:
    """`engine.address` of the trainers."""
    problems = tmp_path / "problems.jsonl"
    problems.write_text('{"problem": "1+1", "answer": "2"}\n')
    config = tmp_path / "sample.toml"
    with guarded() as url:
        config.write_text(
            f'schema = "npr"\noutput = "{tmp_path / "out.jsonl"}"\n[model]\npath = "arith"\n'
            f'[engine]\naddress = "{url}"\n[data]\nsource = "{problems}"\n'
        )
        result = invoke("sample", "--config", config)
    assert result.exit_code == 2
    assert result.stderr.startswith(f"error: the server at {url} asks for an API key")
