"""Machines to test: schemas with awkward corners, random models on them, and what every run must
keep.

A cache of plain lists executes the actions and must agree with the layout of the trace (train =
inference, without tensors).
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

from nprdsl.machine.actions import DropAction, EndAction, ForkAction, JoinAction
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.machine.transcript import Transcript
from nprdsl.masks.bound_schema import BoundSchema
from nprdsl.schema import Schema, load
from nprdsl.structure.events import (
    BranchEndEvent,
    EndEvent,
    EndReason,
    Event,
    ForkEvent,
    JoinEvent,
    TokenEvent,
)
from nprdsl.structure.tag_machine import Bounds
from nprdsl.testing import byte_vocabulary
from nprdsl.trace.graph import Role
from nprdsl.trace.trace import TokenTrace
from tests.runs import Run, linear
from tests.walks import GOAL, SUMS, schema_of, vocabulary

QUICK = settings(max_examples=20, deadline=None, suppress_health_check=tuple(HealthCheck))
NAMES = ("npr", "multiverse", "threadweaver", "parallel_r1", "arith", "sums", "goal", "nested")
SCHEMAS = pytest.mark.parametrize("name", NAMES)
MODES = pytest.mark.parametrize("special", [True, False], ids=["special", "spelled"])
PROMPT = tuple(b"Q: ")
DEAREST = 160  # tokens of the shortest trace: beyond it a random schema takes too long

NESTED = """
%import .parallel (map, process, spawn, reduce, reread)
start: TEXT (block TEXT)*
block: map{list} process{item, branch} reduce{join}
list: "<l>" item~1..4 "</l>"
item: "<i>" LABEL ":" TEXT "</i>"
branch: "<b>" LABEL ":" TEXT (inner TEXT)* "</b>"
join: "<j>" TEXT "</j>"
inner: "<p>" spawn{path}~2..3 reread{close}
path: "<q>" TEXT (block TEXT)* "</q>"
close: "</p>"
LABEL: /[1-9]/
%declare TEXT
"""

VALUES = r"""
%import .parallel (map, process, reduce)
start: map{list} process{item, branch} reduce{join}
list: "<l>" item~1..4 "</l>"
item: "<i>" LABEL ": (" KIND ")" "</i>"
branch: "<b>" LABEL ": " VERDICT "</b>"
join: "<j>" TEXT "</j>"
LABEL: /[1-9]/
KIND: /alpha|beta|betas/
VERDICT: /{"sure": (true|false), "why": "[a-z]{2,9}"}/
%declare TEXT
"""


@cache
def schema(name: str) -> Schema:
    own = {"goal": GOAL, "nested": NESTED, "sums": SUMS, "values": VALUES}
    return schema_of(own[name]) if name in own else load(name)


@cache
def byte_bound(name: str, special: bool = True) -> BoundSchema:
    made = schema(name)
    return made.bind(byte_vocabulary(special=made.tags if special else ()))


@cache
def awkward_bound(name: str, special: bool) -> BoundSchema:
    return schema(name).bind(vocabulary(schema(name), special=special, seed=4))


# -- what holds of every run


def verify(made: Run, limits: Limits) -> TokenTrace:
    machine, ids = made.machine, made.ids
    assert len(ids) <= limits.max_tokens
    assert made.log.ended == EndAction(machine.ended)
    trace = machine.trace()  # raises if it is not legal
    assert trace.ids == (*machine.prompt, *ids)
    _verify_sampled(made, trace)
    _verify_events(made, trace.text)
    _verify_forks(made, trace)
    _verify_cache(made, trace)
    _verify_bounds(made, trace, limits)
    if limits.max_positions is not None:
        assert positions(trace, len(machine.prompt)) <= limits.max_positions
    return trace


def positions(trace: TokenTrace, prompt: int) -> int:
    """How many positions the written tokens take."""
    return int(trace.layout.position.max()) + 1 - prompt


def _verify_sampled(made: Run, trace: TokenTrace) -> None:
    """Sampled tokens are flagged, have their log-probs, and stand in order on their branch."""
    written, start = made.machine.written, len(made.machine.prompt)
    assert trace.sampled[start:].tolist() == [w.sampled for w in written]
    assert not trace.sampled[:start].any()
    assert made.machine.logprobs == [w.logprob for w in written]
    given_out = [-2.0 - n for n in range(len(made.sampled))]  # as `run` numbers them
    by_logprob = {w.logprob: w.token for w in written if w.sampled}
    assert by_logprob == {
        logprob: token for logprob, (_, token) in zip(given_out, made.sampled, strict=True)
    }
    assert all(w.logprob is None for w in written if not w.sampled)


def _verify_events(made: Run, text: str) -> None:
    """Events tell the same story as actions and tokens."""
    tokens = [e for e in made.events if isinstance(e, TokenEvent)]
    assert sorted(t for e in tokens for t in e.tokens) == sorted(made.ids)
    assert told_text(made.events) == text
    assert all(e.path == made.machine.path(e.branch) for e in tokens)
    sampled = [(e.branch, *e.tokens) for e in tokens if not e.forced]
    assert sampled == made.sampled
    forks = [(a.parent, a.children) for a in made.actions if isinstance(a, ForkAction)]
    events = [e for e in made.events if isinstance(e, ForkEvent)]
    assert [(e.parent, e.children) for e in events] == forks
    assert all(len(e.labels) == len(e.children) for e in events)
    joins = [
        (a.parent, a.children) for a in made.actions if isinstance(a, (JoinAction, DropAction))
    ]
    assert [(e.parent, e.children) for e in made.events if isinstance(e, JoinEvent)] == joins
    ended = [e.branch for e in made.events if isinstance(e, BranchEndEvent)]
    assert sorted(ended) == sorted(c for _, children in forks for c in children)
    assert made.events[-1] == EndEvent(made.machine.ended or EndReason.FAILED)


def told_text(events: Iterable[Event]) -> str:
    """The texts of all branches, in the order of the trace."""
    texts: Transcript[str] = Transcript()
    for event in events:
        if isinstance(event, TokenEvent):
            texts.write(event.branch, event.text)
        elif isinstance(event, ForkEvent):
            texts.fork(event.parent, event.children)
    return "".join(texts.linear())


def _verify_forks(made: Run, trace: TokenTrace) -> None:
    """Forks name rules and labels as the graph does."""
    forks = [e for e in made.events if isinstance(e, ForkEvent)]
    told = sorted((e.rule, label) for e in forks for label in e.labels)
    segments = trace.graph.segments
    assert told == sorted((s.rule, s.label) for s in segments if s.role is Role.BRANCH)


def _has_end(bound: BoundSchema, trace: TokenTrace) -> bool:
    """Whether the last token is the end of the sequence, and no tag."""
    end = bound.vocabulary.eos_id
    tag = next((tag for tag, token in bound.tag_tokens.items() if token == end), None)
    is_tag = tag is not None and trace.ids.count(end) == trace.text.count(tag)
    return trace.ids[-1] == end and not is_tag


def _verify_cache(made: Run, trace: TokenTrace) -> None:
    """Every token saw what the layout says, at the layout's position: train = inference."""
    layout, entries = trace.layout, made.log.entries
    count = len(layout) - _has_end(made.machine.bound, trace)  # the end token is not fed
    order = linear(made)
    assert len(order) == count == len(entries)
    place = {number: n for n, number in enumerate(order)}
    visible = layout.visible()[:count, :count]
    for n, number in enumerate(order):
        entry = entries[number]
        assert entry.token == trace.ids[layout.token[n]]
        assert entry.position == layout.position[n]
        seen = np.zeros(count, bool)
        seen[[place[k] for k in entry.seen]] = True
        assert (seen == visible[n]).all()


