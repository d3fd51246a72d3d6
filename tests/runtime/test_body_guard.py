"""What a body may be is looked at before anything reads it; without SGLang."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from nprdsl.runtime.http.body_guard import BodyGuard

PIECE = b" " * 1000


def asked(
    body: list[bytes], headers: dict[str, str] | None = None, megabytes: float = 0.01
) -> tuple[int, int, bytes]:
    """The status, how many pieces of the body were taken, and what the application read."""
    coming = [
        {"type": "http.request", "body": piece, "more_body": i + 1 < len(body)}
        for i, piece in enumerate(body)
    ]
    sent: list[Any] = []
    read = bytearray()

    async def receive() -> dict[str, Any]:
        return coming.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        more = True
        while more:
            message = await receive()
            read.extend(message["body"])
            more = message["more_body"]
        await send({"type": "http.response.start", "status": 200})

    given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    scope = {"type": "http", "method": "POST", "path": "/generate", "headers": given}
    asyncio.run(BodyGuard(app, megabytes)(scope, receive, send))
    return sent[0]["status"], len(body) - len(coming), bytes(read)


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


@pytest.mark.parametrize("name", ["messages", "input"])
@pytest.mark.parametrize("parts", [0, 3])
def test_messages_and_their_parts_have_a_bound(name: str, parts: int) -> None:
    """A valid chat of 230,000 messages kept SGLang's loop for ten seconds."""
    content: Any = [{"type": "text", "text": ""}] * parts or "x"
    for more, status in ((0, 200), (1, 400)):
        messages = [{"role": "user", "content": content}] * (10_000 // (parts + 1) + more)
        body = json.dumps({name: messages}).encode()
        assert asked([body], megabytes=8)[0] == status


def test_what_a_text_holds_is_not_counted() -> None:
    text = json.dumps([{}] * 50_000)
    body = json.dumps({"messages": [{"role": "user", "content": text}]}).encode()
    assert asked([body], megabytes=8)[0] == 200
