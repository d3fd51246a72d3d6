"""Forks and joins of the machine, by list and by count; joins that do not wait for all."""

from __future__ import annotations

import pytest

from nprdsl.grammar.diagnostics import SchemaError
from nprdsl.grammar.ir import JoinKind
from nprdsl.machine.actions import (
    ALL,
    FIRST,
    DropAction,
    EndAction,
    FeedAction,
    ForkAction,
    JoinAction,
    JoinPolicy,
)
from nprdsl.machine.budget import Limits
from nprdsl.machine.machine import Machine
from nprdsl.masks.matcher import Matcher
from nprdsl.structure.events import (
    BranchEndEvent,
    BranchReason,
    EndReason,
)
from nprdsl.structure.tag_machine import Bounds, ForkMode
from nprdsl.testing import byte_vocabulary
from tests.machines import (
    PROMPT,
    byte_bound,
    end_of,
    limits_of,
    schema,
    verify,
    write,
)
from tests.runs import run, seeded, shuffled
from tests.walks import allowed, schema_of


def test_actions_of_a_map() -> None:
    bound = byte_bound("sums")
    special = bound.vocabulary.special
    machine = Machine(bound, prompt=PROMPT)
    assert machine.start() == [FeedAction(0, (special["<guideline>"], special["<plan>"]))]
    assert machine.live == (0,)
    write(machine, 0, "1a</plan><plan>2b</plan>")
    actions = write(machine, 0, "</guideline>")
    assert actions == [
        FeedAction(0, (special["</guideline>"],)),
        ForkAction(0, (1, 2)),
        FeedAction(1, (special["<step>"], *b"1: ")),
        FeedAction(2, (special["<step>"], *b"2: ")),
    ]
    assert machine.live == (1, 2)
    assert [machine.path(b) for b in machine.live] == [(0, 0), (0, 1)]
    assert [machine.rule(b) for b in machine.live] == ["step", "step"]
    assert [machine.position_in_branch(b) for b in machine.live] == [4, 4]
    assert write(machine, 2, "y</step>")[-1] == FeedAction(2, (special["</step>"],))
    assert machine.live == (1,)
    assert write(machine, 1, "xx</step>")[1:] == [
        FeedAction(1, (ord("x"),)),
        FeedAction(1, (special["</step>"],)),
        JoinAction(0, (1, 2)),
        FeedAction(0, (special["<takeaway>"],)),
    ]
    assert machine.rule(0) == "takeaway"
    write(machine, 0, "t</takeaway>ans")
    assert machine.advance(0, end_of(bound)) == [EndAction(EndReason.COMPLETED)]
    assert machine.ended is EndReason.COMPLETED
    trace = machine.trace()
    assert trace.text.startswith("<guideline><plan>1: a</plan><plan>2: b</plan></guideline>")
    assert "<step>1: xx</step><step>2: y</step><takeaway>t</takeaway>ans" in trace.text


@pytest.mark.parametrize(
    ("join", "leads"), [("TEXT", False), ('"<r>" | "<s>"', False), ('"<r>" TEXT', True)]
)
def test_the_last_branch_is_fed_with_a_join_that_the_model_begins(join: str, leads: bool) -> None:
    """It draws behind the last token of the last branch, which therefore is fed last."""
    source = f"""
%import .parallel (spawn, reduce)
start: "<a>" spawn{{path}}~2 reduce{{end}} "</a>"
path: "<p>" TEXT "</p>"
end: {join}
%declare TEXT
"""
    schema = schema_of(source)
    bound = schema.bind(byte_vocabulary(schema.tags))
    special = bound.vocabulary.special
    machine = Machine(bound, limits=Limits(max_tokens=100))
    machine.start()
    closing = (special["</p>"],)
    first = write(machine, 2, "y</p>")
    assert first[1:] == ([FeedAction(2, closing)] if leads else [])
    assert machine.live == (1,)
    second = write(machine, 1, "x</p>")[1:]
    if leads:
        joined = [JoinAction(0, (1, 2)), FeedAction(0, (special["<r>"],))]
        assert second == [FeedAction(1, closing), *joined]
    else:
        assert second == [FeedAction(1, closing), FeedAction(2, closing), JoinAction(0, (1, 2))]
    assert machine.live == (0,)


def test_actions_of_a_reread_fork_by_count() -> None:
    bound = byte_bound("parallel_r1")
    special = bound.vocabulary.special
    machine = Machine(bound, limits=Limits(max_tokens=200, spawn=3))
    assert machine.start() == []
    actions = write(machine, 0, "q<Parallel>")
    assert actions[-4:] == [
        ForkAction(0, (1, 2, 3)),
        *(FeedAction(n, (10, special["<Path>"])) for n in (1, 2, 3)),
    ]
    write(machine, 1, "a</Path>")
    write(machine, 3, "c</Path>")
    actions = write(machine, 2, "b</Path>")
    path = [(10, special["<Path>"], ord(c), special["</Path>"]) for c in "abc"]
    assert actions[-3:] == [
        DropAction(0, (1, 2, 3)),
        FeedAction(0, tuple(token for tokens in path for token in tokens)),
        FeedAction(0, (10, special["</Parallel>"], 10, special["<Summary>"])),
    ]
    write(machine, 0, "s</Summary>\n")
    machine.advance(0, end_of(bound))
    trace = machine.trace()
    assert trace.layout.drops and len(trace.layout) == len(trace.ids) + 12


