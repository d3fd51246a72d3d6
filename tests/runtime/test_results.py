"""Results as JSON and in notebooks."""

from __future__ import annotations

import copy
import json
import pickle
import re
from dataclasses import replace
from html import unescape
from xml.etree import ElementTree

import pytest

from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.runtime.results import Ending, Result, result_of
from nprdsl.structure.events import EndReason
from nprdsl.studio import pages
from tests.machines import byte_bound, write
from tests.runs import run, seeded


def done(name: str = "npr") -> Result:
    machine = run(byte_bound(name), Limits(max_tokens=260, branches=3), seeded(2)).machine
    assert machine.ended is not None
    ending = Ending(7, machine.ended, forwards=9, time_s=0.123456, longest=0)
    return result_of(machine.bound, machine.prompt, machine.written, ending)


def stopped() -> Result:
    machine = Machine(byte_bound("npr"), prompt=(65,))
    machine.start()
    write(machine, 0, "1:a<b & c")
    machine.abort()
    ending = Ending(8, EndReason.ABORTED, forwards=9, time_s=0.5, longest=4)
    return result_of(machine.bound, machine.prompt, machine.written, ending)


def test_a_result_is_json() -> None:
    for result in (done(), stopped()):
        told = json.loads(json.dumps(result.to_dict()))
        assert (told["kind"], told["finish"]) == ("result", result.finish.value)
        assert told["text"] == result.text and told["answer"] == result.answer
        assert len(told["token_ids"]) == len(told["logprobs"]) == told["usage"]["tokens"]
        assert (told["graph"] is None) == (result.trace is None) == bool(told["violations"])
        assert told.items() >= json.loads(json.dumps(result.summary())).items()
        assert told["usage"]["time_s"] == round(result.usage.time_s, 4)


def test_a_result_shows_its_graph_and_its_text() -> None:
    result = done()
    svg = result._repr_svg_()
    assert svg is not None and ElementTree.fromstring(svg).tag.endswith("svg")
    alone = pickle.loads(pickle.dumps(result))
    assert svg in alone._repr_html_() and "&lt;plan&gt;" in alone._repr_html_()


def test_a_result_shows_the_page_of_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    result = done()
    files = {"viewer.css": "b {}", "viewer.js": "let a = '\"<';"}
    monkeypatch.setattr(pages, "static_file", files.__getitem__)
    frame = r'<iframe .* sandbox="allow-scripts" .* srcdoc="([^"]*)"></iframe>'
    found = re.fullmatch(frame, result._repr_html_(), re.S)
    view = result.view()
    assert found is not None and view is not None
    assert unescape(found[1]) == pages.page(view)
    assert view.outcome is not None and view.outcome.figures["forwards"] == 9
    assert stopped().view() is None


def test_without_the_pages_a_result_shows_its_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise pages.StudioNotBuiltError("not built")

    monkeypatch.setattr(pages, "static_file", missing)
    assert "<svg" in done()._repr_html_()


def test_what_was_stopped_shows_its_text() -> None:
    result = stopped()
    assert result._repr_svg_() is None
    assert "1:a&lt;b &amp; c" in result._repr_html_() and "aborted" in result._repr_html_()


def test_a_result_can_be_sent_copied_and_compared() -> None:
    for result in (done(), stopped()):
        for same in (pickle.loads(pickle.dumps(result)), copy.deepcopy(result)):
            assert same == result and hash(same) == hash(result)
            assert same.to_dict() == result.to_dict() and same._repr_svg_() == result._repr_svg_()
    assert done() != replace(done(), text="") != stopped()


def test_layouts_are_equal_where_their_arrays_are() -> None:
    one, other = done().layout, done("multiverse").layout
    assert one is not None and other is not None
    assert one == replace(one, position=one.position.copy()) and one != other
    assert one != replace(one, sampled=~one.sampled)
