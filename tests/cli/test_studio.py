"""`nprdsl studio`: what it refuses before anything is loaded. What it serves is tested with the
server and, in a browser, in `studio/browser`."""

from __future__ import annotations

import socket

import pytest

from nprdsl.cli.failures import ExitCode
from nprdsl.studio import StudioNotBuiltError, pages
from tests.cli.commands import invoke

pytest.importorskip("uvicorn")


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "static_file", lambda name: "")


@pytest.mark.usefixtures("built")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("arit",), "no schema is named `arit`; did you mean `arith`?"),
        (("none.lark",), "cannot read `none.lark`"),
        (("--model", "no/such/model"), "no/such/model"),
        (("--host", "0.0.0.0"), "opens the studio to other machines: give --password"),
        (("--host", "::", "--password", "short"), "8 characters at least"),
    ],
    ids=["schema", "file", "model", "host", "password"],
)
def test_refusals(arguments: tuple[str, ...], said: str) -> None:
    result = invoke("studio", *arguments)
    assert result.exit_code == ExitCode.USAGE and said in result.stderr


@pytest.mark.usefixtures("built")
def test_a_port_that_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = invoke("studio", "--port", taken.getsockname()[1])
    assert result.exit_code == ExitCode.USAGE and "nothing can listen" in result.stderr


def test_pages_that_are_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise StudioNotBuiltError("the pages are not built: run `make studio`")

    monkeypatch.setattr(pages, "static_file", missing)
    result = invoke("studio")
    assert result.exit_code == ExitCode.USAGE and "make studio" in result.stderr
