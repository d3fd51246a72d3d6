"""What travels between a client and a server as JSON, and what is refused: without SGLang."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

import nprdsl
from nprdsl.machine.actions import FIRST
from nprdsl.machine.budget import Limits
from nprdsl.machine.transcript import WrittenToken, kept_alternatives
from nprdsl.runtime.errors import EngineUnavailableError
from nprdsl.runtime.http.packed_grammar import pack
from nprdsl.runtime.http.refusals import RefusedError
from nprdsl.runtime.http.wire_forms import SchemaForm
from nprdsl.runtime.sampling import Sampling
from nprdsl.runtime.sglang.client import transport
from nprdsl.runtime.sglang.preparation import SchemaLibrary
from nprdsl.runtime.sglang.protocol import (
    ForkRequest,
    TraceReport,
    event_from_dict,
    fork_request,
    read_reports,
)
from nprdsl.structure.events import Event, ForkEvent, TokenEvent
from nprdsl.testing import byte_vocabulary

VOCABULARY = byte_vocabulary(nprdsl.load("npr").tags)


# -- what travels ----------------------------------------------------------------------------------


def test_requests_travel_as_json(tmp_path: Path) -> None:
    (tmp_path / "parts.lark").write_text("NUMBER: /[0-9]+/\n")
    file = tmp_path / "own.lark"
    file.write_text('%import .parts (NUMBER)\n%declare KIND\nstart: "<a>" NUMBER ":" KIND "</a>"\n')
    schema = nprdsl.load(file, {"KIND": {"enum": ["x", "y"]}})
    request = ForkRequest.of(
        schema,
        limits=Limits(max_tokens=9, rule_tokens={"start": 8}),
        join=FIRST,
        sampling=Sampling(temperature=0.0, avoid=("x",), rules={"start": {"top_k": 3}}),
        events=True,
    )
    came = fork_request(json.loads(json.dumps(request.sampling_params()["custom_params"])))
    assert came == request
    assert hash(came.language) == hash(request.language)
    assert came.limits.limits() == Limits(max_tokens=9, rule_tokens={"start": 8})
    assert came.settings() == Sampling(temperature=0.0, avoid=("x",), rules={"start": {"top_k": 3}})
    assert came.join() == FIRST
    read = came.language.read()
    assert read.tags == schema.tags
    assert read.check('<a>12:"x"</a>') == schema.check('<a>12:"x"</a>') == []


def test_shipped_schemas_travel_by_name() -> None:
    assert SchemaForm.of(nprdsl.load("npr")) == SchemaForm(name="npr")


@pytest.mark.parametrize(
    "form",
    [
        {"name": "../npr"},
        {"name": "npr", "source": "x", "imports": {"../a.lark": ""}},
        {"name": "npr", "source": "x", "imports": {"/etc/passwd": ""}},
        {"name": "npr", "colour": "red"},
    ],
)
def test_forms_stay_inside(form: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        SchemaForm.model_validate(form)


def test_files_of_the_server_are_no_schemas(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "secret.lark").write_text("start: TEXT\n%declare TEXT\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(nprdsl.SchemaNotFoundError):
        SchemaForm(name="secret.lark").read()


def test_alternatives_travel() -> None:
    written = [WrittenToken(5, False, None), WrittenToken(6, True, -0.5, ((6, -0.5), (2, -1.25)))]
    report = TraceReport(
        final=True,
        ids=[token.token for token in written],
        logprobs=[token.logprob for token in written],
        sampled=[token.sampled for token in written],
        alternatives=kept_alternatives(written),
    )
    (came,) = read_reports({"nprdsl": [json.loads(json.dumps(report.wire()))]})
    assert came.written() == written
    assert kept_alternatives(written[:1]) == ()


def test_events_and_reports_travel() -> None:
    fork = ForkEvent(0, (1, 2), ("a", "b"), "step")
    events: list[Event] = [TokenEvent(1, (0, 1), (5,), "x", True), fork]
    report = TraceReport(events=[e.to_dict() for e in events], final=True, logprobs=[None, -0.5])
    meta = {"nprdsl": [json.loads(json.dumps(report.wire())), None]}
    (came,) = read_reports(meta)
    assert came.read_events() == events and came.logprobs == [None, -0.5] and came.final
    with pytest.raises(ValueError, match="no event is of the kind"):
        event_from_dict({"kind": "other"})


# -- what is refused -------------------------------------------------------------------------------


def prepare(request: ForkRequest, prompt: int = 4, positions: int = 64, capacity: int = 200) -> int:
    library = SchemaLibrary(VOCABULARY, outputs=400)
    ids = list(range(prompt))
    packed = pack(request.language.read().grammar)
    return library.prepare(request, packed, ids, positions=positions, capacity=capacity).slots


def test_limits_are_lowered_to_the_positions() -> None:
    request = ForkRequest(language=SchemaForm(name="npr"))
    assert prepare(request) == 64
    assert prepare(request, positions=100) == 100


@pytest.mark.parametrize(
    ("request_form", "options", "words"),
    [
        ({"language": {"name": "npr"}}, {"capacity": 60}, "lower max_tokens, or raise"),
        ({"language": {"name": "npr"}}, {"prompt": 0}, "the prompt is empty"),
        ({"language": {"name": "npr"}}, {"prompt": 64}, "only 64 positions"),
        ({"language": {"name": "npr"}, "quorum": 0}, {}, "quorum must be at least 1"),
        ({"language": {"name": "npr"}, "limits": {"max_tokens": 2}}, {}, "shortest legal trace"),
        ({"language": {"name": "npr"}, "sampling": {"rules": {"stop": {}}}}, {}, "`step`"),
    ],
)
def test_what_cannot_run_is_refused(
    request_form: dict[str, object], options: dict[str, int], words: str
) -> None:
    with pytest.raises(RefusedError, match=words):
        prepare(ForkRequest.model_validate(request_form), **options)


# -- servers that are none -------------------------------------------------------------------------


def test_who_never_says_what_it_is_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_S", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineUnavailableError, match=r"no server answers .* \(timed out\)"):
            transport.Transport(url).get("/model_info")