@pytest.mark.parametrize(("asked", "branches", "got"), [(None, None, 2), (5, None, 5), (99, 4, 4)])
def test_the_number_of_branches_by_count(asked: int, branches: int, got: int) -> None:
    bound = byte_bound("parallel_r1")
    machine = Machine(bound, limits=Limits(max_tokens=400, spawn=asked, branches=branches))
    machine.start()
    fork = next(a for a in write(machine, 0, "q<Parallel>") if isinstance(a, ForkAction))
    assert len(fork.children) == got


def test_no_more_branches_than_the_budget_can_close() -> None:
    bound = byte_bound("parallel_r1")
    least = 2 + 2 * 4 + 6 + 1  # q<Parallel>, two paths, the summary, a gap
    for extra, count in ((0, 2), (3, 2), (4, 3), (8, 4), (100, 8)):
        limits = Limits(max_tokens=least + extra, spawn=8)
        machine = Machine(bound, limits=limits)
        machine.start()
        fork = next(a for a in write(machine, 0, "q<Parallel>") if isinstance(a, ForkAction))
        assert len(fork.children) == count


@pytest.mark.parametrize("lead", ["TEXT", "_GLUE", 'TEXT ("<x>" "</x>")~0..2'])
def test_a_fork_by_count_must_stand_behind_a_tag(lead: str) -> None:
    """Nothing that a model writes could say that the branches begin."""
    terminals = '_GLUE: " "\n' if lead == "_GLUE" else ""
    source = (
        f'%import .parallel (spawn, reduce)\nstart: "<a>" {lead} spawn{{branch}}~2 reduce{{join}}\n'
        'branch: "<b>" TEXT "</b>"\njoin: "<j>" TEXT "</j>"\n'
    )
    with pytest.raises(SchemaError):
        schema_of(source + terminals + "%declare TEXT\n")


@pytest.mark.parametrize("lead", ["TEXT", "_GLUE", '["<x>" "</x>"]'])
def test_a_fork_that_begins_a_rule_must_stand_behind_a_tag(lead: str) -> None:
    terminals = '_GLUE: " "\n' if lead == "_GLUE" else ""
    source = (
        f'%import .parallel (spawn, reduce)\nstart: "<a>" {lead} block\n'
        "block: spawn{branch}~2 reduce{join}\n"
        'branch: "<b>" TEXT "</b>"\njoin: "<j>" TEXT "</j>"\n'
    )
    with pytest.raises(SchemaError):
        schema_of(source + terminals + "%declare TEXT\n")


@pytest.mark.parametrize("quorum", [1, 2, 3, 9])
def test_a_join_waits_for_as_many_branches_as_asked(quorum: int) -> None:
    bound = byte_bound("sums")
    machine = Machine(bound, limits=Limits(max_tokens=300), join=JoinPolicy(quorum))
    machine.start()
    write(machine, 0, "1a</plan><plan>2b</plan><plan>3c</plan></guideline>")
    write(machine, 2, "some words")
    for done, branch in enumerate((3, 1, 2)):
        assert machine.live == tuple(b for b in (1, 2, 3) if b in (3, 1, 2)[done:])
        write(machine, branch, "x</step>")
        if done + 1 == min(quorum, 3):
            break
    assert machine.live == (0,) and machine.rule(0) == "takeaway"
    ended = {e.branch: e.reason for e in machine.drain_events() if isinstance(e, BranchEndEvent)}
    cut = {1, 2, 3} - {3, 1, 2} if quorum >= 3 else {1, 2} if quorum == 1 else {2}
    assert {b for b, reason in ended.items() if reason is BranchReason.CUT} == cut
    write(machine, 0, "t</takeaway>d")
    machine.advance(0, end_of(bound))
    steps = [step.text for step in machine.trace().find("step")]
    assert steps[2] == "<step>3: x</step>"
    assert steps[1] == ("<step>2: some words</step>" if 2 in cut else "<step>2: some wordsx</step>")
    assert steps[0] == ("<step>1: .</step>" if 1 in cut else "<step>1: x</step>")


def test_a_cut_closes_what_runs_inside() -> None:
    bound = byte_bound("nested")
    for seed in range(6):
        for quorum in (1, 2):
            limits = limits_of(Bounds(depth=3, branches=3), 350, spawn=3)
            scheduler = shuffled(seed)
            made = run(
                bound, limits, seeded(seed, 0.7), join=JoinPolicy(quorum), scheduler=scheduler
            )
            verify(made, limits)