def _verify_bounds(made: Run, trace: TokenTrace, limits: Limits) -> None:
    paths = {e.path for e in made.events if isinstance(e, TokenEvent)}
    depth = max((len(path) // 2 for path in paths), default=0)
    assert limits.depth is None or depth <= limits.depth
    forks = [e for e in made.events if isinstance(e, ForkEvent)]
    if limits.branches is not None:
        assert all(len(e.children) <= limits.branches for e in forks)
    if limits.blocks is not None:
        parents = [e.parent for e in forks]
        assert all(parents.count(parent) <= limits.blocks for parent in parents)
    bounded = made.machine.bound
    assert bounded.check(trace.ids, prompt=trace.prompt) == []


def minimum(bound: BoundSchema, bounds: Bounds) -> int:
    return bound.under(bounds).minimum


def spawned(bound: BoundSchema, branches: int | None) -> int | None:
    """`Limits.spawn` for a schema that may have no fork by count."""
    return branches if bound.grammar.spawns else None


def limits_of(bounds: Bounds, tokens: int, spawn: int | None = None) -> Limits:
    return Limits(
        max_tokens=tokens,
        depth=bounds.depth,
        branches=bounds.branches,
        blocks=bounds.blocks,
        spawn=spawn,
    )


# -- budgets


def end_of(bound: BoundSchema) -> int:
    end = bound.vocabulary.eos_id
    assert end is not None
    return end


def write(machine: Machine, branch: int, text: str) -> list[object]:
    """Sample a text on a branch: bytes, and tags as special tokens; the actions of it all."""
    special = machine.bound.vocabulary.special
    actions: list[object] = []
    while text:
        tag = next((tag for tag in special if text.startswith(tag)), None)
        token = special[tag] if tag is not None else text.encode()[0]
        text = text[len(tag) if tag is not None else 1 :]
        actions += machine.advance(branch, token)
    return actions
