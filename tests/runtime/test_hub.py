"""A model or a dataset that the hub is asked for: one question, one answer."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from huggingface_hub import constants

from nprdsl.runtime.hub import RepoKind, why_not


class _Hub(BaseHTTPRequestHandler):
    asked: list[str]

    def do_GET(self) -> None:
        _, asked, name = re.split("(/api/models/|/api/datasets/|^)", self.path, maxsplit=1)
        if asked:  # the library may ask for other things of its own
            self.asked.append(name)
        code = {"Gated": "GatedRepo", "Missing": "RepoNotFound"}.get(name.partition("/")[0])
        self.send_response({"GatedRepo": 403, "RepoNotFound": 404}.get(code or "", 500))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    _Hub.asked = []
    server = HTTPServer(("127.0.0.1", 0), _Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield _Hub.asked
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Missing/model", "no such model on the hub"),
        ("Gated/model", "hf auth login"),
        ("Broken/model", "the hub cannot be reached: Server error '500"),
    ],
)
def test_what_the_hub_answers(name: str, said: str, asked: list[str]) -> None:
    reason = why_not(name)
    assert reason is not None
    assert said in reason
    assert asked == [name]  # once, not for a minute


def test_a_dataset(asked: list[str]) -> None:
    reason = why_not("Missing/problems", RepoKind.DATASET)
    assert reason is not None
    assert "no such dataset on the hub" in reason
    assert asked == ["Missing/problems"]


def test_a_hub_that_cannot_be_reached(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    reason = why_not("some/model")
    assert reason is not None
    assert "cannot be reached" in reason
    assert asked == []


def test_no_question_offline(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert (
        why_not("Missing/model") == "it is not on disk, and HF_HUB_OFFLINE forbids to ask the hub"
    )
    assert asked == []


def test_a_name_that_is_none(asked: list[str]) -> None:
    assert why_not("two..dots") is not None
    assert asked == []
