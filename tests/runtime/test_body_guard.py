"""What a body may be is looked at before anything reads it; without SGLang."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest

from nprdsl.runtime.http.body_guard import BodyGuard
from tests.runtime.guarded import send_through

PIECE = b" " * 1000


def asked(
    body: list[bytes], headers: dict[str, str] | None = None, megabytes: float = 0.01
) -> tuple[int, int, bytes]:
    """The status, how many pieces of the body were taken, and what the application read."""
    return send_through(partial(BodyGuard, megabytes=megabytes), body, headers=headers)


def test_a_body_that_is_too_large_is_not_read_to_its_end() -> None:
    assert asked([PIECE] * 5000) == (413, 11, b"")
    assert asked([PIECE] * 10) == (200, 10, PIECE * 10)


def test_a_body_that_says_that_it_is_too_large_is_not_read_at_all() -> None:
    assert asked([b"{}"], {"content-length": "10001"}) == (413, 0, b"")
    assert asked([b"{}"], {"content-length": "10000"})[0] == 200
    assert asked([b"{}"], {"content-length": "9" * 5000})[0] in (200, 413)


@pytest.mark.parametrize("body", [b"[]", b" [{}]", b"7", b"-1.5", b'"x"', b"null", b"true"])
def test_json_that_is_no_object_is_refused(body: bytes) -> None:
    assert asked([body])[0] == 400
    assert asked([body], {"content-type": "application/octet-stream"}) == (200, 1, body)


@pytest.mark.parametrize("body", [b"", b"{", b"{}", b"nonsense", b'{"a": [1]}', b"\n {}"])
def test_what_the_endpoints_say_themselves_comes_to_them(body: bytes) -> None:
    assert asked([body]) == (200, 1, body)


def test_a_response_format_is_an_object() -> None:
    for value in (b"[7]", b'"x"', b"7"):
        assert asked([b'{"response_format": ' + value + b"}"])[0] == 400
    for value in (b"null", b'{"type": "text"}', b"{"):
        assert asked([b'{"response_format": ' + value + b"}"])[0] == 200


MESSAGE = {"role": "user", "content": "x"}
PART = {"type": "text", "text": ""}


@pytest.mark.parametrize(
    ("name", "entry", "objects"),
    [
        ("messages", MESSAGE, 1),
        ("input", MESSAGE, 1),
        ("messages", {"role": "user", "content": [PART] * 3}, 4),
        ("tools", {"type": "function", "function": {"name": "f"}}, 2),
    ],
)
def test_the_objects_of_a_body_have_a_bound(name: str, entry: Any, objects: int) -> None:
    """A valid chat of 230,000 messages kept SGLang's loop for ten seconds."""
    fit = 9_999 // objects  # the body is one itself
    for number, status in ((fit, 200), (fit + 1, 400)):
        body = json.dumps({"model": "m", name: [entry] * number}).encode()
        assert asked([body], megabytes=8)[0] == status


def test_what_a_text_holds_is_not_counted() -> None:
    text = json.dumps([{}] * 50_000)
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    assert asked([body], megabytes=8)[0] == 200
