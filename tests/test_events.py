"""Events of a generation as a client sees them: whole characters, JSON, paths, rules and labels."""

from __future__ import annotations

import dataclasses
import inspect
import json
from itertools import pairwise
from pathlib import Path

import pytest

from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.runtime.sglang.protocol import event_from_dict
from nprdsl.schema import load
from nprdsl.structure import events
from nprdsl.structure.events import EndEvent, Event, ForkEvent, TokenEvent
from nprdsl.testing import byte_vocabulary
from tests.machines import byte_bound, write
from tests.runs import run, seeded, shuffled

KINDS = [k for _, k in inspect.getmembers(events, inspect.isclass) if k.__name__.endswith("Event")]
TEXTS = (
    "caf\u00e9 \u7b54 \U0001f642",
    "\u7b54\u6848\u662f",
    "a\u0301\u200d\U0001f468\u200d\U0001f469",
)


def noting(tmp_path: Path) -> Machine:
    path = tmp_path / "note.lark"
    path.write_text('start: "<a>" TEXT "</a>"\n%declare TEXT\n')
    bound = load(path).bind(byte_vocabulary(("<a>", "</a>")))
    machine = Machine(bound, limits=Limits(max_tokens=90))
    machine.start()
    return machine


def tokens_of(made: list[Event]) -> list[TokenEvent]:
    return [event for event in made if isinstance(event, TokenEvent)]


@pytest.mark.parametrize("text", TEXTS)
def test_characters_of_several_tokens_come_whole(tmp_path: Path, text: str) -> None:
    machine = noting(tmp_path)
    told = []
    for token in (*text.encode(), machine.bound.vocabulary.special["</a>"]):
        machine.advance(0, token)
        told += tokens_of(machine.drain_events())
    assert "".join(event.text for event in told) == f"<a>{text}</a>"
    assert all("\ufffd" not in event.text for event in told)


def test_what_is_stopped_inside_a_character_adds_up_too(tmp_path: Path) -> None:
    machine = noting(tmp_path)
    for token in "ab\u7b54".encode()[:-1]:
        machine.advance(0, token)
    machine.abort()
    made = machine.drain_events()
    text = machine.bound.vocabulary.text(tuple(w.token for w in machine.written))
    assert "".join(event.text for event in tokens_of(made)) == text == "<a>ab\ufffd"
    assert isinstance(made[-1], EndEvent)


@pytest.mark.parametrize("kind", [k for k in KINDS if k is not events.RunEvent])
def test_every_event_has_a_path_a_kind_and_a_form(kind: type[TokenEvent]) -> None:
    assert "path" in {field.name for field in dataclasses.fields(kind)}
    assert kind.kind in set(events.EventKind)


@pytest.mark.parametrize("name", ["npr", "nested", "parallel_r1"])
def test_events_are_lines_of_json_and_come_back(name: str) -> None:
    made = run(byte_bound(name), Limits(max_tokens=260, depth=2, branches=3), seeded(1)).events
    for event in made:
        line = json.dumps(event.to_dict())
        assert "\n" not in line
        assert event_from_dict(json.loads(line)) == event


def test_events_of_an_older_server_are_read() -> None:
    old = {"kind": "fork", "parent": 0, "children": [1], "labels": ["1"], "rule": "step"}
    assert event_from_dict(old) == ForkEvent(0, (1,), ("1",), "step")


def test_paths_lead_to_the_children() -> None:
    limits = Limits(max_tokens=300, depth=2, branches=3)
    for seed in range(4):
        made = run(byte_bound("nested"), limits, seeded(seed), scheduler=shuffled(seed)).events
        paths: dict[int, tuple[int, ...]] = {0: ()}
        for event in made:
            if isinstance(event, ForkEvent):
                assert event.path == paths[event.parent]
                for index, child in enumerate(event.children):
                    paths[child] = (*event.path, event.block, index)
            else:
                number = getattr(event, "branch", getattr(event, "parent", 0))
                assert event.path == paths[number]


def test_tokens_tell_rule_and_label() -> None:
    machine = Machine(byte_bound("npr"))
    machine.start()
    write(machine, 0, "1:a</plan><plan>2:b</plan></guideline>")
    write(machine, 1, "x")
    write(machine, 2, "y")
    told = {
        event.text: (event.rule, event.label, event.branch)
        for event in tokens_of(machine.drain_events())
    }
    assert told["a"] == ("plan", "", 0)
    assert told["x"] == ("step", "1", 1) and told["y"] == ("step", "2", 2)


def test_forced_tokens_are_told_rule_by_rule() -> None:
    made = run(byte_bound("npr"), Limits(max_tokens=200, branches=3), seeded(3)).events
    forced = [event for event in tokens_of(made) if event.forced]
    assert any(len(event.tokens) > 1 for event in forced)
    together = [(a, b) for a, b in pairwise(made) if a in forced and b in forced]
    assert all(a.rule != b.rule for a, b in together if a.branch == b.branch)  # type: ignore[union-attr]


def test_log_probabilities_are_told_where_they_are_asked_for() -> None:
    for asked in (False, True):
        machine = Machine(byte_bound("npr"))
        machine.events.logprobs = asked
        machine.start()
        machine.advance(0, ord("1"), -0.25)
        forced, drawn = tokens_of(machine.drain_events())[-2:]
        assert drawn.logprobs == ((-0.25,) if asked else ())
        assert forced.logprobs == ((None,) * len(forced.tokens) if asked else ())
