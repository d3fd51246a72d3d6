"""The endpoint against real HTTP that misbehaves: what is retried, told, kept, and never shown."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from nprdsl.trainers.curate.endpoint import (
    Account,
    Cache,
    Endpoint,
    EndpointError,
    Reply,
    ReplyRequest,
    Secret,
    Service,
    Structured,
    UnusableEndpointError,
    base_url,
)
from tests.curate.server import (
    Asked,
    Cut,
    Failed,
    Raw,
    Response,
    Said,
    Script,
    Scripted,
    Silent,
    scripted,
)

FORM = {"title": "Thing", "type": "object"}
KEY = "sk-very-secret-0123456789"
QUICKLY = {"retry-after-ms": "10"}


def request(text: str = "hello", model: str = "m", **sampling: object) -> ReplyRequest:
    return ReplyRequest(model, [{"role": "user", "content": text}], FORM, sampling)


class Asking:
    """An endpoint of the curator against a script, in one place."""

    def __init__(self, folder: Path, server: Scripted, **options: object) -> None:
        self.account = Account()
        self.cache = Cache(folder / "cache")
        self._service = Service(server.url, **{"retries": 3, **options})  # type: ignore[arg-type]

    def __call__(self, *requests: ReplyRequest) -> list[Reply]:
        async def work() -> list[Reply]:
            endpoint = Endpoint(self._service, self.cache, self.account)
            try:
                return await asyncio.gather(*(endpoint.ask("parse", r) for r in requests))
            finally:
                await endpoint.close()

        return asyncio.run(work())


def after(*responses: Response, then: str = "fine") -> Script:
    """These responses first."""
    return lambda asked: responses[asked.number] if asked.number < len(responses) else Said(then)


@pytest.mark.parametrize(
    "trouble",
    [
        Failed(429, headers=QUICKLY),
        Failed(500, headers=QUICKLY),
        Failed(503, headers=QUICKLY),
        Failed(408, headers=QUICKLY),
        Cut(),
        Raw(),
        Raw(b'{"choices": []}'),
        Raw(b""),
    ],
    ids=str,
)
def test_trouble_that_passes(trouble: Response, tmp_path: Path) -> None:
    with scripted(after(trouble)) as server:
        asking = Asking(tmp_path, server)
        (reply,) = asking(request())
    assert reply.text == "fine"
    assert len(server.asked) == 2
    cost = asking.account.of("parse")
    assert (cost.calls, cost.retries, cost.prompt_tokens, cost.completion_tokens) == (1, 1, 100, 10)


def test_a_time_out_passes(tmp_path: Path) -> None:
    with scripted(after(Silent())) as server:
        (reply,) = Asking(tmp_path, server, timeout_s=0.3)(request())
    assert reply.text == "fine" and len(server.asked) == 2


def test_retry_after_is_honoured(tmp_path: Path) -> None:
    """The first back-off of its own would be half a second at most."""
    with scripted(after(Failed(429, headers={"Retry-After": "1"}))) as server:
        Asking(tmp_path, server)(request())
    first, second = server.asked
    assert second.at - first.at >= 1


@pytest.mark.parametrize(
    ("trouble", "error", "told"),
    [
        (Failed(500, "\x1b[2Jbo\nom", QUICKLY), EndpointError, r"HTTP 500:  \[2Jbo om$"),
        (Failed(429, "slow", QUICKLY), EndpointError, "HTTP 429: slow"),
        (Failed(413, "too long"), EndpointError, "HTTP 413: too long"),
        (Silent(), EndpointError, "no reply within 0.2 s"),
        (Raw(), EndpointError, "no chat completion"),
        (Failed(401, "bad key"), UnusableEndpointError, "HTTP 401: bad key"),
        (Failed(403, "not you"), UnusableEndpointError, "HTTP 403: not you"),
        (Failed(404, "no such model"), UnusableEndpointError, "HTTP 404: no such model"),
    ],
    ids=str,
)
def test_trouble_that_stays(
    trouble: Response, error: type[Exception], told: str, tmp_path: Path
) -> None:
    with scripted(lambda _: trouble) as server:
        asking = Asking(tmp_path, server, retries=1, timeout_s=0.2)
        with pytest.raises(error, match=told):
            asking(request())
    assert asking.cache.find(request()) is None


def test_nothing_at_the_address(tmp_path: Path) -> None:
    with scripted(after()) as server:
        pass
    with pytest.raises(UnusableEndpointError, match=f"nothing answers at {server.url}"):
        Asking(tmp_path, server, retries=0)(request())


# structured outputs


def no_schemas(asked: Asked) -> Response:
    refused = Failed(400, "response_format is not supported")
    return refused if asked.form is not None else Said("plain")


def test_the_schema_of_the_reply_is_sent(tmp_path: Path) -> None:
    with scripted(after()) as server:
        Asking(tmp_path, server)(request())
    (asked,) = server.asked
    assert asked.body["response_format"] == {
        "type": "json_schema",
        "json_schema": {"name": "Thing", "schema": FORM, "strict": True},
    }


def test_an_endpoint_without_schemas_is_asked_without(tmp_path: Path) -> None:
    async def work() -> list[str]:
        account, cache = Account(), Cache(tmp_path)
        endpoint = Endpoint(Service(server.url), cache, account)
        replies = [await endpoint.ask("parse", request(text)) for text in "abc"]
        await endpoint.close()
        return [reply.text for reply in replies]

    with scripted(no_schemas) as server:
        assert asyncio.run(work()) == ["plain"] * 3
    assert [asked.form is not None for asked in server.asked] == [True, False, False, False]


def test_a_refusal_that_comes_late_is_one_too(tmp_path: Path) -> None:
    """It was asked for with a schema before another reply showed that there are none."""
    shown = threading.Event()

    def script(asked: Asked) -> Response:
        if "third" in asked.text:
            shown.set()
        if asked.form is not None and "first" in asked.text:
            assert shown.wait(30)
        return no_schemas(asked)

    async def work() -> list[str]:
        endpoint = Endpoint(Service(server.url), Cache(tmp_path), Account())
        first = asyncio.create_task(endpoint.ask("parse", request("first")))
        others = [await endpoint.ask("parse", request(text)) for text in ("second", "third")]
        replies = [await first, *others]
        await endpoint.close()
        return [reply.text for reply in replies]

    with scripted(script) as server:
        assert asyncio.run(work()) == ["plain"] * 3


def test_a_refusal_for_another_reason_is_told(tmp_path: Path) -> None:
    told = "the context is too long"
    with scripted(lambda _: Failed(400, told)) as server, pytest.raises(EndpointError, match=told):
        Asking(tmp_path, server)(request())
    assert len(server.asked) == 2


@pytest.mark.parametrize(
    ("structured", "forms"), [(Structured.NEVER, [False]), (Structured.ALWAYS, [True])]
)
def test_what_the_user_says_counts(
    structured: Structured, forms: list[bool], tmp_path: Path
) -> None:
    with scripted(after()) as server:
        Asking(tmp_path, server, structured=structured)(request())
    assert [asked.form is not None for asked in server.asked] == forms
    with scripted(no_schemas) as server:
        asking = Asking(tmp_path / "other", server, structured=Structured.ALWAYS)
        with pytest.raises(EndpointError, match="not supported"):
            asking(request())


def test_a_schema_that_worked_is_kept_when_a_request_is_refused(tmp_path: Path) -> None:
    async def work() -> None:
        endpoint = Endpoint(Service(server.url), Cache(tmp_path), Account())
        await endpoint.ask("parse", request("a"))
        with pytest.raises(EndpointError, match="too long"):
            await endpoint.ask("parse", request("b"))
        await endpoint.close()

    with scripted(lambda a: Failed(400, "too long") if a.number else Said("fine")) as server:
        asyncio.run(work())
    assert len(server.asked) == 2


# cache


def test_a_reply_is_paid_for_once(tmp_path: Path) -> None:
    with scripted(after()) as server:
        asking = Asking(tmp_path, server)
        assert asking(request()) == asking(request())
        assert asking(*[request("twice")] * 3) == [asking(request("twice"))[0]] * 3
    assert len(server.asked) == 2
    cost = asking.account.of("parse")
    assert (cost.calls, cost.cached) == (2, 4)


@pytest.mark.parametrize(
    "other",
    [
        request("other"),
        request(model="other"),
        request(temperature=1),
        ReplyRequest("m", [{"role": "user", "content": "hello"}], {"title": "Other"}, {}),
        ReplyRequest("m", [{"role": "system", "content": "hello"}], FORM, {}),
    ],
)
def test_the_key_is_all_that_a_reply_depends_on(other: ReplyRequest, tmp_path: Path) -> None:
    assert other.key != request().key == request().key
    cache = Cache(tmp_path)
    reply = Reply(text="a", refusal="", finish="stop", prompt_tokens=-1, completion_tokens=-1)
    cache.keep(request(), reply)
    assert cache.find(request()) == reply
    assert cache.find(other) is None


def test_a_broken_file_of_the_cache_is_no_reply(tmp_path: Path) -> None:
    with scripted(after()) as server:
        asking = Asking(tmp_path, server)
        asking(request())
        (file,) = (tmp_path / "cache").rglob("*.json")
        file.write_text(file.read_text()[:20])
        assert asking(request())[0].text == "fine"
    assert len(server.asked) == 2
    assert not list((tmp_path / "cache").rglob("*.tmp"))


def test_tokens_that_are_not_counted_are_said_to_be(tmp_path: Path) -> None:
    with scripted(lambda _: Said("a", usage=None)) as server:
        asking = Asking(tmp_path, server)
        asking(request())
    assert asking.account.of("parse").uncounted == 1
    assert asking.account.total.prompt_tokens == 0


def test_a_refusal_of_the_model_is_in_the_reply(tmp_path: Path) -> None:
    with scripted(lambda _: Said("", refusal="I will not", finish="stop")) as server:
        (reply,) = Asking(tmp_path, server)(request())
    assert (reply.text, reply.refusal) == ("", "I will not")


def test_sampling_is_sent(tmp_path: Path) -> None:
    with scripted(after()) as server:
        Asking(tmp_path, server)(request(temperature=0.5, top_k=3))
    (asked,) = server.asked
    assert (asked.body["temperature"], asked.body["top_k"], asked.body["model"]) == (0.5, 3, "m")


# secrets


@pytest.mark.parametrize(
    "script",
    [
        lambda asked: Said(f"your key is {asked.headers['authorization']}"),
        lambda asked: Failed(401, f"bad: {asked.headers['authorization']}"),
        lambda asked: Failed(500, f"bad: {asked.headers['authorization']}", QUICKLY),
        lambda asked: Failed(400, f"bad: {asked.headers['authorization']}"),
    ],
    ids=["reply", "401", "500", "400"],
)
def test_the_secret_is_in_no_log_cache_or_message(
    script: Script,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    secret = Secret.from_environment("MY_KEY")
    told: list[str] = [repr(secret), repr(Service("http://a", secret))]
    with caplog.at_level(logging.DEBUG), scripted(script) as server:
        asking = Asking(tmp_path, server, secret=secret, retries=1)
        try:
            told += [reply.text for reply in asking(request())]
        except (EndpointError, UnusableEndpointError) as error:
            told += _chain(error)
    assert server.asked[0].headers["authorization"] == f"Bearer {KEY}"
    kept = [file.read_text() for file in tmp_path.rglob("*") if file.is_file()]
    written = [caplog.text, *capfd.readouterr(), *kept, *told]
    assert [text for text in written if KEY in text] == []
    assert any("[secret]" in text for text in [*kept, *told])


def _chain(error: BaseException | None) -> list[str]:
    """What a traceback would show of an error and of those behind it."""
    if error is None:
        return []
    behind = None if error.__suppress_context__ else error.__context__
    return [str(error), *_chain(error.__cause__ or behind)]


def test_a_word_is_no_secret() -> None:
    assert Secret("none").hidden("none at all") == "none at all"
    assert Secret().hidden("a-b") == "a-b"


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("http://127.0.0.1:30000", "http://127.0.0.1:30000/v1"),
        ("127.0.0.1:30000", "http://127.0.0.1:30000/v1"),
        ("https://example.org/api/v2/", "https://example.org/api/v2"),
        ("http://h/v1/chat/completions", "http://h/v1"),
    ],
)
def test_addresses(given: str, meant: str) -> None:
    assert base_url(given) == meant


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Service("ftp://a"), "no address of an endpoint"),
        (lambda: Service("http://me:pw@h/v1"), "no name, password or query"),
        (lambda: Service("http://h/v1?key=a"), "no name, password or query"),
        (lambda: Service("http://h", retries=-1), "retries must be 0 or more"),
        (lambda: Service("http://h", timeout_s=0), "more than 0 seconds"),
    ],
)
def test_services_are_checked_at_birth(make: Callable[[], Service], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        make()
