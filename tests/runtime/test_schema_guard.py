"""A schema on an endpoint that does not run it is a 400, never dropped; without SGLang."""

from __future__ import annotations

import json

import pytest

from nprdsl.runtime.http.schema_guard import SchemaGuard
from tests.runtime.guarded import send_through


def post(path: str, body: bytes, pieces: int = 1, method: str = "POST") -> tuple[int, bytes]:
    """The status, and the body that the guarded application read."""
    size = -(-len(body) // pieces) or 1
    chunks = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    answered = send_through(SchemaGuard, chunks, method=method, path=path)
    return answered.status, answered.read


PATHS = ["/v1/completions", "/v1/messages", "/generate", "/api/chat", "/vertex_generate"]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("pieces", [1, 4])
def test_a_schema_is_refused_where_it_is_not_run(path: str, pieces: int) -> None:
    body = json.dumps({"model": "arith", "prompt": "1+1?", "schema": "arith"}).encode()
    assert post(path, body, pieces)[0] == 400


def test_a_schema_is_found_however_json_writes_it() -> None:
    assert post("/v1/completions", rb'{"prompt": "1", "\u0073chem\u0061": "arith"}')[0] == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", b'{"schema": "arith"}'),
        ("/v1/completions", b'{"prompt": "the \\"schema\\" of it"}'),
        ("/v1/completions", b'{"response_format": {"schema": {}}}'),
        ("/v1/completions", b'{"schema": '),
        ("/v1/completions", b'["schema"]'),
        ("/v1/completions", b'{"schema": ' + b"[" * 100_000),
        ("/v1/completions", b""),
        ("/invocations", b'{"schema": "arith"}'),
    ],
    ids=range(8),
)
def test_all_else_passes_unchanged(path: str, body: bytes) -> None:
    assert post(path, body, 3) == (200, body)