def test_branches_without_a_choice_end_as_they_begin() -> None:
    made = schema_of(
        "%import .parallel (map, process, reduce)\n"
        "start: map{list} process{item, branch} reduce{join}\n"
        'list: "<l>" item~3 "</l>"\nitem: "<i>" LABEL ":" TEXT "</i>"\n'
        'branch: "<b>" LABEL "</b>"\njoin: "<j>" TEXT "</j>"\nLABEL: /[1-9]/\n%declare TEXT\n'
    )
    bound = made.bind(byte_vocabulary(special=made.tags))
    limits = Limits(max_tokens=60)
    for join in (ALL, FIRST, JoinPolicy(2)):
        done = run(bound, limits, seeded(1), join=join)
        trace = verify(done, limits)
        assert [len(b.text) for b in trace.find("branch")] == [8, 8, 8]
        assert [a for a in done.actions if isinstance(a, JoinAction)] == [JoinAction(0, (1, 2, 3))]


def test_the_joins_are_those_of_the_schema() -> None:
    bound = byte_bound("nested")
    kinds = set()
    for seed in range(12):
        limits = limits_of(Bounds(depth=3, branches=3), 300, spawn=2)
        made = run(bound, limits, seeded(seed, 0.7))
        trace = verify(made, limits)
        joins = [a for a in made.actions if isinstance(a, (JoinAction, DropAction))]
        dropped = sum(f.block.join is JoinKind.REREAD for f in trace.graph.forks)
        assert sum(isinstance(a, DropAction) for a in joins) == dropped
        kinds |= {type(a) for a in joins}
    assert kinds == {JoinAction, DropAction}


def test_goals_are_repeated_by_their_own_tokens() -> None:
    made = schema("goal")
    bound = made.bind(byte_vocabulary(special=made.tags, merges=["ab", "abc"]))
    machine = Machine(bound)
    machine.start()
    write(machine, 0, "7:abcab</plan></g>")  # byte by byte, though it has shorter spellings
    header = machine.written[-len("\n7:abcab\n") - 1 :]
    assert [w.token for w in header][-6:] == [*b"abcab", 10]
    assert not any(w.sampled for w in header)


FORK = """
%import .parallel (map, process, reduce)
start: map{list} process{item, branch} reduce{join}
list: "<l>" item "</l>"
item: "<i>" LABEL "</i>"
branch: "<b>" LABEL ":" TEXT "</b>"
join: "<j>" TEXT "</j>"
LABEL: /[1-9]/
%declare TEXT
"""

FORK_BY_COUNT = """
%import .parallel (spawn, reduce)
start: "<p>" spawn{branch}~2 reduce{join}
branch: "<b>" TEXT "</b>"
join: "<j>" TEXT "</j>"
%declare TEXT
"""


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (FORK, "<l><i>1</i></l"),
        (FORK_BY_COUNT, "<p"),
        ('start: "<a>" LABEL "</a>"\nLABEL: /[1-9]/\n', "<a>1</a"),
    ],
    ids=["list", "count", "end"],
)
def test_no_token_goes_on_where_branches_begin_and_at_the_end(source: str, text: str) -> None:
    bound = schema_of(source).bind(byte_vocabulary(merges=["><", "><b>", ">x", ">\n", "> "]))
    automaton = bound.automaton()
    matcher = Matcher(automaton, automaton.enter(automaton.machine(ForkMode.FORKING).initial))
    for token in text.encode():
        matcher.advance(token)
    assert allowed(matcher.mask(), bound.vocabulary.size) == [ord(">")]
    assert [t for t in range(bound.vocabulary.size) if matcher.accepts(t)] == [ord(">")]
    matcher.advance(ord(">"))
    assert matcher.finished or matcher.structure.fork is not None


# -- caps


@pytest.mark.parametrize("join", [ALL, FIRST])
@pytest.mark.parametrize("kind", JoinKind)
def test_a_list_without_items_is_joined_at_once(kind: JoinKind, join: JoinPolicy) -> None:
    """Nothing is forked, so an engine has nothing to do."""
    made = schema_of(f"""
%import .parallel (map, process, {kind})
start: ("<c>" block)* "<z>"
block: map{{list}} process{{item, step}} {kind}{{join}}
list: "<l>" item* "</l>"
item: "<i>" N "</i>"
step: "<s>" N "</s>"
join: "<j>"
N: /[1-9]/
""")
    bound = made.bind(byte_vocabulary(special=made.tags))
    machine, special = Machine(bound, join=join), bound.vocabulary.special
    machine.start()
    actions = [a for tag in ("<c>", "</l>", "<z>") for a in machine.advance(0, special[tag])]
    assert {type(action) for action in actions} == {FeedAction, EndAction}
    assert machine.ended is EndReason.COMPLETED
    assert machine.trace().text == "<c><l></l><j><z>"
    assert bound.check(machine.trace().ids) == []
    limits = Limits(max_tokens=60)
    for seed in range(6):
        verify(run(bound, limits, seeded(seed), join=join), limits)
